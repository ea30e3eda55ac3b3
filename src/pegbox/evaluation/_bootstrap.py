from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pegbox.errors import check_whole
from pegbox.evaluation._estimate import CELLS, Floats
from pegbox.evaluation._inputs import read_count


def bootstrap(
    statistic: Callable[[Floats], Floats], rows: int, *, resamples: int = 1000, seed: int = 0
) -> Floats:
    """Replicates of a statistic over resamples of the rows, with replacement.

    A resample is given as weights: how often each row was drawn. So a statistic that is a weighted sum is
    one matrix product for many resamples at once.

    Args:
        statistic: Maps weights ``(chunk, rows)``, each row of them summing to ``rows``, to ``(chunk, ...)``.
        rows: Number of rows, at least 1.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        ``(resamples, ...)``.

    Raises:
        UsageError: ``rows`` or ``resamples`` below 1.
    """
    read_count(rows, "rows")
    read_count(resamples, "resamples")
    check_whole(seed, 0, "seed")
    generator = np.random.default_rng(seed)
    chunk = max(1, CELLS // rows)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([statistic(_draw(generator, size, rows)) for size in sizes])


def sign_flips(differences: Floats, *, resamples: int, seed: int) -> Floats:
    """Sums of ``differences`` ``(rows,)`` under random signs, ``(resamples,)``."""
    generator = np.random.default_rng(seed)
    rows = len(differences)
    chunk = max(1, CELLS // rows)
    total = differences.sum()
    parts = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        packed = generator.integers(256, size=(size, -(-rows // 8)), dtype=np.uint8)
        kept: NDArray[np.uint8] = np.unpackbits(packed, axis=1, count=rows)
        parts.append(2 * (kept @ differences) - total)
    return np.concatenate(parts)


def _draw(generator: np.random.Generator, size: int, rows: int) -> Floats:
    drawn = generator.integers(rows, size=(size, rows))
    drawn += np.arange(size)[:, None] * rows
    return np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)
