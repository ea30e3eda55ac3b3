"""Answering only where the model is sure: how many answers are wrong at each share of rows answered."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pegbox.errors import InputError, UsageError
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._estimate import Estimate, Floats, percentile_interval, wilson
from pegbox.evaluation._json import plain, read_estimate, reading
from pegbox.evaluation._separation import read_answered

FORMAT = "pegbox.risk_coverage/1"
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)


@dataclass(frozen=True)
class Answered:
    """What comes of answering only the rows whose uncertainty is at most a threshold.

    Args:
        threshold: The largest uncertainty that is answered.
        coverage: Share of rows answered.
        risk: Share of the answers that is wrong, with its 95 % Wilson interval; NaN where none is given.
        answered: Rows answered.
        wrong: Wrong answers among them.
    """

    threshold: float
    coverage: float
    risk: Estimate
    answered: int
    wrong: int


@dataclass(frozen=True)
class RiskCoverage:
    """Risk against coverage, one point for each uncertainty that occurs.

    Args:
        rows: Number of rows.
        aurc: Area under the curve, see `risk_coverage`.
        excess: The area less that of the ideal order (E-AURC).
        thresholds: The uncertainties that occur, rising.
        answered: Rows with at most that uncertainty.
        wrong: Wrong answers among them.
    """

    rows: int
    aurc: Estimate
    excess: Estimate
    thresholds: tuple[float, ...]
    answered: tuple[int, ...]
    wrong: tuple[int, ...]

    @property
    def coverage(self) -> Floats:
        """Share of rows answered at each threshold ``(thresholds,)``, rising to 1."""
        return np.asarray(self.answered) / self.rows

    @property
    def risk(self) -> Floats:
        """Share of the answers that is wrong at each threshold ``(thresholds,)``."""
        return np.asarray(self.wrong) / np.asarray(self.answered)

    @property
    def table(self) -> tuple[Answered, ...]:
        """`covering` each of `COVERAGES`."""
        return tuple(self.covering(coverage) for coverage in COVERAGES)

    def at(self, threshold: float) -> Answered:
        """Answer only rows with uncertainty <= ``threshold``.

        Where no row is that certain, coverage is 0 and the risk, a share of nothing, is NaN.

        Raises:
            UsageError: A threshold that is not a number.
        """
        if math.isnan(threshold):
            raise UsageError("the threshold is NaN", expected="a number; infinity answers all rows")
        place = bisect_right(self.thresholds, threshold) - 1
        if place < 0:
            return Answered(threshold, 0.0, Estimate(math.nan, math.nan, math.nan), 0, 0)
        answered, wrong = self.answered[place], self.wrong[place]
        risk = Estimate(wrong / answered, *wilson(wrong, answered))
        return Answered(threshold, answered / self.rows, risk, answered, wrong)

    def covering(self, coverage: float) -> Answered:
        """Answer the most certain rows, at least a share ``coverage`` of all.

        Rows of equal uncertainty are answered together, so the share answered may be larger. A threshold
        that was chosen on these rows fits them a little too well; its interval does not know of the choice.

        Raises:
            UsageError: A coverage outside (0, 1].
        """
        if not 0 < coverage <= 1:
            raise UsageError(f"coverage is {coverage}", expected="above 0 and at most 1")
        place = bisect_left(self.answered, coverage, key=lambda answered: answered / self.rows)
        return self.at(self.thresholds[place])

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object.

        ``table`` is for readers: `from_json` makes it anew.
        """
        return {"format": FORMAT, **plain(self), "table": plain(self.table)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RiskCoverage:
        """Read what `to_json` wrote.

        Raises:
            InputError: Not that format, or a part is missing or of the wrong kind.
        """
        with reading(values, FORMAT, "a risk-coverage curve", "the curve"):
            found = cls(
                int(values["rows"]),
                read_estimate(values["aurc"]),
                read_estimate(values["excess"]),
                tuple(float(number) for number in values["thresholds"]),
                tuple(int(number) for number in values["answered"]),
                tuple(int(number) for number in values["wrong"]),
            )
        lengths = {len(found.thresholds), len(found.answered), len(found.wrong)}
        if len(lengths) > 1 or found.answered[-1:] != (found.rows,):
            raise InputError(
                "the curve's parts do not fit each other",
                where="keys 'thresholds', 'answered' and 'wrong'",
                expected="equally many points, the last of which answers all rows",
            )
        return found

    def __str__(self) -> str:
        lines = [
            f"{'rows':<10} {self.rows:,}, {self.wrong[-1]:,} wrong",
            f"{'AURC':<10} {self.aurc}",
            f"{'excess':<10} {self.excess}",
            "",
            "at least  coverage   threshold   answered      wrong  risk",
        ]
        for wanted, row in zip(COVERAGES, self.table, strict=True):
            lines.append(
                f"{wanted:>8.2f}  {row.coverage:>8.3f}  {row.threshold:>10.4g}  {row.answered:>9,}"
                f"  {row.wrong:>9,}  {row.risk}"
            )
        return "\n".join(lines)


def risk_coverage(
    uncertainty: ArrayLike, correct: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> RiskCoverage:
    """Measure how many answers are wrong when only the most certain rows are answered.

    Rows are answered in order of rising uncertainty; equally uncertain ones enter together, so the order in
    which rows are given never matters. The area is AURC = (1 / N) sum over k = 1 .. N of the risk of the k
    most certain rows (Geifman and El-Yaniv, Selective classification for deep neural networks, 2017), in the
    mean over all orders of rows that are equally uncertain. The excess is what it has above the order that
    puts every right answer before every wrong one, the least that these answers allow (Geifman, Uziel and
    El-Yaniv, Bias-reduced uncertainty estimation for deep neural classifiers, 2019).

    Intervals are percentiles over resampled rows. Where no answer is wrong, or none is right, all resamples
    agree and know nothing: then that of the area runs from the ideal order at the lower Wilson end of the
    risk to no order at its upper end, and the excess has none.

    Args:
        uncertainty: Any number that rises with doubt ``(rows,)``; its scale does not matter.
        correct: True (or 1) where the answer is right ``(rows,)``.
        resamples: Number of bootstrap resamples.
        seed: Their seed.

    Raises:
        InputError: No rows, NaN or infinity, or arrays that do not belong together.
        UsageError: No resamples.
    """
    doubts, right = read_answered(uncertainty, correct)
    rows, errors = len(doubts), int((~right).sum())
    first = np.flatnonzero(np.r_[True, doubts[1:] > doubts[:-1]])
    answered = np.r_[first[1:], rows]
    wrong = np.cumsum(~right)[answered - 1]
    areas = _Areas(first, (~right).astype(np.float64))
    area, excess = (float(value) for value in areas(np.ones((1, rows)))[0])
    samples = bootstrap(areas, rows, resamples=resamples, seed=seed)
    certain = errors in (0, rows)
    return RiskCoverage(
        rows,
        _by_risk(area, errors, rows) if certain else percentile_interval(area, samples[:, 0]),
        Estimate(excess, math.nan, math.nan) if certain else percentile_interval(excess, samples[:, 1]),
        tuple(doubts[first].tolist()),
        tuple(answered.tolist()),
        tuple(wrong.tolist()),
    )


def _by_risk(area: float, errors: int, rows: int) -> Estimate:
    """The areas that the interval of the risk r allows: r without order, r + (1 - r) ln(1 - r) in the ideal.

    The latter is the limit for many rows (Geifman et al. 2019).
    """
    low, high = wilson(errors, rows)
    return Estimate(area, low + (1 - low) * math.log1p(-low) if low < 1 else 1.0, high)


class _Areas:
    """AURC and its excess over the ideal order, of weighted rows.

    A group of g equally uncertain rows, e of them wrong, behind S rows with E wrong, adds in the mean over
    its orders the sum over j = 1 .. g of (E + j e / g) / (S + j) = e + (E - S e / g) (H(S + g) - H(S)) with
    the harmonic numbers H. Copies of a row that was drawn twice are such a group.

    Args:
        first: Where each group of equally uncertain rows begins ``(groups,)``, rows by rising uncertainty.
        wrong: 1 where the answer is wrong ``(rows,)``.
    """

    def __init__(self, first: NDArray[np.int64], wrong: Floats) -> None:
        self.first, self.wrong = first, wrong
        self.harmonic = np.r_[0.0, np.cumsum(1 / np.arange(1, len(wrong) + 1))]

    def __call__(self, weights: Floats) -> Floats:
        """Area and excess ``(chunk, 2)`` for whole-number weights ``(chunk, rows)``."""
        rows, harmonic = len(self.wrong), self.harmonic
        size = np.add.reduceat(weights, self.first, axis=1)
        errors = np.add.reduceat(weights * self.wrong, self.first, axis=1)
        before = np.cumsum(size, axis=1) - size
        earlier = np.cumsum(errors, axis=1) - errors
        share = errors / np.maximum(size, 1)
        span = harmonic[(before + size).astype(np.intp)] - harmonic[before.astype(np.intp)]
        area = (errors + (earlier - before * share) * span).sum(axis=1) / rows
        wrong = errors.sum(axis=1)
        right = rows - wrong
        ideal = (wrong - right * (harmonic[rows] - harmonic[right.astype(np.intp)])) / rows
        # Below zero by rounding alone.
        return np.column_stack([area, np.maximum(area - ideal, 0.0)])
