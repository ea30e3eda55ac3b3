"""A training loss that explodes, told from one that fluctuates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median

_WINDOW = 30
_FEWEST = 10
_FIRST = 5
# Losses are in nats per answer. Below this rise a large ratio only means that the loss was close to zero.
_RISE = 1.0


@dataclass
class Watch:
    """Watches the losses of the steps.

    The smoothed loss is the median of the last 30 losses, so that fewer than half of them, however large,
    do not move it far. It has exploded when it is above all three of: ``factor`` times its lowest value so
    far; the largest of the first five losses; its lowest value plus 1.

    Args:
        first: The first losses of the run.
        recent: The last ones.
        lowest: Lowest smoothed loss so far; None while fewer than 10 losses are known.
    """

    first: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    lowest: float | None = None

    def note(self, loss: float) -> None:
        """Enter the loss of the next step."""
        if len(self.first) < _FIRST:
            self.first.append(loss)
        self.recent = [*self.recent[1 - _WINDOW :], loss]
        if len(self.recent) >= _FEWEST:
            self.lowest = self.smoothed if self.lowest is None else min(self.lowest, self.smoothed)

    @property
    def smoothed(self) -> float:
        """The median of the last losses."""
        return median(self.recent)

    def limit(self, factor: float) -> float:
        """Return what the smoothed loss must not exceed; infinity while unknown and for a factor of 0."""
        if self.lowest is None or not factor:
            return math.inf
        return max(factor * self.lowest, self.lowest + _RISE, *self.first)

    def suspect(self, factor: float) -> bool:
        """Return whether the newest loss alone exceeds the limit: no time to overwrite a good checkpoint."""
        return bool(self.recent) and self.recent[-1] > self.limit(factor)

    def exploded(self, factor: float) -> bool:
        """Return whether the smoothed loss exceeds the limit."""
        return bool(self.recent) and self.smoothed > self.limit(factor)
