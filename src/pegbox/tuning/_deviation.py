from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pegbox.models import output_scale, output_tail
from pegbox.tuning._answers import raw_logits

if TYPE_CHECKING:
    from pegbox.methods import Posterior
    from pegbox.tuning._tuned import Tuned

_NODES = 32
_DRAWS = 512
_BLOCK = 2_000_000


def deviations(tuned: Tuned, posterior: Posterior, hidden: Tensor, chosen: Tensor) -> Tensor:
    """Standard deviation of each row's chosen probability under the posterior of the correction, (rows,).

    Args:
        tuned: A closed-form fit.
        posterior: Its posterior.
        hidden: (rows, width) the base's hidden states.
        chosen: (rows,) indices of the labels in question.
    """
    return moments(tuned, posterior, hidden)[1].gather(1, chosen[:, None]).squeeze(1)


def moments(tuned: Tuned, posterior: Posterior, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each label's probability under the posterior, both (rows, labels).

    Logits are drawn before logit scale and soft-capping and pass through both: by Gauss-Hermite quadrature of
    the margin for two labels, by antithetic draws (the same for every row) for more.
    ``Posterior.probabilities`` cannot serve, which knows no soft-capping.

    Args:
        tuned: A closed-form fit.
        posterior: Its posterior.
        hidden: (rows, width) the base's hidden states.
    """
    assert tuned.module is not None
    scale = output_scale(tuned.module)
    raw = raw_logits(tuned.base, tuned.module, hidden, tuned.prompt).double().cpu()
    labels = raw.shape[1]
    _, covariance = posterior.predictive(hidden.double() * scale, torch.zeros_like(raw))
    values, vectors = torch.linalg.eigh(covariance / scale**2)
    roots = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
    nodes, weights = _nodes(labels)
    step = max(1, _BLOCK // nodes.numel())
    parts = []
    for start in range(0, len(raw), step):
        block = slice(start, start + step)
        logits = raw[block, None] + torch.einsum("sa,nka->nsk", nodes, roots[block])
        flat = logits.reshape(-1, labels).float().to(tuned.base.device)
        sample = output_tail(tuned.module, flat).double().cpu().softmax(1).view(logits.shape)
        mean = torch.einsum("nsk,s->nk", sample, weights)
        variance = torch.einsum("nsk,s->nk", (sample - mean[:, None]).square(), weights)
        parts.append((mean, variance.sqrt()))
    first, second = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(second)


def _nodes(labels: int) -> tuple[Tensor, Tensor]:
    """Standard normal points (points, labels) and their weights (points,).

    For two labels all variance lies in the margin, the direction (1, -1)/sqrt(2).
    """
    if labels == 2:
        places, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        margin = torch.tensor([0.5**0.5, -(0.5**0.5)], dtype=torch.float64)
        return torch.from_numpy(places)[:, None] * margin, torch.from_numpy(weights / weights.sum())
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(_DRAWS, labels, generator=generator, dtype=torch.float64)
    return torch.cat([half, -half]), torch.full((2 * _DRAWS,), 0.5 / _DRAWS, dtype=torch.float64)
