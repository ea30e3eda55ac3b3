from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pegbox.comparison._spread import FALLS, mean_losses, resampled, spread
from pegbox.evaluation import Estimate, percentile_interval

Floats = NDArray[np.float64]
Law = tuple[float, float, float]
# As many sizes as a law has numbers, and one more.
FEWEST = 4
# Rates that are tried; most published ones lie between 0.07 and 1 (Hestness et al., Viering and Loog).
RATES = np.geomspace(0.05, 2.0, 60)


@dataclass(frozen=True)
class PowerLaw:
    """A loss that falls with the number of labels n as limit + scale * n ** -rate, from some n on.

    From where on is not known: small sets may learn nothing yet. So the law is fitted from each of several
    sizes on, and what it says is the mean over these fits. Intervals hold what the fits leave open, by
    resamples from one of these sizes each, and the luck of drawing one set of n rows, whose standard
    deviation is taken as spread / n ** `FALLS`.

    Source: Hestness et al., Deep learning scaling is predictable, empirically, 2017, with its region of small
    data; Viering and Loog, The shape of learning curves: a review, 2022.

    Args:
        laws: (limit, scale, rate) from each size on, all at least 0.
        spread: See above.
        degrees: Degrees of freedom that it was estimated with.
        replicates: (limit, scale, rate) of each resample.
    """

    laws: tuple[Law, ...]
    spread: float = 0.0
    degrees: int = 1
    replicates: tuple[Law, ...] = field(default=(), repr=False)

    def at(self, labels: float) -> Estimate:
        """The loss of one draw of so many labels, with a 95 % interval."""
        value = float(_losses(self.laws, labels).mean())
        return percentile_interval(value, _losses(self.replicates, labels) + self._luck(labels))

    def change(self, labels: float, more: float) -> Estimate:
        """By how much the loss changes from ``labels`` to ``more`` of them, with a 95 % interval.

        Of the luck of both draws, that of the smaller one counts, which is the larger.
        """
        value, samples = (
            _losses(part, more) - _losses(part, labels) for part in (self.laws, self.replicates)
        )
        return percentile_interval(float(value.mean()), samples + self._luck(labels))

    def _luck(self, labels: float) -> Floats:
        """Luck of a draw of so many labels, (resamples,): Student's distribution, since spread is estimated.

        Always the same draws, so that the same curve says the same.
        """
        drawn = np.random.default_rng(0).standard_t(self.degrees, size=len(self.replicates))
        found: Floats = drawn * self.spread / labels**FALLS
        return found

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` gives back an equal object."""
        return {
            "laws": [list(law) for law in self.laws],
            "spread": self.spread,
            "degrees": self.degrees,
            "replicates": [list(law) for law in self.replicates],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PowerLaw:
        """Read what `to_json` wrote."""
        laws, replicates = (
            tuple((law[0], law[1], law[2]) for law in values[name]) for name in ("laws", "replicates")
        )
        return cls(laws, values["spread"], values["degrees"], replicates)


def power_law(sizes: Sequence[int], table: Floats, rows: int, *, resamples: int, seed: int) -> PowerLaw:
    """Fit a power law to losses of nested subsets, with resamples of the repeats and of the rows.

    Args:
        sizes: Rows learnt from in each subset, rising, at least `FEWEST` sizes.
        table: Losses ``(repeats, sizes, tested rows)``; NaN for rows that were not held out in a repeat.
        rows: Rows from which the subsets were drawn.
        resamples: Number of resamples.
        seed: Their seed.
    """
    samples = resampled(table, resamples=resamples, seed=seed)
    # Sizes count by how surely their mean is known; a mean that never varies is known to a row's share.
    weights = 1 / (samples.var(axis=0) + 1 / table.shape[2] ** 2)
    mean = mean_losses(table)[None]
    laws: list[Law] = []
    replicates: list[Law] = []
    starts = range(len(sizes) - FEWEST + 1)
    for start, part in zip(starts, np.array_split(samples, len(starts)), strict=True):
        for found, losses in ((laws, mean), (replicates, part)):
            found += _rounded(fit_power_laws(sizes[start:], losses[:, start:], weights[start:]))
    return PowerLaw(tuple(laws), spread(sizes, table, rows), len(table) - 1, tuple(replicates))


def _losses(laws: Sequence[Law], labels: float) -> Floats:
    """What laws say of a number of labels, (laws,)."""
    limit, scale, rate = np.array(laws, dtype=np.float64).reshape(-1, 3).T
    found: Floats = limit + scale * labels**-rate
    return found


def _rounded(laws: Floats) -> list[Law]:
    """Six digits are more than is known of any of them, and keep files small."""
    rows = [[float(f"{number:.6g}") for number in law] for law in laws.tolist()]
    return [(limit, scale, rate) for limit, scale, rate in rows]


def fit_power_laws(sizes: ArrayLike, losses: ArrayLike, weights: ArrayLike) -> Floats:
    """Weighted least squares of limit + scale * n ** -rate, both at least 0, for many curves at once.

    For each of `RATES` limit and scale are a linear problem with two unknowns; the rate of least squares is
    taken (variable projection, Golub and Pereyra 1973), so that no starting value matters.

    Args:
        sizes: Numbers of labels n ``(sizes,)``.
        losses: Curves ``(curves, sizes)``.
        weights: Weight of each size ``(sizes,)``.

    Returns:
        ``(curves, 3)``: limit, scale and rate.
    """
    table, weight = np.asarray(losses, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    best = np.full(len(table), np.inf)
    found = np.zeros((len(table), 3))
    for rate in RATES:
        column = np.asarray(sizes, dtype=np.float64) ** -rate
        limit, scale = _line(column, table, weight)
        squares = ((table - limit[:, None] - scale[:, None] * column) ** 2) @ weight
        better = squares < best * (1 - 1e-12)
        best[better] = squares[better]
        found[better] = np.column_stack([limit, scale, np.full(len(table), rate)])[better]
    return found


def _line(column: Floats, table: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Intercept and slope of least squares, (curves,) each, neither below 0."""
    total = weight.sum()
    mean, means = column @ weight / total, table @ weight / total
    spread = ((column - mean) ** 2) @ weight
    scale = np.maximum(((table - means[:, None]) * (column - mean)) @ weight / spread, 0.0)
    limit = means - scale * mean
    # Where the line would start below 0, it is the best one through 0; a loss is never below.
    steep = (table * column) @ weight / ((column**2) @ weight)
    return np.maximum(limit, 0.0), np.where(limit < 0, steep, scale)
