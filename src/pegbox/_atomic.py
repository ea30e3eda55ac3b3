"""Whole or not at all: files and folders written beside their place and renamed into it."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pegbox.errors import UsageError

STALE = 60
# A folder with one of these was written by Pegbox: a tuned or merged model, or the demo.
OWN = ("pegbox.json", "closed-form/pegbox.json")


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
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            # A full disk is reported without the name of the file.
            raise OSError(error.errno, error.strerror, str(given)) from error
        raise
    _sync_folder(target.parent)
    return given


@contextlib.contextmanager
def folder(path: str | Path, overwrite: bool = False, own: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder ``.name.partial-PID`` beside ``path`` that becomes ``path`` when the block ends.

    What a killed process left beside ``path`` is cleared first (`recover`). On any exception, Ctrl-C
    included, the partial folder is removed and ``path`` is as before. An empty folder at ``path`` counts as
    free. With ``overwrite`` the old folder is renamed to ``.name.old-PID`` for the moment between the two
    renames, and deleted when the new one is in place.

    Args:
        path: The folder to make; parents are created.
        overwrite: Replace a folder that is not empty.
        own: Files of which one must lie in a folder that is replaced; any folder is replaced without them.

    Raises:
        UsageError: ``path`` is a file, is not empty (without ``overwrite``), is not Pegbox's own, or holds
            the working folder.
    """
    target = Path(path).resolve()
    recover(target)
    _check_free(target, Path(path), overwrite)
    if own:
        check_own(Path(path), own)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _sibling(target, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file() and not file.is_symlink():
                # safetensors keeps its files to the owner; whoever may read the folder may read them.
                file.chmod(partial.stat().st_mode & 0o666)
                _sync(file)
        _check_free(target, Path(path), overwrite)
        _swap(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync_folder(target.parent)


def recover(path: str | Path) -> None:
    """Undo what processes that were killed in `folder` left beside ``path``.

    The newest folder ``.name.old-PID`` is renamed back when ``path`` is missing: its process died between two
    renames. Other such folders, and ``.name.partial-PID``, are deleted when nothing in them changed for
    `STALE` seconds. Those of a living process are not touched.

    Args:
        path: The folder that was to be made.
    """
    target = Path(path).resolve()
    for role, left in _leftovers(target):
        if role == "old" and not target.exists():
            left.rename(target)
        elif time.time() - _changed(left) > STALE:
            shutil.rmtree(left, ignore_errors=True)


def check_own(path: Path, own: Sequence[str] = OWN, name: str = "") -> None:
    """Refuse to replace a folder that Pegbox did not write.

    Args:
        path: The folder that was to be replaced.
        own: Files of which one lies in each folder that Pegbox wrote.
        name: What the folder is called in the error, such as ``--out``.

    Raises:
        UsageError: It holds something, and none of ``own``.
    """
    if path.is_dir() and any(path.iterdir()) and not any((path / file).is_file() for file in own):
        raise UsageError(
            "this folder would be replaced, and it holds something that Pegbox did not write",
            where=f"{name} {path}".strip(),
            expected=f"a new or empty folder, or one that Pegbox wrote (with {own[0]})",
            fix=f"choose another {name or 'folder'}, or remove that folder first",
        )


def _leftovers(target: Path) -> list[tuple[str, Path]]:
    """Role and path of what dead processes of this machine left, the newest first."""
    if not target.parent.is_dir():
        return []
    name = re.compile(rf"\.{re.escape(target.name)}\.(partial|old)-(\d{{1,9}})")
    found = [(name.fullmatch(path.name), path) for path in target.parent.iterdir()]
    dead = [(match[1], path) for match, path in found if match and path.is_dir() and _is_dead(int(match[2]))]
    return sorted(dead, key=lambda item: _changed(item[1]), reverse=True)


def _is_dead(process: int) -> bool:
    if os.name != "posix":
        # Elsewhere signal 0 would end the process instead of asking for it.
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _changed(place: Path) -> float:
    """When anything in a folder last changed: a process of another machine may still be writing there."""
    newest = 0.0
    for path in (place, *place.rglob("*")):
        with contextlib.suppress(OSError):
            newest = max(newest, path.lstat().st_mtime)
    return newest


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
