"""The ladder: rung by rung under one protocol, until a rung's gain is not worth its cost."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pegbox.comparison._cell import Terms
from pegbox.comparison._contest import Answers, contest_of, decisive, label_counts
from pegbox.comparison._curve import LearningCurve, learning_curve
from pegbox.comparison._engines import Engine, engine_of
from pegbox.comparison._ladder import Asked, Contender, contenders, refusal
from pegbox.comparison._pace import Pace
from pegbox.comparison._place import machine, now, versions
from pegbox.comparison._result import BaseNote, Cell, Comparison, DataNote, Rung, Skipped, save_json
from pegbox.comparison._store import Store
from pegbox.comparison._summary import changed_rows, summed, wrong_rows
from pegbox.comparison._verdict import Rule, judged, ranked, verdict
from pegbox.data import GeneralText, Rows
from pegbox.errors import CapabilityError, InputError, PegboxError, RunError, UsageError
from pegbox.evaluation import Sample, compare_several
from pegbox.models import Base, load
from pegbox.tasks import Classify, Task, TooLong
from pegbox.training import tell
from pegbox.tuning import OtherTask, Training, general_text, hold_out, labelled_rows

RESULT = "comparison.json"
BASE_RUNG, CURVE_RUNG, OFF = "zero-shot", "closed-form", "off"
EngineName = Literal["local", "ray"]


@dataclass(frozen=True, eq=False)
class _Climb:
    """What the loop over rungs knows."""

    terms: Terms
    store: Store
    rule: Rule
    seeds: tuple[int, ...]
    engine: EngineName
    pace: Pace
    rungs: list[Rung] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    answers: dict[str, dict[int, Answers]] = field(default_factory=dict)
    trained: set[str] = field(default_factory=set)


def compare(
    base: Base | str | Path,
    task: Task,
    methods: Asked | None = None,
    *,
    folder: str | Path,
    test: str | Path | Rows | None = None,
    holdout: float = 0.2,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    training: Training | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    split_seed: int = 0,
    metric: str | None = None,
    worth: float = Rule.worth,
    patience: int = Rule.patience,
    budget: float | None = None,
    text: str | Path = "auto",
    also: Sequence[OtherTask | Task | str | Path] = (),
    curve: bool = True,
    too_long: TooLong = "shorten",
    engine: EngineName = "local",
    overwrite: bool = False,
    findings: Sequence[str] = (),
    command: str = "",
    done: Callable[[Rung], None] | None = None,
    say: Callable[[str], None] = tell,
) -> Comparison:
    """Climb a ladder of methods on the same rows, cheapest first, and say which rung is worth its cost.

    Every rung has the same training rows, prompts, seeds and test rows; its time is that of the fit and of
    1,000 answers. What is measured lies in ``folder``:
    the same call goes on where an earlier one was stopped, and measures no finished cell again.

    Args:
        base: A loaded base, or a name for :func:`pegbox.load`.
        task: The task with the rows to tune on.
        methods: Names of methods and baselines, methods, or a mapping from names of your own to them, in the
            order to climb; by default baselines, all methods but ``qlora``, and full fine-tuning last.
        folder: Where the cells, the tuned models and ``comparison.json`` go.
        test: Rows to be scored on, as a file, hub id or rows; else a share of the task's rows is held out.
        holdout: That share.
        options: Options of methods by name.
        training: How gradient methods train.
        seeds: Seeds of validation rows, initial values, batches and demonstrations.
        split_seed: Seed of the rows that are held out.
        metric: What decides: ``accuracy`` (or ``macro_f1``, ``nll``, ``brier``), for tags ``f1``.
        worth: Gain that a rung must show for each tenfold of its time over the best cheaper rung's, and at
            least once.
        patience: Trained rungs in a row not worth their cost, after which the climb ends; 0 = climb all.
        budget: Seconds; a rung that would not fit into what is left of them is not climbed.
        text: General text to tell forgetting by, see :func:`pegbox.tuning.general_text`; ``off`` for none.
        also: Other labelled tasks that each rung is asked before and after, as files or tasks with rows.
        curve: Whether the closed form's learning curve is measured, where it applies.
        too_long: What to do with texts that do not fit.
        engine: ``ray`` fits rungs and seeds at the same time on a Ray cluster.
        overwrite: Whether another comparison in the folder may be replaced.
        findings: What the data doctor said, to be kept with the result.
        command: How to repeat the comparison, to be kept with the result.
        done: Called with each rung as it is finished.
        say: Receives lines for the user.

    Returns:
        The comparison, which also lies in the folder.

    Raises:
        UsageError: For wrong options, or a folder that holds something else.
        InputError: For rows that cannot be compared on.
    """
    started = time.monotonic()
    contest = contest_of(task)
    chosen = decisive(contest, metric)
    rule = Rule(chosen, chosen in contest.lower, worth, patience)
    named = contenders(task, methods, options)
    _check(seeds, budget, engine)
    bare, train, rows = _apart(task, test, holdout, split_seed, say)
    base = base if isinstance(base, Base) else load(base)
    terms = Terms(
        base=base,
        task=bare,
        train=train,
        test=rows,
        contest=contest,
        training=training or Training(),
        too_long=too_long,
        text=_text(base, task, text, say),
        also=tuple(map(OtherTask.of, also)),
        first_seed=seeds[0],
        say=say,
    )
    store = Store(Path(folder), contest)
    configuration = _configuration(terms, named, rule, seeds, holdout if test is None else None, split_seed)
    store.claim(_protocol(terms), overwrite=overwrite)
    climb = _Climb(terms, store, rule, tuple(seeds), engine, Pace(budget))
    _climb(climb, named, done)
    if not climb.rungs:
        raise InputError(
            "no rung could be climbed: " + "; ".join(f"{part.name}: {part.reason}" for part in climb.skipped),
            where=base.name,
            expected="at least one method or baseline that can work",
        )
    found = _result(climb, curve, _held_from(test), findings)
    found = replace(
        found, configuration=configuration, command=command, seconds=time.monotonic() - started, date=now()
    )
    save_json(found, store.folder / RESULT)
    return found


def _check(seeds: Sequence[int], budget: float | None, engine: str) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(
            "these are no seeds",
            where=f"seeds {list(seeds)}",
            expected="different whole numbers of at least 0",
        )
    if budget is not None and not budget > 0:
        raise UsageError("the budget is no time", where=f"budget {budget}", expected="seconds, more than 0")
    if engine not in ("local", "ray"):
        raise UsageError(f"there is no engine '{engine}'", expected="local or ray")


def _apart(
    task: Task, test: str | Path | Rows | None, share: float, seed: int, say: Callable[[str], None]
) -> tuple[Task, Rows, Rows]:
    """The task without rows, rows to tune on, and rows to be scored on."""
    if task.rows is None or not len(task.rows):
        raise InputError(
            "the task has no rows to tune on", expected="a task that was read from rows", fix="read it anew"
        )
    if test is None:
        rest, held = hold_out(task, share, seed=seed, say=say)
        assert rest.rows is not None
        return task.with_rows(None), rest.rows, held
    rows = labelled_rows(task, test, say=say) if isinstance(test, str | Path) else test
    if not len(rows):
        raise InputError("there are no rows to be scored on", where=rows.source, expected="labelled rows")
    return task.with_rows(None), task.rows, rows


def _held_from(test: str | Path | Rows | None) -> str | None:
    """Where the test rows come from; none when they are of the training rows' own source."""
    if test is None:
        return None
    return str(test) if isinstance(test, str | Path) else test.source


