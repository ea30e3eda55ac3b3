"""Processes that share the rows, under torchrun."""

from __future__ import annotations

from typing import Any

import torch


def _running() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """Number of this process among those that share the rows."""
    return torch.distributed.get_rank() if _running() else 0


def own_share(rows: int) -> list[int]:
    """Row numbers of this process: every n-th, where there are n of them."""
    if not _running():
        return list(range(rows))
    return list(range(rank(), rows, torch.distributed.get_world_size()))


def gathered(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """What all other processes gathered, in their order, on this process's device."""
    if not _running() or torch.distributed.get_world_size() == 1:
        return []
    device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, {name: value.cpu() for name, value in tensors.items()})
    others = [one for number, one in enumerate(found) if number != rank()]
    return [{name: value.to(device) for name, value in one.items()} for one in others]


def summed(value: float) -> float:
    """The sum of a number over all processes."""
    if not _running():
        return value
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return float(sum(found))
