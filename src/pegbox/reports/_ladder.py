from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pegbox.evaluation import Estimate, Flips, Scores
from pegbox.reports import _format
from pegbox.reports._cell import NARROWEST, IntervalCell, plain
from pegbox.reports._markdown import markdown_table
from pegbox.reports._table import new_table

if TYPE_CHECKING:
    from rich.table import Table

_HEADS = (
    "method",
    "accuracy",
    "macro-F1",
    "NLL",
    "ECE",
    "flips",
    "params",
    "adapter",
    "seconds",
)
# Narrowest useful columns: with the gaps 79 of a terminal's 80 characters; below that the right end is cut.
_LEAST = (13, NARROWEST, 5, 5, 5, 8, 6, 8, 7)


@dataclass(frozen=True)
class LadderRow:
    """One method's rung of the ladder; what is None shows as ``-``.

    Args:
        method: Its name.
        accuracy: Shown with its interval.
        macro_f1: Shown without.
        nll: Shown without.
        ece: Shown without.
        flips: Against the base: mended and broken rows.
        parameters: Trainable parameters.
        adapter_bytes: Size of the saved adapter in bytes.
        seconds: Wall-clock time of the fit.
    """

    method: str
    accuracy: Estimate | None = None
    macro_f1: Estimate | None = None
    nll: Estimate | None = None
    ece: Estimate | None = None
    flips: Flips | None = None
    parameters: int | None = None
    adapter_bytes: int | None = None
    seconds: float | None = None

    @classmethod
    def from_scores(
        cls, method: str, scores: Scores, *, parameters: int | None = None, adapter_bytes: int | None = None
    ) -> "LadderRow":
        """Take the numbers of ``scores``, its seconds included."""
        metrics = scores.metrics
        return cls(
            method,
            metrics.get("accuracy"),
            metrics.get("macro_f1"),
            metrics.get("nll"),
            metrics.get("ece"),
            scores.flips,
            parameters,
            adapter_bytes,
            scores.seconds,
        )


def ladder(rows: Sequence[LadderRow], title: str = "") -> "Table":
    """Rich table with one line per method; wide cells wrap at their interval on narrow terminals.

    Args:
        rows: The methods, in the order shown.
        title: Line above the table.
    """
    table = new_table(title)
    for place, (head, least) in enumerate(zip(_HEADS, _LEAST, strict=True)):
        side: Literal["left", "right"] = "right" if place else "left"
        table.add_column(plain(head.replace("-", "\n")), justify=side, min_width=least, no_wrap=place > 1)
    for row in rows:
        cells = [*map(plain, _cells(row))]
        cells[_HEADS.index("params")] = plain(_format.short_count(row.parameters))
        table.add_row(cells[0], IntervalCell(row.accuracy), *cells[2:])
    return table


def ladder_markdown(rows: Sequence[LadderRow]) -> str:
    """Return the same table as GitHub Markdown, ending in a newline."""
    return markdown_table(_HEADS, [_cells(row) for row in rows], words=_HEADS[:1])


def _cells(row: LadderRow) -> list[str]:
    return [
        row.method,
        _format.interval(row.accuracy),
        _format.value(row.macro_f1),
        _format.value(row.nll),
        _format.value(row.ece),
        _format.flips(row.flips),
        _format.count(row.parameters),
        _format.size(row.adapter_bytes),
        _format.seconds(row.seconds),
    ]
