from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pegbox.comparison._frozen import Frozen, fewer, labelled
from pegbox.comparison._power_law import PowerLaw, power_law
from pegbox.comparison._spread import mean_losses, resampled
from pegbox.comparison._subsets import Measured, checked_sizes, draws, measure
from pegbox.data import Rows
from pegbox.errors import CapabilityError
from pegbox.evaluation import Estimate, percentile_interval, plain, read_estimate, reading
from pegbox.models import Base, FeatureCache, load
from pegbox.tasks import Classify, Task
from pegbox.training import tell

FORMAT = "pegbox.learning-curve/1"
Metric = Literal["accuracy", "nll"]
# One point of accuracy.
FLAT = 0.01
# Beyond this many rows a seeded sample is read, since features are what takes time.
MOST_ROWS = 8192


@dataclass(frozen=True)
class CurvePoint:
    """What the closed form reaches with a number of labels.

    Args:
        labels: Training rows.
        accuracy: On held-out rows, mean over the repeats.
        nll: Log-loss there, in nats.
    """

    labels: int
    accuracy: Estimate
    nll: Estimate


@dataclass(frozen=True)
class LearningCurve:
    """How much the closed form gains from labels, measured on subsets and extrapolated.

    Args:
        source: Where the rows come from.
        base: The base's name.
        rows: Labelled rows there are to learn from.
        tested: Rows that it was scored on.
        test_source: Where they come from; ``None`` when they were held out of the same rows, fold by fold.
        repeats: Subsets of each size.
        seed: Seed of subsets, folds and resamples.
        points: Sizes measured, rising.
        error: Power law of 1 - accuracy.
        nll: Power law of the log-loss.
        seconds: Wall time.
    """

    source: str
    base: str
    rows: int
    tested: int
    test_source: str | None
    repeats: int
    seed: int
    points: tuple[CurvePoint, ...]
    error: PowerLaw
    nll: PowerLaw
    seconds: float

    def at(self, labels: int, metric: Metric = "accuracy") -> Estimate:
        """Accuracy or log-loss of one draw of so many labels, with a 95 % interval."""
        return self.nll.at(labels) if metric == "nll" else _less(1.0, self.error.at(labels))

    def gain(self, labels: int | None = None, metric: Metric = "accuracy") -> Estimate:
        """What so many labels would bring over those there are, above zero for better.

        Args:
            labels: All labels there would be; by default twice as many as there are.
            metric: ``accuracy``, or ``nll`` for the nats that the log-loss would fall.
        """
        law = self.nll if metric == "nll" else self.error
        return _less(0.0, law.change(self.rows, 2 * self.rows if labels is None else labels))

    @property
    def flat(self) -> bool:
        """Whether twice the labels would not bring a point of accuracy, at the interval's upper end."""
        return self.gain().high < FLAT

    @property
    def helps(self) -> bool:
        """Whether twice the labels are sure to bring something worth the name."""
        return self.gain().low > 0 and not self.flat

    def sentence(self) -> str:
        """What twice the labels would bring, in words; never a promise."""
        found = f"twice the labels ({2 * self.rows:,}) would bring about {_points(self.gain())} of accuracy"
        if self.flat:
            return f"{found}: the curve is flat"
        return found if self.helps else f"{found}, which cannot be told from nothing"

    def advice(self, tuned_gain: Estimate | None = None, method: str = "tuning") -> str:
        """Label more or tune more, in a sentence or two.

        Args:
            tuned_gain: Accuracy of a tuned method less that of the closed form on the same labels, with its
                interval; ``None`` when no method was tuned.
            method: What that method is called.
        """
        sentence = self.sentence()
        sentence = sentence[0].upper() + sentence[1:]
        if tuned_gain is not None:
            tuned = f"on the labels there are, {method} brings {_points(tuned_gain)} over the closed form"
            return f"{self._choice(tuned_gain)} {sentence}; {tuned}."
        if self.helps:
            return f"Labels still help. {sentence}."
        return f"{sentence}. Try to tune more before labelling more."

    def _choice(self, tuned: Estimate) -> str:
        """Which gain to go for: the sure one, or of two sure ones the larger where that is clear."""
        more = self.gain()
        if not self.helps:
            sure = tuned.low > 0
            return "Tune more." if sure else "Neither more labels nor more tuning is sure to help."
        if tuned.low <= 0:
            return "Label more."
        gap = more.value - tuned.value
        if abs(gap) <= math.hypot(_half(more), _half(tuned)):
            return "Both help, and about equally."
        return "Label more, although tuning helps too." if gap > 0 else "Tune more, although labels help too."

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        values = {name: plain(getattr(self, name)) for name in self.__dataclass_fields__}
        return {"format": FORMAT, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LearningCurve:
        """Read what `to_json` wrote.

        Raises:
            InputError: Not that format, or a part is missing.
        """
        with reading(values, FORMAT, "a learning curve", "the learning curve"):
            given = {name: value for name, value in values.items() if name != "format"}
            given["points"] = tuple(
                CurvePoint(part["labels"], read_estimate(part["accuracy"]), read_estimate(part["nll"]))
                for part in given["points"]
            )
            given |= {name: PowerLaw.from_json(given[name]) for name in ("error", "nll")}
            return cls(**given)


def learning_curve(
    base: Base | str | Path,
    task: Task,
    *,
    rows: Rows | None = None,
    test: Rows | None = None,
    sizes: Sequence[int] | None = None,
    repeats: int = 10,
    seed: int = 0,
    cache: FeatureCache | None = None,
    resamples: int = 500,
    say: Callable[[str], None] = tell,
) -> LearningCurve:
    """Measure the closed form at growing numbers of labels, on features that are read once, and extrapolate.

    Each repeat draws nested subsets, with the classes in proportion. On each the closed form chooses its
    penalty and smoothing by leave-one-out and is solved; it is scored on ``test``, or else on the fold of the
    rows that the repeat leaves out.

    Args:
        base: A loaded base, or a name for :func:`pegbox.load`.
        task: A classification task.
        rows: Labelled rows to learn from; by default those that the task was read from.
        test: Other labelled rows to score on.
        sizes: Numbers of labels to measure, rising; by default up to nine, each root two times the last.
        repeats: Subsets of each size, at least two.
        seed: Seed of subsets, folds and resamples.
        cache: Feature cache; none when ``None``.
        resamples: Resamples of the intervals.
        say: Receives lines for the user.

    Raises:
        CapabilityError: For other kinds of tasks, and a base that the closed form cannot work on.
        InputError: For too few rows, and rows that cannot be learnt from.
        UsageError: For sizes or repeats that cannot be.
    """
    started = time.perf_counter()
    if not isinstance(task, Classify):
        raise CapabilityError(
            "a learning curve is that of the closed form, which fits one output per label",
            where=f"a {type(task).__name__.lower()} task",
            expected="a classification task",
            fix="fit a method to fewer rows and to all, and compare",
        )
    given = labelled(task, rows if rows is not None else task.rows)
    task.check_all_present(given)
    learnt = fewer(given, MOST_ROWS, seed, "learnt from", say)
    other = None if test is None else fewer(labelled(task, test), MOST_ROWS, seed, "scored on", say)
    base = base if isinstance(base, Base) else load(base)
    frozen = Frozen.of(base, task, cache, say)
    known = frozen.equations(learnt)
    asked = known if other is None else frozen.equations(other)
    repeated = draws(learnt, None if other is None else len(other), repeats, seed)
    most = min(len(draw.order) for draw in repeated)
    chosen = checked_sizes(sizes, most, len(task.labels), given.source)
    found = measure(known, asked, repeated, chosen, frozen.finished)
    error, nll = (
        power_law(chosen, part, len(learnt), resamples=resamples, seed=seed)
        for part in (found.error, found.nll)
    )
    return LearningCurve(
        source=given.source,
        base=base.name,
        rows=len(given),
        tested=len(asked.gold),
        test_source=None if test is None else test.source,
        repeats=len(repeated),
        seed=seed,
        points=_points_of(found, resamples, seed),
        error=error,
        nll=nll,
        seconds=time.perf_counter() - started,
    )


def _points_of(found: Measured, resamples: int, seed: int) -> tuple[CurvePoint, ...]:
    """Means over repeats and rows, with intervals over both."""
    tables = [
        (mean_losses(part), resampled(part, resamples=resamples, seed=seed))
        for part in (found.error, found.nll)
    ]
    error, nll = (
        [percentile_interval(float(value), column) for value, column in zip(means, samples.T, strict=True)]
        for means, samples in tables
    )
    return tuple(
        CurvePoint(size, _less(1.0, wrong), loss)
        for size, wrong, loss in zip(found.sizes, error, nll, strict=True)
    )


def _less(whole: float, part: Estimate) -> Estimate:
    return Estimate(whole - part.value, whole - part.high, whole - part.low)


def _half(found: Estimate) -> float:
    return max(found.high - found.value, found.value - found.low)


def _points(found: Estimate) -> str:
    """A difference in points with the longer side of its interval: +1.8 ± 0.9 points."""
    return f"{100 * found.value:+.1f} ± {100 * _half(found):.1f} points"
