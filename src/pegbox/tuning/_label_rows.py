from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pegbox.models import Base, answer_tokens, collate, read
from pegbox.tasks import Encoded, Prompt
from pegbox.training import WEIGHTS

GOLD = "gold"


class LabelRows:
    """Rows with one label each, trained by cross-entropy over the K label logits of the readout.

    Args:
        base: The base.
        prompt: The task.
        encoded: The rows as token ids.
        gold: Label indices, one per row.
    """

    own_texts = False

    def __init__(self, base: Base, prompt: Prompt, encoded: Encoded, gold: Sequence[int]) -> None:
        self.answers = len(prompt.task.labels)
        self._base = base
        self._encoded = encoded
        self._gold = torch.tensor(list(gold))
        self._tokens = torch.tensor(answer_tokens(prompt), device=base.device)
        self.groups = list(gold)
        self.lengths = [length + len(encoded.prefix) for length in encoded.lengths]

    def __len__(self) -> int:
        return len(self._encoded)

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """One padded batch with its label indices."""
        batch = collate(self._encoded, indices, kind=self._base.kind, pad=self._base.pad)
        return {**batch, GOLD: self._gold[list(indices)]}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy and the number of rows, or both weighted where the batch holds weights."""
        gold, weights = batch[GOLD], batch.get(WEIGHTS)
        logits = self.scores(model, batch)
        if weights is None:
            return functional.cross_entropy(logits, gold, reduction="sum"), gold.new_tensor(len(gold))
        return (functional.cross_entropy(logits, gold, reduction="none") * weights).sum(), weights.sum()

    def scores(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Label logits (batch, labels) in float32; gradients flow."""
        inputs = {key: value for key, value in batch.items() if key not in (GOLD, WEIGHTS)}
        cached = self._base.kind in ("causal", "encoder-decoder")
        options = {"use_cache": False} if cached else {}
        return read(model, inputs, self._tokens, **options).logits.float()
