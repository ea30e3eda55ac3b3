from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pegbox import _atomic
from pegbox.reports._page._files import ladder_markdown, rungs_csv
from pegbox.reports._page._frame import Frame, framed, report_folder, write_pictures
from pegbox.reports._page._view import View, view

if TYPE_CHECKING:
    from pegbox.comparison import Comparison

SECTIONS = {
    "ladder": "The ladder",
    "cost": "What a point costs",
    "calibration": "Calibration",
    "curve": "More labels or more tuning",
    "flips": "What changed",
    "errors": "Where it errs",
    "labels": "Label by label",
    "forgetting": "Forgetting",
    "data": "The data",
    "repeat": "How to repeat it",
}


def write_report(comparison: Comparison, folder: str | Path) -> Path:
    """Write a comparison's report: one page that needs nothing else, and its numbers and pictures as files.

    ``report.html`` opens offline, in light and dark, and prints. Beside it lie ``comparison.json``,
    ``rungs.csv`` (a line per rung and seed), ``ladder.md`` and the folder ``pictures`` with every picture as
    ``.svg`` and ``.png``, which is replaced as a whole. Each appears whole or not at all; the same comparison
    gives the same bytes with the same libraries.

    Args:
        comparison: What was compared.
        folder: Where to write, usually the comparison's own folder; made if need be.

    Returns:
        The page.

    Raises:
        UsageError: The folder is a file.
    """
    from pegbox.comparison import LADDER, PAGE, PICTURES, RESULT, TABLE, save_json

    place = report_folder(folder)
    found = view(comparison)
    save_json(comparison, place / RESULT)
    _atomic.write_text(place / TABLE, rungs_csv(comparison))
    _atomic.write_text(place / LADDER, ladder_markdown(comparison))
    write_pictures(found.pictures, place / PICTURES)
    return _atomic.write_text(place / PAGE, page(comparison, found))


def page(comparison: Comparison, found: View) -> str:
    """The page's HTML."""
    frame = Frame(
        kind="Comparison",
        title=found.title,
        verdict=comparison.verdict,
        facts=found.facts,
        sections=tuple(SECTIONS.items()),
        version=comparison.versions.get("pegbox", ""),
        beside="Every number is also in comparison.json, each seed's in rungs.csv, the ladder in ladder.md, "
        "and the pictures in pictures/, beside this page.",
    )
    return framed(frame, comparison=comparison, view=found)
