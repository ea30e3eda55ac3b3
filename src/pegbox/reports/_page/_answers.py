"""The recommended rung's answers label by label, or entity type by entity type."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pegbox.evaluation import ClassScores, Scores
from pegbox.reports import _format
from pegbox.reports._page._table import Entry, Head, Line, Table, entry

if TYPE_CHECKING:
    from pegbox.comparison import Comparison

# Labels up to which every pair of gold and predicted has a cell of its own.
MATRIX = 20
PAIRS = 20
WEAKEST = 12
# Share of the accent's colour in the fullest cell, so that the number on it stays legible.
STRONGEST = 0.3


def per_label(comparison: Comparison) -> Table:
    """Precision, recall and F1 of each label or entity type, in the labels' order."""
    scores = comparison.best.typical.scores
    tags = not isinstance(scores, Scores)
    parts = scores.per_class if isinstance(scores, Scores) else scores.per_type
    unit = "entities" if tags else "rows"
    heads = ("type" if tags else "label", "precision", "recall", "F1", unit)
    return Table(
        "labels",
        f"Each {heads[0]} under {comparison.recommended}, with 95 % intervals",
        tuple(Head(head, words=place == 0) for place, head in enumerate(heads)),
        tuple(Line(Entry(name), _parts(part)) for name, part in parts.items()),
    )


def weakest(comparison: Comparison) -> Table | None:
    """Of many labels those with the least F1; None where all fit on a screen."""
    whole = per_label(comparison)
    scores = comparison.best.typical.scores
    parts = scores.per_class if isinstance(scores, Scores) else scores.per_type
    if len(parts) <= MATRIX:
        return None
    known = [name for name, part in parts.items() if not math.isnan(part.f1.value)]
    names = sorted(known, key=lambda name: parts[name].f1.value)[:WEAKEST]
    lines = {line.head.text: line for line in whole.lines}
    caption = f"The {len(names)} of {len(parts)} {whole.heads[0].text}s with the least F1"
    return Table("weakest", caption, whole.heads, tuple(lines[name] for name in names))


def confusion(comparison: Comparison) -> Table | None:
    """Rows by right and given label; of many labels the pairs most often confused; None for tags."""
    scores = comparison.best.typical.scores
    if not isinstance(scores, Scores):
        return None
    return _matrix(scores) if len(scores.labels) <= MATRIX else _pairs(scores)


def _parts(part: ClassScores) -> tuple[Entry, ...]:
    return (
        *(entry(estimate) for estimate in (part.precision, part.recall, part.f1)),
        Entry(_format.count(part.support)),
    )


def _matrix(scores: Scores) -> Table:
    heads = (Head("right label", words=True), *(Head(name) for name in scores.labels))
    lines = []
    for name, counts in zip(scores.labels, scores.confusion, strict=True):
        total = max(sum(counts), 1)
        cells = (Entry(_format.count(count), tint=STRONGEST * count / total) for count in counts)
        lines.append(Line(Entry(name), tuple(cells)))
    caption = "Rows by right label (down) and given label (across)"
    return Table("confusion", caption, heads, tuple(lines))


def _pairs(scores: Scores) -> Table:
    found = [
        (count, gold, given)
        for gold, counts in zip(scores.labels, scores.confusion, strict=True)
        for given, count in zip(scores.labels, counts, strict=True)
        if gold != given and count
    ]
    found.sort(key=lambda pair: -pair[0])
    lines = [Line(Entry(gold), (Entry(given), Entry(_format.count(count)))) for count, gold, given in found]
    kept = f"the {PAIRS} most frequent of {len(found):,} pairs" if len(found) > PAIRS else "all pairs"
    heads = (Head("right label", words=True), Head("given label", words=True), Head("rows"))
    return Table("confusion", f"Labels taken for each other: {kept}", heads, tuple(lines[:PAIRS]))
