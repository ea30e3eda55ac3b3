"""Ways to be as sure as one is right, side by side on the same rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pegbox.data import Rows, rows_text
from pegbox.errors import CapabilityError, InputError, UsageError, nearest
from pegbox.evaluation import (
    Estimate,
    Paired,
    RiskCoverage,
    Scores,
    compare,
    error_auroc,
    ood_auroc,
    plain,
    risk_coverage,
    score,
    uncertainties,
)
from pegbox.tasks import Generate, Tag, Task
from pegbox.tuning._answers import Array
from pegbox.tuning._laplace import split_rows
from pegbox.tuning._once import Once
from pegbox.tuning._seen import row_digests, told_seen
from pegbox.tuning._shapes import option_names
from pegbox.tuning._training import Training
from pegbox.tuning._ways import WAYS, Ways
from pegbox.uncertainty import GRADES

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned


@dataclass(frozen=True, eq=False)
class Way:
    """How one way of being sure did.

    Args:
        name: ``map`` (the model as it was tuned), ``temperature``, ``dropout``, ``ensemble``, or a curvature.
        scores: On the test rows.
        error_auroc: How well 1 - probability tells wrong answers from right ones.
        curve: Risk against coverage, with the area under it.
        ood_auroc: How well 1 - probability tells rows from elsewhere from the test rows; ``None`` without
            such rows.
        against_map: Paired difference of the log loss to ``map``; ``None`` for itself.
        seconds: Wall time to make it ready: fits, curvature, the search of a temperature.
        predict_seconds: Wall time of the answers for the test rows.
        note: What it chose.
        probabilities: (rows, answers) on the test rows.
    """

    name: str
    scores: Scores
    error_auroc: Estimate
    curve: RiskCoverage
    ood_auroc: Estimate | None
    against_map: Paired | None
    seconds: float
    predict_seconds: float
    note: str
    probabilities: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """All ways that were asked for, on the same rows.

    Args:
        ways: In the order asked.
        left_out: Those that cannot work here, with the reason.
        rows: Test rows.
        valid: Rows that temperature and precision were chosen on.
        outside: Rows from elsewhere, or 0.
    """

    ways: tuple[Way, ...]
    left_out: Mapping[str, str]
    rows: int
    valid: int
    outside: int

    def __getitem__(self, name: str) -> Way:
        return next(way for way in self.ways if way.name == name)

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values."""
        return {
            "format": "pegbox.calibrated/1",
            "rows": self.rows,
            "valid": self.valid,
            "outside": self.outside,
            "left_out": dict(self.left_out),
            "ways": {way.name: _way_json(way) for way in self.ways},
        }


