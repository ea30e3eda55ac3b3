"""The whole curvature over all places, in function space or by a sketch of the gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pegbox.errors import CapabilityError
from pegbox.uncertainty._diag import row_products, side_by_side

SKETCH = 4096
NUMBERS = 1 << 27
_COLUMNS = 1 << 16


@dataclass(frozen=True, eq=False)
class Sketch:
    """Gradients (.., numbers) folded to a fixed length, with inner products kept on average.

    Number p is added to place (p + shift of its chunk) mod length, with a random sign: a count sketch
    (Charikar et al. 2002) whose hash lets no two numbers of one chunk fall together. The error of an inner
    product is about 1/sqrt(length) of the lengths' product.

    Args:
        numbers: Length of a gradient.
        length: Length to fold it to.
        seed: Seed of signs and shifts.
    """

    numbers: int
    length: int
    seed: int = 0

    def __post_init__(self) -> None:
        # The raw bits of this generator are the same in every version of NumPy and on every platform.
        bits = np.random.PCG64(self.seed)
        raw = bits.random_raw(math.ceil(self.numbers / 64)).astype("<u8")
        signs = np.unpackbits(raw.view(np.uint8))[: self.numbers].astype(np.int8) * 2 - 1
        shifts = bits.random_raw(math.ceil(self.numbers / self.length)) % self.length
        object.__setattr__(self, "_signs", torch.from_numpy(signs))
        object.__setattr__(self, "_shifts", shifts.tolist())

    def fold(self, flat: Tensor) -> Tensor:
        """(batch, seeds, numbers) to (batch, seeds, length)."""
        signs: Tensor = self._signs  # type: ignore[attr-defined]
        shifts: list[int] = self._shifts  # type: ignore[attr-defined]
        signed = flat * signs.to(flat)
        found = flat.new_zeros(*flat.shape[:-1], self.length)
        for chunk, shift in zip(signed.split(self.length, dim=-1), shifts, strict=True):
            first = min(chunk.shape[-1], self.length - shift)
            found[..., shift : shift + first] += chunk[..., :first]
            found[..., : chunk.shape[-1] - first] += chunk[..., first:]
        return found


@dataclass(frozen=True, eq=False)
class FullBasis:
    """Eigenvectors of the whole curvature.

    Args:
        values: Eigenvalues (directions,).
        vectors: (directions, numbers), or (directions, sketch length).
        sketch: How gradients are folded first; ``None`` where they are not.
    """

    values: Tensor
    vectors: Tensor
    sketch: Sketch | None = None

    def project(self, parts: Sequence[Tensor]) -> Tensor:
        """See :class:`Basis`."""
        if self.sketch is not None:
            return self.sketch.fold(side_by_side(parts)) @ self.vectors.T.to(parts[0])
        # Place by place: a copy of all gradients side by side would double the memory.
        columns = self.vectors.split([part[0, 0].numel() for part in parts], dim=1)
        found = [part.flatten(2) @ own.T.to(part) for part, own in zip(parts, columns, strict=True)]
        return torch.stack(found).sum(0)

    def products(self, parts: Sequence[Tensor]) -> Tensor:
        """See :class:`Basis`; of a sketch, of the folded gradients, so that no variance is negative."""
        return row_products(
            parts if self.sketch is None else [self.sketch.fold(side_by_side(parts))[..., None]]
        )

    def precision(self, wanted: float) -> float:
        """See :class:`Basis`.

        Directions that no row has reached share the sketch with those that rows have, and would look more
        certain than they are. A sketched ridge with the precision l acts as one with m where
        l = m (1 - d(l) / length) and d(l) = sum of e / (e + l) (LeJeune et al. 2022, of random sketches).
        """
        if self.sketch is None:
            return wanted
        values = self.values.double()

        def excess(logarithm: float) -> float:
            own = math.exp(logarithm)
            used = float((values / (values + own)).sum()) / self.sketch.length  # type: ignore[union-attr]
            return own - wanted * (1.0 - used)

        low, high = math.log(wanted) - 40.0, math.log(wanted)
        for _ in range(80):
            middle = (low + high) / 2.0
            low, high = (middle, high) if excess(middle) < 0 else (low, middle)
        return math.exp((low + high) / 2.0)

    def stretch(self, noise: Sequence[Tensor], factors: Tensor) -> list[Tensor]:
        """See :class:`Basis`."""
        if self.sketch is not None:
            raise CapabilityError(
                "weights cannot be drawn: this posterior is one of answers, from sketched gradients",
                where="curvature exact, with more gradients than fit into memory",
                expected="curvature kron, ekfac or diag, or fewer rows",
                fix="fit it again with curvature kron",
            )
        flat = torch.cat([part.flatten(1) for part in noise], dim=1)
        vectors = self.vectors.to(flat)
        flat = flat + ((flat @ vectors.T) * factors.to(flat)) @ vectors
        sizes = [part[0].numel() for part in noise]
        return [own.view(part.shape) for own, part in zip(flat.split(sizes, dim=1), noise, strict=True)]

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`Basis`."""
        named = {"values": self.values, "vectors": self.vectors}
        if self.sketch is not None:
            named["sketch"] = torch.tensor([self.sketch.numbers, self.sketch.length, self.sketch.seed])
        return named

    def to(self, device: torch.device) -> FullBasis:
        """The same on a device."""
        return FullBasis(self.values.to(device), self.vectors.to(device), self.sketch)

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> FullBasis:
        """Rebuild what :meth:`tensors` gave; a KeyError names what is missing."""
        sketch = Sketch(*tensors["sketch"].tolist()) if "sketch" in tensors else None
        return cls(tensors["values"], tensors["vectors"], sketch)


