"""The grades of curvature behind one interface: what gathers gradients, and the eigenbasis of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

Grade = Literal["exact", "kron", "ekfac", "diag"]
GRADES = ("exact", "kron", "ekfac", "diag")


class Basis(Protocol):
    """Eigenvectors of the curvature with their values; all other directions keep the prior."""

    @property
    def values(self) -> Tensor:
        """Eigenvalues (directions,) float64; those that are not listed are zero."""

    def project(self, parts: Sequence[Tensor]) -> Tensor:
        """Gradients (batch, seeds, outputs, inputs) per place in the basis, (batch, seeds, directions)."""

    def products(self, parts: Sequence[Tensor]) -> Tensor:
        """Inner products of each row's gradients, (batch, seeds, seeds)."""

    def precision(self, wanted: float) -> float:
        """The precision to compute with, for a posterior whose prior has the wanted one."""

    def stretch(self, noise: Sequence[Tensor], factors: Tensor) -> list[Tensor]:
        """Noise (draws, outputs, inputs) per place, its coordinates in the basis times 1 + ``factors``.

        Raises:
            CapabilityError: Where the basis is one of functions and not of weights.
        """

    def tensors(self) -> dict[str, Tensor]:
        """All there is to save."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""


class Gatherer(Protocol):
    """Takes in gradients batch by batch; its memory does not grow with the rows, or only up to a size."""

    @property
    def passes(self) -> int:
        """How often it wants to see all rows."""

    def add(self, parts: Sequence[Tensor]) -> None:
        """Take in gradients (batch, seeds, outputs, inputs), one tensor per place."""

    def next_pass(self) -> None:
        """All rows have been seen."""

    def basis(self) -> Basis:
        """The eigenbasis of what was gathered."""

    def tensors(self) -> dict[str, Tensor]:
        """What was gathered so far."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave."""

    def join(self, others: list[dict[str, Tensor]]) -> None:
        """Take in what further processes gathered, in their order."""
