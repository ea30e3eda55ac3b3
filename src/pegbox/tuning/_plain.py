"""Plain model folders: what Transformers loads by itself, and a head beside the trunk where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pegbox.errors import InputError
from pegbox.models import Base, PooledClassifier, check_safetensors, quietly

HEAD = "head.safetensors"
WEIGHTS = "model*.safetensors"


def write_model(module: nn.Module, base: Base, folder: Path) -> None:
    """Write ``config.json``, ``model.safetensors``, the tokenizer's files and ``head.safetensors``."""
    from safetensors.torch import save_file

    trunk: Any = module.encoder if isinstance(module, PooledClassifier) else module
    with quietly():
        trunk.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
    if isinstance(module, PooledClassifier):
        head = {name: value.detach().cpu().contiguous() for name, value in module.score.state_dict().items()}
        save_file(head, folder / HEAD, metadata={"format": "pt"})


def read_head(module: nn.Module, folder: Path) -> nn.Module:
    """Fill the head of an encoder with what lies in the folder.

    Raises:
        InputError: When the file is missing, damaged, not finite or of other sizes.
    """
    from safetensors.torch import load_file

    if not isinstance(module, PooledClassifier):
        return module
    path = folder / HEAD
    check_safetensors(path)
    found, wanted = load_file(path), module.score.state_dict()
    shapes = {name: tuple(value.shape) for name, value in wanted.items()}
    if {name: tuple(value.shape) for name, value in found.items()} != shapes:
        raise InputError(
            f"the head does not fit: {_told(found)}",
            where=str(path),
            expected=_told(wanted),
            fix="copy the whole folder again",
        )
    if not all(bool(torch.isfinite(value).all()) for value in found.values()):
        raise InputError(
            "the head holds a value that is not a finite number",
            where=str(path),
            expected="finite weights",
            fix="tune again, with a lower learning rate",
        )
    module.score.load_state_dict(found)
    return module


def model_bytes(folder: Path) -> int:
    """Size of the weights in a folder."""
    return sum(path.stat().st_size for path in (*folder.glob(WEIGHTS), *folder.glob(HEAD)))


def _told(tensors: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in sorted(tensors.items()))
