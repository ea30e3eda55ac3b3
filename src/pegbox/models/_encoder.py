from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pegbox.errors import CapabilityError, InputError
from pegbox.models._readout import unwrapped

Pooling = Literal["mean", "cls", "last", "none"]
POOLING_FILE = "1_Pooling/config.json"
LENGTH_FILE = "sentence_bert_config.json"


class PooledClassifier(nn.Module):
    """An encoder without an output layer, its own pooling, and a linear ``score`` layer that starts at zero.

    An encoder that is not trained runs in eval mode, so that a head always learns from the same features.

    Args:
        encoder: A Transformers encoder, or the trunk of a language model, that returns ``last_hidden_state``
            (batch, tokens, width).
        pooling: ``mean`` over the real tokens, the first token (``cls``), the last real one (``last``), or
            ``none``, to score every token.
        labels: Outputs of the score layer.
    """

    def __init__(self, encoder: nn.Module, pooling: Pooling, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        settings: Any = encoder.config
        self.config = settings
        # By this PEFT tells which of its layers fit the encoder's.
        self.is_loaded_in_4bit = bool(getattr(encoder, "is_loaded_in_4bit", False))
        # Without nn.Linear's own initial values, which draw from the global random generator.
        device = next(encoder.parameters()).device
        self.score = nn.utils.skip_init(nn.Linear, settings.hidden_size, labels, device=device)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def get_output_embeddings(self) -> nn.Module:
        """The score layer, which stands where a language model has its output matrix."""
        return self.score

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """Whether the encoder can recompute its activations."""
        return bool(getattr(self.encoder, "supports_gradient_checkpointing", False))

    def _set_gradient_checkpointing(self, *arguments: Any) -> None:
        encoder: Any = self.encoder
        encoder._set_gradient_checkpointing(*arguments)

    def train(self, mode: bool = True) -> PooledClassifier:
        """Set the mode; an encoder without a parameter to train stays in eval mode."""
        super().train(mode)
        if mode and not any(value.requires_grad for value in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> Tensor:
        """Scores (batch, labels) of ``input_ids`` (batch, tokens), or (batch, tokens, labels) unpooled."""
        if (getattr(self.config, "type_vocab_size", None) or 0) < 2:
            # Some tokenizers make types for models that know none, and GPT-2 would add them as words.
            inputs.pop("token_type_ids", None)
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        return self.score(pool(hidden, attention_mask, self.pooling).float())


def score_layer(model: nn.Module) -> nn.Module | None:
    """The score layer of a classifier, with or without PEFT adapters; ``None`` where label words answer."""
    inner = unwrapped(model)
    return inner.score if isinstance(inner, PooledClassifier) else None


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool (batch, tokens, width) to (batch, width), or leave it as it is (``none``).

    The formulas of Reimers & Gurevych 2019: the first token, or the mean over the tokens that the mask holds;
    for causal models the last token that the mask holds, wherever the padding is and whatever its id.
    """
    if pooling == "none":
        return hidden
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def own_pooling(where: str, revision: str | None = None) -> Pooling:
    """The pooling that a sentence-transformers model asks for, else ``mean``.

    Args:
        where: Folder or hub id.
        revision: Revision of a hub model.

    Raises:
        CapabilityError: For a pooling other than the mean and the first token.
    """
    found = _settings(where, POOLING_FILE, revision)
    named = found.get("pooling_mode", [])
    modes = {named} if isinstance(named, str) else set(named)
    modes |= {
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, on in found.items()
        if key.startswith("pooling_mode_") and on is True
    }
    if modes == {"cls"}:
        return "cls"
    if modes <= {"mean"}:
        return "mean"
    raise CapabilityError(
        f"this encoder pools by {' and '.join(sorted(modes))}",
        where=f"{where}: {POOLING_FILE}",
        expected="mean or cls",
        fix="choose an encoder that pools by its mean or first token",
    )


def own_length(where: str, revision: str | None = None) -> int | None:
    """The length in tokens that a sentence-transformers model asks for."""
    length = _settings(where, LENGTH_FILE, revision).get("max_seq_length")
    return length if isinstance(length, int) and length > 0 else None


def _settings(where: str, name: str, revision: str | None) -> dict[str, Any]:
    path = Path(where) / name if Path(where).is_dir() else _from_hub(where, name, revision)
    if path is None or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"the file is no JSON: {error}", where=str(path), fix="copy it again") from None
    return found if isinstance(found, dict) else {}


def _from_hub(where: str, name: str, revision: str | None) -> Path | None:
    from transformers.utils.hub import cached_file

    found = cached_file(
        where,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None
