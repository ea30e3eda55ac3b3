from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pegbox._atomic import write_text
from pegbox.errors import UsageError

KEY = "fit.json"


@contextmanager
def claimed(folder: Path, key: Mapping[str, str], *, resume: bool) -> Iterator[None]:
    """Note in a run's folder which fit it belongs to, so that no other fit continues its checkpoints.

    Args:
        folder: The run's folder.
        key: All that the fit depends on and the engine cannot see, by name.
        resume: Whether the fit continues what lies there.

    Raises:
        UsageError: On a resume when what lies there belongs to another fit.
    """
    path = folder / KEY
    before = path.read_text("utf-8") if path.is_file() else None
    if resume and before is not None:
        _check_same(json.loads(before), key, folder)
    write_text(path, json.dumps(dict(key), indent=1) + "\n")
    try:
        yield
    except UsageError:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            write_text(path, before)
        raise


def _check_same(stored: Mapping[str, str], key: Mapping[str, str], folder: Path) -> None:
    differing = [name for name in key if stored.get(name) != key[name]]
    if differing:
        raise UsageError(
            f"the checkpoints belong to another fit: {', '.join(differing)} differ",
            where=str(folder),
            expected="the base, task, method, rows and seed that the run began with",
            fix="repeat the first command with --resume, or remove the folder to start afresh",
        )
