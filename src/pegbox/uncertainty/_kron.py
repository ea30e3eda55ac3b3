"""Kronecker factors per place, of the rows' own gradients, and their eigenvalues made exact (EKFAC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pegbox.uncertainty._diag import row_products
from pegbox.uncertainty._svd import RunningSecondMoment

DENSE = 256
RANK = 64


@dataclass(frozen=True, eq=False)
class KroneckerBasis:
    """Eigenvectors left (x) right of each place.

    Args:
        values: Eigenvalues, place by place, left by left, right by right.
        left: For each place (outputs, kept).
        right: For each place (inputs, kept).
    """

    values: Tensor
    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]

    def project(self, parts: Sequence[Tensor]) -> Tensor:
        """See :class:`Basis`."""
        found = [
            (left.T.to(part) @ part @ right.to(part)).flatten(2)
            for part, left, right in zip(parts, self.left, self.right, strict=True)
        ]
        return torch.cat(found, dim=2)

    def products(self, parts: Sequence[Tensor]) -> Tensor:
        """See :class:`Basis`."""
        return row_products(parts)

    def precision(self, wanted: float) -> float:
        """See :class:`Basis`."""
        return wanted

    def stretch(self, noise: Sequence[Tensor], factors: Tensor) -> list[Tensor]:
        """See :class:`Basis`."""
        found, at = [], 0
        for part, left, right in zip(noise, self.left, self.right, strict=True):
            shape = (left.shape[1], right.shape[1])
            own = factors[at : at + shape[0] * shape[1]].view(shape).to(part)
            at += shape[0] * shape[1]
            left, right = left.to(part), right.to(part)
            found.append(part + left @ (own * (left.T @ part @ right)) @ right.T)
        return found

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`Basis`."""
        named = {"values": self.values}
        for place, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            named |= {f"left.{place}": left.float(), f"right.{place}": right.float()}
        return named

    def to(self, device: torch.device) -> KroneckerBasis:
        """The same on a device."""
        left, right = (tuple(one.to(device) for one in side) for side in (self.left, self.right))
        return KroneckerBasis(self.values.to(device), left, right)

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], places: int) -> KroneckerBasis:
        """Rebuild what :meth:`tensors` gave; a KeyError names what is missing."""
        left = tuple(tensors[f"left.{place}"].double() for place in range(places))
        right = tuple(tensors[f"right.{place}"].double() for place in range(places))
        return cls(tensors["values"], left, right)


class Kronecker:
    """Curvature of each place as left (x) right / trace, places independent of one another.

    The factors are the second moments of the rows' own gradient matrices G (outputs, inputs): the sums of
    G G' and of G' G. For one token per row that is K-FAC (Martens & Grosse 2015) weighted by the other side's
    size; for many tokens nothing needs to be said of padding or of tokens that share weights, since a row's
    gradient is their sum already (its curvature is what "reduce" approximates, Eschenhagen et al. 2023).

    Args:
        exact_values: Whether a second pass replaces the eigenvalues by the exact second moments along the
            eigenvectors (George et al. 2018).
        rank: Directions to keep of a side wider than ``DENSE``.
    """

    def __init__(self, *, exact_values: bool = False, rank: int | None = RANK) -> None:
        self.passes = 2 if exact_values else 1
        self._rank = rank
        self._sides: list[tuple[RunningSecondMoment, RunningSecondMoment]] = []
        self._basis: KroneckerBasis | None = None
        self._squares: Tensor | None = None

    def _side(self, width: int) -> RunningSecondMoment:
        return RunningSecondMoment(width, None if width <= DENSE else self._rank)

    def _prepare(self, shapes: Sequence[tuple[int, int]]) -> None:
        if not self._sides:
            self._sides = [(self._side(outputs), self._side(inputs)) for outputs, inputs in shapes]

    def add(self, parts: Sequence[Tensor]) -> None:
        """See :class:`Gatherer`."""
        if self._basis is not None:
            squares = self._basis.project(parts).double().square().sum((0, 1))
            self._squares = squares if self._squares is None else self._squares + squares
            return
        self._prepare([(part.shape[2], part.shape[3]) for part in parts])
        for part, (left, right) in zip(parts, self._sides, strict=True):
            left.add(part.transpose(2, 3).flatten(0, 2))
            right.add(part.flatten(0, 2))

    def next_pass(self) -> None:
        """See :class:`Gatherer`."""
        self._basis = self._eigen()

    def _eigen(self) -> KroneckerBasis:
        values, lefts, rights = [], [], []
        for left, right in self._sides:
            (left_values, left_vectors), (right_values, right_vectors) = left.eigen(), right.eigen()
            trace = max(left.trace, torch.finfo(torch.float64).tiny)
            values.append((left_values[:, None] * right_values[None] / trace).flatten())
            lefts.append(left_vectors)
            rights.append(right_vectors)
        return KroneckerBasis(torch.cat(values), tuple(lefts), tuple(rights))

    def basis(self) -> KroneckerBasis:
        """See :class:`Gatherer`."""
        found = self._basis if self._basis is not None else self._eigen()
        if self._squares is None:
            return found
        return KroneckerBasis(self._squares, found.left, found.right)

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`Gatherer`."""
        named: dict[str, Tensor] = {}
        for place, sides in enumerate(self._sides):
            for name, side in zip(("left", "right"), sides, strict=True):
                named |= {f"{name}.{place}.{key}": value for key, value in side.tensors().items()}
        if self._squares is not None:
            named["squares"] = self._squares
        return named

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See :class:`Gatherer`."""
        self._sides = []
        self._squares = tensors.get("squares")
        self._take(tensors, RunningSecondMoment.restore)

    def join(self, others: list[dict[str, Tensor]]) -> None:
        """See :class:`Gatherer`."""
        for other in others:
            if "squares" in other:
                more = other["squares"]
                self._squares = more if self._squares is None else self._squares + more
            elif self._basis is None:
                self._take(other, lambda side, found: side.join([found]))

    def _take(self, tensors: dict[str, Tensor], how: object) -> None:
        count = sum(name.startswith("left.") and name.endswith(".kept") for name in tensors)
        widths = [[tensors[f"{side}.{p}.kept"].shape[1] for side in ("left", "right")] for p in range(count)]
        self._prepare([(left, right) for left, right in widths])
        for place, sides in enumerate(self._sides):
            for name, side in zip(("left", "right"), sides, strict=True):
                own = {key: tensors[f"{name}.{place}.{key}"] for key in ("kept", "trace")}
                how(side, own)  # type: ignore[operator]
