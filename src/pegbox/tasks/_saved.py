"""Saved tasks, read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pegbox.errors import InputError

FORMAT = 1


@contextmanager
def reading_task(saved: Mapping[str, Any], kind: str, where: str, *faults: type[Exception]) -> Iterator[None]:
    """Check that a task of a kind was saved, and turn what is missing or wrong in it into one error.

    Args:
        saved: What was read.
        kind: What its ``task`` must be.
        where: The file.
        faults: Further exceptions that mean a wrong part.

    Raises:
        InputError: When it is no such task of this format.
    """
    wrong: tuple[type[Exception], ...] = (KeyError, TypeError, *faults)
    try:
        if saved["task"] != kind or saved["format"] != FORMAT:
            raise TypeError(f"it is a '{saved['task']}' task of format {saved['format']}")
        yield
    except wrong as error:
        fault = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"this is no task that this version can read: {fault}",
            where=where,
            expected=f"a {kind} task of format {FORMAT}",
            fix="save the model again with this version",
        ) from None
