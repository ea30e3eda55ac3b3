"""Checkpoints: whole folders of safetensors and JSON that prove their own integrity."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from pegbox.errors import RunError, UsageError

_NAME = re.compile(r"checkpoint-(\d+)")
_MANIFEST = "checkpoint.json"
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk.

    Args:
        path: Its folder.
        step: Optimiser steps done when it was written.
        record: What the engine stored beside the tensors.
        files: SHA-256 of each other file, by name.
    """

    path: Path
    step: int
    record: dict[str, Any]
    files: dict[str, str]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors stored as ``name``, in memory of their own."""
        # Cloned, because arithmetic on memory-mapped, unaligned tensors may round differently.
        stored = load_file(self.path / f"{name}.safetensors")
        return {key: value.clone() for key, value in stored.items()}


class Checkpoints:
    """The checkpoints of one run: the two newest, and the best one of each of them.

    Args:
        folder: Holds one folder ``checkpoint-STEP`` each.
        say: Told about anything found damaged.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say

    def write(
        self,
        step: int,
        tensors: dict[str, dict[str, Tensor]],
        record: dict[str, Any],
        best_step: int | None,
        also: Callable[[Path], None],
    ) -> None:
        """Write the checkpoint of ``step`` under a temporary name, rename it, then delete what is outdated.

        Args:
            step: Optimiser steps done.
            tensors: By file name, without suffix, and key.
            record: JSON object for the manifest.
            best_step: Whose checkpoint must be kept for this one to be usable.
            also: Writes further files into the folder it is given.
        """
        with self._renamed(step) as place:
            for name, content in tensors.items():
                save_file(content, place / f"{name}.safetensors")
            also(place)
            files = {file.name: _digest(file) for file in sorted(place.iterdir())}
            manifest = {"format": 1, "step": step, "best_step": best_step, "record": record, "files": files}
            (place / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        self._rotate()

    @contextmanager
    def _renamed(self, step: int) -> Iterator[Path]:
        # Not synced to the disk, which would stall training: a killed process loses nothing that was written,
        # and after a power cut the digests show which checkpoint is whole.
        place = self.folder / f".checkpoint-{step}.partial"
        target = self.folder / f"checkpoint-{step}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            yield place
            shutil.rmtree(target, ignore_errors=True)
            place.rename(target)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise

    def newest(self, tell: bool = True) -> Checkpoint | None:
        """Return the newest intact checkpoint whose best one is intact too; damaged ones are told."""
        for step in sorted(self._steps(), reverse=True):
            fault = self._fault(step)
            if not fault:
                return self.read(step)
            if tell:
                self.say(f"the checkpoint of step {step} is damaged ({fault}): trying the one before")
        return None

    def best(self) -> Checkpoint | None:
        """Return the checkpoint of the best parameters so far; the newest where none was validated."""
        newest = self.newest(tell=False)
        if newest is None:
            return None
        step = newest.record["ledger"]["best_step"]
        return newest if step is None else self.read(step)

    def read(self, step: int) -> Checkpoint:
        """Return the checkpoint of ``step``, believed intact."""
        path = self.folder / f"checkpoint-{step}"
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        return Checkpoint(path, step, manifest["record"], manifest["files"])

    def forget(self, after: int) -> None:
        """Delete the checkpoints of steps above ``after`` and what an interrupted write left behind."""
        for step in self._steps():
            if step > after:
                shutil.rmtree(self.folder / f"checkpoint-{step}")
        for left in self.folder.glob(".checkpoint-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _steps(self) -> Iterator[int]:
        if self.folder.is_dir():
            for path in list(self.folder.iterdir()):
                match = _NAME.fullmatch(path.name)
                if match and path.is_dir():
                    yield int(match[1])

    def _fault(self, step: int) -> str:
        path = self.folder / f"checkpoint-{step}"
        try:
            manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            files, best = manifest["files"], manifest["best_step"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{_MANIFEST} is missing or unreadable"
        for name, digest in files.items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if _digest(path / name) != digest:
                return f"{name} is truncated or changed"
        if best is not None and best != step:
            fault = self._fault(best)
            return f"its best checkpoint, of step {best}: {fault}" if fault else ""
        return ""

    def _rotate(self) -> None:
        newest = sorted(self._steps(), reverse=True)[:_KEPT]
        best = [json.loads(self._manifest(step).read_text(encoding="utf-8"))["best_step"] for step in newest]
        for step in self._steps():
            if step not in newest and step not in best:
                shutil.rmtree(self.folder / f"checkpoint-{step}")

    def _manifest(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}" / _MANIFEST


def check_same(stored: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Refuse to resume a run as another one.

    Args:
        stored: Flat description of the run in the checkpoint.
        now: That of the run to be resumed.
        where: The checkpoint.

    Raises:
        UsageError: They differ; names each difference.
    """
    keys = [*now, *(key for key in stored if key not in now)]
    changed = [
        f"{key} was {stored.get(key)!r}, is {now.get(key)!r}"
        for key in keys
        if stored.get(key) != now.get(key)
    ]
    if changed:
        raise UsageError(
            "cannot resume: the run differs from the one in the checkpoint: " + "; ".join(changed),
            where=str(where),
            fix="resume with the same settings and rows, or start afresh in another folder",
        )


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as problem:
        raise RunError(f"cannot read a checkpoint: {problem.strerror}", where=str(file)) from problem
