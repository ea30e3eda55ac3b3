from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """The model with all dropout at work, or none; each module's mode is given back."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:  # not by train(), which a head on frozen features answers in its own way
        module.training = training
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
