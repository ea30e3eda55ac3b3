from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox import _atomic
from pegbox.errors import UsageError
from pegbox.reports._format import legible
from pegbox.reports._page._files import ladder_markdown, rungs_csv
from pegbox.reports._page._view import View, view

if TYPE_CHECKING:
    from jinja2 import Environment

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
    from pegbox.comparison import save_json
    from pegbox.comparison._files import LADDER, PAGE, PICTURES, RESULT, TABLE

    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise UsageError("cannot make a folder where a file is", where=str(place), fix="give another name")
    found = view(comparison)
    save_json(comparison, place / RESULT)
    _atomic.write_text(place / TABLE, rungs_csv(comparison))
    _atomic.write_text(place / LADDER, ladder_markdown(comparison))
    with _atomic.folder(place / PICTURES, overwrite=True) as pictures:
        for picture in found.pictures:
            for suffix in (".svg", ".png"):
                picture.write(pictures / f"{picture.name}{suffix}")
    return _atomic.write_text(place / PAGE, page(comparison, found))


def page(comparison: Comparison, found: View) -> str:
    """The page's HTML."""
    environment = _environment()
    return environment.get_template("page.html.j2").render(
        comparison=comparison, view=found, sections=SECTIONS.items()
    )


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("pegbox.reports._page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_legible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _legible(value: Any) -> Any:
    return legible(value) if type(value) is str else value
