"""What one batch of answers teaches the policy and the value model."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pegbox.errors import RunError
from pegbox.rlhf import _processes as processes
from pegbox.rlhf._learner import Learner
from pegbox.rlhf._roles import Roles
from pegbox.rlhf._rollouts import Rollouts, like_lengths
from pegbox.rlhf._sequences import Answered, Batch, entropies, logprobs, values
from pegbox.rlhf._settings import Alignment
from pegbox.rlhf._signals import clipped, gae, leave_one_out, token_rewards, value_loss, whiten

_TENTH = 0.1
Metrics = dict[str, Any]


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

    def groups(self, rows: Answered, step: int) -> list[list[int]]:
        """Minibatches of rows of like lengths, in a seeded order."""
        groups = like_lengths(rows, self.settings.minibatch_size)
        random.Random(f"{self.settings.seed} groups {step}").shuffle(groups)
        return groups

    @torch.no_grad()
    def known(
        self, rows: Answered, groups: Sequence[Sequence[int]], batches: Sequence[Batch | None]
    ) -> dict[str, Tensor]:
        """What policy, reference and value model say of all answers, (rows, tokens) each.

        By the same passes over the same minibatches as in training, so that at first nothing has changed to
        the bit.
        """
        longest = max(map(len, rows.answers))
        names = ["policy", "reference", *(["value"] if self.roles.value is not None else [])]
        found = {name: torch.zeros(len(rows), longest) for name in names}
        for group, batch in zip(groups, batches, strict=True):
            if batch is None:
                continue
            mine, width = processes.own(group), batch.mask.shape[1]
            with self.rollouts.autocast():
                said = {"policy": logprobs(self.roles.policy, batch)}
                said["reference"] = logprobs(self.roles.reference, batch)
                if self.roles.value is not None:
                    said["value"] = values(self.roles.value, batch)
            for name, part in said.items():
                found[name][mine, :width] = part.float().cpu()
        for part in found.values():
            processes.add_up(part)
        sizes = torch.tensor([len(answer) for answer in rows.answers])
        found["mask"] = torch.arange(longest) < sizes[:, None]
        return found

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
        groups: Sequence[Sequence[int]],
        batches: Sequence[Batch | None],
        known: Mapping[str, Tensor],
        weights: Tensor,
        returns: Tensor,
        step: int,
    ) -> Metrics:
        """All passes over one batch of answers; returns the means over its minibatches."""
        sums: dict[str, float] = {}
        ratios: list[float] = []
        for _ in range(self.settings.epochs):
            for group, batch in zip(groups, batches, strict=True):
                found = self._update(group, batch, known, weights, returns, step)
                ratios.append(found.pop("ratio"))
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
        return {"first_ratio": ratios[0], **{name: value / len(ratios) for name, value in sums.items()}}

    def _update(
        self,
        group: Sequence[int],
        batch: Batch | None,
        known: Mapping[str, Tensor],
        weights: Tensor,
        returns: Tensor,
        step: int,
    ) -> Metrics:
        """One optimiser step of each model on one minibatch; each backward pass within its own role."""
        mine = processes.own(group)
        settings = self.settings
        tokens = int(known["mask"][list(group)].sum())
        whole = settings.algorithm == "ppo"
        count = tokens if whole else len(group)
        told = torch.zeros(4, dtype=torch.float64)
        policy = self.learners["policy"]
        policy.optimizer.zero_grad()
        if batch is not None:
            width, device = batch.mask.shape[1], batch.ids.device
            old = known["policy"][mine, :width].to(device)
            with self.rollouts.autocast():
                now = logprobs(policy.module, batch)
            change = (now - old) * batch.mask
            told[3] = float((change.detach().exp() * batch.mask).sum())
            if whole:
                loss, cut = clipped(change, weights[mine, :width].to(device), batch.mask, settings.clip)
            else:
                each = torch.ones(len(change), dtype=torch.bool, device=device)
                loss, cut = clipped(change.sum(1), weights[mine].to(device), each, settings.clip)
            (loss / count).backward()
            told[0], told[1] = float(loss.detach()), float(cut)
            told[2] = float((change.detach().exp() - 1 - change.detach()).sum())
        processes.add_up(told)
        norm = policy.take(self._rate(step))
        _check(step, norm, float(told[0]), "policy")
        found = {
            "policy_loss": float(told[0]) / count,
            "clipped": float(told[1]) / count,
            "approximate_kl": float(told[2]) / max(1, len(group)),
            "gradient": norm,
            "ratio": float(told[3]) / tokens,
        }
        if self.roles.value is not None:
            found |= self._value_update(batch, mine, known["value"], returns, tokens, step)
        return found

    def _value_update(
        self,
        batch: Batch | None,
        mine: list[int],
        before: Tensor,
        returns: Tensor,
        tokens: int,
        step: int,
    ) -> Metrics:
        value = self.learners["value"]
        value.optimizer.zero_grad()
        total = torch.zeros(1, dtype=torch.float64)
        if batch is not None:
            width, device = batch.mask.shape[1], batch.ids.device
            with self.rollouts.autocast():
                now = values(value.module, batch)
            old, wanted = (part[mine, :width].to(device) for part in (before, returns))
            loss = value_loss(now, old, wanted, batch.mask, self.settings.value_clip)
            (loss / tokens).backward()
            total[0] = float(loss.detach())
        processes.add_up(total)
        _check(step, value.take(self._rate(step)), float(total[0]), "value")
        return {"value_loss": float(total[0]) / tokens}

    def _rate(self, step: int) -> float:
        """Share of the learning rate at a step: from all of it to a tenth."""
        return 1 - (1 - _TENTH) * step / max(1, self.settings.steps - 1)

    @torch.no_grad()
    def entropy(self, batches: Sequence[Batch | None]) -> float:
        """Mean entropy per token over the first minibatch."""
        sums = torch.zeros(2, dtype=torch.float64)
        if batches[0] is not None:
            with self.rollouts.autocast():
                found = entropies(self.roles.policy, batches[0])
            sums[0], sums[1] = float(found.sum()), float(batches[0].mask.sum())
        processes.add_up(sums)
        return float(sums[0] / sums[1].clamp(min=1))


def _check(step: int, norm: float, loss: float, name: str) -> None:
    if not (math.isfinite(norm) and math.isfinite(loss)):
        rate = "learning_rate" if name == "policy" else "value_learning_rate"
        raise RunError(
            f"the {name} model's loss or gradient is not a finite number",
            where=f"step {step + 1}",
            expected="finite numbers",
            fix=f"lower {rate}; the last checkpoint is kept in the folder",
        )
