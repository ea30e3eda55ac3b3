"""A comparison's folder: finished cells are kept whole, so that a killed comparison loses none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pegbox._atomic import folder as atomic_folder
from pegbox._atomic import recover, write_text
from pegbox.comparison._contest import Answers, Contest
from pegbox.comparison._files import CELL, CELLS, MADE_FILES, MADE_FOLDERS, PROTOCOL, WORK
from pegbox.comparison._ladder import Contender
from pegbox.comparison._result import Cell, cell_json, read_cell
from pegbox.errors import InputError, UsageError

FORMAT = "pegbox.cell/1"


@dataclass(frozen=True)
class Store:
    """Where a comparison keeps what it has measured.

    Args:
        folder: The comparison's folder.
        contest: How its answers are kept.
    """

    folder: Path
    contest: Contest

    def check(self) -> None:
        """Raise UsageError when no comparison could be kept there, whatever its protocol."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(
                "cannot make a folder where a file is", where=str(self.folder), fix="choose another --out"
            )
        if not self.folder.is_dir() or (self.folder / PROTOCOL).is_file():
            return
        if any(self.folder.iterdir()):
            raise UsageError(
                "the output folder exists and holds no comparison",
                where=str(self.folder),
                expected="a new or empty folder, or one that a comparison made",
                fix="choose another --out",
            )

    def claim(self, protocol: Mapping[str, str], *, overwrite: bool = False) -> None:
        """Take the folder for comparisons under one protocol.

        Args:
            protocol: All that a cell depends on besides its rung and seed.
            overwrite: Whether a comparison under another protocol may be replaced, nothing else.

        Raises:
            UsageError: When it holds something else, or a comparison under another protocol.
        """
        self.check()
        path = self.folder / PROTOCOL
        if path.is_file():
            stored = _read_json(path)
            differing = sorted(
                name for name in {*stored, *protocol} if stored.get(name) != protocol.get(name)
            )
            if not differing:
                return
            if not overwrite:
                raise UsageError(
                    f"the folder holds another comparison: {', '.join(differing)} differ"
                    + ("s" if len(differing) == 1 else ""),
                    where=str(self.folder),
                    expected="the data, base, rows and settings that it was begun with",
                    fix="choose another --out, or replace it with --overwrite",
                )
            self._clear()
        write_text(path, json.dumps(dict(protocol), indent=1, ensure_ascii=False) + "\n")

    def place(self, rung: str, seed: int) -> Path:
        """The folder of a cell."""
        return self.folder / CELLS / slug(rung) / f"seed-{seed}"

    def work(self, contender: Contender, seed: int) -> Path:
        """Where a cell that is being measured keeps its checkpoints; other options have another place."""
        digest = sha256(json.dumps(_method(contender), sort_keys=True).encode()).hexdigest()[:8]
        return self.folder / WORK / f"{slug(contender.name)}-{digest}-seed-{seed}"

    def find(self, contender: Contender, seed: int) -> tuple[Cell, Answers] | None:
        """Return a finished cell with its answers, if there is one.

        Raises:
            InputError: When it is damaged.
            UsageError: When it was measured with other options.
        """
        place = self.place(contender.name, seed)
        recover(place)
        path = place / CELL
        if not path.is_file():
            return None
        stored = _read_json(path)
        if stored.get("format") != FORMAT:
            raise InputError(
                f"the cell has the format {stored.get('format')}",
                where=str(path),
                expected=FORMAT,
                fix=f"remove {place}: only that cell is measured again",
            )
        if stored["method"] != _method(contender):
            raise UsageError(
                f"{contender.name} was measured otherwise: {_differing(stored['method'], contender)}",
                where=str(place),
                expected="the options that the folder's cells have",
                fix="choose another --out, or remove that folder to measure it again",
            )
        try:
            return read_cell(stored["cell"]), self.contest.read(place)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"the cell lacks a part: {error}",
                where=str(path),
                fix=f"remove {place}: only that cell is measured again",
            ) from None

    def keep(
        self, contender: Contender, seed: int, measure: Callable[[Path], tuple[Cell, Answers]]
    ) -> tuple[Cell, Answers]:
        """Measure a cell into a folder that appears whole, and remove its checkpoints.

        Args:
            contender: The rung.
            seed: The seed.
            measure: Fills the folder it is given with what shall be kept, and returns the cell.
        """
        place = self.place(contender.name, seed)
        with self._no_empty(place), atomic_folder(place) as target:
            cell, answers = measure(target)
            kept = target / "tuned"
            cell = replace(cell, folder=self._relative(place / "tuned") if kept.is_dir() else None)
            self.contest.write(answers, target)
            content = {"format": FORMAT, "method": _method(contender), "cell": cell_json(cell)}
            text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
            (target / CELL).write_text(text + "\n", "utf-8")
        work = self.work(contender, seed)
        shutil.rmtree(work, ignore_errors=True)
        _remove_empty(work.parent)
        return cell, answers

    def leave_if_empty(self) -> None:
        """Give the folder up when it holds no cell, and no checkpoint to go on from."""
        if not any((self.folder / name).exists() for name in (CELLS, WORK)):
            (self.folder / PROTOCOL).unlink(missing_ok=True)
            _remove_empty(self.folder)

    @contextmanager
    def _no_empty(self, place: Path) -> Iterator[None]:
        """Leave no empty folders where a cell was to be, when the block fails."""
        try:
            yield
        except BaseException:
            _remove_empty(place.parent, place.parent.parent)
            raise

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _clear(self) -> None:
        """Remove what a comparison and its report made, and nothing else that may lie there."""
        for name in MADE_FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in MADE_FILES:
            (self.folder / name).unlink(missing_ok=True)


def _remove_empty(*folders: Path) -> None:
    """Remove folders that are empty, in this order."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def check_folders(rungs: Sequence[str]) -> None:
    """Raise UsageError for rungs whose cells would share a folder, also where capitals do not count."""
    taken: dict[str, str] = {}
    for name in rungs:
        other = taken.setdefault(slug(name).casefold(), name)
        if other != name:
            raise UsageError(
                f"the rungs '{other}' and '{name}' would have the same folder",
                where="methods",
                expected="names that differ in letters, digits, points or lines, not in capitals alone",
                fix="give one of them another name",
            )


def slug(name: str) -> str:
    """A rung's name as that of a folder."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "rung"


def _method(contender: Contender) -> dict[str, Any]:
    options = json.loads(json.dumps(contender.options, default=str))
    return {"name": contender.method.name, "options": options}


def _differing(stored: Mapping[str, Any], contender: Contender) -> str:
    now = _method(contender)
    if stored["name"] != now["name"]:
        return f"it was {stored['name']}, is {now['name']}"
    before, after = stored["options"], now["options"]
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return ", ".join(f"{name} was {before.get(name)}, is {after.get(name)}" for name in names)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the file cannot be read: {error}", where=str(path), fix="remove it, or choose another --out"
        ) from None
    if not isinstance(content, dict):
        raise InputError("the file holds no JSON object", where=str(path), fix="remove it")
    return content
