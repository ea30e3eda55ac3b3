"""Several processes that share the rows of one job, under ``torchrun``, or one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def several() -> bool:
    """Whether this process has joined others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if several() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if several() else 1


def join(device: torch.device | str) -> bool:
    """Join the processes that ``torchrun`` started, where it did and nobody has yet; whether this did."""
    started = "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not started or not dist.is_available() or dist.is_initialized():
        return False
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo")
    return True


@contextmanager
def joined(device: torch.device | str) -> Iterator[None]:
    """Join the processes that ``torchrun`` started, where it did and nobody has yet, and leave afterwards."""
    if not join(device):
        yield
        return
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def own(rows: Sequence[T]) -> list[T]:
    """This process's share of some rows: every n-th, where there are n processes."""
    return list(rows[rank() :: size()])


def of_all(mine: T) -> list[T]:
    """What each process has, in their order."""
    if size() == 1:
        return [mine]
    found: list[T] = [mine] * size()
    dist.all_gather_object(found, mine)
    return found


def gathered(mine: Sequence[T], rows: int) -> list[T]:
    """What all processes made of their shares, in the order of the rows."""
    parts = of_all(list(mine))
    return [parts[index % len(parts)][index // len(parts)] for index in range(rows)]


def add_up(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors, in place."""
    if several():
        dist.all_reduce(tensor)
    return tensor


def add_gradients(parameters: Sequence[Tensor]) -> None:
    """Make each gradient the sum of all processes' own."""
    if not several():
        return
    for value in parameters:
        if value.grad is None:
            value.grad = torch.zeros_like(value)
        dist.all_reduce(value.grad)


def wait() -> None:
    """Wait for all processes."""
    if several():
        dist.barrier()
