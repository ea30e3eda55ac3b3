"""What each step says of the policy, and what it warns of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    _held: list[Mapping[str, Any]] = field(default_factory=list)

    def seen(self, step: int, metrics: Mapping[str, Any]) -> list[str]:
        """Take in a step's metrics; returns the warnings that are new."""
        found = {
            "kl": self._divergence(metrics),
            "negative kl": self._negative(metrics),
            "length": self._length(metrics),
            "end": self._ends(metrics),
        }
        if "held_reward" in metrics:
            self._held.append(metrics)
            found["over-optimisation"] = self._overdone()
        fresh = {name: line for name, line in found.items() if line and name not in self.told}
        self.told |= dict.fromkeys(fresh, step)
        lines = [f"step {step}: {line}" for line in fresh.values()]
        self.lines += lines
        return lines

    def _only_learnt(self) -> str:
        """Without gold: the reward on prompts that are learnt on rose, and that on held-out ones fell."""
        best = max(self._held, key=lambda one: one["held_reward"])
        now = self._held[-1]
        fell, rose = (
            best["held_reward"] - now["held_reward"],
            now.get("reward", 0.0) - best.get("reward", 0.0),
        )
        fall_error = math.hypot(best["held_reward_error"], now["held_reward_error"])
        rise_error = math.hypot(best.get("reward_error", 0.0), now.get("reward_error", 0.0))
        if fell <= SURE * fall_error or rose <= SURE * rise_error:
            return ""
        return (
            f"over-optimisation: since step {best['step']} the reward rose by {rose:.2f} on the prompts that "
            f"are learnt on and fell by {fell:.2f} on held-out ones; stop there, or raise beta"
        )

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
        if "held_gold" not in self._held[-1] or "held_gold" not in self._held[0]:
            return self._only_learnt()
        best = max(self._held, key=lambda one: one["held_gold"])
        now = self._held[-1]
        fell = best["held_gold"] - now["held_gold"]
        rose = now["held_reward"] - best["held_reward"]
        fall_error = math.hypot(best["held_gold_error"], now["held_gold_error"])
        rise_error = math.hypot(best["held_reward_error"], now["held_reward_error"])
        if fell <= SURE * fall_error or rose <= SURE * rise_error:
            return ""
        return (
            f"over-optimisation: since step {best['step']} the learned reward rose by {rose:.2f} and the "
            f"gold reward fell by {fell:.2f} on held-out prompts; stop there, or raise beta"
        )
