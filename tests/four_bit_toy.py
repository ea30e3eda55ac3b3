"""Tiny models that are wide enough for blocks of 64 weights."""

import tempfile
from functools import cache
from pathlib import Path
from unittest.mock import patch

from tiny import SMALL, save_tiny

_FOLDERS: list[tempfile.TemporaryDirectory] = []  # type: ignore[type-arg]


@cache
def wide_folder(architecture: str, kind: str, width: int = 64) -> Path:
    """A tiny model of this width with twice 64 inner units, made once per run."""
    place = tempfile.TemporaryDirectory(prefix="pegbox-wide-")
    _FOLDERS.append(place)
    with patch.dict(SMALL, {"hidden_size": width, "intermediate_size": 128, "n_inner": 128}):
        return save_tiny(Path(place.name), architecture, kind)
