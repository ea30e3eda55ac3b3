"""What is differentiated: contrasts for predictions, roots of the softmax's Fisher matrix for fits."""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor

from pegbox.methods import helmert


def contrasts(scores: Tensor) -> Tensor:
    """Orthonormal contrasts of each row's answers, (batch, answers, answers - 1).

    The softmax ignores a constant, so that only contrasts matter. A row with fewer answers has fewer; its
    other columns are zero.
    """
    there = torch.isfinite(scores)
    counts = there.sum(1)
    batch, answers = scores.shape
    found = scores.new_zeros(batch, answers, max(1, answers - 1))
    for count in sorted(set(counts.tolist())):
        if count < 2:
            continue
        own = helmert(count, scores.device).to(scores.dtype)
        rows = (counts == count).nonzero().flatten()
        places = there[rows].nonzero()[:, 1].view(len(rows), count)
        found[rows[:, None], places, : count - 1] = own
    return found


def exact_roots(scores: Tensor) -> Tensor:
    """Columns whose outer products sum to diag(p) - p p', (batch, answers, answers - 1).

    That is the expectation over labels that the model itself draws, without drawing one (Kunstner et al.
    2019 on why the labels of the rows would not do).
    """
    p = scores.double().softmax(1)
    fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    values, vectors = torch.linalg.eigh(fisher)
    found = vectors[:, :, 1:] * values[:, None, 1:].clamp(min=0.0).sqrt()
    if scores.shape[1] == 1:
        found = scores.double().new_zeros(len(scores), 1, 1)
    return found.to(scores.dtype)


class MixedRoots:
    """One column per row, a sum of the exact ones with random signs, (batch, answers, 1).

    Its outer product is unbiased for diag(p) - p p', at one backward pass instead of K - 1. The signs depend
    on the seeds and on how many batches came before, so that a run may go on anywhere.

    Args:
        seeds: Seed of the run, number of the pass over the rows, and number of the process.
        before: Batches that came before the first.
    """

    def __init__(self, seeds: tuple[int, int, int], before: int = 0) -> None:
        self._seeds, self._batch = seeds, before

    def __call__(self, scores: Tensor) -> Tensor:
        """See :func:`exact_roots`."""
        name = sha256(repr((*self._seeds, self._batch)).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(name[:8], "big") >> 1)
        self._batch += 1
        roots = exact_roots(scores)
        signs = torch.randint(0, 2, (len(roots), 1, roots.shape[2]), generator=generator) * 2 - 1
        return (roots * signs.to(roots)).sum(2, keepdim=True)
