"""When memory runs out, and how much was used."""

from __future__ import annotations

import sys

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

# What accelerate's list lacks: the driver's own message, cuBLAS's workspace and the allocator on Windows.
_ALSO = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: not enough memory")


def ran_out(problem: BaseException) -> bool:
    """Return whether ``problem`` says that there was too little memory on an accelerator or the CPU."""
    if not isinstance(problem, RuntimeError):
        return False
    return (
        isinstance(problem, torch.OutOfMemoryError)
        or should_reduce_batch_size(problem)
        or any(part in str(problem) for part in _ALSO)
    )


def release() -> None:
    """Give back what nobody holds any more."""
    clear_device_cache(garbage_collection=True)


def peak(device: torch.device) -> int:
    """Return the most bytes in use so far: see `History.peak_memory_bytes`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
