from __future__ import annotations

import torch
from torch import Tensor


class RunningSecondMoment:
    """The sum of v v' over vectors that come in blocks, exact, or kept to its leading directions.

    Args:
        width: Length of the vectors.
        rank: Directions to keep; all when ``None``, or when it is no less than ``width``.

    Blocks are merged by the singular value decomposition of what is kept beside what comes (Brand 2006).
    What is left out is a lower bound: curvature that is dropped makes a posterior wider, never narrower.
    """

    def __init__(self, width: int, rank: int | None = None) -> None:
        self.width = width
        self.rank = None if rank is None or rank >= width else rank
        self.trace = 0.0
        self._whole: Tensor | None = None
        self._factor: Tensor | None = None

    def add(self, vectors: Tensor) -> None:
        """Take in vectors (count, width)."""
        own = vectors.double()
        self.trace += float(own.square().sum())
        if self.rank is None:
            moment = own.T @ own
            self._whole = moment if self._whole is None else self._whole + moment
            return
        stacked = own if self._factor is None else torch.cat([self._factor, own])
        self._factor = self._leading(stacked)

    def _leading(self, stacked: Tensor) -> Tensor:
        """Rows (rank, width) with the same leading part of the second moment."""
        assert self.rank is not None
        if len(stacked) <= self.rank:
            return stacked
        # The smaller of the two Gram matrices has the singular values.
        if len(stacked) < self.width:
            values, left = torch.linalg.eigh(stacked @ stacked.T)
            return left[:, -self.rank :].T @ stacked
        values, right = torch.linalg.eigh(stacked.T @ stacked)
        kept = values[-self.rank :].clamp(min=0.0).sqrt()
        return kept[:, None] * right[:, -self.rank :].T

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Values (kept,), falling, and vectors (width, kept), float64."""
        if self.rank is None:
            whole = self._whole if self._whole is not None else torch.zeros(self.width, self.width).double()
            values, vectors = torch.linalg.eigh(whole)
            return values.flip(0).clamp(min=0.0), vectors.flip(1)
        if self._factor is None:
            return torch.zeros(0).double(), torch.zeros(self.width, 0).double()
        _, values, right = torch.linalg.svd(self._factor, full_matrices=False)
        return values.square(), right.T

    def tensors(self) -> dict[str, Tensor]:
        """What has come so far, to go on from."""
        kept = self._whole if self.rank is None else self._factor
        kept = torch.zeros(0, self.width).double() if kept is None else kept
        return {"kept": kept, "trace": torch.tensor(self.trace, dtype=torch.float64)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave, in place of what has come here."""
        kept = tensors["kept"] if len(tensors["kept"]) else None
        self.trace = float(tensors["trace"])
        self._whole, self._factor = (kept, None) if self.rank is None else (None, kept)

    def join(self, others: list[dict[str, Tensor]]) -> None:
        """Take in what was gathered elsewhere."""
        for other in others:
            if not len(other["kept"]):
                continue
            self.trace += float(other["trace"])
            if self.rank is None:
                self._whole = other["kept"] if self._whole is None else self._whole + other["kept"]
            else:
                both = other["kept"] if self._factor is None else torch.cat([self._factor, other["kept"]])
                self._factor = self._leading(both)
