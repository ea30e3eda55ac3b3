"""What a fit has gathered so far, left on disk now and then and when it is interrupted."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import torch

from pegbox._atomic import write_bytes
from pegbox.uncertainty._curvature import Gatherer

SECONDS = 60.0
_NAME = "curvature-{}.safetensors"
_PASS, _BATCH, _LIKELIHOOD = "pass", "batch", "log_likelihood"


class Progress:
    """Writes a gatherer's tensors once a minute, and finds them again.

    Args:
        folder: Where; nowhere when ``None``. It is removed when the fit is done.
        key: What the fit depends on: what was left by another fit is removed.
        device: Where the tensors are gathered.
    """

    def __init__(self, folder: Path | None, key: str, device: torch.device) -> None:
        self._folder, self._key, self._device = folder, key, device
        self._path = None if folder is None else folder / _NAME.format(key[:16])
        self._last = time.monotonic()

    def begin(self, gatherer: Gatherer) -> tuple[float, tuple[int, int]]:
        """Restore what is there; returns the log likelihood so far, the pass and the batches done of it."""
        from safetensors import SafetensorError, safe_open

        if self._path is None or self._folder is None or not self._folder.is_dir():
            return 0.0, (0, 0)
        for other in self._folder.glob(_NAME.format("*")):
            if other != self._path:
                other.unlink(missing_ok=True)
        try:
            with safe_open(self._path, "pt", device=str(self._device)) as file:
                known = json.loads((file.metadata() or {}).get("pegbox", "{}"))
                if known.get("key") != self._key:
                    return 0.0, (0, 0)
                names = file.keys()
                gatherer.restore({name: file.get_tensor(name) for name in names})
        except (OSError, SafetensorError, ValueError):
            return 0.0, (0, 0)  # none, or a damaged file, is no progress
        for _ in range(known[_PASS]):
            gatherer.next_pass()
        return known[_LIKELIHOOD], (known[_PASS], known[_BATCH])

    def step(self, gatherer: Gatherer, likelihood: float, number: int, batch: int) -> None:
        """Write what was gathered if the last time was a minute ago."""
        if self._path is not None and time.monotonic() - self._last >= SECONDS:
            self.write(gatherer, likelihood, number, batch)

    def write(self, gatherer: Gatherer, likelihood: float, number: int, batch: int) -> None:
        """Write what was gathered."""
        if self._path is None:
            return
        from safetensors.torch import save

        told = {"key": self._key, _PASS: number, _BATCH: batch, _LIKELIHOOD: likelihood}
        tensors = {name: value.cpu().contiguous() for name, value in gatherer.tensors().items()}
        write_bytes(self._path, save(tensors, {"pegbox": json.dumps(told)}))
        self._last = time.monotonic()

    def done(self) -> None:
        """Remove what is no longer needed."""
        if self._path is not None and self._folder is not None:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # others may have put something there
                self._folder.rmdir()
