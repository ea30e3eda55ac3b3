from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

Pooling = Literal["mean", "cls"]


class PooledClassifier(nn.Module):
    """An encoder without an output layer, its own pooling, and a linear ``score`` layer that starts at zero.

    Args:
        encoder: A Transformers encoder that returns ``last_hidden_state`` (batch, tokens, width).
        pooling: ``mean`` over the real tokens or the first token (``cls``).
        labels: Outputs of the score layer.
    """

    def __init__(self, encoder: nn.Module, pooling: Pooling, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.config: Any = encoder.config
        self.score = nn.Linear(self.config.hidden_size, labels)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.score.to(next(encoder.parameters()).device)

    def get_output_embeddings(self) -> nn.Module:
        """The score layer, which stands where a language model has its output matrix."""
        return self.score

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> Tensor:
        """Scores (batch, labels) of ``input_ids`` (batch, tokens)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        return self.score(pool(hidden, attention_mask, self.pooling).float())


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool (batch, tokens, width) to (batch, width)."""
    if pooling == "cls":
        return hidden[:, 0]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def own_pooling(folder: Path | None) -> Pooling:
    """The pooling that a sentence-transformers folder asks for, else ``mean``."""
    path = folder / "1_Pooling" / "config.json" if folder else None
    if path is None or not path.is_file():
        return "mean"
    return "cls" if json.loads(path.read_text("utf-8")).get("pooling_mode_cls_token") else "mean"


def own_length(folder: Path | None) -> int | None:
    """The length in tokens that a sentence-transformers folder asks for."""
    path = folder / "sentence_bert_config.json" if folder else None
    if path is None or not path.is_file():
        return None
    return json.loads(path.read_text("utf-8")).get("max_seq_length")
