"""The ladder of a comparison as tables: how good each rung is, what it costs, and each seed's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pegbox.evaluation import Estimate, Scores
from pegbox.reports import _format
from pegbox.reports._names import NAMES
from pegbox.reports._page._table import Entry, Head, Line, Table, bare_p, change, entry
from pegbox.reports._pareto import LOWER
from pegbox.reports._words import fits

if TYPE_CHECKING:
    from pegbox.comparison import Cell, Comparison, Rung

_BESIDE = ("accuracy", "macro_f1", "nll", "ece", "precision", "recall", "f1")


@dataclass(frozen=True)
class Column:
    """One column of a ladder: its head, and what it says of a rung."""

    head: Head
    cell: Callable[[Rung], Entry]


def quality(comparison: Comparison) -> Table:
    """How good each rung is, and whether that is worth its cost."""
    unit = "sentences" if comparison.kind == "tag" else "rows"
    seeds = f"; {found}" if (found := fits(comparison)) else ""
    caption = f"{comparison.data.test_rows:,} test {unit}, with 95 % intervals{seeds}"
    return _table(comparison, "ladder", caption, quality_columns(comparison), summaries=True)


def costs(comparison: Comparison) -> Table:
    """What each rung costs, and what else it changes."""
    several = any(len(rung.cells) > 1 for rung in comparison.rungs)
    seeds = ", medians over the seeds of what was fitted several times" if several else ""
    return _table(comparison, "costs", f"Cost and side effects{seeds}", cost_columns(comparison))


def quality_columns(comparison: Comparison) -> list[Column]:
    """Metric, difference to the best cheaper rung, whether it is worth it, other metrics, time."""
    from pegbox.comparison import ANSWERS

    metric = comparison.metric
    remark = "less is better" if metric in LOWER else ""
    low, high = _range([rung.metrics[metric] for rung in comparison.rungs])

    def measured(rung: Rung) -> Entry:
        estimate = rung.metrics[metric]
        return replace(entry(estimate), span=_span(estimate, low, high))

    known = {name for rung in comparison.rungs for name in rung.metrics}
    others = [name for name in _BESIDE if name in known and name != metric]
    return [
        Column(Head(NAMES.get(metric, metric), remark), measured),
        Column(Head("over the best cheaper rung"), _difference),
        Column(Head("p"), lambda rung: Entry(_p(rung))),
        Column(Head("worth its cost", words=True), _worth),
        *(Column(Head(NAMES.get(name, name).split(",")[0]), _other(name)) for name in others),
        Column(
            Head("time", f"fit and {ANSWERS:,} answers"), lambda rung: Entry(_format.duration(rung.seconds))
        ),
    ]


def cost_columns(comparison: Comparison) -> list[Column]:
    """Parameters, sizes, times, memory, operations, flips and forgetting, as far as they were measured."""
    rows = comparison.data.test_rows
    columns = [
        Column(Head("parameters"), lambda rung: Entry(_format.count(rung.cost.parameters))),
        Column(Head("adapter"), lambda rung: Entry(_format.size(rung.cost.adapter_bytes))),
        Column(Head("fit"), lambda rung: Entry(_format.duration(rung.cost.seconds))),
        Column(Head("per answer"), lambda rung: Entry(_format.moment(rung.cost.predict_seconds / rows))),
        Column(Head("peak memory"), lambda rung: Entry(_format.size(rung.cost.peak_memory))),
        Column(Head("operations", "of a fit"), lambda rung: Entry(_format.operations(rung.cost.flops))),
        Column(
            Head("operations", "of an answer"),
            lambda rung: Entry(_format.operations(rung.cost.predict_flops)),
        ),
        Column(Head("flips", "mended, broken"), lambda rung: Entry(_flips(rung.typical))),
        Column(Head("forgetting", _unit(comparison)), _forgetting),
    ]
    return [
        column
        for column in columns
        if any(column.cell(rung).text != _format.NONE for rung in comparison.rungs)
    ]


def seeds(comparison: Comparison) -> Table | None:
    """Every metric of every seed; None where no rung has several."""
    if all(len(rung.cells) == 1 for rung in comparison.rungs):
        return None
    names = list(dict.fromkeys(name for rung in comparison.rungs for name in rung.typical.scores.metrics))
    lines = [
        Line(
            Entry(rung.name),
            (
                Entry(str(cell.seed) + (", typical" if cell is rung.typical and len(rung.cells) > 1 else "")),
                *(Entry(_format.value(cell.scores.metrics.get(name))) for name in names),
                Entry(_format.duration(cell.cost.seconds)),
            ),
        )
        for rung in comparison.rungs
        for cell in rung.cells
    ]
    heads = (Head("rung", words=True), Head("seed"), *(Head(NAMES.get(name, name)) for name in names))
    return Table("seeds", "Each seed by itself", (*heads, Head("fit")), tuple(lines))


def _table(
    comparison: Comparison, name: str, caption: str, columns: Sequence[Column], *, summaries: bool = False
) -> Table:
    lines = [
        Line(
            Entry(rung.name, rung.summary if summaries else ""),
            tuple(column.cell(rung) for column in columns),
            rung.name == comparison.recommended,
        )
        for rung in comparison.rungs
    ]
    heads = (Head("rung", words=True), *(column.head for column in columns))
    return Table(name, caption, heads, tuple(lines))


def _range(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Lowest and highest end of all intervals."""
    ends = [end for part in estimates for end in (part.low, part.value, part.high) if not math.isnan(end)]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _span(estimate: Estimate, low: float, high: float) -> tuple[float, float, float] | None:
    if math.isnan(estimate.value) or high <= low:
        return None
    ends = (estimate.value if math.isnan(end) else end for end in (estimate.low, estimate.high))
    first, last = ((end - low) / (high - low) for end in ends)
    return first, (estimate.value - low) / (high - low), last


def _difference(rung: Rung) -> Entry:
    if rung.difference is None:
        return Entry(_format.NONE)
    found = change(rung.difference.difference)
    return Entry(found.text, f"{found.small}\nover {rung.against}".strip())


def _p(rung: Rung) -> str:
    return _format.NONE if rung.difference is None else bare_p(rung.difference.p)


def _worth(rung: Rung) -> Entry:
    if rung.worth is None:
        return Entry(_format.NONE)
    if rung.worth or rung.needed is None:
        return Entry("yes" if rung.worth else "no")
    return Entry("no", f"needs {rung.needed:.3f}")


def _other(name: str) -> Callable[[Rung], Entry]:
    return lambda rung: entry(rung.metrics.get(name))


def _flips(cell: Cell) -> str:
    return _format.flips(cell.scores.flips) if isinstance(cell.scores, Scores) else _format.NONE


def _forgetting(rung: Rung) -> Entry:
    found = rung.typical.forgetting
    return change(found.change if found else None)


def _unit(comparison: Comparison) -> str:
    found = [rung.typical.forgetting for rung in comparison.rungs]
    return next((part.kind for part in found if part), "")
