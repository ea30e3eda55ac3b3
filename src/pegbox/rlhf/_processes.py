"""Several processes that share the rows of each batch, or one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def begin(device: torch.device) -> None:
    """Join the processes that ``torchrun`` started, where it did and nobody has yet."""
    if dist.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if _several() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _several() else 1


def own(rows: Sequence[T]) -> list[T]:
    """This process's share of some rows."""
    return list(rows[rank() :: size()])


def gathered(mine: Sequence[T], rows: int) -> list[T]:
    """What all processes made of their shares, in the order of the rows."""
    if not _several():
        return list(mine)
    parts: list[list[T]] = [[] for _ in range(size())]
    dist.all_gather_object(parts, list(mine))
    return [parts[index % size()][index // size()] for index in range(rows)]


def add_up(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors, in place."""
    if _several():
        dist.all_reduce(tensor)
    return tensor


def add_gradients(parameters: Sequence[Tensor]) -> None:
    """Make each gradient the sum of all processes' own."""
    if not _several():
        return
    for value in parameters:
        if value.grad is None:
            value.grad = torch.zeros_like(value)
        dist.all_reduce(value.grad)


def wait() -> None:
    """Wait for all processes."""
    if _several():
        dist.barrier()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()
