"""What one batch of answers teaches the policy and the value model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pegbox.errors import RunError
from pegbox.models import processes
from pegbox.rlhf._learner import Learner
from pegbox.rlhf._roles import Roles
from pegbox.rlhf._rollouts import Rollouts, like_lengths
from pegbox.rlhf._sequences import Answered, Batch, logprobs, values
from pegbox.rlhf._settings import Alignment
from pegbox.rlhf._signals import clipped, gae, leave_one_out, token_rewards, value_loss, whiten

# Padding included: activations are kept for so many. On a CPU, half as many measured up to 12 % slower.
TOKENS_PER_PASS = {"cpu": 1024}
TOKENS_ON_ACCELERATOR = 32768
_TENTH = 0.1
Metrics = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a minibatch that go through a model at once.

    Args:
        rows: Their places in the batch of answers.
        batch: Their tokens.
    """

    rows: list[int]
    batch: Batch

    @property
    def width(self) -> int:
        """Tokens of the longest answer."""
        return self.batch.mask.shape[1]


@dataclass(frozen=True, eq=False)
class Minibatch:
    """What one optimiser step is taken on.

    Args:
        rows: Places of its rows in the batch of answers, of all processes.
        tokens: Tokens of their answers.
        parts: This process's own rows, by passes; none where there are fewer rows than processes.
    """

    rows: tuple[int, ...]
    tokens: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Updates:
    """One optimiser step of each model after the other, on batches of answers.

    Args:
        roles: The models.
        learners: Those that are trained, ``policy`` and for PPO ``value``.
        rollouts: Tells in what precision models compute.
        settings: How to train.
    """

    roles: Roles
    learners: Mapping[str, Learner]
    rollouts: Rollouts
    settings: Alignment

    def minibatches(self, rows: Answered, step: int) -> list[Minibatch]:
        """Minibatches of rows of like lengths, in a seeded order."""
        groups = like_lengths(rows, self.settings.minibatch_size)
        random.Random(f"{self.settings.seed} groups {step}").shuffle(groups)
        base = self.roles.base
        most = TOKENS_PER_PASS.get(base.device.type, TOKENS_ON_ACCELERATOR)
        return [
            Minibatch(
                tuple(group),
                sum(len(rows.answers[index]) for index in group),
                tuple(
                    Part(part, Batch.of(rows.select(part), base.pad, base.device))
                    for part in _cut(processes.own(group), rows.lengths, most)
                ),
            )
            for group in groups
        ]

    def known(
        self, rows: Answered, minibatches: Sequence[Minibatch]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """What policy, reference and value model say of all answers, (rows, tokens) each.

        By the same passes over the same rows as in training, so that at first nothing has changed to the bit.
        The policy reads the first minibatch last; where that is one pass, its result is returned besides with
        its graph, so that the first optimiser step needs no pass of its own.
        """
        longest = max(map(len, rows.answers))
        voices: dict[str, Callable[[Batch], Tensor]] = {"reference": partial(logprobs, self.roles.reference)}
        if self.roles.value is not None:
            voices["value"] = partial(values, self.roles.value)
        voices["policy"] = partial(logprobs, self.roles.policy)
        parts = [part for minibatch in reversed(minibatches) for part in minibatch.parts]
        kept = minibatches[0].parts[0] if len(minibatches[0].parts) == 1 else None
        found, first = {name: torch.zeros(len(rows), longest) for name in voices}, None
        for name, say in voices.items():
            for part in parts:
                keep = name == "policy" and part is kept
                with torch.set_grad_enabled(keep), self.rollouts.autocast():
                    said = say(part.batch)
                first = said if keep else None
                found[name][part.rows, : part.width] = said.detach().float().cpu()
            processes.add_up(found[name])
        sizes = torch.tensor([len(answer) for answer in rows.answers])
        found["mask"] = torch.arange(longest) < sizes[:, None]
        return found, first

    def weights(
        self, known: Mapping[str, Tensor], scores: Tensor, beta: float
    ) -> tuple[Tensor, Tensor, Metrics]:
        """What each token (PPO) or answer (RLOO) is weighed by, the returns, and what they say."""
        settings, mask = self.settings, known["mask"]
        rewards = token_rewards(known["policy"], known["reference"], mask, scores, beta)
        if settings.algorithm == "rloo":
            returns = rewards.sum(1)
            return leave_one_out(returns, settings.draws), returns, {"return": float(returns.mean())}
        weights, returns = gae(rewards, known["value"], mask, gamma=settings.gamma, lam=settings.lam)
        spread = returns[mask].var(unbiased=False)
        left = (returns - known["value"])[mask].var(unbiased=False)
        explained = float(1 - left / spread) if spread > 0 else 0.0
        if settings.whiten:
            weights = whiten(weights, mask)
        return weights, returns, {"explained_variance": explained, "return": float(rewards.sum(1).mean())}

    def learn(
        self,
        minibatches: Sequence[Minibatch],
        known: Mapping[str, Tensor],
        weights: Tensor,
        returns: Tensor,
        step: int,
        first: Tensor | None = None,
    ) -> Metrics:
        """All passes over one batch of answers; returns the means over its minibatches.

        ``first`` is what the policy says of the first minibatch, with its graph, where that is known already.
        """
        sums: dict[str, float] = {}
        ratios: list[float] = []
        for _ in range(self.settings.epochs):
            for minibatch in minibatches:
                found = self._policy_update(minibatch, known["policy"], weights, step, first)
                first = None
                if self.roles.value is not None:
                    found |= self._value_update(minibatch, known["value"], returns, step)
                ratios.append(found.pop("ratio"))
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
        return {"first_ratio": ratios[0], **{name: value / len(ratios) for name, value in sums.items()}}

    def _policy_update(
        self, minibatch: Minibatch, before: Tensor, weights: Tensor, step: int, now: Tensor | None
    ) -> Metrics:
        """One optimiser step of the policy; its gradient is the sum of those of the parts."""
        policy = self.learners["policy"]
        count = minibatch.tokens if self.settings.algorithm == "ppo" else len(minibatch.rows)
        told = torch.zeros(4, dtype=torch.float64)
        policy.optimizer.zero_grad()
        for part in minibatch.parts:
            told += self._policy_part(part, before, weights, count, now)
        processes.add_up(told)
        norm = policy.take(self._rate(step))
        _check(step, norm, float(told[0]), "policy")
        return {
            "policy_loss": float(told[0]) / count,
            "clipped": float(told[1]) / count,
            "approximate_kl": float(told[2]) / len(minibatch.rows),
            "gradient": norm,
            "ratio": float(told[3]) / minibatch.tokens,
        }

    def _policy_part(
        self, part: Part, before: Tensor, weights: Tensor, count: int, now: Tensor | None
    ) -> Tensor:
        """Add the gradient of some rows; returns sums: loss, clipped ratios, divergence and ratios."""
        batch, device = part.batch, part.batch.ids.device
        if now is None:
            with self.rollouts.autocast():
                now = logprobs(self.learners["policy"].module, batch)
        change = (now - before[part.rows, : part.width].to(device)) * batch.mask
        if self.settings.algorithm == "ppo":
            weighed = weights[part.rows, : part.width].to(device)
            loss, cut = clipped(change, weighed, batch.mask, self.settings.clip)
        else:
            each = torch.ones(len(change), dtype=torch.bool, device=device)
            loss, cut = clipped(change.sum(1), weights[part.rows].to(device), each, self.settings.clip)
        (loss / count).backward()
        change = change.detach()
        ratio = change.exp()
        sums = [loss.detach(), cut, (ratio - 1 - change).sum(), (ratio * batch.mask).sum()]
        return torch.stack([one.double() for one in sums]).cpu()

    def _value_update(self, minibatch: Minibatch, before: Tensor, returns: Tensor, step: int) -> Metrics:
        """One optimiser step of the value model."""
        value = self.learners["value"]
        value.optimizer.zero_grad()
        total = torch.zeros(1, dtype=torch.float64)
        for part in minibatch.parts:
            with self.rollouts.autocast():
                now = values(value.module, part.batch)
            old, wanted = (one[part.rows, : part.width].to(now.device) for one in (before, returns))
            loss = value_loss(now, old, wanted, part.batch.mask, self.settings.value_clip)
            (loss / minibatch.tokens).backward()
            total += float(loss.detach())
        processes.add_up(total)
        _check(step, value.take(self._rate(step)), float(total[0]), "value")
        return {"value_loss": float(total[0]) / minibatch.tokens}

    def _rate(self, step: int) -> float:
        """Share of the learning rate at a step: from all of it to a tenth."""
        return 1 - (1 - _TENTH) * step / max(1, self.settings.steps - 1)


def _cut(rows: list[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """Rows in parts as even as can be, of at most so many tokens with padding where a row allows it."""
    if not rows:
        return []
    fitting = max(1, most // max(lengths[row] for row in rows))
    size = math.ceil(len(rows) / math.ceil(len(rows) / fitting))
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def _check(step: int, norm: float, loss: float, name: str) -> None:
    if not (math.isfinite(norm) and math.isfinite(loss)):
        rate = "learning_rate" if name == "policy" else "value_learning_rate"
        raise RunError(
            f"the {name} model's loss or gradient is not a finite number",
            where=f"step {step + 1}",
            expected="finite numbers",
            fix=f"lower {rate}; the last checkpoint is kept in the folder",
        )
