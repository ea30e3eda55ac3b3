"""Answers drawn to prompts, their rewards, and how far a policy is from its reference."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.models import Base, processes
from pegbox.rlhf._rewards import Reward, check_finite
from pegbox.rlhf._sample import sample
from pegbox.rlhf._sequences import Answered, Batch, logprobs


@dataclass(frozen=True)
class Prompts:
    """Prompts as token ids and as texts.

    Args:
        ids: Token ids of each.
        texts: Its text, for rewards that read texts.
    """

    ids: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Draws answers and scores them; several processes share the rows.

    Args:
        base: The base.
        stops: Token ids that end an answer.
        decode: Token ids to text.
        max_tokens: Most tokens of an answer.
        seed: Of the answers.
        size: Answers of one forward pass, over all processes.
        bf16: Whether models compute in bfloat16.
    """

    base: Base
    stops: Sequence[int]
    decode: Callable[[Sequence[Sequence[int]]], list[str]]
    max_tokens: int
    seed: int
    size: int
    bf16: bool

    def draw(self, module: nn.Module, prompts: Prompts, chosen: Sequence[int], name: str) -> Answered:
        """One answer to each chosen prompt, each by a seed of its own that ``name`` decides."""
        dice = random.Random(f"{self.seed} answers {name}")
        seeds = [dice.getrandbits(62) for _ in chosen]
        mine = processes.own(list(zip(chosen, seeds, strict=True)))
        with self.autocast():
            found = sample(
                module,
                self.base,
                [prompts.ids[index] for index, _ in mine],
                [seed for _, seed in mine],
                most=self.max_tokens,
                stops=self.stops,
            )
        answers = processes.gathered(list(zip(found.answers, found.finished, strict=True)), len(chosen))
        return Answered(
            tuple(prompts.ids[index] for index in chosen),
            tuple(answer for answer, _ in answers),
            tuple(end for _, end in answers),
        )

    def score(self, reward: Reward, rows: Answered, texts: Sequence[str], where: str) -> Tensor:
        """Rewards (rows,) of answers to prompts with these texts.

        Raises:
            InputError: When one is not a finite number.
        """
        mine = processes.own(range(len(rows)))
        part = rows.select(mine)
        answers = self.decode(part.answers)
        found = reward(part, [texts[index] for index in mine], answers).double().cpu()
        scores = torch.tensor(processes.gathered(found.tolist(), len(rows)), dtype=torch.float64)
        check_finite(scores, where)
        return scores

    @torch.no_grad()
    def divergence(self, policy: nn.Module, reference: nn.Module, rows: Answered) -> Tensor:
        """Log-ratio (rows,) of policy and reference over whole answers of the policy, in nats."""
        found = torch.zeros(len(rows), dtype=torch.float64)
        for group in like_lengths(rows, self.size):
            mine = processes.own(group)
            if not mine:
                continue
            batch = Batch.of(rows.select(mine), self.base.pad, self.base.device)
            with self.autocast():
                change = logprobs(policy, batch) - logprobs(reference, batch)
            found[mine] = change.double().sum(1).cpu()
        return processes.add_up(found)

    def autocast(self) -> AbstractContextManager[Any]:
        """In what precision models compute."""
        return torch.autocast(self.base.device.type, torch.bfloat16, enabled=self.bf16)


def like_lengths(rows: Answered, size: int) -> list[list[int]]:
    """Places of rows in groups of like lengths."""
    order = sorted(range(len(rows)), key=lambda index: rows.lengths[index])
    return [order[at : at + size] for at in range(0, len(order), size)]
