from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pegbox.errors import InputError, UsageError
from pegbox.methods._least_squares._check import as_features, as_gold, check_penalty
from pegbox.methods._least_squares._spectrum import Spectrum
from pegbox.methods._least_squares._targets import margin

Columns = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class VocabularySolution:
    """A correction to the logits of every token, in factors of the features' rank: W = basis @ coefficients.

    Attributes:
        basis: (width, rank) orthonormal columns.
        coefficients: (rank, vocabulary).
        intercept: (vocabulary,).
        penalty: Weight of the squared norm of W.
        smoothing: Smoothing of the log targets over the whole vocabulary.
    """

    basis: Tensor
    coefficients: Tensor
    intercept: Tensor
    penalty: float
    smoothing: float

    def weight(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return columns ``start`` to ``stop`` of W, (width, stop - start), in float64."""
        return self.basis @ self.coefficients[:, start:stop].to(self.basis.dtype)

    def correction(self, Z: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Return what to add to the logits of tokens ``start`` to ``stop``, (rows, stop - start)."""
        reduced = Z.to(self.basis.dtype) @ self.basis
        return reduced @ self.coefficients[:, start:stop].to(self.basis.dtype) + self.intercept[start:stop]


def whole_vocabulary(
    Z: Tensor,
    base_logits: Columns,
    gold: Tensor,
    vocabulary: int,
    *,
    penalty: float,
    smoothing: float,
    intercept: bool = True,
    spectrum: Spectrum | None = None,
    block: int = 4096,
    dtype: torch.dtype = torch.float64,
) -> VocabularySolution:
    """Fit the correction for all tokens with one factorisation, reading base logits in blocks of columns.

    The base logits are read twice, first for the mean of each row, so that no more than (rows, block) of them
    exist at a time; the result takes (rank, vocabulary).

    Args:
        Z: (rows, width) features.
        base_logits: Gives the base's logits of tokens start to stop, (rows, stop - start); called twice.
        gold: (rows,) token ids.
        vocabulary: Number of tokens V.
        penalty: At least 0.
        smoothing: In (0, 1 - 1/V).
        intercept: Whether to fit an unpenalised bias per token.
        spectrum: The features' decomposition where it is already known.
        block: Columns per block.
        dtype: In which to keep the coefficients; they are computed in float64.

    Raises:
        InputError: Features, token ids or a block of logits that cannot be used.
        UsageError: Penalty, smoothing or block out of range.
    """
    spectrum = spectrum or Spectrum.of(as_features(Z), intercept)
    if block < 1 or spectrum.intercept != intercept or spectrum.rows != len(Z):
        raise UsageError(f"block {block} below 1, or a spectrum of other rows or another intercept")
    gold = as_gold(gold, len(Z), vocabulary)
    gap, filtered = margin(smoothing, vocabulary), spectrum.filter(check_penalty(penalty))[:, None]
    spans = [(start, min(start + block, vocabulary)) for start in range(0, vocabulary, block)]
    total = torch.zeros(len(Z), 1, dtype=torch.float64, device=spectrum.left.device)
    for span in spans:
        total += _columns(base_logits, span, len(Z)).sum(dim=1, keepdim=True)
    coefficients = torch.empty(spectrum.rank, vocabulary, dtype=dtype, device=total.device)
    bias = torch.zeros(vocabulary, dtype=torch.float64, device=total.device)
    for start, stop in spans:
        hit = gold[:, None] == torch.arange(start, stop, device=gold.device)
        R = gap * (hit.to(torch.float64) - 1.0 / vocabulary)
        R, centre = spectrum.centre(R - (_columns(base_logits, (start, stop), len(Z)) - total / vocabulary))
        loads = filtered * (spectrum.left.T @ R)
        coefficients[:, start:stop] = loads.to(dtype)
        bias[start:stop] = centre - (spectrum.mean @ spectrum.right) @ loads
    return VocabularySolution(spectrum.right, coefficients, bias, penalty, smoothing)


def _columns(base_logits: Columns, span: tuple[int, int], rows: int) -> Tensor:
    values = base_logits(*span).to(torch.float64)
    if values.shape != (rows, span[1] - span[0]) or not bool(torch.isfinite(values).all()):
        raise InputError(
            "base logits of a block of tokens are not usable",
            where=f"tokens {span[0]} to {span[1]}, shape {tuple(values.shape)}",
            expected=f"({rows}, {span[1] - span[0]}) finite numbers",
        )
    return values
