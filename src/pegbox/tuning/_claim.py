from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pegbox._atomic import write_text
from pegbox.errors import UsageError

KEY = "fit.json"
_DIGEST = re.compile(r"[0-9a-f]{32,}|none")
_OPTION = re.compile(r"'(\w+)': (.*?)(?=, '\w+': |}$)")
# Where TensorBoard's curves of finished fits stay, if nothing else is said.
LOGS = "runs"
MADE = ("checkpoint-*", ".checkpoint-*", f".{KEY}.partial-*")


@contextmanager
def claimed(folder: Path, key: Mapping[str, str], *, resume: bool) -> Iterator[None]:
    """Note in a run's folder which fit it belongs to, so that no other fit continues its checkpoints.

    Args:
        folder: The run's folder.
        key: All that the fit depends on and the engine cannot see, by name.
        resume: Whether the fit continues what lies there.

    Raises:
        UsageError: When the folder holds something else than a fit, or on a resume another fit.
    """
    check_own(folder)
    path, new = folder / KEY, not folder.exists()
    before = path.read_text("utf-8") if path.is_file() else None
    if resume and before is not None:
        _check_same(json.loads(before), key, folder)
    write_text(path, json.dumps(dict(key), indent=1) + "\n")
    try:
        yield
    except UsageError:
        if before is None:
            path.unlink(missing_ok=True)
            if new:
                _remove_if_empty(folder)
        else:
            write_text(path, before)
        raise


def check_own(folder: Path) -> None:
    """Raise UsageError unless a run's folder is free or a fit made it, whose checkpoints may be deleted."""
    blocked = folder.exists() and not folder.is_dir()
    if blocked or (_foreign(folder) and not (folder / KEY).is_file()):
        raise UsageError(
            "the place for the checkpoints is taken by something else",
            where=str(folder),
            expected=f"no such folder, an empty one, or one that a fit made (with {KEY})",
            fix="move it away, or choose another place for the output",
        )


def release(folder: Path) -> None:
    """Delete what a finished fit kept in its run's folder, and the folder when nothing else is in it."""
    if not (folder / KEY).is_file():
        return
    for pattern in MADE:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / KEY).unlink()
    _remove_if_empty(folder)


def _foreign(folder: Path) -> bool:
    def known(path: Path) -> bool:
        return path.name.startswith(f".{KEY}.partial-") or (path.name == LOGS and path.is_dir())

    return folder.is_dir() and not all(map(known, folder.iterdir()))


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _check_same(stored: Mapping[str, str], key: Mapping[str, str], folder: Path) -> None:
    differing = [
        _difference(name, stored.get(name), key[name]) for name in key if stored.get(name) != key[name]
    ]
    if differing:
        raise UsageError(
            f"the checkpoints belong to another fit: {'; '.join(differing)}",
            where=str(folder),
            expected="the base, task, method, rows and seed that the run began with",
            fix="repeat the first command with --resume, or remove the folder to start afresh",
        )


def _difference(name: str, then: str | None, now: str) -> str:
    """What differs and how; of a method, its options one by one; digests tell nobody anything."""
    verb = "differ" if name.endswith("rows") else "differs"
    if then is None or _DIGEST.fullmatch(now) or _DIGEST.fullmatch(then):
        return f"{name} {verb}"
    before, after = dict(_OPTION.findall(then)), dict(_OPTION.findall(now))
    changed = [option for option in after if before.get(option, after[option]) != after[option]]
    if changed and before.keys() == after.keys():
        told = ", ".join(f"{option} was {before[option]}, is {after[option]}" for option in changed)
        return f"{name} {verb} ({told})"
    return f"{name} {verb} (was {then}, is {now})"
