"""A comparison's numbers as a CSV file and as a Markdown table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pegbox.evaluation import Scores
from pegbox.reports._markdown import markdown_table
from pegbox.reports._page._ladder import cost_columns, quality_columns
from pegbox.reports._words import P_DECIDES, at_odds

if TYPE_CHECKING:
    from pegbox.comparison import Cell, Comparison


def rungs_csv(comparison: Comparison) -> str:
    """One line per rung and seed: every metric with its interval, every cost, flips and forgetting.

    What is undefined or was not measured is empty.
    """
    lines = [dict(_line(cell, comparison)) for rung in comparison.rungs for cell in rung.cells]
    names = list(dict.fromkeys(name for line in lines for name in line))
    content = io.StringIO()
    writer = csv.DictWriter(content, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return content.getvalue()


def ladder_markdown(comparison: Comparison) -> str:
    """The ladder as a GitHub table, below the verdict."""
    both = [*quality_columns(comparison), *cost_columns(comparison)]
    columns = {f"{column.head.text} {column.head.small}".strip(): column for column in both}
    rows = []
    for rung in comparison.rungs:
        cells = [column.cell(rung) for column in columns.values()]
        name = f"**{rung.name}**" if rung.name == comparison.recommended else rung.name
        rows.append([name, *(f"{cell.text} {cell.small}".strip() for cell in cells)])
    skipped = [f"Not climbed: {part.name} ({part.reason})." for part in comparison.skipped]
    paragraphs = [
        *comparison.verdict,
        markdown_table(["rung", *columns], rows, words=("rung", "worth its cost")).rstrip("\n"),
        *skipped,
        comparison.rule,
        *([f"{P_DECIDES[0].upper()}{P_DECIDES[1:]}."] if at_odds(comparison.rungs) else []),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _line(cell: Cell, comparison: Comparison) -> Iterator[tuple[str, Any]]:
    yield from (("rung", cell.rung), ("seed", cell.seed))
    yield "recommended", int(cell.rung == comparison.recommended)
    for name, estimate in cell.scores.metrics.items():
        yield name, _number(estimate.value)
        yield f"{name}_low", _number(estimate.low)
        yield f"{name}_high", _number(estimate.high)
    for item in fields(cell.cost):
        yield item.name, _number(getattr(cell.cost, item.name))
    if isinstance(cell.scores, Scores) and cell.scores.flips is not None:
        flips = cell.scores.flips
        yield "mended", flips.wrong_to_right.count
        yield "broken", flips.right_to_wrong.count
        yield "wrong_to_wrong", flips.wrong_to_wrong.count
    yield from _forgetting(cell)


def _forgetting(cell: Cell) -> Iterator[tuple[str, Any]]:
    found = cell.forgetting
    if found is None:
        return
    for name in ("before", "after", "change"):
        yield f"text_{name}", _number(getattr(found, name).value)
    yield "text_change_off", _number(found.off)
    for part in found.also:
        yield f"{part.name} before", _number(part.before.value)
        yield f"{part.name} after", _number(part.after.value)


def _number(value: float | None) -> Any:
    return "" if value is None or math.isnan(value) else value
