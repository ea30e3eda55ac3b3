from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pegbox.comparison._spread import FALLS, mean_losses, resampled, spread
from pegbox.evaluation import Estimate, percentile_interval

Floats = NDArray[np.float64]
# Rates that are tried; most published ones lie between 0.07 and 1 (Hestness et al., Viering and Loog).
RATES = np.geomspace(0.05, 2.0, 60)


@dataclass(frozen=True)
class PowerLaw:
    """A loss that falls with the number of labels n as limit + scale * n ** -rate.

    Intervals hold what the fit leaves open (its resamples) and the luck of drawing one set of n rows, whose
    standard deviation is taken as spread / n ** `FALLS`.

    Source: Hestness et al., Deep learning scaling is predictable, empirically, 2017; Viering and Loog, The
    shape of learning curves: a review, 2022.

    Args:
        limit: What more labels never take away, at least 0.
        scale: What labels take away, at least 0.
        rate: How fast.
        spread: See above.
        degrees: Degrees of freedom that it was estimated with.
        replicates: (limit, scale, rate) of each resample.
    """

    limit: float
    scale: float
    rate: float
    spread: float = 0.0
    degrees: int = 1
    replicates: tuple[tuple[float, float, float], ...] = field(default=(), repr=False)

    def at(self, labels: float) -> Estimate:
        """The loss of one draw of so many labels, with a 95 % interval."""
        value = float(self.limit + self.scale * labels**-self.rate)
        limit, scale, rate = self._replicates
        return percentile_interval(value, limit + scale * labels**-rate + self._luck(labels))

    def change(self, labels: float, more: float) -> Estimate:
        """By how much the loss changes from ``labels`` to ``more`` of them, with a 95 % interval.

        Of the luck of both draws, that of the smaller one counts, which is the larger.
        """
        value = float(self.scale * (more**-self.rate - labels**-self.rate))
        _, scale, rate = self._replicates
        return percentile_interval(value, scale * (more**-rate - labels**-rate) + self._luck(labels))

    @property
    def _replicates(self) -> Floats:
        """(3, resamples)."""
        return np.array(self.replicates, dtype=np.float64).reshape(-1, 3).T

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
            "limit": self.limit,
            "scale": self.scale,
            "rate": self.rate,
            "spread": self.spread,
            "degrees": self.degrees,
            "replicates": [list(part) for part in self.replicates],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PowerLaw:
        """Read what `to_json` wrote."""
        replicates = tuple((part[0], part[1], part[2]) for part in values["replicates"])
        numbers = {name: values[name] for name in ("limit", "scale", "rate", "spread", "degrees")}
        return cls(**numbers, replicates=replicates)


def power_law(sizes: Sequence[int], table: Floats, rows: int, *, resamples: int, seed: int) -> PowerLaw:
    """Fit a power law to losses of nested subsets, with resamples of the repeats and of the rows.

    Args:
        sizes: Rows learnt from in each subset, rising.
        table: Losses ``(repeats, sizes, tested rows)``; NaN for rows that were not held out in a repeat.
        rows: Rows from which the subsets were drawn.
        resamples: Number of resamples.
        seed: Their seed.
    """
    samples = resampled(table, resamples=resamples, seed=seed)
    # Sizes count by how surely their mean is known; a mean that never varies is known to a row's share.
    weights = 1 / (samples.var(axis=0) + 1 / table.shape[2] ** 2)
    fitted = fit_power_laws(sizes, np.vstack([mean_losses(table), samples]), weights)
    rounded = [tuple(float(f"{number:.6g}") for number in line) for line in fitted.tolist()]
    limit, scale, rate = rounded[0]
    luck = spread(sizes, table, rows)
    return PowerLaw(limit, scale, rate, luck, len(table) - 1, tuple(rounded[1:]))  # type: ignore[arg-type]


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
