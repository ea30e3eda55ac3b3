"""Log-probabilities of whole texts after prompts: options of questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.models._base import Base
from pegbox.models._batches import batches
from pegbox.models._prefix import takes_positions
from pegbox.models._readout import narrowed, output_layer
from pegbox.tasks import OptionRows

TOKENS_PER_BATCH = {"cpu": 1024}
TOKENS_ON_ACCELERATOR = 8192
LOGITS_PER_BATCH = 1 << 26


@torch.no_grad()
def option_logprobs(module: nn.Module, base: Base, rows: OptionRows) -> list[Tensor]:
    """Log-probability of each option after its question, one tensor (options,) per row.

    Each question runs once, padded on the left, and all its options continue from its key-value cache in one
    batch. Only the questions' last tokens and the options' own reach the output layer.

    Args:
        module: The base's model, or one with adapters on it.
        base: The base that the module was made from; causal.
        rows: The questions and options.
    """
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    layer: Any = output_layer(module)[1]
    tokens = TOKENS_PER_BATCH.get(base.device.type, TOKENS_ON_ACCELERATOR)
    said = [sum(map(len, options)) for options in rows.options]
    most = max(1, LOGITS_PER_BATCH // (layer.weight.shape[0] * max(said, default=1)))
    # The cache of a question is copied for each option, which costs what so many questions would.
    lengths = [
        (len(ids) + max(map(len, options))) * len(options)
        for ids, options in zip(rows.prompts.ids, rows.options, strict=True)
    ]
    for indices in track(batches(lengths, tokens, rows=most), "scoring options"):
        questions = [(*rows.prompts.prefix, *rows.prompts.ids[index]) for index in indices]
        options = [rows.options[index] for index in indices]
        for index, scores in zip(indices, _continued(module, base, questions, options), strict=True):
            found[index] = scores.float().cpu()
    return found


def _continued(
    module: nn.Module,
    base: Base,
    questions: Sequence[Sequence[int]],
    options: Sequence[Sequence[Sequence[int]]],
) -> list[Tensor]:
    from transformers import DynamicCache

    length = max(map(len, questions))
    ids = [[base.pad] * (length - len(row)) + list(row) for row in questions]
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in questions])
    mask = mask.to(base.device)
    cache = DynamicCache(config=module.config)  # type: ignore[arg-type]
    last = torch.zeros_like(mask, dtype=torch.bool)
    last[:, -1] = True
    first = _logits(
        module,
        last,
        input_ids=torch.tensor(ids, device=base.device),
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        **_positions(module, (mask.cumsum(1) - 1).clamp(min=0)),
    ).log_softmax(-1)
    owner = [row for row, texts in enumerate(options) for _ in texts]
    flat = [list(text) for texts in options for text in texts]
    scores = first[owner, torch.tensor([text[0] for text in flat], device=base.device)]
    if max(map(len, flat)) > 1:
        cache.batch_select_indices(torch.tensor(owner, device=base.device))
        scores = scores + _rest(module, base, cache, mask[owner], flat)
    return list(scores.split([len(texts) for texts in options]))


def _rest(module: nn.Module, base: Base, cache: Any, mask: Tensor, texts: list[list[int]]) -> Tensor:
    """Log-probability of each text's tokens after its first, (texts,)."""
    steps = max(map(len, texts)) - 1
    counts = torch.tensor([len(text) - 1 for text in texts], device=base.device)
    real = torch.arange(steps, device=base.device) < counts[:, None]
    read = torch.tensor([_padded(text[:-1], steps, base.pad) for text in texts], device=base.device)
    wanted = torch.tensor([_padded(text[1:], steps, base.pad) for text in texts], device=base.device)
    logits = _logits(
        module,
        real,
        input_ids=read,
        attention_mask=torch.cat([mask, real.to(mask.dtype)], dim=1),
        past_key_values=cache,
        use_cache=True,
        **_positions(module, mask.sum(1, keepdim=True) + torch.arange(steps, device=base.device)),
    )
    return _summed(logits, wanted[real], real.nonzero()[:, 0], len(texts))


def read_texts(model: nn.Module, ids: Tensor, said: Tensor, **options: Any) -> Tensor:
    """Log-probability of the marked tokens of each row, summed, (rows,); gradients flow.

    Args:
        model: A causal model, with or without adapters.
        ids: Token ids, padded on the right, (rows, tokens).
        said: Which tokens count, (rows, tokens) bool; never a row's first.
        options: Further keyword arguments of the model's forward.
    """
    # Nothing follows the last token: reading it could be one more than there are positions.
    logits = _logits(model, said[:, 1:], input_ids=ids[:, :-1], **options)
    return _summed(logits, ids[said], said.nonzero()[:, 0], len(ids))


def _logits(model: nn.Module, places: Tensor, **inputs: Any) -> Tensor:
    """Logits (places, vocabulary) in float32 at the places (batch, tokens) alone, in reading order."""
    with narrowed(model, places, None):
        output: Any = model(**inputs)
    return output.logits.flatten(0, 1).float()


def _summed(logits: Tensor, wanted: Tensor, owner: Tensor, rows: int) -> Tensor:
    """Log-probabilities of ``wanted`` (places,) summed by row."""
    chosen = logits.gather(-1, wanted[:, None]).squeeze(-1) - logits.logsumexp(-1)
    return chosen.new_zeros(rows).index_add(0, owner, chosen)


def _padded(ids: Sequence[int], length: int, pad: int) -> list[int]:
    return [*ids, *[pad] * (length - len(ids))]


def _positions(module: nn.Module, positions: Tensor) -> dict[str, Tensor]:
    return {"position_ids": positions} if takes_positions(module) else {}