def _text(base: Base, task: Task, source: str | Path, say: Callable[[str], None]) -> GeneralText | None:
    if source == OFF:
        return None
    try:
        return general_text(source, base=base, task=task, say=say)
    except CapabilityError as error:
        say(f"forgetting is not measured: {error.what}")
        return None


def _climb(climb: _Climb, named: Sequence[Contender], done: Callable[[Rung], None] | None) -> None:
    """Measure rung by rung until patience is over."""
    terms = climb.terms
    wanted = [(one, climb.seeds if one.seeded else climb.seeds[:1]) for one in named]
    idle = 0
    with closing(engine_of(climb.engine, terms, climb.store, wanted)) as engine:
        for contender, seeds in wanted:
            if climb.rule.patience and idle >= climb.rule.patience and contender.trained:
                reason = f"the {idle} trained rungs before it were not worth their cost"
                climb.skipped.append(Skipped(contender.name, reason))
                continue
            cells = _measured(climb, contender, seeds, engine)
            if cells is None:
                continue
            rung = _entered(climb, contender, cells)
            idle = 0 if rung.worth else idle + contender.trained
            if done is not None:
                done(rung)


def _measured(
    climb: _Climb, contender: Contender, seeds: Sequence[int], engine: Engine
) -> list[tuple[Cell, Answers]] | None:
    """The cells of a rung, or none where it cannot be climbed or time is too short."""
    kept = [climb.store.find(contender, seed) for seed in seeds]
    if all(kept):
        return [found for found in kept if found is not None]
    reason = climb.pace.too_long(climb.terms, contender, sum(found is None for found in kept))
    if reason is not None:
        climb.skipped.append(Skipped(contender.name, reason))
        climb.terms.say(f"{contender.name} is not climbed: {reason}")
        return None
    try:
        return [engine.cell(contender, seed, _base_answers(climb)) for seed in seeds]
    except (CapabilityError, RunError) as error:
        reason = refusal(error)
        climb.skipped.append(Skipped(contender.name, reason))
        climb.terms.say(f"{contender.name} is not climbed: {reason}")
        return None


def _base_answers(climb: _Climb) -> Answers | None:
    found = climb.answers.get(BASE_RUNG)
    return None if not found else next(iter(found.values()))


