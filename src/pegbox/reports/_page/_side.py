"""What tuning did to everything else that the base knew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pegbox.evaluation import Also, Forgetting
from pegbox.reports import _format
from pegbox.reports._page._table import Entry, Head, Line, Table, bare_p, change, entry

if TYPE_CHECKING:
    from pegbox.comparison import Comparison


def general_text(comparison: Comparison) -> Table | None:
    """Bits per byte of general text before and after; None where it was not measured."""
    found = [(name, part) for name, part in _measured(comparison) if part.documents]
    if not found:
        return None
    caption = general_caption(found[0][1])
    heads = ("rung", "before", "after", "change", "with the adapter off")
    lines = [
        Line(
            Entry(name),
            (entry(part.before), entry(part.after), change(part.change), Entry(_off(part))),
            name == comparison.recommended,
        )
        for name, part in found
    ]
    return Table(
        "general",
        caption,
        tuple(Head(head, words=not place) for place, head in enumerate(heads)),
        tuple(lines),
    )


def general_caption(part: Forgetting) -> str:
    """What text forgetting was measured on, and how."""
    return (
        f"General text, {part.kind}, less is better: {part.source}, {part.documents:,} documents, "
        f"{_format.size(part.bytes)}"
    )


def other_tasks(comparison: Comparison) -> Table | None:
    """Accuracy on other tasks before and after; None where none was asked."""
    lines = [
        Line(
            Entry(name),
            (
                Entry(part.name, f"{part.rows:,} rows"),
                entry(part.before),
                entry(part.after),
                *_changed(part),
            ),
            name == comparison.recommended,
        )
        for name, found in _measured(comparison)
        for part in found.also
    ]
    if not lines:
        return None
    heads = ("rung", "task", "before", "after", "change", "p")
    caption = "Other tasks, asked by their label words: accuracy before and after"
    words = ("rung", "task")
    return Table(
        "other-tasks", caption, tuple(Head(head, words=head in words) for head in heads), tuple(lines)
    )


def _changed(part: Also) -> tuple[Entry, Entry]:
    """The change and its p-value."""
    if part.unturned:
        return Entry("exactly 0", "nothing was turned"), Entry(_format.NONE)
    return change(part.difference.difference), Entry(bare_p(part.difference.p))


def _measured(comparison: Comparison) -> list[tuple[str, Forgetting]]:
    found = [(rung.name, rung.typical.forgetting) for rung in comparison.rungs]
    return [(name, part) for name, part in found if part is not None]


def _off(part: Forgetting) -> str:
    if part.off is None:
        return _format.NONE
    return "exactly 0" if part.off == 0 else f"{part.off:+.3g}"
