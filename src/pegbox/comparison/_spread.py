from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Subsets below this share of the largest say little about draws as large as that.
SMALLEST = 0.2
# The luck of a draw falls by this power of n. Half, as of a mean, and one, as of the excess loss of a regular
# estimate (Wilks 1938), are its bounds. Between them it was chosen on five sources;
# docs/learning-curve.md tells how often the intervals hold elsewhere.
FALLS = 0.75


def mean_losses(table: Floats) -> Floats:
    """Mean over repeats and the rows held out in them, (sizes,).

    Args:
        table: Losses ``(repeats, sizes, tested rows)``; NaN for rows that were not held out in a repeat.
    """
    found: Floats = np.nanmean(table, axis=(0, 2))
    return found


def resampled(table: Floats, *, resamples: int, seed: int) -> Floats:
    """`mean_losses` of resampled repeats and rows, (resamples, sizes).

    Both are drawn with replacement, crosswise (Owen, The pigeonhole bootstrap, 2007).
    """
    repeats, _, rows = table.shape
    there = (~np.isnan(table[:, 0])).astype(np.float64)
    filled = np.nan_to_num(table)
    generator = np.random.default_rng(seed)
    own, weights = (
        generator.multinomial(count, [1 / count] * count, size=resamples).astype(np.float64)
        for count in (repeats, rows)
    )
    total: Floats = sum(own[:, at, None] * (weights @ filled[at].T) for at in range(repeats))
    count = (own * (weights @ there.T)).sum(axis=1, keepdims=True)
    # Few repeats of few rows may be drawn so that none of these rows was held out in any of those repeats.
    known = count[:, 0] > 0
    found: Floats = total[known] / count[known]
    return found


def spread(sizes: Sequence[int], table: Floats, rows: int) -> float:
    """Standard deviation of the loss between draws of n rows, times n ** `FALLS`.

    From the changes of nested subsets to twice their size: their variance between repeats, less what the
    tested rows account for (analysis of variance), over 1 - n / rows, since subsets of the same rows overlap.
    The mean over sizes counts, or its standard error where that is more.

    Args:
        sizes: Rows learnt from in each subset, rising.
        table: As for `mean_losses`.
        rows: Rows from which the subsets were drawn.
    """
    found = []
    for place, size in enumerate(sizes):
        twice = [at for at, larger in enumerate(sizes) if 1.8 <= larger / size <= 2.2]
        if twice and max(sizes) * SMALLEST <= size < rows:
            changes = table[:, place] - table[:, twice[0]]
            found.append(_between(changes) * size ** (2 * FALLS) / (1 - size / rows))
    if not found:
        return 0.0
    return float(max(np.mean(found), np.std(found) / len(found) ** 0.5, 0.0) ** 0.5)


def _between(changes: Floats) -> float:
    """Variance between repeats that the rows (repeats, rows) do not explain; noise may put it below 0."""
    repeats, rows = changes.shape
    means = np.nanmean(changes, axis=1)
    if np.isnan(changes).any():  # other rows in each repeat
        counts = (~np.isnan(changes)).sum(axis=1)
        within = np.nanvar(changes, axis=1) / np.maximum(counts - 1, 1)
        return float(means.var(ddof=1) - within.mean())
    rest = changes - means[:, None] - changes.mean(axis=0) + changes.mean()
    return float(means.var(ddof=1) - (rest**2).sum() / ((repeats - 1) * (rows - 1)) / rows)
