from typing import TYPE_CHECKING

from pegbox.evaluation import Margins, RewardScores
from pegbox.reports import _format
from pegbox.reports._cell import IntervalCell, plain
from pegbox.reports._names import NAMES
from pegbox.reports._table import new_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_WIDTH = 30


def reward_panel(scores: RewardScores, title: str = "") -> "RenderableType":
    """Rich view of a reward model's scores: metrics, baselines on the same pairs, and the margins.

    Args:
        scores: What `pegbox.evaluation.score_rewards` measured.
        title: Shown on the panel's edge.
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("pairs", _format.count(scores.rows))
    for name, estimate in scores.metrics.items():
        table.add_row(NAMES.get(name, name.replace("_", " ")), IntervalCell(estimate))
    for name, count in scores.counts.items():
        table.add_row(name.replace("_", " "), _format.count(count))
    if scores.seconds is not None:
        table.add_row("seconds", _format.seconds(scores.seconds))
    parts: list[RenderableType] = [table, "", _baselines(scores), plain(scores.verdict())]
    parts += ["", _histogram(scores.margins)]
    return Panel(Group(*parts), title=plain(title) if title else None, title_align="left", expand=False)


def _baselines(scores: RewardScores) -> "Table":
    table = new_table("")
    table.add_column("against", min_width=14)
    table.add_column("accuracy", justify="right")
    table.add_column("  difference, paired", justify="right")
    for name, part in scores.baselines.items():
        table.add_row(plain(name), f"{part.b:.3f}", plain(str(part)))
    return table


def _histogram(margins: Margins) -> "Table":
    """Pairs by margin, two bins of the scores in a line."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("margin", "pairs")
    edges = margins.edges[::2]
    counts = [sum(margins.counts[at : at + 2]) for at in range(0, len(margins.counts), 2)]
    most = max(counts)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        bar = "█" * round(_WIDTH * count / most)
        table.add_row(f"{low:+.2f} to {high:+.2f}", _format.count(count), bar)
    return table
