"""Rows of made-up tokens, which cost what real rows of their lengths do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.models import Base, read_texts
from pegbox.tasks import Choose, Encoded, Tag
from pegbox.training import Trainable
from pegbox.tuning import LabelRows

# Tokens of an option that are scored, where a task has options.
SAID = 2


def made_up(base: Base, prompt: Any, lengths: Sequence[int]) -> Trainable:
    """Rows of so many tokens each, the prompt's soft tokens included, as the engine trains on them.

    Args:
        base: The base.
        prompt: The task made ready for it.
        lengths: Tokens of each row; of a choice, of one option after its question.
    """
    if isinstance(prompt.task, Tag | Choose):
        return _Scored(base, prompt, lengths)
    placed = getattr(prompt, "soft", None)
    soft = [*placed.leading, *placed.inner] if placed is not None else []
    opening = prompt.opening if base.kind == "encoder-decoder" else ()
    encoded = Encoded(
        ids=tuple((*soft, *[base.pad] * (length - len(soft))) for length in lengths),
        positions=tuple(len(opening) - 1 if opening else length - 1 for length in lengths),
        decoder=tuple(opening),
    )
    return LabelRows(base, prompt, encoded, [0] * len(lengths))


class _Scored:
    """Rows of a task that scores every token by a head, or each option of a question."""

    def __init__(self, base: Base, prompt: Any, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)
        self._pad = base.pad
        self._said = isinstance(prompt.task, Choose) and base.kind == "causal"

    def __len__(self) -> int:
        return len(self.lengths)

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """``input_ids`` (batch, tokens) and, for encoders, ``attention_mask``."""
        tokens = max(self.lengths[index] for index in indices)
        ids = torch.full((len(indices), tokens), self._pad)
        return (
            {"input_ids": ids} if self._said else {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        )

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """A sum over all scores, and the number of rows."""
        ids = batch["input_ids"]
        if self._said:
            said = torch.zeros_like(ids, dtype=torch.bool)
            said[:, -SAID:] = True
            return -read_texts(model, ids, said, use_cache=False).sum(), ids.new_tensor(len(ids))
        return model(**batch).float().logsumexp(-1).sum(), ids.new_tensor(len(ids))
