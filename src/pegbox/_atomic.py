"""Whole or not at all: files and folders written beside their place and renamed into it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pegbox.errors import UsageError


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` as UTF-8, newlines unchanged; see `write_bytes`."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write ``content`` so that ``path`` holds either its old content or all of the new.

    Parents are created. A symbolic link keeps pointing at its target, which is replaced. A device or
    pipe (``/dev/stdout``) cannot be renamed onto and is written directly.

    Args:
        path: The file to write or replace.
        content: All bytes of the new file.

    Returns:
        ``path`` as a `Path`.

    Raises:
        UsageError: ``path`` is a folder.
    """
    given = Path(path)
    if given.is_dir():
        raise UsageError("cannot write a file where a folder is", where=str(given), fix="give a file name")
    if given.exists() and not given.is_file():
        given.write_bytes(content)
        return given
    target = given.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _sibling(target, "partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)
    return given


@contextlib.contextmanager
def folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder ``.name.partial-PID`` beside ``path`` that becomes ``path`` when the block ends.

    On any exception, Ctrl-C included, the partial folder is removed and ``path`` is as before. An empty
    folder at ``path`` counts as free. With ``overwrite`` the old folder is renamed to ``.name.old-PID``
    for the moment between the two renames, and deleted when the new one is in place.

    Args:
        path: The folder to make; parents are created.
        overwrite: Replace a folder that is not empty.

    Raises:
        UsageError: ``path`` is a file, is not empty (without ``overwrite``), or holds the working folder.
    """
    target = Path(path).resolve()
    _check_free(target, Path(path), overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _sibling(target, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _sync(file)
        _check_free(target, Path(path), overwrite)
        _swap(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync_folder(target.parent)


def _sibling(target: Path, role: str) -> Path:
    return target.with_name(f".{target.name}.{role}-{os.getpid()}")


def _check_free(target: Path, given: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError("cannot make a folder where a file is", where=str(given), fix="give another name")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise UsageError(
            "the output folder exists and is not empty",
            where=str(given),
            fix="give another folder, or allow it to be overwritten",
        )
    if Path.cwd().is_relative_to(target):
        raise UsageError(
            "cannot overwrite the folder that holds the working folder",
            where=str(given),
            fix="give a folder of its own for the output",
        )


def _swap(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    old = _sibling(target, "old")
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _sync_folder(place: Path) -> None:
    # Some platforms and network file systems cannot sync a folder; the rename itself is still atomic.
    with contextlib.suppress(OSError):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
