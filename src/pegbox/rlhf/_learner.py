"""A model that is trained, with its optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.models import processes, without_dropout
from pegbox.rlhf._settings import Alignment
from pegbox.training import load_moments


class Learner:
    """A model that is trained, with its optimiser.

    It stays in training mode, which gradient checkpointing asks for, with its dropout set to 0.

    Args:
        module: The model.
        rate: Its learning rate.
        settings: How to train.
    """

    def __init__(self, module: nn.Module, rate: float, settings: Alignment) -> None:
        self.module, self.rate, self.settings = module, rate, settings
        self.trained = [value for value in module.parameters() if value.requires_grad]
        self._names = [name for name, value in module.named_parameters() if value.requires_grad]
        without_dropout(module)
        module.train()
        # Fused, a step is one kernel; eps as published PPO implementations have it.
        self.optimizer = torch.optim.AdamW(self.trained, lr=rate, eps=1e-5, weight_decay=0.0, fused=True)

    @property
    def count(self) -> int:
        """How many numbers are trained."""
        return sum(value.numel() for value in self.trained)

    def take(self, rate: float) -> float:
        """One step at this share of the rate; returns the gradient's norm before it was clipped."""
        processes.add_gradients(self.trained)
        most = self.settings.gradient_clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.trained, most))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * rate
        if math.isfinite(norm):
            self.optimizer.step()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The trained parameters by name."""
        return {
            name: value.detach().cpu().contiguous()
            for name, value in zip(self._names, self.trained, strict=True)
        }

    def restore(self, tensors: Mapping[str, Tensor], state: dict[str, Tensor], groups: Any) -> None:
        """Set parameters and optimiser to what a checkpoint holds."""
        with torch.no_grad():
            for name, value in zip(self._names, self.trained, strict=True):
                value.copy_(tensors[name])
        load_moments(self.optimizer, state, groups)
