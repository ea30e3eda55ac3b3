from typing import TYPE_CHECKING

from pegbox.evaluation import TagScores
from pegbox.reports import _format
from pegbox.reports._cell import IntervalCell, plain
from pegbox.reports._names import NAMES

if TYPE_CHECKING:
    from rich.console import RenderableType


def tag_panel(scores: TagScores, title: str = "") -> "RenderableType":
    """Rich view of tag scores: entity-level metrics with intervals, overall and of each type.

    Args:
        scores: What `pegbox.evaluation.score_tags` measured.
        title: Shown on the panel's edge.
    """
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table

    whole = Table.grid(padding=(0, 2))
    whole.add_row("sentences", _format.count(scores.rows))
    whole.add_row("words", _format.count(scores.words))
    for name, estimate in scores.metrics.items():
        whole.add_row(NAMES.get(name, name), IntervalCell(estimate))
    if scores.seconds is not None:
        whole.add_row("seconds", _format.seconds(scores.seconds))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0))
    for place, head in enumerate(("type", "precision", "recall", "F1", "entities")):
        table.add_column(plain(head), justify="right" if place else "left", overflow="fold")
    for name, part in scores.per_type.items():
        cells = map(IntervalCell, (part.precision, part.recall, part.f1))
        table.add_row(plain(name), *cells, _format.count(part.support))
    named = plain(title) if title else None
    return Panel(Group(whole, "", table), title=named, title_align="left", expand=False)
