from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pegbox.models._base import Base
from pegbox.models._readout import output_layer, output_tail, rows_of

LOGITS_PER_BLOCK = 1 << 24


@torch.no_grad()
def class_means(base: Base, hidden: Tensor, gold: Tensor, labels: int) -> Tensor:
    """Mean log-probability of every token of the vocabulary over the rows of each label, (labels, V) float64.

    The rows' logits exist block by block, so that memory grows with labels times vocabulary, not with rows.

    Args:
        base: The base.
        hidden: (rows, width) input of its output layer at the answer positions.
        gold: (rows,) label indices; every label occurs.
        labels: Number of labels.
    """
    _, layer = output_layer(base.model)
    size: int = layer.weight.shape[0]  # type: ignore[union-attr, index, assignment]
    sums = torch.zeros(labels, size, dtype=torch.float64)
    for part, of in zip(
        hidden.split(max(1, LOGITS_PER_BLOCK // size)),
        gold.split(max(1, LOGITS_PER_BLOCK // size)),
        strict=True,
    ):
        logprobs = slot_logits(base, part).double().log_softmax(1)
        sums.index_add_(0, of, logprobs)
    return sums / torch.bincount(gold, minlength=labels)[:, None]


@torch.no_grad()
def slot_logits(base: Base, hidden: Tensor, tokens: Sequence[int] | None = None) -> Tensor:
    """Final logits of the base for some tokens, or all, from its output layer's input: (rows, tokens).

    Args:
        base: The base.
        hidden: (rows, width) input of its output layer.
        tokens: Which; all when ``None``.
    """
    _, layer = output_layer(base.model)
    chosen = None if tokens is None else torch.tensor(list(tokens), device=base.device)
    raw = rows_of(layer, hidden.to(base.device, base.dtype), chosen)
    return output_tail(base.model, raw).float().cpu()
