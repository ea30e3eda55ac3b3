from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.evaluation import Estimate, percentile_interval

Floats = NDArray[np.float64]
# Rates that are tried; most published ones lie between 0.07 and 1 (Hestness et al., Viering and Loog).
RATES = np.geomspace(0.05, 2.0, 60)


@dataclass(frozen=True)
class PowerLaw:
    """A loss that falls with the number of labels n as limit + scale * n ** -rate.

    Source: Hestness et al., Deep learning scaling is predictable, empirically, 2017; Viering and Loog, The
    shape of learning curves: a review, 2022.

    Args:
        limit: What more labels never take away, at least 0.
        scale: What labels take away, at least 0.
        rate: How fast.
        replicates: (limit, scale, rate) of each resample.
    """

    limit: float
    scale: float
    rate: float
    replicates: tuple[tuple[float, float, float], ...] = field(default=(), repr=False)

    def at(self, labels: float) -> float:
        """The loss at a number of labels."""
        return float(self.limit + self.scale * labels**-self.rate)

    def samples(self, labels: float) -> Floats:
        """The loss at a number of labels in each resample, (resamples,)."""
        limit, scale, rate = np.array(self.replicates, dtype=np.float64).reshape(-1, 3).T
        found: Floats = limit + scale * labels**-rate
        return found

    def estimate(self, labels: float) -> Estimate:
        """The loss at a number of labels with its 95 % interval over the resamples."""
        return percentile_interval(self.at(labels), self.samples(labels))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` gives back an equal object."""
        return {
            "limit": self.limit,
            "scale": self.scale,
            "rate": self.rate,
            "replicates": [list(part) for part in self.replicates],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PowerLaw:
        """Read what `to_json` wrote."""
        replicates = tuple((part[0], part[1], part[2]) for part in values["replicates"])
        return cls(values["limit"], values["scale"], values["rate"], replicates)
