from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pegbox.models import Base, read_texts
from pegbox.tasks import OptionRows

SAID, DIVISORS, GOLD = "said", "divisors", "gold"


class ChoiceRows:
    """Questions, trained by cross-entropy over the scores of each one's options (listwise).

    Args:
        base: The base; causal.
        rows: Questions and options as token ids.
        gold: Index of each question's right option.
    """

    own_texts = True

    def __init__(self, base: Base, rows: OptionRows, gold: Sequence[int]) -> None:
        self.answers = max(map(len, rows.options), default=0)
        self._pad, self._rows = base.pad, rows
        self._gold = torch.tensor(list(gold))
        before = len(rows.prompts.prefix)
        self.lengths = [
            before + len(ids) + max(map(len, options))
            for ids, options in zip(rows.prompts.ids, rows.options, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """``input_ids`` (batch, options, tokens), which of them an option says, and what divides its score.

        The divisor of an option that a row does not have is 0.
        """
        length = max(self.lengths[index] for index in indices)
        options = max(len(self._rows.options[index]) for index in indices)
        ids = torch.full((len(indices), options, length), self._pad)
        said = torch.zeros(ids.shape, dtype=torch.bool)
        divisors = torch.zeros(len(indices), options)
        for line, index in enumerate(indices):
            question = (*self._rows.prompts.prefix, *self._rows.prompts.ids[index])
            for at, text in enumerate(self._rows.options[index]):
                end = len(question) + len(text)
                ids[line, at, :end] = torch.tensor([*question, *text])
                said[line, at, len(question) : end] = True
                divisors[line, at] = self._rows.divisors[index][at]
        return {"input_ids": ids, SAID: said, DIVISORS: divisors, GOLD: self._gold[list(indices)]}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy and the number of questions."""
        gold = batch[GOLD]
        scores = self.scores(model, batch)
        return functional.cross_entropy(scores, gold, reduction="sum"), gold.new_tensor(len(gold))

    def scores(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Scores (batch, options), minus infinity where a row has no such option; gradients flow."""
        divisors = batch[DIVISORS]
        there = divisors > 0
        summed = read_texts(model, batch["input_ids"][there], batch[SAID][there], use_cache=False)
        return divisors.new_full(divisors.shape, -torch.inf).masked_scatter(there, summed / divisors[there])
