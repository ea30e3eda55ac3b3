"""How much memory a block of work takes at its peak."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from pegbox.training import earlier_peak

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class Peak:
    """What :func:`peak_memory` found.

    Args:
        bytes: Most memory in use above what was in use at the block's start; ``None`` where it is not told.
    """

    def __init__(self) -> None:
        self.bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the most memory in use while the block runs, above what is in use when it begins.

    On CUDA that is what the allocator handed out; on a CPU resident memory, which Linux alone can measure for
    a part of a process. Freed memory is first given back to the system as far as the C library allows, so
    that what earlier work left behind is not used a second time unseen.

    Args:
        device: Where the work happens.
    """
    found = Peak()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        earlier_peak(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        # Training counts anew when it begins: what came before, such as its caches, is no less a part.
        found.bytes = max(torch.cuda.max_memory_allocated(device), earlier_peak(device)) - before
        return
    _give_back()
    able = _reset()
    start = _status("VmRSS")
    yield found
    most = _status("VmHWM")
    if able and start is not None and most is not None:
        found.bytes = max(most - start, 0)


def _give_back() -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc lacks it
            ctypes.CDLL(None).malloc_trim(0)


def _reset() -> bool:
    """Set the high-water mark back to what is resident now."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int | None:
    try:
        lines = STATUS.read_text("ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(f"{name}:")]
    return int(found[0][1]) * 1024 if found else None
