"""What a climb comes to: the comparison, and all that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pegbox.comparison._cell import Terms
from pegbox.comparison._climb import BASE_RUNG, Climb
from pegbox.comparison._contest import label_counts
from pegbox.comparison._curve import LearningCurve, learning_curve
from pegbox.comparison._ladder import Contender
from pegbox.comparison._place import machine, now, versions
from pegbox.comparison._result import BaseNote, Comparison, DataNote, Rung
from pegbox.comparison._summary import changed_rows, wrong_rows
from pegbox.comparison._verdict import Rule, ranked, verdict
from pegbox.errors import PegboxError
from pegbox.evaluation import compare_several
from pegbox.tasks import Classify
from pegbox.tuning import OtherTask

CURVE_RUNG = "closed-form"


def outcome(climb: Climb, *, curve: bool, held_from: str | None) -> Comparison:
    """Judge the rungs of a climb and bring them together.

    Args:
        climb: The climb, with at least one rung.
        curve: Whether the learning curve is measured.
        held_from: Where the test rows come from; ``None`` for the source of the training rows.
    """
    terms, contest = climb.terms, climb.terms.contest
    rungs = ranked([_with_flips(climb, rung) for rung in climb.rungs], climb.samples, climb.rule)
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
        base=BaseNote.of(base),
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
        versions=versions(),
        machine=machine(base.device),
        date=now(),
        seconds=sum(cell.cost.seconds + cell.cost.predict_seconds for rung in rungs for cell in rung.cells),
    )


def _with_flips(climb: Climb, rung: Rung) -> Rung:
    """The rung with its flips against the base, also where it was climbed before the base was asked."""
    base = climb.answers.get(BASE_RUNG)
    if not base or rung.name == BASE_RUNG:
        return rung
    terms, before = climb.terms, next(iter(base.values()))
    cells = [
        replace(
            cell,
            scores=terms.contest.with_flips(
                cell.scores, climb.answers[rung.name][cell.seed], terms.task, terms.test, before
            ),
        )
        for cell in rung.cells
    ]
    return replace(rung, cells=tuple(cells))


def _compared_with(climb: Climb, best: Rung) -> Rung | None:
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


def _advice(climb: Climb, curve: LearningCurve | None) -> str:
    """Label more or tune more: the curve against the best trained rung."""
    if curve is None:
        return ""
    trained = [rung for rung in climb.rungs if rung.name in climb.trained]
    if not trained or CURVE_RUNG not in climb.samples:
        return curve.advice()
    best = max(trained, key=lambda rung: rung.metrics["accuracy"].value)
    found = compare_several(climb.samples[best.name], climb.samples[CURVE_RUNG], metric="accuracy")
    return curve.advice(found.difference, best.name)


def configuration(
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


def protocol(terms: Terms) -> dict[str, str]:
    """All that a cell depends on besides its rung and seed, by what differs for the user."""
    base = terms.base
    task = json.dumps(terms.task.to_json(), sort_keys=True)
    # Times of another kind of device are those of another comparison; folders without the name are a CPU's.
    device = {} if base.device.type == "cpu" else {"device": base.device.type}
    return device | {
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
    """Rows and how they are asked: other words give other answers."""
    assert other.task.rows is not None
    asked = json.dumps(other.task.to_json(), sort_keys=True)
    return hashlib.sha256(f"{other.task.rows.digest()} {asked}".encode()).hexdigest()[:16]