def calibrate(
    tuned: Tuned,
    rows: str | Path | Rows,
    test: str | Path | Rows,
    *,
    valid: str | Path | Rows | None = None,
    ood: str | Path | Rows | None = None,
    ways: Sequence[str] = ("map", "temperature", "exact"),
    members: int = 3,
    passes: int = 20,
    training: Training | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Calibrated:
    """Compare ways of making a tuned model's probabilities as sure as it is right.

    Whatever is chosen is chosen on held-out rows that are not the test rows. Test rows that were among the
    training rows, and held-out rows that were tuned on, are counted and told. A way that cannot work here,
    such as temperature without held-out rows, is left out with its reason.

    Args:
        tuned: The model.
        rows: The rows that it was tuned on; those among them that it was not tuned on are the held-out rows.
        test: Labelled rows to score on.
        valid: Held-out rows of their own.
        ood: Rows from elsewhere, that the model should be unsure of; labels are not needed.
        ways: Among ``map``, ``temperature``, ``dropout``, ``ensemble``, ``exact``, ``kron``, ``ekfac`` and
            ``diag``.
        members: Models of the ensemble, this one among them; the others are fitted with other seeds than its.
        passes: Passes with dropout.
        training: How the ensemble's other members are trained; by default with the default settings, however
            this model was trained.
        resamples: Bootstrap resamples.
        seed: Of resamples and dropout; those of the further members follow it.

    Raises:
        UsageError: For an unknown way, one that is named twice, and too few members or passes.
        CapabilityError: For taggers and for models that write.
        InputError: For rows that cannot be used, and for test rows among the held-out rows that something is
            chosen on.
    """
    check_ways(ways, members, passes)
    check_answers(tuned.prompt.task)
    tuned = replace(tuned, say=Once.of(tuned.say))
    read = tuned.read(rows) if isinstance(rows, str | Path) else rows
    own, others = split_rows(tuned, read)
    if valid is not None:
        others = tuned.read(valid) if isinstance(valid, str | Path) else valid
    tested = tuned.read(test) if isinstance(test, str | Path) else test
    outside = None if ood is None else _unlabelled(tuned, ood)
    _check_apart(tuned, own, others, tested, ways)
    plain = replace(tuned, laplace=None, averaged=False)
    among = Ways(plain, own, others, members, passes, training, seed)
    task: Any = tuned.prompt.task
    gold = np.array(task.gold(tested))
    first = plain.probabilities(tested)
    done, left_out = [], {}
    for name in ways:
        try:
            done.append(_measured(among, name, tested, gold, outside, first, resamples))
        except CapabilityError as error:
            left_out[name] = error.what
            tuned.say(f"{name} is left out: {error.what}")
    return Calibrated(
        tuple(done), left_out, len(tested), 0 if others is None else len(others), len(outside or ())
    )


def check_answers(task: Task) -> None:
    """Raise CapabilityError for a task whose rows have not one answer each, out of a few."""
    if isinstance(task, Generate | Tag):
        raise CapabilityError(
            "calibration compares the probabilities of one answer per row, and this task has none",
            where=f"task {task.to_json()['task']}",
            expected="a model that classifies, chooses or says which answer is better",
            fix="judge the model by pegbox evaluate",
        )


def check_ways(ways: Sequence[str], members: int, passes: int) -> None:
    """Raise UsageError for what `calibrate` cannot be asked, before a model is loaded."""
    if isinstance(ways, str):
        raise UsageError(
            f"ways is the text {ways!r}",
            where="ways",
            expected="a list of names",
            fix=f"write ways={ways.split(',')!r}",
        )
    unknown = [name for name in ways if name not in WAYS]
    if unknown or not ways:
        raise UsageError(
            f"there is no way '{unknown[0]}' to calibrate" if unknown else "there is no way to compare",
            where="ways",
            expected=", ".join(WAYS),
            fix=(nearest(unknown[0], WAYS) if unknown else "") or "leave it out for map,temperature,exact",
        )
    twice = [name for at, name in enumerate(ways) if name in ways[:at]]
    if twice:
        raise UsageError(
            f"the way '{twice[0]}' is named more than once",
            where="ways",
            expected="each way once",
            fix=f"name '{twice[0]}' once",
        )
    for value, least, where in ((members, 2, "members"), (passes, 2, "passes")):
        if value < least:
            raise UsageError(
                f"{value} are too few", where=where, expected=f"at least {least}", fix="leave it out"
            )


def _check_apart(tuned: Tuned, own: Rows, held: Rows | None, tested: Rows, ways: Sequence[str]) -> None:
    """Refuse to choose on test rows; rows that were tuned on, where they should not have been, are counted.

    Raises:
        InputError: For test rows among the held-out rows that one of the ways is chosen on.
    """
    learnt = tuned.training_rows | frozenset(row_digests(own))
    digests = [] if held is None or not any(_chooses(tuned, name) for name in ways) else row_digests(held)
    known = frozenset(digests)
    pairs = zip(tested.numbers, row_digests(tested), strict=True)
    common = [number for number, digest in pairs if digest in known]
    if held is not None and common:
        raise InputError(
            f"{len(common):,} of {len(tested):,} test rows are among the held-out rows, which temperature, "
            "precision and the stopping point of an ensemble's members are chosen on",
            where=f"{tested.source}, {rows_text(common)}; the held-out rows are of {held.source}",
            expected="test rows that choose nothing",
            fix="leave them out of one of the two, or name other held-out rows with valid",
        )
    told_seen(replace(tuned, training_rows=learnt), tested)
    seen = sum(digest in learnt for digest in digests)
    if held is not None and seen:
        tuned.say(
            f"{held.source}: {seen:,} of {len(held):,} held-out rows were tuned on: the temperature will be "
            "too low and the precision too high"
        )


def _chooses(tuned: Tuned, name: str) -> bool:
    """Whether a way chooses something on held-out rows."""
    return name in ("temperature", "ensemble") or (name in GRADES and tuned.posterior is None)


def _unlabelled(tuned: Tuned, source: str | Path | Rows) -> Rows:
    found: Rows = tuned.read(source, labelled=False) if isinstance(source, str | Path) else source
    if not len(found):
        raise InputError("there are no rows from elsewhere", where=found.source, expected="at least one row")
    return found


def _measured(
    among: Ways, name: str, rows: Rows, gold: Any, outside: Rows | None, plain: Array, resamples: int
) -> Way:
    started = time.perf_counter()
    answer, note = among.ready(name)
    ready = time.perf_counter()
    found = answer(rows)
    done = time.perf_counter()
    labels = among.tuned.labels
    names = labels if len(labels) == found.shape[1] else option_names(found.shape[1])
    unsure = uncertainties(found)["confidence"]
    right = found.argmax(1) == gold
    options: dict[str, Any] = {"resamples": resamples, "seed": among.seed}
    elsewhere = None if outside is None else uncertainties(answer(outside))["confidence"]
    return Way(
        name=name,
        scores=score(found, gold, names, **options),
        error_auroc=error_auroc(unsure, right, **options),
        curve=risk_coverage(unsure, right, **options),
        ood_auroc=None if elsewhere is None else ood_auroc(unsure, elsewhere, **options),
        against_map=None if name == "map" else compare(found, plain, gold, metric="nll", **options),
        seconds=ready - started,
        predict_seconds=done - ready,
        note=note,
        probabilities=found,
    )


def _way_json(way: Way) -> dict[str, Any]:
    paired = way.against_map
    return {
        "scores": way.scores.to_json(),
        "error_auroc": plain(way.error_auroc),
        "risk_coverage": way.curve.to_json(),
        "ood_auroc": None if way.ood_auroc is None else plain(way.ood_auroc),
        "against_map": None
        if paired is None
        else {"nll": plain(paired.difference), "p": paired.p, "test": paired.test},
        "seconds": way.seconds,
        "predict_seconds": way.predict_seconds,
        "note": way.note,
    }
