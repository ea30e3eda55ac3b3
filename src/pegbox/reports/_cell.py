from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pegbox.evaluation import Estimate
from pegbox.reports import _format

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.text import Text

# Characters of an interval, the longer line of a broken cell.
NARROWEST = 14


def plain(text: str, style: str = "") -> "Text":
    """Text that rich does not read as markup: brackets in labels and intervals stay as they are."""
    from rich.text import Text

    return Text(text, style=style)


@dataclass(frozen=True)
class IntervalCell:
    """An estimate in a table cell, ``0.912 [0.880, 0.941]``; where it is narrow, on two lines."""

    estimate: Estimate | None

    @property
    def lines(self) -> tuple[str, ...]:
        """Value and interval, or one line where there is no interval."""
        return tuple(_format.interval(self.estimate).split(" ", 1))

    def __rich_measure__(self, console: "Console", options: "ConsoleOptions") -> "Measurement":
        from rich.measure import Measurement

        return Measurement(max(map(len, self.lines)), len(" ".join(self.lines)))

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        whole = " ".join(self.lines)
        yield plain(whole if len(whole) <= options.max_width else "\n".join(self.lines))
