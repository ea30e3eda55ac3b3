"""What a fit has gathered so far, left on disk now and then."""

from __future__ import annotations

import json
import time
from pathlib import Path

from pegbox._atomic import write_bytes
from pegbox.uncertainty._curvature import Gatherer
from pegbox.uncertainty._share import rank

SECONDS = 60.0
_PASS, _BATCH, _LIKELIHOOD = "pass", "batch", "log_likelihood"


class Progress:
    """Writes a gatherer's tensors once a minute, and finds them again.

    Args:
        folder: Where; nowhere when ``None``.
        key: What the fit depends on: what was left by another fit is not taken up.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._path = None if folder is None else folder / f"curvature-{key[:16]}-{rank()}.safetensors"
        self._key = key
        self._last = time.monotonic()

    def begin(self, gatherer: Gatherer) -> tuple[float, tuple[int, int]]:
        """Restore what is there; returns the log likelihood so far, the pass and the batches done of it."""
        from safetensors import SafetensorError, safe_open

        if self._path is None or not self._path.is_file():
            return 0.0, (0, 0)
        try:
            with safe_open(self._path, "pt") as file:
                known = json.loads((file.metadata() or {}).get("pegbox", "{}"))
                if known.get("key") != self._key:
                    return 0.0, (0, 0)
                names = file.keys()
                gatherer.restore({name: file.get_tensor(name) for name in names})
        except (OSError, SafetensorError, ValueError):
            return 0.0, (0, 0)  # a damaged file is no progress
        for _ in range(known[_PASS]):
            gatherer.next_pass()
        return known[_LIKELIHOOD], (known[_PASS], known[_BATCH])

    def step(self, gatherer: Gatherer, likelihood: float, number: int, batch: int) -> None:
        """Write what was gathered if the last time was a minute ago."""
        if self._path is None or time.monotonic() - self._last < SECONDS:
            return
        from safetensors.torch import save

        told = {"key": self._key, _PASS: number, _BATCH: batch, _LIKELIHOOD: likelihood}
        tensors = {name: value.cpu().contiguous() for name, value in gatherer.tensors().items()}
        write_bytes(self._path, save(tensors, {"pegbox": json.dumps(told)}))
        self._last = time.monotonic()

    def done(self) -> None:
        """Remove what is no longer needed."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
