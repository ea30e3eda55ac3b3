from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.models._base import Base
from pegbox.models._batches import batches
from pegbox.tasks import Encoded, Prompt

TOKENS_PER_BATCH = 4096


@torch.inference_mode()
def word_logprobs(module: nn.Module, base: Base, prompt: Prompt, encoded: Encoded) -> Tensor:
    """Log-probability of each whole label word after each prompt, (rows, labels).

    For label words that need several tokens or share their first: the prompt runs once, padded on the left, and
    every word continues from its key-value cache.
    """
    answers: list[Tensor] = [torch.empty(0)] * len(encoded)
    lengths = [length + len(encoded.prefix) for length in encoded.lengths]
    for indices in track(batches(lengths, TOKENS_PER_BATCH), "scoring label words"):
        rows = [(*encoded.prefix, *encoded.ids[index]) for index in indices]
        scores = _score(module, rows, prompt.answers, base.pad, base.device)
        for index, row in zip(indices, scores, strict=True):
            answers[index] = row.float().cpu()
    return torch.stack(answers)


def _score(
    module: nn.Module, rows: Sequence[Sequence[int]], words: Sequence[Sequence[int]], pad: int, device: torch.device
) -> Tensor:
    from transformers import DynamicCache

    length = max(map(len, rows))
    ids = torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=device)
    cache = DynamicCache(config=module.config)  # type: ignore[arg-type]
    output: Any = module(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    first = output.logits[:, -1].float().log_softmax(-1)
    return torch.stack([first[:, word[0]] + _rest(module, cache, mask, word) for word in words], dim=1)


def _rest(module: nn.Module, cache: Any, mask: Tensor, word: Sequence[int]) -> Tensor:
    if len(word) == 1:
        return torch.zeros(len(mask), device=mask.device)
    steps = len(word) - 1
    ids = torch.tensor(word, device=mask.device).expand(len(mask), -1)
    output: Any = module(
        input_ids=ids[:, :-1],
        attention_mask=torch.cat([mask, mask.new_ones(len(mask), steps)], dim=1),
        position_ids=mask.sum(1, keepdim=True) + torch.arange(steps, device=mask.device),
        past_key_values=copy.deepcopy(cache),
        use_cache=True,
    )
    logprobs = output.logits.float().log_softmax(-1)
    return logprobs.gather(-1, ids[:, 1:, None]).squeeze(-1).sum(1)
