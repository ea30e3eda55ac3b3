from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The answer for one row.

    Args:
        label: The most probable label.
        probability: Its probability.
        probabilities: All labels' probabilities.
        deviation: Standard deviation of ``probability`` under the posterior, where there is one.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    deviation: float | None = None
