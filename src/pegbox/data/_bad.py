from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pegbox.data._table import Table, counted, rows_text
from pegbox.errors import InputError, UsageError

OnBad = Literal["error", "drop", "repair"]
_MOST_REASONS = 5


@dataclass(frozen=True)
class Dropped:
    """A row that was left out: its number in the source and why."""

    number: int
    reason: str


def by_reason(dropped: Iterable[Dropped]) -> dict[str, list[int]]:
    """Row numbers of each reason."""
    found: dict[str, list[int]] = {}
    for item in dropped:
        found.setdefault(item.reason, []).append(item.number)
    return found


def check_on_bad(on_bad: str, valid: Sequence[str]) -> None:
    """Raise UsageError for a policy that these rows do not have."""
    if on_bad not in valid:
        named = " or ".join(map(repr, valid))
        raise UsageError(f"on_bad cannot be {on_bad!r}", expected=named, fix="choose one of them")


def keep_usable(
    table: Table,
    dropped: Sequence[Dropped],
    on_bad: str,
    *,
    expected: str,
    fix: str,
    named: str = "--text and --label",
    whole: str = "",
) -> Table:
    """The table without the bad rows.

    Args:
        table: The table as read.
        dropped: Its bad rows.
        on_bad: ``drop`` leaves them out.
        expected: What a row must be.
        fix: What mends some bad rows.
        named: The options that name the columns, which are likely wrong where all rows are bad.
        whole: What mends rows that are all bad, where it is not the columns.

    Raises:
        InputError: When there are some and they are an error, or none is left.
    """
    if dropped and (on_bad != "drop" or len(dropped) == len(table)):
        reasons = by_reason(dropped)
        listed = [f"{reason} ({rows_text(rows)})" for reason, rows in reasons.items()]
        more = f"; and {len(listed) - _MOST_REASONS} further faults" if len(listed) > _MOST_REASONS else ""
        what = f"{counted(len(dropped), 'row')} cannot be used"
        if len(dropped) == len(table):
            what, fix = "No row can be used", whole or f"check the columns: name them with {named}"
        raise InputError(
            f"{what}: {'; '.join(listed[:_MOST_REASONS])}{more}",
            where=table.source,
            expected=expected,
            fix=fix,
        )
    out = {item.number for item in dropped}
    return table.select([i for i, number in enumerate(table.numbers) if number not in out])


def left_out(dropped: Iterable[Dropped]) -> list[str]:
    """Lines for the user."""
    return [
        f"{counted(len(rows), 'row')} left out: {reason} ({rows_text(rows)})"
        for reason, rows in by_reason(dropped).items()
    ]
