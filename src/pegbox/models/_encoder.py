from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from pegbox.errors import CapabilityError, InputError

Pooling = Literal["mean", "cls"]
POOLING_FILE = "1_Pooling/config.json"
LENGTH_FILE = "sentence_bert_config.json"


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
        settings: Any = encoder.config
        self.config = settings
        # Without nn.Linear's own initial values, which draw from the global random generator.
        device = next(encoder.parameters()).device
        self.score = nn.utils.skip_init(nn.Linear, settings.hidden_size, labels, device=device)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def get_output_embeddings(self) -> nn.Module:
        """The score layer, which stands where a language model has its output matrix."""
        return self.score

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> Tensor:
        """Scores (batch, labels) of ``input_ids`` (batch, tokens)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        return self.score(pool(hidden, attention_mask, self.pooling).float())


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool (batch, tokens, width) to (batch, width).

    The formulas of Reimers & Gurevych 2019: the first token, or the mean over the tokens that the mask holds.
    """
    if pooling == "cls":
        return hidden[:, 0]
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
