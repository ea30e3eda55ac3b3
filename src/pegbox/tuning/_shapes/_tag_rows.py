from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pegbox.models import Base
from pegbox.tasks import Windows

GOLD = "gold"
IGNORED = -100


class TagRows:
    """Windows of sentences, trained by cross-entropy over the tags of each word's first token.

    Args:
        base: The base, headed without pooling.
        windows: The sentences as token ids.
        gold: Tag indices of each sentence's words.
    """

    def __init__(self, base: Base, windows: Windows, gold: Sequence[Sequence[int]]) -> None:
        self._pad = base.pad
        self._windows = windows
        self._gold = gold
        self.lengths = windows.encoded.lengths

    def __len__(self) -> int:
        return len(self._windows)

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """One padded batch with the tag index of each answered token (batch, tokens)."""
        batch = collate_windows(self._windows, indices, self._pad)
        gold = torch.full_like(batch["input_ids"], IGNORED)
        for line, index in enumerate(indices):
            for row, word, place in self._windows.places[index]:
                gold[line, place] = self._gold[row][word]
        return {**batch, GOLD: gold}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy and the number of words."""
        gold = batch[GOLD].flatten()
        scores = model(**{key: value for key, value in batch.items() if key != GOLD}).float()
        loss = functional.cross_entropy(scores.flatten(0, 1), gold, ignore_index=IGNORED, reduction="sum")
        return loss, (gold != IGNORED).sum()


def collate_windows(windows: Windows, indices: Sequence[int], pad: int) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` (batch, tokens) of windows, padded on the right."""
    rows = [windows.encoded.ids[index] for index in indices]
    length = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
    }
