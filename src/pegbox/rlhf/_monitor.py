"""What each step says of the policy, and what it warns of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Held = Mapping[str, Tensor]

# Standard errors by which a change must be seen before it is told.
SURE = 2.0
MOST_KL, LEAST_ENDED, LONGER = 10.0, 0.95, 1.3


@dataclass
class Monitor:
    """Watches the metrics of a run; each warning is given once.

    Args:
        length: Mean length of the reference's answers in tokens.
        ended: Share of the reference's answers that end.
        told: Kinds of warnings that were given, and the step of each.
        lines: The warnings, in order.
    """

    length: float
    ended: float
    told: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    _held: list[tuple[Mapping[str, Any], Held]] = field(default_factory=list)

    def seen(self, step: int, metrics: Mapping[str, Any], held: Held | None = None) -> list[str]:
        """Take in a step's metrics; returns the warnings that are new.

        Args:
            step: The step.
            metrics: Its metrics.
            held: Where held-out prompts were answered, ``reward`` and, where there is one, ``gold`` of each
                (prompts,), the same prompts each time.
        """
        found = {
            "kl": self._divergence(metrics),
            "negative kl": self._negative(metrics),
            "length": self._length(metrics),
            "end": self._ends(metrics),
        }
        if held is not None:
            self._held.append((metrics, held))
            found["over-optimisation"] = self._overdone()
        fresh = {name: line for name, line in found.items() if line and name not in self.told}
        self.told |= dict.fromkeys(fresh, step)
        lines = [f"step {step}: {line}" for line in fresh.values()]
        self.lines += lines
        return lines

    @property
    def evaluations(self) -> list[Held]:
        """What was taken in of held-out prompts, in order."""
        return [held for _, held in self._held]

    def _divergence(self, metrics: Mapping[str, Any]) -> str:
        if metrics["kl"] <= MOST_KL:
            return ""
        return (
            f"the divergence is {metrics['kl']:.1f} nats per answer, above {MOST_KL:g}: the policy is far "
            "from the model it comes from; raise beta or lower the learning rate"
        )

    def _negative(self, metrics: Mapping[str, Any]) -> str:
        if metrics["kl"] >= -3 * metrics["kl_error"] or metrics["kl_error"] == 0:
            return ""
        return (
            f"the divergence is {metrics['kl']:.2f} nats per answer, more than 3 standard errors below 0, "
            "which no divergence can be: answers are not drawn from the policy"
        )

    def _length(self, metrics: Mapping[str, Any]) -> str:
        if metrics["length"] <= LONGER * self.length:
            return ""
        return f"answers have {metrics['length']:.0f} tokens on average, those before {self.length:.0f}"

    def _ends(self, metrics: Mapping[str, Any]) -> str:
        if metrics["ended"] >= min(LEAST_ENDED, self.ended - 0.05):
            return ""
        return f"only {100 * metrics['ended']:.0f} % of the answers end before max_tokens"

    def _overdone(self) -> str:
        """The learned reward rose since the best truth, and the truth fell, both surely."""
        if any("gold" not in held for _, held in self._held):
            return self._only_learnt()
        best, peak = max(self._held, key=lambda one: float(one[1]["gold"].mean()))
        now = self._held[-1][1]
        fell, fall_error = _difference(peak["gold"], now["gold"])
        rose, rise_error = _difference(now["reward"], peak["reward"])
        if fell <= SURE * fall_error or rose <= SURE * rise_error:
            return ""
        return (
            f"over-optimisation: since step {best['step']} the learned reward rose by {rose:.2f} and the "
            f"gold reward fell by {fell:.2f} on held-out prompts; stop there, or raise beta"
        )

    def _only_learnt(self) -> str:
        """Without gold: the reward on prompts that are learnt on rose, and that on held-out ones fell."""
        best, peak = max(self._held, key=lambda one: float(one[1]["reward"].mean()))
        now, last = self._held[-1]
        fell, fall_error = _difference(peak["reward"], last["reward"])
        rose = now.get("reward", 0.0) - best.get("reward", 0.0)
        rise_error = math.hypot(best.get("reward_error", 0.0), now.get("reward_error", 0.0))
        if fell <= SURE * fall_error or rose <= SURE * rise_error:
            return ""
        return (
            f"over-optimisation: since step {best['step']} the reward rose by {rose:.2f} on the prompts that "
            f"are learnt on and fell by {fell:.2f} on held-out ones; stop there, or raise beta"
        )


def standard_error(values: Tensor) -> float:
    """Standard error of a mean; 0 of a single value."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _difference(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Mean difference over the same prompts, and its standard error."""
    change = first - second
    return float(change.mean()), standard_error(change)
