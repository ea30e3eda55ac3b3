from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pegbox.errors import UsageError
from pegbox.evaluation._estimate import CELLS, Floats, wilson
from pegbox.evaluation._inputs import read_count, read_gold, read_probabilities

Scheme = Literal["mass", "width"]
_STEPS = 40


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram.

    Args:
        confidence: Mean probability of the predicted label.
        accuracy: Share of rows whose predicted label is right.
        count: Rows in the bin, at least 1.
        low: Lower end of the 95 % Wilson interval of ``accuracy``.
        high: Upper end.
    """

    confidence: float
    accuracy: float
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """Accuracy against confidence.

    Args:
        scheme: How the bins were made.
        bins: In order of rising confidence; empty ones are left out.
        histogram: Rows per fortieth of the confidence scale from 0 to 1, right-closed, whatever the scheme.
    """

    scheme: Scheme
    bins: tuple[Bin, ...]
    histogram: tuple[int, ...]

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence| over rows (Guo et al. 2017, eq. 5)."""
        rows = sum(part.count for part in self.bins)
        return sum(part.count * abs(part.accuracy - part.confidence) for part in self.bins) / rows


def calibration_error(
    probabilities: ArrayLike, gold: ArrayLike, *, bins: int = 15, scheme: Scheme = "mass"
) -> float:
    """Expected calibration error of the predicted label; see `reliability` for the bins.

    Args:
        probabilities: ``(rows, labels)``, rows summing to one.
        gold: Gold label indices ``(rows,)``.
        bins: Number of bins.
        scheme: ``mass`` for bins of equally many rows, ``width`` for equally wide bins.

    Raises:
        InputError: probabilities or gold that cannot be scored.
        UsageError: an unknown scheme or no bins.
    """
    return reliability(probabilities, gold, bins=bins, scheme=scheme).error


def reliability(
    probabilities: ArrayLike, gold: ArrayLike, *, bins: int = 15, scheme: Scheme = "mass"
) -> Reliability:
    """Group rows by the probability of their predicted label.

    ``width``: bin i holds confidences in (i / bins, (i + 1) / bins] (Guo et al., On calibration of modern
    neural networks, 2017). ``mass``: a row with r of N rows less confident lies in bin floor(bins r / N)
    (Nguyen and O'Connor 2015); equally confident rows share a bin, so the order of rows never matters.

    Args and raises as for `calibration_error`.
    """
    table = read_probabilities(probabilities)
    answers = read_gold(gold, *table.shape)
    confidence = table.max(axis=1)
    correct = (table.argmax(axis=1) == answers).astype(np.float64)
    places = place(confidence, read_count(bins, "bins"), scheme)
    return Reliability(
        scheme,
        tuple(_bin(confidence[places == one], correct[places == one]) for one in np.unique(places)),
        tuple(np.bincount(place(confidence, _STEPS, "width"), minlength=_STEPS).tolist()),
    )


def place(confidence: Floats, bins: int, scheme: Scheme) -> NDArray[np.int64]:
    """Bin numbers ``(rows,)`` of confidences ``(rows,)``."""
    if scheme not in get_args(Scheme):
        raise UsageError(f"unknown binning scheme '{scheme}'", expected="mass or width")
    if scheme == "width":
        return np.searchsorted(np.arange(bins + 1) / bins, confidence, side="left") - 1
    smaller = np.searchsorted(np.sort(confidence), confidence, side="left")
    return bins * smaller // len(confidence)


def calibrated_errors(confidence: Floats, scheme: Scheme, *, bins: int, resamples: int, seed: int) -> Floats:
    """Calibration errors ``(resamples,)`` that a perfectly calibrated model would show on these rows.

    Each row is right with the probability that it claims; what remains is noise. Source: consistency
    resampling, Bröcker and Smith, Increasing the reliability of reliability diagrams, 2007.
    """
    generator = np.random.default_rng(seed)
    rows = len(confidence)
    member = place(confidence, bins, scheme)[:, None] == np.arange(bins)
    columns = member.astype(np.float64)
    claimed = confidence @ columns
    chunk = max(1, CELLS // rows)
    parts = []
    for start in range(0, resamples, chunk):
        drawn = generator.random((min(chunk, resamples - start), rows)) < confidence
        parts.append(np.abs(drawn @ columns - claimed).sum(axis=1) / rows)
    return np.concatenate(parts)


def _bin(confidence: Floats, correct: Floats) -> Bin:
    low, high = wilson(float(correct.sum()), len(correct))
    return Bin(float(confidence.mean()), float(correct.mean()), len(correct), low, high)


class MassError:
    """Equal-mass calibration error of weighted rows, the bins drawn anew for every set of weights.

    Args:
        confidence: ``(rows,)``.
        correct: 0 or 1 ``(rows,)``.
        bins: Number of bins.
    """

    def __init__(self, confidence: Floats, correct: Floats, bins: int) -> None:
        self.order = np.argsort(confidence, kind="stable")
        ranked = confidence[self.order]
        self.gap = (correct - confidence)[self.order]
        self.first = np.flatnonzero(np.r_[True, ranked[1:] > ranked[:-1]])
        self.bins = bins

    def __call__(self, weights: Floats) -> Floats:
        """Errors ``(chunk,)`` for integer weights ``(chunk, rows)``."""
        ranked = weights[:, self.order]
        # Sums of whole numbers below 2**53 are exact, so bin edges never depend on rounding.
        below = _running(ranked)
        gaps = _running(ranked * self.gap)
        edges = np.arange(1, self.bins) * below[0, -1]
        sums = np.empty((len(weights), self.bins + 1))
        sums[:, 0], sums[:, -1] = 0.0, gaps[:, -1]
        for row, before in enumerate(below):
            starts = np.searchsorted(before[self.first] * self.bins, edges, side="left")
            cuts = np.r_[self.first, len(self.order)][starts]
            sums[row, 1:-1] = gaps[row, cuts]
        return np.abs(np.diff(sums, axis=1)).sum(axis=1) / below[0, -1]


def _running(values: Floats) -> Floats:
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
