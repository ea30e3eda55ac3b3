from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Gradients of all places in one, (batch, seeds, numbers)."""
    return torch.cat([part.flatten(2) for part in parts], dim=2)


def row_products(parts: Sequence[Tensor]) -> Tensor:
    """Inner products of each row's gradients over all places, (batch, seeds, seeds) float64."""
    return torch.stack([(flat := part.flatten(2).double()) @ flat.mT for part in parts]).sum(0)


@dataclass(frozen=True, eq=False)
class DiagonalBasis:
    """Every number by itself.

    Args:
        values: Curvature of each number (numbers,).
    """

    values: Tensor

    def project(self, parts: Sequence[Tensor]) -> Tensor:
        """The gradients themselves."""
        return side_by_side(parts)

    def products(self, parts: Sequence[Tensor]) -> Tensor:
        """See :class:`Basis`."""
        return row_products(parts)

    def precision(self, wanted: float) -> float:
        """See :class:`Basis`."""
        return wanted

    def stretch(self, noise: Sequence[Tensor], factors: Tensor) -> list[Tensor]:
        """See :class:`Basis`."""
        sizes = [part[0].numel() for part in noise]
        return [
            part * (1.0 + own.view(part.shape[1:]).to(part))
            for part, own in zip(noise, factors.split(sizes), strict=True)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`Basis`."""
        return {"values": self.values}

    def to(self, device: torch.device) -> DiagonalBasis:
        """The same on a device."""
        return DiagonalBasis(self.values.to(device))


class Diagonal:
    """The diagonal of the curvature alone: the baseline, which takes all numbers for independent."""

    passes = 1

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(self, parts: Sequence[Tensor]) -> None:
        """See :class:`Gatherer`."""
        squares = side_by_side(parts).double().square().sum((0, 1))
        self._sum = squares if self._sum is None else self._sum + squares

    def next_pass(self) -> None:
        """See :class:`Gatherer`."""

    def basis(self) -> DiagonalBasis:
        """See :class:`Gatherer`."""
        assert self._sum is not None
        return DiagonalBasis(self._sum)

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`Gatherer`."""
        return {} if self._sum is None else {"sum": self._sum}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See :class:`Gatherer`."""
        self._sum = tensors.get("sum")

    def join(self, others: list[dict[str, Tensor]]) -> None:
        """See :class:`Gatherer`."""
        for other in others:
            if "sum" in other:
                self._sum = other["sum"] if self._sum is None else self._sum + other["sum"]
