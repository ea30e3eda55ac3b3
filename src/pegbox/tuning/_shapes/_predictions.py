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
        logit_deviations: Standard deviation of each label's logit, less the row's mean logit, where the
            probabilities are averaged over a posterior; in nats.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    deviation: float | None = None
    logit_deviations: Mapping[str, float] | None = None
