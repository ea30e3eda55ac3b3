from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pegbox.errors import InputError

LOW, HIGH = 1.0, 100.0
_ROUNDS = 80


@dataclass(frozen=True)
class Temperature:
    """One number that all logits are divided by (Guo et al. 2017).

    Args:
        value: The temperature; above 1 it makes answers less sure.
        loss: Log loss of the rows it was fitted on, in nats per row.
        before: Their log loss without it.
        rows: How many there were.
    """

    value: float
    loss: float
    before: float
    rows: int

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of the answers, (rows, answers) float64."""
        return (logits.double() / self.value).softmax(1)


def fit_temperature(logits: Tensor, gold: Tensor, *, low: float = LOW, high: float = HIGH) -> Temperature:
    """Find the temperature of least log loss on rows that the model was not tuned on.

    The log loss is convex in 1 / temperature, so that a golden section finds its one minimum.

    Args:
        logits: (rows, answers); minus infinity for an answer that a row lacks.
        gold: (rows,) indices of the right answers.
        low: Least temperature; at 1 a few rows that happen to be right cannot make a model surer.
        high: Greatest temperature.

    Raises:
        InputError: Without rows, or for logits that are not numbers.
    """
    if not len(logits) or len(logits) != len(gold):
        raise InputError(
            f"{len(logits)} rows of logits and {len(gold)} labels give no temperature",
            expected="as many labels as rows, and at least one",
        )
    if torch.isnan(logits).any() or not torch.isfinite(logits.amax(1)).all():
        raise InputError("the logits hold values that are not numbers", expected="finite logits")
    values = logits.double()

    def loss(inverse: float) -> float:
        # Minus infinity times 0 is no number, and a temperature is never infinite.
        return float(-(values * inverse).log_softmax(1).gather(1, gold[:, None]).mean())

    left, right = 1.0 / high, 1.0 / low
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(_ROUNDS):
        first, second = right - ratio * (right - left), left + ratio * (right - left)
        if loss(first) <= loss(second):
            right = second
        else:
            left = first
    inverse = min((1.0 / high, (left + right) / 2, 1.0 / low), key=loss)
    return Temperature(1.0 / inverse, loss(inverse), loss(1.0), len(values))
