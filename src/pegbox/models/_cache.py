from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from pegbox._atomic import write_bytes
from pegbox.models._base import Base
from pegbox.tasks import Encoded, Prompt

FORMAT = 2

Key = dict[str, str | int]


@dataclass(frozen=True)
class Features:
    """What the frozen base holds at each answer position.

    Args:
        hidden: (rows, width) float32, the input of the output layer.
        logits: (rows, labels) float32, the base's answer; zeros for an encoder without output layer.
        cached: Whether they were read from the cache.
    """

    hidden: Tensor
    logits: Tensor
    cached: bool = False

    def __len__(self) -> int:
        return len(self.hidden)


class FeatureCache:
    """Features on disk: one safetensors file per base, task and rows, with a JSON key beside it.

    Args:
        folder: Where; ``PEGBOX_CACHE`` or ``~/.cache/pegbox`` when ``None``.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        root = Path(os.environ.get("PEGBOX_CACHE") or "~/.cache/pegbox").expanduser()
        self.folder = Path(folder) if folder else root / "features"

    def key(self, base: Base, prompt: Prompt, encoded: Encoded, tokens: tuple[int, ...]) -> Key:
        """All that the features depend on.

        Args:
            base: The base.
            prompt: The task.
            encoded: The rows.
            tokens: The output rows that are read.
        """
        from transformers import __version__

        return {
            "format": FORMAT,
            "transformers": __version__,
            "base": base.fingerprint,
            "kind": base.kind,
            "dtype": str(base.dtype),
            "device": base.device.type,
            "pooling": base.pooling if base.kind == "encoder" else "",
            "tokens": repr(tokens),
            "labels": len(prompt.task.labels),
            "rows": encoded.digest(),
        }

    def read(self, key: Key) -> Features | None:
        """The features of a key, or ``None`` when they are not there or not whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._path(key)
        try:
            stored = json.loads(path.with_suffix(".json").read_text("utf-8"))
            content = path.read_bytes()
            if stored != {"key": key, "sha256": sha256(content).hexdigest()}:
                return None
            tensors = load(content)
            return Features(tensors["hidden"], tensors["logits"], cached=True)
        except (OSError, ValueError, KeyError, SafetensorError):
            return None

    def write(self, key: Key, features: Features) -> None:
        """Store features by atomic rename, the JSON key with their checksum last."""
        from safetensors.torch import save

        path = self._path(key)
        content = save({"hidden": features.hidden.contiguous(), "logits": features.logits.contiguous()})
        write_bytes(path, content)
        stored = {"key": key, "sha256": sha256(content).hexdigest()}
        write_bytes(path.with_suffix(".json"), json.dumps(stored, indent=1).encode())

    def _path(self, key: Key) -> Path:
        name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{name}.safetensors"
