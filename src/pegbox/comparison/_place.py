"""When, where and with which libraries something was measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python, Pegbox and the libraries that matter."""
    from pegbox._version import __version__

    found = {"pegbox": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in LIBRARIES}


def now() -> str:
    """The moment, ISO 8601, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine(device: torch.device) -> str:
    """The processor, its cores and the accelerator, without the machine's name."""
    cores = f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}; {cores}"
    return cores


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
