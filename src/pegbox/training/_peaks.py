"""Peaks of memory on an accelerator that outlast a count begun anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_EARLIER: dict[torch.device, int] = {}


def restart_peak(device: torch.device) -> None:
    """Count the peak on an accelerator anew; what was there before is kept for :func:`earlier_peak`."""
    if device.type == "cuda":
        import torch

        most = torch.cuda.max_memory_allocated(device)
        _EARLIER[device] = max(_EARLIER.get(device, 0), most)
        torch.cuda.reset_peak_memory_stats(device)


def earlier_peak(device: torch.device) -> int:
    """The highest peak before any restart since this was last asked, in bytes; it is then forgotten."""
    return _EARLIER.pop(device, 0)
