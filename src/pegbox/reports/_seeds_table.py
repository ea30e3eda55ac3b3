import math
from typing import TYPE_CHECKING, Any

from pegbox.reports import _format
from pegbox.reports._cell import plain
from pegbox.reports._names import NAMES
from pegbox.reports._table import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from pegbox.tuning import SeedScores


def seeds_table(scores: "SeedScores", *, kept: int | None = None, title: str = "") -> "Table":
    """Rich table with one line per seed, then the mean over the seeds and the ends of its 95 % t-interval.

    Args:
        scores: What `pegbox.tuning.Seeds.evaluate` gave.
        kept: The seed to mark as the one that was kept.
        title: Line above the table.
    """
    table = new_table(title)
    table.add_column("seed", no_wrap=True)
    # What the base alone gives is the same for all seeds.
    names = [name for name in scores.metrics if not name.startswith("base_")]
    for name in names:
        table.add_column(plain(NAMES.get(name, name)), justify="right", overflow="fold")
    for seed, part in zip(scores.seeds, scores.scores, strict=True):
        label = f"{seed}, kept" if seed == kept else str(seed)
        table.add_row(label, *(_format.value(part.metrics.get(name)) for name in names))
    table.add_section()
    ends = {"mean": "value", "95 % from": "low", "95 % to": "high"}
    for label, end in ends.items():
        table.add_row(label, *(_end(scores.metrics[name], end) for name in names))
    return table


def _end(estimate: Any, end: str) -> str:
    number = getattr(estimate, end)
    return _format.NONE if math.isnan(number) else f"{number:.3f}"
