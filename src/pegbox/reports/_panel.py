from typing import TYPE_CHECKING

from pegbox.evaluation import (
    FlipGroup,
    Flips,
    GenerationScores,
    PolicyScores,
    RewardScores,
    Scores,
    TagScores,
)
from pegbox.reports import _format
from pegbox.reports._cell import IntervalCell, plain
from pegbox.reports._generation_panel import generation_panel
from pegbox.reports._names import NAMES
from pegbox.reports._policy_panel import policy_panel
from pegbox.reports._reward_panel import reward_panel
from pegbox.reports._tag_panel import tag_panel

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_MOST_LABELS = 12


def scores_panel(
    scores: Scores | TagScores | GenerationScores | RewardScores | PolicyScores, title: str = ""
) -> "RenderableType":
    """Rich view of scores: metrics with intervals, labels, confusion (at most 12 labels) and flips.

    Args:
        scores: What `pegbox.evaluation.score`, `score_tags`, `score_texts`, `score_rewards` or
            `score_policy` measured.
        title: Shown on the panel's edge.
    """
    from rich.console import Group
    from rich.panel import Panel

    if isinstance(scores, TagScores):
        return tag_panel(scores, title)
    if isinstance(scores, GenerationScores):
        return generation_panel(scores, title)
    if isinstance(scores, RewardScores):
        return reward_panel(scores, title)
    if isinstance(scores, PolicyScores):
        return policy_panel(scores, title)
    parts: list[RenderableType] = [_metrics(scores), "", _per_class(scores)]
    if len(scores.labels) <= _MOST_LABELS:
        parts += ["", _confusion(scores)]
    if scores.flips:
        parts += ["", _flips(scores.flips)]
    return Panel(Group(*parts), title=plain(title) if title else None, title_align="left", expand=False)


def _table(*heads: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0))
    for place, head in enumerate(heads):
        table.add_column(plain(head), justify="right" if place else "left", overflow="fold")
    return table


def _metrics(scores: Scores) -> "Table":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("rows", _format.count(scores.rows))
    for name, estimate in scores.metrics.items():
        table.add_row(NAMES.get(name, name), IntervalCell(estimate))
    if scores.seconds is not None:
        table.add_row("seconds", _format.seconds(scores.seconds))
    return table


def _per_class(scores: Scores) -> "Table":
    table = _table("label", "precision", "recall", "F1", "rows")
    for name, part in scores.per_class.items():
        cells = map(IntervalCell, (part.precision, part.recall, part.f1))
        table.add_row(plain(name), *cells, _format.count(part.support))
    return table


def _confusion(scores: Scores) -> "Table":
    table = _table("gold \\ predicted", *scores.labels)
    for place, (name, line) in enumerate(zip(scores.labels, scores.confusion, strict=True)):
        cells = (
            plain(_format.count(number), "bold" if column == place else "")
            for column, number in enumerate(line)
        )
        table.add_row(plain(name), *cells)
    return table


def _flips(changes: Flips) -> "Table":
    groups = {
        "wrong to right": changes.wrong_to_right,
        "right to wrong": changes.right_to_wrong,
        "wrong to wrong": changes.wrong_to_wrong,
    }
    placed = any(group.inside is not None for group in groups.values())
    far = changes.unchanged_distance is not None or any(group.all.distance for group in groups.values())
    heads = ["rows", *(["in training", "not in training"] if placed else []), *(["distance"] if far else [])]
    table = _table("flips from the base", *heads)
    for name, group in groups.items():
        table.add_row(name, *_flip_cells(group, placed, far))
    kept = changes.unchanged_distance
    blanks = [""] * (2 if placed else 0)
    distance = [f"{kept.mean:.3f}" if kept else "-"] if far else []
    table.add_row("unchanged", _format.count(changes.unchanged), *blanks, *distance)
    return table


def _flip_cells(group: FlipGroup, placed: bool, far: bool) -> list[str]:
    cells = [_format.count(group.count)]
    if placed:
        cells += [_format.count(part.count if part else None) for part in (group.inside, group.outside)]
    if far:
        cells.append(f"{group.all.distance.mean:.3f}" if group.all.distance else _format.NONE)
    return cells
