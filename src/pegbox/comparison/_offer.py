from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pegbox.comparison._estimate import Costs
from pegbox.training import clock


@dataclass(frozen=True)
class Offer:
    """One method: what it would take, and why it is left out where it is.

    Args:
        costs: What it would take.
        left_out: Why it cannot be recommended: it cannot work, or does not stay within a budget; empty for
            all others.
        by: ``memory`` or ``time`` where a budget is why.
    """

    costs: Costs
    left_out: str = ""
    by: Literal["", "memory", "time"] = ""

    @property
    def order(self) -> tuple[bool, float]:
        """What can be recommended first, the quickest before all others."""
        seconds = self.costs.seconds
        return bool(self.left_out), seconds if seconds is not None else math.inf

    @classmethod
    def within(cls, costs: Costs, memory: int | None, seconds: float | None) -> Offer:
        """The offer of a method under budgets of bytes and seconds; ``None`` is no limit."""
        if not costs.feasible:
            return cls(costs, costs.reason)
        if memory is not None and costs.memory is not None and costs.memory > memory:
            return cls(
                costs, f"needs about {amount(costs.memory)}, and {amount(memory)} are allowed", "memory"
            )
        if seconds is not None and costs.seconds is not None and costs.seconds > seconds:
            needs = f"may take up to {clock(costs.seconds)}, and {clock(seconds)} are allowed"
            return cls(costs, needs, "time")
        return cls(costs)


def amount(size: int) -> str:
    """Bytes in words: 0.977 KiB, 512 MiB, 1.3 GiB."""
    if size < 2**20:
        return f"{size / 2**10:.3g} KiB"
    return f"{size / 2**20:,.0f} MiB" if size < 1000 * 2**20 else f"{size / 2**30:.3g} GiB"
