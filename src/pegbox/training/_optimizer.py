"""AdamW as adapters want it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pegbox.training._settings import Settings


def adamw(trained: Sequence[Tensor], settings: Settings) -> torch.optim.AdamW:
    """Make a fused AdamW that decays matrices only.

    What has at most one dimension of more than one entry scales or shifts, like IA3's ``(n, 1)``, and is a
    vector. Source: Loshchilov and Hutter, Decoupled weight decay regularization, 2019; leaving biases and
    norms out is BERT's and GPT's practice.
    """
    matrices = [value for value in trained if _is_matrix(value)]
    vectors = [value for value in trained if not _is_matrix(value)]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,
    )


def _is_matrix(value: Tensor) -> bool:
    return sum(size > 1 for size in value.shape) > 1
