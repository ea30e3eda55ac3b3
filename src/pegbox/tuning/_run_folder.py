"""The folder in which a fit under one seed or several keeps its checkpoints until its result is saved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pegbox.errors import UsageError
from pegbox.training import check_no_unfinished, resume_hint
from pegbox.tuning._claim import KEY, check_own, release

_SEED = re.compile(r"seed-\d+")


def seed_folder(folder: str | Path, seed: int) -> Path:
    """Return where :func:`fit_seeds` keeps the checkpoints of one seed."""
    return Path(folder) / f"seed-{seed}"


def check_run_folder(folder: str | Path, *, several: bool = False, resume: bool = False) -> None:
    """Tell before any work whether a fit may keep its checkpoints in a folder.

    Args:
        folder: What :func:`fit` or :func:`fit_seeds` will be given as ``folder``.
        several: Whether it is for :func:`fit_seeds`.
        resume: Whether what lies there is to be continued.

    Raises:
        UsageError: When the folder holds something else than a fit, a fit of the other kind, or (without
            ``resume``) one that was interrupted, whose work a new one would replace.
    """
    place = Path(folder)
    seeds = _seed_runs(place)
    if several and (place / KEY).is_file():
        raise _of_the_other_kind(place, "one seed", "without --seeds")
    if not several and seeds:
        raise _of_the_other_kind(place, "several seeds", "with its --seeds")
    if not seeds:
        check_own(place)
    if resume:
        return
    if seeds:
        names = ", ".join(path.name for path in seeds)
        raise UsageError(
            f"the folder holds an unfinished run over several seeds ({names})",
            where=str(place),
            expected="no such folder",
            fix=f"continue it with {resume_hint()}, or remove the folder to start afresh",
        )
    check_no_unfinished(place)


def clear_run_folder(folder: str | Path) -> None:
    """Delete what finished fits kept in a folder, and the folder when nothing else is in it."""
    place = Path(folder)
    runs = _seed_runs(place)
    for path in (*runs, place):
        release(path)
    if runs:
        with suppress(OSError):
            place.rmdir()


@contextmanager
def no_trace_of_wrong_use(folder: Path | None) -> Iterator[None]:
    """Remove a folder that the block made when it ends with a UsageError and left nothing in it."""
    new = folder is not None and not folder.exists()
    try:
        yield
    except UsageError:
        if folder is not None and new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _seed_runs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _SEED.fullmatch(path.name) and (path / KEY).is_file()]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def _of_the_other_kind(folder: Path, what: str, how: str) -> UsageError:
    return UsageError(
        f"the folder holds the run of a fit of {what}",
        where=str(folder),
        expected="no such folder, or a run of the same command",
        fix=f"continue that run with --resume and {how}, or remove the folder to start afresh",
    )


def check_resumable(folder: str | Path | None) -> None:
    """Raise UsageError where nobody keeps the checkpoints to go on from."""
    if folder is None:
        raise UsageError(
            "there is nothing to resume from", expected="the folder of the run", fix="pass folder="
        )
