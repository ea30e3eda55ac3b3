from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pegbox.methods._least_squares._targets import helmert

_NODES = 100
_BLOCK = 8_000_000


def mean_softmax(mean: Tensor, covariance: Tensor, *, samples: int = 1024, seed: int = 0) -> Tensor:
    """Return the softmax averaged over normal logits, (rows, labels) in float64.

    Two labels: Gauss-Hermite quadrature of the margin. More: antithetic Monte Carlo of the softmax, with the
    same draws for every row, so that a row's answer does not depend on the rows beside it.

    Args:
        mean: (rows, labels); minus infinity for a label that a row lacks.
        covariance: (rows, labels, labels) of the logits less their mean: its rows sum to zero.
        samples: Draws, rounded up to an even number.
        seed: Seed of the draws.
    """
    return softmax_moments(mean, covariance, samples=samples, seed=seed)[0]


def softmax_moments(
    mean: Tensor, covariance: Tensor, *, samples: int = 1024, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the softmax of normal logits, both (rows, labels) in float64.

    Args as for :func:`mean_softmax`.
    """
    mean, covariance = mean.double(), covariance.double()
    there = torch.isfinite(mean)
    if not there.all():
        return _by_number(mean, covariance, there, samples, seed)
    labels = mean.shape[1]
    if labels < 2 or not len(mean):
        return torch.ones_like(mean), torch.zeros_like(mean)
    if labels == 2:
        variance = covariance[:, 0, 0] + covariance[:, 1, 1] - 2.0 * covariance[:, 0, 1]
        return _binary(mean[:, 1] - mean[:, 0], variance)
    values, vectors = torch.linalg.eigh(covariance)
    roots = (vectors * values.clamp(min=0.0).sqrt()[:, None, :]) @ vectors.mT
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn((samples + 1) // 2, labels - 1, generator=generator, dtype=torch.float64)
    draws = torch.cat([half, -half]).to(roots) @ helmert(labels, mean.device).T
    step = max(1, _BLOCK // (len(draws) * labels))
    parts = []
    for start in range(0, len(mean), step):
        found = (mean[start : start + step, None] + draws @ roots[start : start + step]).softmax(dim=2)
        parts.append((found.mean(dim=1), found.std(dim=1, correction=0)))
    first, second = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(second)


def _by_number(
    mean: Tensor, covariance: Tensor, there: Tensor, samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Rows of so many labels by themselves, so that a row's answer does not depend on the widest row."""
    found, spread = torch.zeros_like(mean), torch.zeros_like(mean)
    counts = there.sum(1)
    for count in sorted(set(counts.tolist()) - {0}):
        rows = (counts == count).nonzero().flatten()
        places = there[rows].nonzero()[:, 1].view(len(rows), count)
        own = covariance[rows[:, None, None], places[:, :, None], places[:, None, :]]
        parts = softmax_moments(mean[rows[:, None], places], own, samples=samples, seed=seed)
        found[rows[:, None], places], spread[rows[:, None], places] = parts
    return found, spread


def _binary(margin: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    nodes, weights = (
        torch.from_numpy(part).to(margin) for part in np.polynomial.hermite_e.hermegauss(_NODES)
    )
    weights = weights / weights.sum()
    values = torch.sigmoid(margin[:, None] + variance.clamp(min=0.0).sqrt()[:, None] * nodes)
    second = values @ weights
    spread = ((values - second[:, None]).square() @ weights).sqrt()
    return torch.stack([1.0 - second, second], dim=1), torch.stack([spread, spread], dim=1)
