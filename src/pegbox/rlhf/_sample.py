"""Answers drawn from a model, each by random numbers of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.models import Base, batches, written_by
from pegbox.rlhf._sequences import Answered

TOKENS_PER_BATCH = {"cpu": 8192}
TOKENS_ON_ACCELERATOR = 131072
# Probabilities that exist at a time in float64.
CHUNK = 1 << 20


class OwnDraws:
    """Draws each row's token from the softmax of its scores, and leaves no other.

    Every row has a generator of its own, one number for each token (inversion of the distribution function):
    what is drawn for it depends on its seed alone, not on the other rows of its batch, nor on how many
    processes share the rows.

    Args:
        seeds: One per row.
        temperature: What the scores are divided by.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - Transformers names it
        """Scores (rows, vocabulary): 0 for the drawn token, minus infinity for all others."""
        drawn = torch.stack([torch.rand(1, generator=own, dtype=torch.float64) for own in self._generators])
        drawn = drawn.to(scores.device)
        rows = max(1, CHUNK // scores.shape[1])
        found = torch.full_like(scores, -torch.inf)
        for at in range(0, len(scores), rows):
            part = slice(at, at + rows)
            shares = (scores[part].float() / self._temperature).softmax(-1)
            below = shares.cumsum(-1, dtype=torch.float64)
            chosen = torch.searchsorted(below, drawn[part] * below[:, -1:], right=True)
            found[part].scatter_(1, chosen.clamp_(max=scores.shape[1] - 1), 0.0)
        return found


@torch.no_grad()
def sample(
    module: nn.Module,
    base: Base,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    *,
    most: int,
    stops: Sequence[int],
    temperature: float = 1.0,
) -> Answered:
    """Draw one answer to each prompt from the model's own distribution: no top-k, no top-p, no penalties.

    Args:
        module: The base's model with or without adapters; causal.
        base: The base.
        prompts: Token ids of each prompt.
        seeds: Seed of each answer.
        most: Most tokens of an answer, its end among them.
        stops: Token ids that end an answer; the one that did is kept.
        temperature: What the logits are divided by.
    """
    answers: list[tuple[int, ...]] = [()] * len(prompts)
    finished = [False] * len(prompts)
    size = TOKENS_PER_BATCH.get(base.device.type, TOKENS_ON_ACCELERATOR)
    for indices in batches([len(ids) + most for ids in prompts], size):
        draws: Any = OwnDraws([seeds[index] for index in indices], temperature)
        rows = written_by(
            module, base, [prompts[index] for index in indices], most=most, stops=stops, processors=[draws]
        )
        for index, row in zip(indices, rows, strict=True):
            end = next((place for place, token in enumerate(row) if token in stops), None)
            answers[index] = tuple(row if end is None else row[: end + 1])
            finished[index] = end is not None
    return Answered(tuple(map(tuple, prompts)), tuple(answers), tuple(finished))
