"""An optimiser's state as flat tensors, so that it is stored without pickles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def flat_moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of each parameter, by its number and the state's name."""
    return {
        f"{index}.{key}": value.detach().cpu().contiguous()
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def load_moments(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Set the state to what `flat_moments` gave, and the groups to those of its ``state_dict``."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