class Full:
    """The whole generalised Gauss-Newton matrix, with all products between places.

    While the gradients of all rows fit into memory they are kept, and their Gram matrix is decomposed: exact.
    Beyond, they are folded to ``length`` numbers first, and memory no longer grows with the rows.

    Args:
        numbers: Uncertain numbers.
        expected: Gradients to come: rows times contrasts.
        length: Longest side of a matrix to decompose, and length of a sketch.
        memory: Most numbers to keep of gradients that are not folded.
        seed: Seed of the sketch.
    """

    passes = 1

    def __init__(
        self, numbers: int, expected: int, *, length: int = SKETCH, memory: int = NUMBERS, seed: int = 0
    ) -> None:
        fits = numbers <= length or (expected <= length and expected * numbers <= memory)
        self.sketch = None if fits else Sketch(numbers, length, seed)
        self._width = numbers if fits else length
        self._square = expected > self._width
        self._rows: list[Tensor] = []
        self._gram: Tensor | None = None

    def add(self, parts: Sequence[Tensor]) -> None:
        """See :class:`Gatherer`."""
        flat = side_by_side(parts)
        rows = (flat if self.sketch is None else self.sketch.fold(flat)).flatten(0, 1)
        if self._square:
            own = rows.double()
            moment = own.T @ own
            self._gram = moment if self._gram is None else self._gram.add_(moment)
        else:
            self._rows.append(rows)

    def next_pass(self) -> None:
        """See :class:`Gatherer`."""

    def basis(self) -> FullBasis:
        """See :class:`Gatherer`."""
        if self._square:
            assert self._gram is not None
            values, vectors = torch.linalg.eigh(self._gram)
            return FullBasis(values.flip(0).clamp(min=0.0), vectors.T.flip(0), self.sketch)
        rows = self._rows[0] if len(self._rows) == 1 else torch.cat(self._rows)
        self._rows = []
        gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
        for block in rows.split(_COLUMNS, dim=1):
            gram += block.double() @ block.double().T
        values, vectors = torch.linalg.eigh(gram)
        # What is below is rounding: of the rows, whose entries err by eps, and of the decomposition.
        relative = max(torch.finfo(rows.dtype).eps ** 2, torch.finfo(torch.float64).eps)
        floor = values[-1].clamp(min=0.0) * len(rows) * relative
        kept = values > floor
        values, turn = values[kept].flip(0), vectors[:, kept].flip(1)
        turn = (turn / values.sqrt()).T
        directions = len(turn)
        for block in rows.split(_COLUMNS, dim=1):  # in place: the gradients become the eigenvectors
            block[:directions] = (turn @ block.double()).to(block)
        return FullBasis(values, rows[:directions], self.sketch)

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`Gatherer`."""
        if self._square:
            return {} if self._gram is None else {"gram": self._gram}
        return {"rows": torch.cat(self._rows)} if self._rows else {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See :class:`Gatherer`."""
        self._gram = tensors.get("gram")
        self._rows = [tensors["rows"]] if "rows" in tensors else []

    def join(self, others: list[dict[str, Tensor]]) -> None:
        """See :class:`Gatherer`."""
        for other in others:
            if "gram" in other:
                self._gram = other["gram"] if self._gram is None else self._gram + other["gram"]
            if "rows" in other:
                self._rows.append(other["rows"])
