from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pegbox.errors import UsageError, is_number

LOW, HIGH = 1e-4, 1e6
_STEPS = 201
_ROUNDS = 60


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the log marginal likelihood of the labels is made of (Laplace; MacKay 1992), for every precision.

    Args:
        log_likelihood: Of the training rows' labels, summed.
        distance: Squared distance of the weights from the middle of the prior.
        values: Eigenvalues of the curvature (directions,).
    """

    log_likelihood: float
    distance: float
    values: Tensor

    def at(self, precision: float) -> float:
        """log p(labels | precision) in nats.

        That is log likelihood - 1/2 precision distance - 1/2 sum over e of log(1 + e / precision).

        Raises:
            UsageError: For a precision that is not above 0.
        """
        check_precision(precision)
        spread = float(torch.log1p(self.values.double() / precision).sum())
        return self.log_likelihood - 0.5 * precision * self.distance - 0.5 * spread

    def best(self) -> float:
        """The precision of most evidence, by a grid over ten decades and golden sections around its best."""
        grid = torch.logspace(math.log10(LOW), math.log10(HIGH), _STEPS, dtype=torch.float64).tolist()
        found = max(range(_STEPS), key=lambda step: self.at(grid[step]))
        low, high = (math.log(grid[max(0, min(_STEPS - 1, found + step))]) for step in (-1, 1))
        ratio = (math.sqrt(5.0) - 1.0) / 2.0
        for _ in range(_ROUNDS):
            left, right = high - ratio * (high - low), low + ratio * (high - low)
            if self.at(math.exp(left)) >= self.at(math.exp(right)):
                high = right
            else:
                low = left
        return math.exp((low + high) / 2.0)


def check_precision(precision: float) -> None:
    """Raise UsageError for a prior precision that is no number above 0."""
    if not (is_number(precision) and precision > 0):
        raise UsageError(
            f"{precision} is no precision of a prior",
            where="prior_precision",
            expected="a number above 0, or none to choose it",
            fix="leave it out, and it is chosen by held-out rows or by evidence",
        )
