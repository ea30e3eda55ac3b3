"""Prompts with answers, as batches of token ids, and what models say of the answers' tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pegbox.models import IGNORED, language_loss


@dataclass(frozen=True)
class Answered:
    """Answers to prompts, as token ids.

    Args:
        prompts: Token ids of each prompt.
        answers: Token ids of each answer, its end among them where it was said.
        finished: Whether each answer was ended by the model.
    """

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    finished: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def ids(self) -> list[tuple[int, ...]]:
        """Prompt and answer of each row in a row."""
        return [(*prompt, *answer) for prompt, answer in zip(self.prompts, self.answers, strict=True)]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.ids]

    def select(self, indices: Sequence[int]) -> Answered:
        """The rows at these positions."""
        return Answered(
            tuple(self.prompts[index] for index in indices),
            tuple(self.answers[index] for index in indices),
            tuple(self.finished[index] for index in indices),
        )


@dataclass(frozen=True)
class Batch:
    """Some rows, padded on the right.

    Args:
        ids: (rows, tokens).
        real: (rows, tokens) 1 at tokens that are no padding.
        targets: (rows, tokens) the answer's token that follows each position; -100 elsewhere.
        mask: (rows, answer tokens) which tokens of the answers are real.
    """

    ids: Tensor
    real: Tensor
    targets: Tensor
    mask: Tensor

    @classmethod
    def of(cls, rows: Answered, pad: int, device: torch.device) -> Batch:
        """Pad rows; masks come from their lengths, never from what a token is."""
        lengths = rows.lengths
        assert all(rows.prompts), "a prompt has at least one token, after which an answer begins"
        ids = np.full((len(rows), max(lengths)), pad)
        targets = np.full_like(ids, IGNORED)
        for line, (prompt, answer) in enumerate(zip(rows.prompts, rows.answers, strict=True)):
            ids[line, : lengths[line]] = (*prompt, *answer)
            targets[line, len(prompt) - 1 : lengths[line] - 1] = answer
        real = np.arange(ids.shape[1]) < np.array(lengths)[:, None]
        sizes = np.array([len(answer) for answer in rows.answers])
        mask = np.arange(sizes.max()) < sizes[:, None]
        tensors = (ids, real.astype(np.int64), targets, mask)
        return cls(*(torch.from_numpy(part).to(device) for part in tensors))

    def spread(self, flat: Tensor) -> Tensor:
        """One number per answer token in reading order to (rows, answer tokens), 0 where there is none."""
        return flat.new_zeros(self.mask.shape).masked_scatter(self.mask, flat)


def logprobs(model: nn.Module, batch: Batch) -> Tensor:
    """Log-probability of each token of the answers, (rows, answer tokens); gradients flow.

    Positions before the answers never reach the output layer.
    """
    losses = language_loss(model, {"input_ids": batch.ids}, batch.targets, use_cache=False)
    return batch.spread(-losses)


def values(model: nn.Module, batch: Batch) -> Tensor:
    """What a value model foresees before each token of the answers, (rows, answer tokens); gradients flow."""
    found = model(input_ids=batch.ids, attention_mask=batch.real).float().squeeze(-1)
    return batch.spread(found[batch.targets != IGNORED])
