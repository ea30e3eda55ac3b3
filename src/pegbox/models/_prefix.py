from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.models._readout import POSITIONS, read, unwrapped


@dataclass(frozen=True)
class SharedPrefix:
    """Keys and values of tokens that stand before every row, computed once.

    Args:
        cache: The model's key-value cache for one row.
        length: Tokens in it.
        positioned: Whether the model takes position ids.
    """

    cache: Any
    length: int
    positioned: bool = True

    @classmethod
    def run(cls, model: nn.Module, tokens: Sequence[int], device: torch.device) -> SharedPrefix:
        """Run a causal model over the prefix."""
        from transformers import DynamicCache

        cache = DynamicCache(config=model.config)  # type: ignore[arg-type]
        ids = torch.tensor([list(tokens)], device=device)
        last = torch.tensor([len(tokens) - 1], device=device)
        first = torch.zeros(1, dtype=torch.long, device=device)
        read(model, {"input_ids": ids, POSITIONS: last}, first, past_key_values=cache, use_cache=True)
        return cls(cache, len(tokens), takes_positions(model))

    def options(self, ids: Tensor) -> dict[str, Any]:
        """Arguments of the model's forward for rows (batch, tokens) that follow the prefix."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(len(ids))
        options = {"past_key_values": cache, "use_cache": True}
        if self.positioned:
            end = self.length + ids.shape[1]
            options["position_ids"] = torch.arange(self.length, end, device=ids.device)[None]
        return options


def takes_positions(model: nn.Module) -> bool:
    """Whether a model takes position ids; families with relative biases, such as Bloom, do not."""
    return "position_ids" in inspect.signature(unwrapped(model).forward).parameters
