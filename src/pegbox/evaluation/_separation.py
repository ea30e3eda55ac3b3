"""Uncertainties of probabilities, and how well they tell wrong from right and strange from familiar."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pegbox.errors import InputError
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._estimate import Estimate, Floats, percentile_interval, wilson
from pegbox.evaluation._inputs import _numbers, _refuse_rows, read_count, read_probabilities
from pegbox.evaluation._metrics import Ranks


@dataclass(frozen=True)
class Undefined(Estimate):
    """A number that these rows do not define: NaN, and why.

    Args:
        reason: Why there is none, in words.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""

    def __str__(self) -> str:
        return f"n/a ({self.reason})"


def uncertainties(probabilities: ArrayLike) -> dict[str, Floats]:
    """Uncertainties that probabilities tell by themselves, each ``(rows,)``, larger for more doubt.

    ``confidence`` is 1 - max p, from 0 to 1 - 1 / labels (Hendrycks and Gimpel, A baseline for detecting
    misclassified and out-of-distribution examples, 2017). ``entropy`` is -sum p ln p in nats, from 0 to
    ln(labels), with 0 ln 0 = 0 (Shannon 1948). The order of the labels changes neither.

    Args:
        probabilities: ``(rows, labels)``, rows summing to one.

    Raises:
        InputError: Probabilities that cannot be scored.
    """
    # Sorted before anything is summed, so that the same probabilities in another order are equal to the bit.
    table = read_probabilities(np.sort(np.atleast_1d(_numbers(probabilities, "probabilities")), axis=-1))
    logs = np.log(np.where(table > 0, table, 1.0))
    return {
        "confidence": np.maximum(1 - table[:, -1], 0.0),
        "entropy": np.maximum(-(table * logs).sum(axis=1), 0.0),
    }


def error_auroc(
    uncertainty: ArrayLike, correct: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Chance that a wrong answer is more uncertain than a right one, ties counted half (an AUROC).

    One half is no better than chance. The 95 % interval is that of percentiles over resampled rows. Where
    these know too little, as every resample agrees or only one answer is wrong or right, it is Wilson's with
    the rows of the rarer kind: the variance of an area A is at most A (1 - A) / min(wrong, right) (Birnbaum
    and Klose 1957).

    Args:
        uncertainty: Any number that rises with doubt ``(rows,)``.
        correct: True (or 1) where the answer is right ``(rows,)``.
        resamples: Number of bootstrap resamples.
        seed: Their seed.

    Returns:
        The estimate; `Undefined`, which says why, where all answers are right or all are wrong.

    Raises:
        InputError: No rows, NaN or infinity, or arrays that do not belong together.
        UsageError: No resamples.
    """
    read_count(resamples, "resamples")
    doubts, right = read_answered(uncertainty, correct)
    hits = int(right.sum())
    if hits in (0, len(right)):
        return Undefined(reason=f"of {len(right):,} answers none is {'wrong' if hits else 'right'}")
    ranks = Ranks(doubts, (~right).astype(np.int64))
    samples = bootstrap(ranks, len(doubts), resamples=resamples, seed=seed)
    return _area(ranks, samples, min(hits, len(right) - hits))


def ood_auroc(inside: ArrayLike, outside: ArrayLike, *, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Chance that a row from elsewhere is more uncertain than one of the usual kind, ties counted half.

    One half is no better than chance. The interval is as for `error_auroc`, the two sets being resampled
    each by itself: their sizes were chosen and are no finding.

    Args:
        inside: Uncertainty of rows in distribution ``(N,)``.
        outside: Uncertainty of rows out of distribution ``(M,)``, of the same kind.
        resamples: Number of bootstrap resamples.
        seed: Their seed.

    Raises:
        InputError: No rows, NaN or infinity, or another shape.
        UsageError: No resamples.
    """
    usual, strange = (
        np.sort(read_uncertainty(values, name)) for values, name in ((inside, "inside"), (outside, "outside"))
    )
    ranks = Ranks(np.r_[usual, strange], np.repeat([0, 1], [len(usual), len(strange)]))
    seeds = np.random.default_rng([seed, len(usual), len(strange)])
    swapped = len(strange) > len(usual)
    larger, smaller = (strange, usual) if swapped else (usual, strange)

    def statistic(weights: Floats) -> Floats:
        # The larger set is drawn in chunks that fit in memory, so as many draws of the smaller fit too.
        drawn = bootstrap(
            lambda other: other, len(smaller), resamples=len(weights), seed=int(seeds.integers(2**63))
        )
        return ranks(np.hstack([drawn, weights] if swapped else [weights, drawn]))

    return _area(ranks, bootstrap(statistic, len(larger), resamples=resamples, seed=seed), len(smaller))


def read_answered(uncertainty: ArrayLike, correct: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Check uncertainties and hits ``(rows,)``; return both by rising uncertainty, wrong before right.

    That order makes whatever is drawn from the rows the same however they were given.

    Raises:
        InputError: No rows, NaN or infinity, hits that are not true or false, or lengths that differ.
    """
    doubts = read_uncertainty(uncertainty, "uncertainty")
    hits = _numbers(correct, "correct")
    if hits.shape != doubts.shape:
        raise InputError(f"correct has shape {hits.shape}, the uncertainty has {len(doubts)} rows",
                         expected=f"shape ({len(doubts)},)")  # fmt: skip
    _refuse_rows(
        (hits != 0) & (hits != 1),
        "correct is neither true nor false",
        expected="True or 1 where the answer is right, False or 0 where it is wrong",
    )
    order = np.lexsort([hits, doubts])
    return doubts[order], hits[order] == 1


def read_uncertainty(values: ArrayLike, name: str) -> Floats:
    """Check uncertainties ``(rows,)``.

    Raises:
        InputError: No rows, another shape, NaN or infinity.
    """
    array = _numbers(values, name)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}", expected="one number per row: (rows,)",
                         fix="of probabilities, `uncertainties` makes one number per row")  # fmt: skip
    if not len(array):
        raise InputError(f"{name} has no rows", expected="at least one row to evaluate")
    _refuse_rows(~np.isfinite(array), f"{name} holds NaN or infinity")
    return array


def _area(ranks: Ranks, samples: Floats, rarer: int) -> Estimate:
    value = float(ranks(np.ones((1, len(ranks.order))))[0])
    found = percentile_interval(value, samples)
    if rarer > 1 and not found.zero_width:
        return found
    return Estimate(value, *wilson(value * rarer, rarer))
