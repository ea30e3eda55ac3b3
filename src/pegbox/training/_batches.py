"""Batches of rows of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset, Sampler

from pegbox.training._balance import Numbers, drawn

# Rows are sorted within blocks of this many batches: long enough for little padding, short enough that the
# batches of two epochs differ. The rule (blocks of at most 50 batches, at least four blocks) is that of
# transformers' LengthGroupedSampler.
_BLOCK = 50


class Indices(Dataset[int]):
    """Row numbers as a dataset, so that collating sees which rows are meant."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> int:
        return index


class Buckets(Sampler[list[int]]):
    """Shuffled batches of rows of similar length, the most expensive batch first.

    The order depends on seed and epoch only, so that a resumed run sees the same one. With several
    processes each batch of ``batch_size * processes`` rows is dealt out, so that all have work of similar
    length and the same number of batches.

    Args:
        lengths: Tokens of each row, ``(rows,)``.
        batch_size: Rows per batch and process.
        seed: Of the order.
        rank: This process.
        processes: Number of processes.
        groups: Class of each row ``(rows,)``, to be drawn equally often; None = each row once.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        groups: Numbers | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.size = batch_size * processes
        self.seed, self.rank, self.processes = seed, rank, processes
        self.groups = groups
        self.epoch = 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.size)
        return max(1, whole + (rest >= self.processes))

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._order():
            # With fewer rows than processes the others repeat one, or they would wait for ever.
            yield (batch[self.rank :: self.processes] if self.rank < len(batch) else batch[:1]).tolist()

    def _order(self) -> list[np.ndarray]:
        generator = np.random.default_rng((self.seed, self.epoch))
        rows = len(self.lengths) if self.groups is None else drawn(self.groups, generator)
        shuffled = generator.permutation(rows)
        block = self.size * max(1, min(_BLOCK, len(self) // 4))
        batches = []
        for start in range(0, len(shuffled), block):
            rows = shuffled[start : start + block]
            rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
            batches += [rows[at : at + self.size] for at in range(0, len(rows), self.size)]
        if len(batches) > len(self):  # a rest too small to give each process a row joins the batch before
            batches[-2:] = [np.concatenate(batches[-2:])]
        order = generator.permutation(len(batches)).tolist()
        largest = max(order, key=lambda at: len(batches[at]) * int(self.lengths[batches[at]].max()))
        order.remove(largest)
        return [batches[at] for at in [largest, *order]]


def descending(
    lengths: Sequence[int], batch_size: int, *, rank: int = 0, processes: int = 1
) -> Iterator[list[int]]:
    """Yield this process's batches of all rows, longest first; a process may get fewer than another."""
    rows = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")[rank::processes]
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size].tolist()
