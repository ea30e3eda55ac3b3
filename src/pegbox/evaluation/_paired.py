import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pegbox.errors import UsageError, nearest
from pegbox.evaluation._bootstrap import bootstrap, sign_flips
from pegbox.evaluation._estimate import Estimate, Floats, percentile_interval, wilson
from pegbox.evaluation._inputs import read_count, read_gold, read_pair
from pegbox.evaluation._metrics import Answers

_PER_ROW = {"accuracy": "correct", "nll": "nll", "brier": "brier"}


@dataclass(frozen=True)
class Paired:
    """Two systems on the same rows.

    Args:
        metric: What was compared.
        a: The metric of the first system.
        b: The metric of the second.
        difference: a - b with its 95 % interval. Above zero, a is better in accuracy, worse in nll and brier.
        p: Two-sided p-value of the hypothesis that the two do not differ.
        test: The name of the test.
        rows: Rows compared.
    """

    metric: str
    a: float
    b: float
    difference: Estimate
    p: float
    test: str
    rows: int

    def __str__(self) -> str:
        gap = self.difference
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        if math.isnan(gap.low):
            return f"{gap.value:+.3f}, {p}"
        return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], {p}"


def compare(
    a: ArrayLike,
    b: ArrayLike,
    gold: ArrayLike,
    *,
    metric: str = "accuracy",
    resamples: int = 2000,
    seed: int = 0,
) -> Paired:
    """Test whether two systems differ on the same rows.

    The interval is the percentile interval of a paired bootstrap: rows are drawn, each with both answers.
    The p-value is the exact McNemar test for accuracy (McNemar 1947; binomial on the rows that only one
    system has right), and for nll and brier a permutation test that swaps the two systems' losses row by
    row: p = (1 + as extreme) / (1 + resamples) (Phipson and Smyth 2010), at the least 1 / (1 + resamples).
    Where no resample differs from another, the interval of the accuracy comes from Wilson intervals of the
    two kinds of discordant rows, joined by MOVER (Zou and Donner 2008). A single row has no interval in nll
    and brier.

    Args:
        a: Probabilities of the first system ``(rows, labels)``.
        b: Probabilities of the second system on the same rows ``(rows, labels)``.
        gold: Gold label indices ``(rows,)``.
        metric: ``accuracy``, ``nll`` or ``brier``.
        resamples: Resamples of the bootstrap and permutations of the test.
        seed: Seed of both.

    Raises:
        InputError: arrays that cannot be scored or do not belong together.
        UsageError: an unknown metric or no resamples.
    """
    if metric not in _PER_ROW:
        raise UsageError(
            f"no paired test for metric '{metric}'",
            expected=", ".join(_PER_ROW),
            fix=nearest(metric, _PER_ROW),
        )
    read_count(resamples, "resamples")
    first, second = read_pair(a, b, ("a", "b"))
    answers = read_gold(gold, *first.shape)
    left, right = (getattr(Answers(table, answers), _PER_ROW[metric]) for table in (first, second))
    gaps = left - right
    fields: dict[str, Any] = {"metric": metric, "a": float(left.mean()), "b": float(right.mean())}
    interval = _interval(gaps, metric, resamples, seed)
    if metric == "accuracy":
        return Paired(**fields, difference=interval, p=_mcnemar(gaps), test="exact McNemar", rows=len(gaps))
    p = permutation(gaps, resamples, seed)
    return Paired(**fields, difference=interval, p=p, test="paired permutation", rows=len(gaps))


def _interval(gaps: Floats, metric: str, resamples: int, seed: int) -> Estimate:
    rows, value = len(gaps), float(gaps.mean())
    samples = bootstrap(lambda weights: weights @ gaps / rows, rows, resamples=resamples, seed=seed)
    found = percentile_interval(value, samples)
    if not found.zero_width:
        return found
    if metric != "accuracy":
        return found if rows > 1 else Estimate(value, math.nan, math.nan)
    return discordant(gaps)


def discordant(gaps: Floats) -> Estimate:
    """Mean of differences of 1, 0 and -1, with the interval of the two kinds of discordant rows by MOVER.

    Args:
        gaps: ``(rows,)``.
    """
    rows, value = len(gaps), float(gaps.mean())
    won, lost = float((gaps > 0).sum()), float((gaps < 0).sum())
    (won_low, won_high), (lost_low, lost_high) = wilson(won, rows), wilson(lost, rows)
    down = math.hypot(won / rows - won_low, lost_high - lost / rows)
    up = math.hypot(won_high - won / rows, lost / rows - lost_low)
    return Estimate(value, max(value - down, -1.0), min(value + up, 1.0))


def _mcnemar(gaps: Floats) -> float:
    from scipy.stats import binomtest

    won, lost = int((gaps > 0).sum()), int((gaps < 0).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def permutation(gaps: Floats, resamples: int, seed: int) -> float:
    """Two-sided p-value of the sum of ``gaps`` ``(rows,)`` under random signs."""
    sums = np.abs(sign_flips(gaps, resamples=resamples, seed=seed))
    # Equal sums added in another order may differ in the last bits; they still count as equal.
    extreme = int((sums >= abs(gaps.sum()) - 1e-9 * np.abs(gaps).sum()).sum())
    return (1 + extreme) / (1 + resamples)
