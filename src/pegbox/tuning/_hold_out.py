"""Rows to tune on and rows to evaluate on, kept apart before anything is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pegbox.data import Rows, read, split
from pegbox.errors import InputError, UsageError
from pegbox.tasks import Task
from pegbox.training import tell
from pegbox.tuning._shapes import shape_of

T = TypeVar("T", bound=Task)
AnyRows = TypeVar("AnyRows", bound=Rows)
# Of rows to train on where none are given to stop by; with fewer rows all epochs are run.
VALID_SHARE, MIN_VALID_ROWS = 0.15, 40


def hold_out(
    task: T, share: float = 0.2, *, seed: int = 0, say: Callable[[str], None] = tell
) -> tuple[T, Rows]:
    """Hold rows of a task out for evaluation; no choice of a fit with the returned task ever sees them.

    Which rows depends on their texts, labels and the seed of this function alone: fits under several seeds
    are scored on the same rows. See :func:`pegbox.data.split`.

    Args:
        task: A task with its rows.
        share: Share of the rows to hold out, above 0 and below 1.
        seed: Another seed holds out other rows.
        say: Receives how many are held out.

    Returns:
        The task with the other rows, and the held-out rows for :meth:`Tuned.evaluate`.

    Raises:
        UsageError: For a share that is none, and a task without rows.
        InputError: For a class with fewer than two distinct texts.
    """
    if not 0 < share < 1:
        raise UsageError(
            "the share to hold out is no share", where=f"share {share}", expected="above 0 and below 1"
        )
    if task.rows is None:
        raise UsageError(
            "the task has no rows to hold out", expected="a task that was read from rows", fix="read it anew"
        )
    rows: Any = task.rows
    try:
        parts = split(rows, fractions={"train": 1 - share, "test": share}, seed=seed)
    except InputError as error:
        fix = "add rows of it, leave the class out, or give rows to evaluate on (--test FILE)"
        expected = error.expected
        if rows.labels is None:
            fix = "add rows, or give rows to evaluate on (--test FILE)"
            expected = "different rows for each part, with equal texts in one part"
        raise InputError(error.what, where=error.where, expected=expected, fix=fix) from None
    say(f"{len(parts['test'])} of {len(rows)} rows held out for evaluation (seed {seed})")
    return task.with_rows(parts["train"]), parts["test"]  # type: ignore[return-value]


def labelled_rows(
    task: Task, source: str | Path, *, on_bad: str = "error", say: Callable[[str], None] = tell
) -> Rows:
    """Read further labelled rows by a task's columns, to stop by or to evaluate on.

    Args:
        task: The task.
        source: File or hub id.
        on_bad: ``error``, ``drop`` or ``repair``, as when the task was read.
        say: Receives what was left out or changed.

    Raises:
        InputError: For a column that is not there, rows that cannot be used and labels that the task lacks.
    """
    rows = shape_of(task).rows(task, read(source), on_bad=on_bad)
    for note in rows.notes():
        say(f"{source}: {note}")
    task.gold(rows)  # type: ignore[arg-type]
    return rows


def stopped_by(
    rows: AnyRows, valid: AnyRows | None, seed: int, say: Callable[[str], None]
) -> tuple[AnyRows, AnyRows | None]:
    """Rows to train on and rows to stop by; the latter are cut off the former when none are given."""
    if valid is not None:
        return rows, valid
    if len(rows) < MIN_VALID_ROWS:
        say(f"{len(rows)} rows are too few to hold some out for early stopping: all epochs are run")
        return rows, None
    try:
        parts = split(rows, fractions={"train": 1 - VALID_SHARE, "valid": VALID_SHARE}, seed=seed)
    except InputError as error:
        say(f"no rows held out for early stopping, all epochs are run: {error.what}")
        return rows, None
    say(f"{len(parts['valid'])} of {len(rows)} training rows held out for early stopping (seed {seed})")
    return parts["train"], parts["valid"]
