"""Test rows with their texts: what the recommended rung mended and broke, and where it errs most surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pegbox.reports import _format
from pegbox.reports._page._table import Head

if TYPE_CHECKING:
    from pegbox.comparison import ChangedRow, Comparison

# Rows shown at once, and on demand; the rest is in comparison.json.
FIRST, MOST = 8, 200
# Characters of a text shown at once.
LONG = 400


@dataclass(frozen=True)
class Text:
    """One text of a row.

    Args:
        start: All of it, or its beginning.
        whole: All of it where it is long, else empty.
    """

    start: str
    whole: str = ""


@dataclass(frozen=True)
class ShownRow:
    """One test row.

    Args:
        number: Its number in the source.
        texts: Its texts.
        answers: What is said of it, in the order of the group's heads.
    """

    number: str
    texts: tuple[Text, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Rows of one kind.

    Args:
        name: Unique in the page.
        title: What they have in common, and their number.
        heads: Heads of the answers, and of numbers.
        first: Those shown at once.
        more: Those shown on demand.
        left: How many more there are.
    """

    name: str
    title: str
    heads: tuple[Head, ...]
    first: tuple[ShownRow, ...]
    more: tuple[ShownRow, ...]
    left: int


def changed(comparison: Comparison) -> list[Group]:
    """Rows that the recommended rung answers otherwise than the one it is compared with."""
    kinds = {
        "mended": ("Mended", [row for row in comparison.changed if row.after == row.gold]),
        "broken": ("Broken", [row for row in comparison.changed if row.before == row.gold]),
        "other": (
            "Wrong before and after",
            [row for row in comparison.changed if row.gold not in (row.before, row.after)],
        ),
    }
    names = ("right answer", f"{comparison.changed_from} said", f"{comparison.recommended} says")
    heads = tuple(Head(name, words=True) for name in names)
    return [
        _group(name, f"{title}: {_rows(len(rows))}", heads, [_changed(row) for row in rows])
        for name, (title, rows) in kinds.items()
        if rows
    ]


def errors(comparison: Comparison) -> Group | None:
    """Rows that the recommended rung has wrong, the surest first; None without any."""
    if not comparison.errors:
        return None
    tags = comparison.kind == "tag"
    words = ("right answer", f"{comparison.recommended} says")
    rows = [
        ShownRow(
            _format.count(row.number),
            tuple(map(shown_text, row.texts)),
            (row.gold, row.predicted, *(() if tags else (f"{row.probability:.3f}", f"{row.own:.3f}"))),
        )
        for row in comparison.errors
    ]
    numbers = () if tags else ("its probability", "that of the right answer")
    heads = (*(Head(name, words=True) for name in words), *map(Head, numbers))
    order = "" if tags else ", the surest first"
    return _group("wrong", f"Answered wrong: {_rows(len(rows))}{order}", heads, rows)


def _group(name: str, title: str, heads: tuple[Head, ...], rows: Sequence[ShownRow]) -> Group:
    left = max(len(rows) - MOST, 0)
    return Group(name, title, heads, tuple(rows[:FIRST]), tuple(rows[FIRST:MOST]), left)


def _changed(row: ChangedRow) -> ShownRow:
    answers = (row.gold, row.before, row.after)
    return ShownRow(_format.count(row.number), tuple(map(shown_text, row.texts)), answers)


def shown_text(text: str) -> Text:
    """A text, or its beginning where it is long."""
    return Text(text[:LONG], text) if len(text) > LONG else Text(text)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
