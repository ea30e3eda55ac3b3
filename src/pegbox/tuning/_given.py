"""Refuses what users have at hand and no verb takes: tables of other libraries, plain lists of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pegbox.errors import UsageError


def check_no_table(texts: Any, verb: str) -> None:
    """Raise UsageError for a table, whose elements are the names of its columns and not its rows."""
    if isinstance(texts, Mapping) or hasattr(texts, "column_names") or hasattr(texts, "columns"):
        raise UsageError(
            f"{verb} takes a list of texts, and this is a {type(texts).__name__}",
            where=verb,
            expected="a list of texts, or rows that were read from a file",
            fix=f"pass one column, such as {verb}(list(table['text']))",
        )


def rows_given(rows: Any, what: str) -> Any:
    """The rows, which must be a task's.

    Raises:
        UsageError: For anything else.
    """
    if all(hasattr(type(rows), name) for name in ("select", "digest")):
        return rows
    raise UsageError(
        f"{what} cannot be of the type {type(rows).__name__}",
        where=what,
        expected="a file, a hub id, or rows that were read from one, such as task.rows",
        fix="write them to a file first, for example frame.to_csv('rows.csv', index=False)",
    )
