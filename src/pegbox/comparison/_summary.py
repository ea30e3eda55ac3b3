"""A rung's cells brought together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from statistics import median
from typing import Any

from pegbox.comparison._contest import Answers, Contest
from pegbox.comparison._ladder import Contender
from pegbox.comparison._result import Cell, ChangedRow, Rung, RungCost, WrongRow
from pegbox.data import Rows
from pegbox.evaluation import Sample, several
from pegbox.tasks import Task


def summed(contender: Contender, cells: Sequence[Cell], samples: Sequence[Sample], metric: str) -> Rung:
    """One rung of its cells, in the order of the seeds."""
    values = [sample.values[metric] for sample in samples]
    # Of an even number the lower middle one, so that the typical cell is one that exists.
    middle = sorted(values)[(len(values) - 1) // 2]
    return Rung(
        name=contender.name,
        summary=contender.summary,
        options=contender.options,
        cells=tuple(cells),
        metrics=several(samples),
        cost=_median(cells),
        typical_seed=cells[values.index(middle)].seed,
    )


def _median(cells: Sequence[Cell]) -> RungCost:
    found: dict[str, Any] = {}
    for item in fields(RungCost):
        known = [value for cell in cells if (value := getattr(cell.cost, item.name)) is not None]
        found[item.name] = median(known) if known else None
    for name in ("parameters", "adapter_bytes", "peak_memory"):
        found[name] = None if found[name] is None else int(found[name])
    return RungCost(**found)


def changed_rows(
    contest: Contest, task: Task, rows: Rows, before: Answers, after: Answers
) -> tuple[ChangedRow, ...]:
    """Rows whose answers differ: broken ones first, then mended ones, then other changes."""
    gold = contest.gold(task, rows)
    said = zip(contest.spoken(before, task, rows), contest.spoken(after, task, rows), gold, strict=True)
    found = [
        ChangedRow(number, tuple(texts), right, old, new)
        for number, texts, (old, new, right) in zip(rows.numbers, rows.texts, said, strict=True)
        if old != new
    ]
    return tuple(sorted(found, key=lambda row: (row.before != row.gold, row.after != row.gold)))


def wrong_rows(contest: Contest, task: Task, rows: Rows, answers: Answers) -> tuple[WrongRow, ...]:
    """Rows that are answered wrong, the surest first."""
    said, gold = contest.spoken(answers, task, rows), contest.gold(task, rows)
    sure = contest.sureness(answers, task, rows)
    found = [
        WrongRow(number, tuple(texts), right, answer, probability, own)
        for number, texts, answer, right, (probability, own) in zip(
            rows.numbers, rows.texts, said, gold, sure, strict=True
        )
        if answer != right
    ]
    return tuple(sorted(found, key=lambda row: -row.probability))