def _entered(climb: _Climb, contender: Contender, cells: Sequence[tuple[Cell, Answers]]) -> Rung:
    """The rung of its cells, judged by those before it until all that is cheaper is known."""
    terms, contest = climb.terms, climb.terms.contest
    climb.answers[contender.name] = {cell.seed: answers for cell, answers in cells}
    samples = [contest.sample(answers, terms.task, terms.test) for _, answers in cells]
    climb.samples[contender.name] = samples
    if contender.trained:
        climb.trained.add(contender.name)
    climb.pace.note([cell for cell, _ in cells])
    rung = summed(contender, [cell for cell, _ in cells], samples, climb.rule.metric)
    rung = judged(rung, climb.rungs, climb.samples, climb.rule)
    climb.rungs.append(rung)
    return rung


def _result(climb: _Climb, curve: bool, held_from: str | None, findings: Sequence[str]) -> Comparison:
    terms, contest = climb.terms, climb.terms.contest
    rungs = ranked(climb.rungs, climb.samples, climb.rule)
    found = verdict(rungs, climb.samples, climb.rule, len(terms.test))
    best = found.rung
    after = climb.answers[best.name][best.typical_seed]
    other = _compared_with(climb, best)
    changed = (
        changed_rows(contest, terms.task, terms.test, climb.answers[other.name][other.typical_seed], after)
        if other
        else ()
    )
    base, learning = terms.base, _curve(terms) if curve else None
    return Comparison(
        kind=contest.kind,
        labels=contest.labels(terms.task, terms.test),
        data=DataNote(
            terms.train.source,
            len(terms.train),
            held_from,
            len(terms.test),
            label_counts(terms.task, terms.train),
            terms.test.digest(),
        ),
        base=BaseNote(base.name, base.kind, base.parameters, base.fingerprint, base.revision, base.quantise),
        metric=climb.rule.metric,
        seeds=climb.seeds,
        rungs=tuple(rungs),
        skipped=tuple(climb.skipped),
        recommended=best.name,
        verdict=found.sentences,
        rule=str(climb.rule),
        changed=changed,
        changed_from=other.name if other else None,
        errors=wrong_rows(contest, terms.task, terms.test, after),
        curve=learning,
        advice=_advice(climb, learning),
        findings=tuple(findings),
        versions=versions(),
        machine=machine(base.device),
    )


def _compared_with(climb: _Climb, best: Rung) -> Rung | None:
    """The rung that the recommended one's answers are held against: the base, else the best cheaper one."""
    names = {rung.name: rung for rung in climb.rungs}
    if BASE_RUNG in names and best.name != BASE_RUNG:
        return names[BASE_RUNG]
    return names[best.against] if best.against else None


def _curve(terms: Terms) -> LearningCurve | None:
    if not isinstance(terms.task, Classify):
        return None
    try:
        return learning_curve(terms.base, terms.task, rows=terms.train, test=terms.test, say=terms.say)
    except PegboxError as error:
        terms.say(f"there is no learning curve: {error.what}")
        return None


def _advice(climb: _Climb, curve: LearningCurve | None) -> str:
    """Label more or tune more: the curve against the best trained rung."""
    if curve is None:
        return ""
    trained = [rung for rung in climb.rungs if rung.name in climb.trained]
    if not trained or CURVE_RUNG not in climb.samples:
        return curve.advice()
    best = max(trained, key=lambda rung: rung.metrics["accuracy"].value)
    found = compare_several(climb.samples[best.name], climb.samples[CURVE_RUNG], metric="accuracy")
    return curve.advice(found.difference, best.name)


def _configuration(
    terms: Terms,
    named: Sequence[Contender],
    rule: Rule,
    seeds: Sequence[int],
    share: float | None,
    split_seed: int,
) -> dict[str, Any]:
    """All that the result depends on, as it is shown."""
    training = {name: value for name, value in vars(terms.training).items() if value is not None}
    return {
        "task": terms.task.to_json(),
        "methods": {one.name: one.options for one in named},
        "training": training,
        "seeds": list(seeds),
        "holdout": share,
        "split_seed": split_seed,
        "metric": rule.metric,
        "worth": rule.worth,
        "patience": rule.patience,
        "too_long": terms.too_long,
        "number format": str(terms.base.dtype),
        "context": terms.base.context,
        "general text": terms.text.source if terms.text else None,
        "other tasks": [other.name for other in terms.also],
    }


def _protocol(terms: Terms) -> dict[str, str]:
    """All that a cell depends on besides its rung and seed, by what differs for the user."""
    base = terms.base
    task = json.dumps(terms.task.to_json(), sort_keys=True)
    return {
        "format": "pegbox.protocol/1",
        "base": f"{base.name} {base.fingerprint[:16]}",
        "number format": str(base.dtype),
        "context": str(base.context),
        "task": hashlib.sha256(task.encode()).hexdigest()[:16],
        "training rows": terms.train.digest()[:16],
        "test rows": terms.test.digest()[:16],
        "training settings": json.dumps(vars(terms.training), sort_keys=True, default=str),
        "too_long": terms.too_long,
        "general text": terms.text.digest() if terms.text else "none",
        "other tasks": ", ".join(_digest(other) for other in terms.also) or "none",
    }


def _digest(other: OtherTask) -> str:
    assert other.task.rows is not None
    return other.task.rows.digest()[:16]
