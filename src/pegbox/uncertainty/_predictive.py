from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pegbox.errors import UsageError, check_whole
from pegbox.methods import mean_softmax, softmax_moments

Integral = Literal["auto", "probit", "map"]
INTEGRALS = ("auto", "probit", "map")


@dataclass(frozen=True, eq=False)
class Predictive:
    """Normal answer logits of rows under a posterior, by the model linearised at its weights.

    Args:
        mean: (rows, answers) the tuned model's own logits; minus infinity for an answer that a row lacks.
        covariance: (rows, answers, answers) of the logits less their mean over answers, which the softmax
            ignores: rows and columns sum to zero.
    """

    mean: Tensor
    covariance: Tensor

    @property
    def deviations(self) -> Tensor:
        """Standard deviation of each logit less the mean of its row's, (rows, answers), in nats."""
        return self.covariance.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()

    def probabilities(self, how: Integral = "auto", *, samples: int = 1024, seed: int = 0) -> Tensor:
        """Probabilities of the answers averaged over the posterior, (rows, answers) float64.

        Args:
            how: ``auto``: Gauss-Hermite quadrature for two answers, antithetic Monte Carlo of the softmax for
                more. ``probit``: the mean-field closed form (MacKay 1992, Lu et al. 2020), which is quicker
                and errs. ``map``: without the posterior.
            samples: Draws of the Monte Carlo.
            seed: Their seed; the same draws serve every row.

        Raises:
            UsageError: For an unknown way.
        """
        if how == "map":
            return self.mean.double().softmax(1)
        if how == "probit":
            return probit(self.mean, self.covariance)
        if how != "auto":
            raise UsageError(
                f"there is no way '{how}' to average", where="how", expected=", ".join(INTEGRALS)
            )
        return mean_softmax(self.mean, self.covariance, samples=samples, seed=seed)

    def moments(self, *, samples: int = 1024, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each answer's probability, both (rows, answers) float64."""
        return softmax_moments(self.mean, self.covariance, samples=samples, seed=seed)

    def draws(self, count: int, *, seed: int = 0) -> Tensor:
        """Logits drawn from the posterior, (draws, rows, answers) float64."""
        check_whole(count, 1, "count")
        values, vectors = torch.linalg.eigh(self.covariance.double())
        roots = (vectors * values.clamp(min=0.0).sqrt()[:, None, :]) @ vectors.mT
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, *self.mean.shape, generator=generator, dtype=torch.float64)
        return self.mean.double() + torch.einsum("snk,nlk->snl", noise.to(roots), roots)


def probit(mean: Tensor, covariance: Tensor) -> Tensor:
    """The mean-field probit approximation, (rows, answers).

    Each pair of answers is a probit of its own margin: p_k is 1 / sum over l of
    exp(-(m_k - m_l) / sqrt(1 + pi/8 var(k - l))), made to sum to one.
    """
    mean, covariance = mean.double(), covariance.double()
    there = torch.isfinite(mean)
    own = covariance.diagonal(dim1=1, dim2=2)
    variance = (own[:, :, None] + own[:, None, :] - 2.0 * covariance).clamp(min=0.0)
    finite = mean.masked_fill(~there, 0.0)
    margin = (finite[:, :, None] - finite[:, None, :]) / (1.0 + math.pi / 8.0 * variance).sqrt()
    margin = margin.masked_fill(~there[:, None, :], torch.inf)  # an answer that is not there wins nothing
    found = (-torch.logsumexp(-margin, dim=2)).exp().masked_fill(~there, 0.0)
    return found / found.sum(1, keepdim=True)
