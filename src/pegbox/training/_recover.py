"""Parameters out of a run's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pegbox.errors import UsageError
from pegbox.training._checkpoints import Checkpoints


def recovered(model: nn.Module, folder: Path) -> int:
    """Do what `recover` promises; see there."""
    kept = Checkpoints(folder, say=lambda _: None).best()
    if kept is None:
        raise UsageError("there is no intact checkpoint", where=str(folder), expected="the folder of a run")
    stored = kept.tensors("parameters")
    found = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if {name: value.shape for name, value in found.items()} != {k: v.shape for k, v in stored.items()}:
        raise UsageError(
            "the checkpoint is of other parameters than the model trains",
            where=str(kept.path),
            expected="the model as it was when training began",
            fix="attach the same method to the same base first",
        )
    with torch.no_grad():
        for name, value in found.items():
            value.copy_(stored[name])
    return kept.step
