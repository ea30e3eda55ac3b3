from typing import TYPE_CHECKING

from pegbox.evaluation import GenerationScores
from pegbox.reports import _format
from pegbox.reports._cell import IntervalCell, plain
from pegbox.reports._names import NAMES

if TYPE_CHECKING:
    from rich.console import RenderableType


def generation_panel(scores: GenerationScores, title: str = "") -> "RenderableType":
    """Rich view of the scores of generated text: metrics with intervals, and those that are missing, why.

    Args:
        scores: What `pegbox.evaluation.score_texts` measured.
        title: Shown on the panel's edge.
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("rows", _format.count(scores.rows))
    for name, estimate in scores.metrics.items():
        table.add_row(_named(name), IntervalCell(estimate))
    for name, count in scores.counts.items():
        table.add_row(_named(name), _format.count(count))
    if scores.seconds is not None:
        table.add_row("seconds", _format.seconds(scores.seconds))
    missing: list[RenderableType] = [
        plain(f"{_named(name)} is missing: {reason}") for name, reason in scores.missing.items()
    ]
    parts: list[RenderableType] = [table, *(["", *missing] if missing else [])]
    return Panel(Group(*parts), title=plain(title) if title else None, title_align="left", expand=False)


def _named(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))
