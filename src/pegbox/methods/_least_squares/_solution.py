from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pegbox.methods._least_squares._check import Loss

System = Literal["primal", "dual", "svd", "newton", "stream"]


@dataclass(frozen=True)
class Solution:
    """A correction ``features @ weight + intercept`` to the label logits of a frozen base.

    Attributes:
        weight: (width, labels); every row sums to zero over the labels.
        intercept: (labels,); sums to zero, and is zero when none was asked for.
        penalty: Weight of half the squared norm of ``weight`` in the objective, which *sums* over rows.
        smoothing: Smoothing of the log targets; 0 for the log loss, which needs none.
        loss: The objective that was minimised.
        gradient_norm: Norm of the objective's gradient over a bound on it (see ``gradient_scale``).
        system: The equations that were solved.
        condition: Condition number of the normal matrix; exact for ``svd``, else a bound from its trace.
        rank: Numerical rank of the (centred) features for ``svd`` and ``newton``, else the largest possible.
        warning: Why the solution deserves distrust, or an empty text.
    """

    weight: Tensor
    intercept: Tensor
    penalty: float
    smoothing: float
    loss: Loss
    gradient_norm: float | None
    system: System
    condition: float | None
    rank: int
    warning: str = ""

    def logits(self, Z: Tensor, L: Tensor) -> Tensor:
        """Return the corrected logits ``L + ZW + b`` in float64, (rows, labels).

        Args:
            Z: (rows, width) features.
            L: (rows, labels) logits of the base.
        """
        return L.to(torch.float64) + Z.to(torch.float64) @ self.weight + self.intercept


def gradient_scale(features: Tensor, target: Tensor | float, intercept: bool) -> float:
    """Return ||[1 Z]||_F ||target||_F, a Cauchy-Schwarz bound on the gradient at errors ``target``."""
    squares = float(features.square().sum()) + (len(features) if intercept else 0)
    errors = float(target.square().sum()) if isinstance(target, Tensor) else target**2
    return max((squares * errors) ** 0.5, torch.finfo(torch.float64).tiny)
