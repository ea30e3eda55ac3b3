from dataclasses import dataclass

from pegbox.evaluation import Estimate
from pegbox.reports import _format

# Keeps an interval on one line.
_FIRM = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Entry:
    """One cell of a table.

    Args:
        text: What it says.
        small: What stands below it, less loudly; may have several lines.
        span: An interval to draw: its ends and the number between them, as shares of the column's width.
        tint: How strongly its background is coloured, 0 to 1.
    """

    text: str
    small: str = ""
    span: tuple[float, float, float] | None = None
    tint: float = 0.0


@dataclass(frozen=True)
class Head:
    """The head of a column.

    Args:
        text: Its name.
        small: A unit or a remark.
        words: Whether the column holds words, which stand on the left, rather than numbers.
    """

    text: str
    small: str = ""
    words: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Args:
        head: What it is about.
        cells: As many as the table has columns beside the first.
        marked: Whether it is the one that is recommended.
    """

    head: Entry
    cells: tuple[Entry, ...]
    marked: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Args:
        name: Unique in the page.
        caption: What it shows.
        heads: Heads of all columns.
        lines: Its lines.
    """

    name: str
    caption: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]


def entry(estimate: Estimate | None) -> Entry:
    """A number with its interval below it."""
    return _parted(_format.interval(estimate))


def change(estimate: Estimate | None) -> Entry:
    """A difference with its interval below it, all with their signs."""
    return _parted(_format.signed(estimate))


def bare_p(p: float) -> str:
    """A p-value below a head that says so: 0.008, < 0.001."""
    return _format.p_value(p).removeprefix("p ").removeprefix("= ")


def _parted(text: str) -> Entry:
    value, _, ends = text.partition(" ")
    return Entry(value, ends.replace(" ", _FIRM))
