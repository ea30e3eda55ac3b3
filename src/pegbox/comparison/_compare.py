"""The ladder: rung by rung under one protocol, until a rung's gain is not worth its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pegbox.comparison._cell import Terms
from pegbox.comparison._climb import Climb, EngineName, climb_all
from pegbox.comparison._contest import contest_of, decisive
from pegbox.comparison._files import RESULT
from pegbox.comparison._ladder import Asked, Contender, contenders
from pegbox.comparison._outcome import configuration, outcome, protocol
from pegbox.comparison._pace import Pace
from pegbox.comparison._result import Comparison, Rung, save_json
from pegbox.comparison._store import Store, check_folders
from pegbox.comparison._verdict import Rule
from pegbox.data import GeneralText, Rows
from pegbox.errors import CapabilityError, InputError, PegboxError, UsageError, check_seeds
from pegbox.methods import Attached
from pegbox.models import Base, load
from pegbox.tasks import Task, TooLong
from pegbox.training import tell
from pegbox.tuning import OtherTask, Training, general_text, hold_out, labelled_rows

OFF = "off"


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
    forgetting: str | Path = "auto",
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
        forgetting: General text to tell it by, see :func:`pegbox.tuning.general_text`; ``off`` for none.
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
    plan = planned(
        task,
        methods,
        folder=folder,
        options=options,
        seeds=seeds,
        metric=metric,
        worth=worth,
        patience=patience,
        budget=budget,
        engine=engine,
    )
    others = tuple(map(OtherTask.of, also))
    contest, rule, named, store = plan.store.contest, plan.rule, plan.contenders, plan.store
    seeds = plan.seeds
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
        text=_text(base, task, forgetting, say),
        also=others,
        notes=_shared_notes(base, bare, others),
        first_seed=seeds[0],
        say=say,
    )
    _check_training(terms, named)
    for note in terms.notes:
        say(note)
    store.claim(protocol(terms), overwrite=overwrite)
    climb = Climb(terms, store, rule, seeds, engine, Pace(budget))
    _climb_ladder(climb, named, done)
    found = replace(
        outcome(climb, curve=curve, held_from=_held_from(test)),
        configuration=configuration(terms, named, rule, seeds, None if test else holdout, split_seed),
        command=command,
        findings=tuple(findings),
    )
    save_json(found, store.folder / RESULT)
    return found


@dataclass(frozen=True)
class Plan:
    """What is asked of a comparison, checked before any work.

    Args:
        contenders: The rungs, in order.
        rule: When one of them is worth its cost.
        store: Where they are kept.
        seeds: The seeds of each.
    """

    contenders: list[Contender]
    rule: Rule
    store: Store
    seeds: tuple[int, ...]


def planned(
    task: Task,
    methods: Asked | None,
    *,
    folder: str | Path,
    options: Mapping[str, Mapping[str, Any]] | None,
    seeds: Sequence[int],
    metric: str | None,
    worth: float,
    patience: int,
    budget: float | None,
    engine: str,
) -> Plan:
    """Check all that can be checked without a base; see `compare` for what is given.

    Raises:
        UsageError: For wrong options, or a folder that holds something else.
        CapabilityError: For a kind of task that cannot be compared.
    """
    contest = contest_of(task)
    chosen = decisive(contest, metric)
    rule = Rule(chosen, chosen in contest.lower, worth, patience)
    named = contenders(task, methods, options)
    check_folders([one.name for one in named])
    known = check_seeds(seeds)
    _check(budget, engine)
    store = Store(Path(folder), contest)
    store.check()
    return Plan(named, rule, store, known)


def _climb_ladder(climb: Climb, named: Sequence[Contender], done: Callable[[Rung], None] | None) -> None:
    """Climb at least one rung; where none was finished, no folder is left."""
    try:
        climb_all(climb, named, done)
    except KeyboardInterrupt as stopped:
        _interrupted(climb.store, climb.terms.say)
        stopped.add_note("told")
        raise
    except PegboxError:
        climb.store.leave_if_empty()
        raise
    if not climb.rungs:
        climb.store.leave_if_empty()
        raise _nothing(climb)


def _interrupted(store: Store, say: Callable[[str], None]) -> None:
    """Say how to go on, where there is something to go on from; else leave no trace."""
    store.leave_if_empty()
    if store.folder.exists():
        say(f"interrupted: the same call goes on from what is finished in {store.folder}")
    else:
        say("interrupted before anything was finished: nothing is kept")


def _check(budget: float | None, engine: str) -> None:
    if budget is not None and not budget > 0:
        raise UsageError("the budget is no time", where=f"budget {budget}", expected="seconds, more than 0")
    if engine not in get_args(EngineName):
        raise UsageError(f"there is no engine '{engine}'", expected="local or ray")


def _apart(
    task: Any, test: str | Path | Rows | None, share: float, seed: int, say: Callable[[str], None]
) -> tuple[Task, Rows, Rows]:
    """The task without rows, rows to tune on, and rows to be scored on, all of them labelled."""
    if task.rows is None or not len(task.rows):
        raise InputError(
            "the task has no rows to tune on", expected="a task that was read from rows", fix="read it anew"
        )
    task.gold(task.rows)
    if test is None:
        rest, held = hold_out(task, share, seed=seed, say=say)
        assert rest.rows is not None
        return task.with_rows(None), rest.rows, held
    rows = labelled_rows(task, test, say=say) if isinstance(test, str | Path) else test
    if not len(rows):
        raise InputError("there are no rows to be scored on", where=rows.source, expected="labelled rows")
    task.gold(rows)
    return task.with_rows(None), task.rows, rows


def _held_from(test: str | Path | Rows | None) -> str | None:
    """Where the test rows come from; none when they are of the training rows' own source."""
    if test is None:
        return None
    return str(test) if isinstance(test, str | Path) else test.source


def _shared_notes(base: Base, task: Task, others: Sequence[OtherTask]) -> tuple[str, ...]:
    """What every rung would tell again: what was derived for the prompt, and guessed of other tasks."""
    guessed = tuple(f"{other.name}: {note}" for other in others for note in other.notes)
    try:
        return (*base.prepare(task).notes, *guessed)
    except PegboxError:  # a task that asks in no words
        return guessed


def _text(base: Base, task: Task, source: str | Path, say: Callable[[str], None]) -> GeneralText | None:
    if source == OFF:
        return None
    try:
        return general_text(source, base=base, task=task, say=say)
    except CapabilityError as error:
        say(f"forgetting is not measured: {error.what}")
        return None


def _check_training(terms: Terms, named: Sequence[Contender]) -> None:
    """Raise UsageError for wrong training settings before the cheap rungs are climbed."""
    for one in named:
        if isinstance(one.method, Attached):
            terms.training.settings(one.method, terms.first_seed)


def _nothing(climb: Climb) -> InputError:
    reasons = "; ".join(f"{part.name}: {part.reason}" for part in climb.skipped)
    return InputError(
        f"no rung could be climbed: {reasons}",
        where=climb.terms.base.name,
        expected="at least one method or baseline that can work",
    )
