"""Processes that share the rows, under torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def _running() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def sharing(device: torch.device | str) -> Iterator[None]:
    """Join the processes that torchrun started, where it did, and leave them afterwards."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2 or _running() or "RANK" not in os.environ:
        yield
        return
    torch.distributed.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


def alone() -> bool:
    """Whether no other process shares the rows."""
    return not _running() or torch.distributed.get_world_size() == 1


def rank() -> int:
    """Number of this process among those that share the rows."""
    return torch.distributed.get_rank() if _running() else 0


def own_share(rows: int) -> list[int]:
    """Row numbers of this process: every n-th, where there are n of them."""
    if not _running():
        return list(range(rows))
    return list(range(rank(), rows, torch.distributed.get_world_size()))


def gathered(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """What all processes gathered, this one among them, in their order; nothing where it is alone."""
    if not _running() or torch.distributed.get_world_size() == 1:
        return []
    device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, {name: value.cpu() for name, value in tensors.items()})
    return [{name: value.to(device) for name, value in one.items()} for one in found]


def summed(value: float) -> float:
    """The sum of a number over all processes."""
    if not _running():
        return value
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return float(sum(found))
