"""AdamW as adapters want it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pegbox.training._settings import Settings


def adamw(trained: Sequence[Tensor], settings: Settings, head: Sequence[Tensor] = ()) -> torch.optim.AdamW:
    """Make a fused AdamW that decays matrices only and gives a new head a peak rate of its own.

    What has at most one dimension of more than one entry scales or shifts, like IA3's ``(n, 1)``, and is a
    vector. Source: Loshchilov and Hutter, Decoupled weight decay regularization, 2019; leaving biases and
    norms out is BERT's and GPT's practice.

    Args:
        trained: All that is trained.
        settings: Rates, decay and moments.
        head: Those of ``trained`` that learn at ``head_learning_rate``, where the settings have one.
    """
    apart = {id(value) for value in head} if settings.head_learning_rate else set()
    rest = [value for value in trained if id(value) not in apart]
    groups = [*_groups(rest, settings.weight_decay)]
    if apart:
        new = [value for value in trained if id(value) in apart]
        groups += [
            {**group, "lr": settings.head_learning_rate} for group in _groups(new, settings.weight_decay)
        ]
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,
    )


def _groups(values: Sequence[Tensor], decay: float) -> Iterator[dict[str, Any]]:
    """Matrices with decay and vectors without, as far as there are any."""
    for matrices in (True, False):
        found = [value for value in values if _is_matrix(value) == matrices]
        if found:
            yield {"params": found, "weight_decay": decay if matrices else 0.0}


def _is_matrix(value: Tensor) -> bool:
    return sum(size > 1 for size in value.shape) > 1
