"""What every report's page has: its head, parts and foot, and its pictures as files."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox import _atomic
from pegbox.errors import UsageError
from pegbox.reports._format import legible

if TYPE_CHECKING:
    from jinja2 import Environment

    from pegbox.reports._page._pictures import Picture


@dataclass(frozen=True)
class Frame:
    """The head and foot of a page.

    Args:
        kind: What it is, in a word.
        title: Of the page.
        verdict: Sentences at its top, the first in large letters.
        facts: Pairs of a name and a value.
        sections: Keys and titles of its parts.
        version: Of Pegbox.
        beside: What lies beside the page, in a sentence.
        folder: Where the templates of its parts lie.
    """

    kind: str
    title: str
    verdict: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    sections: tuple[tuple[str, str], ...]
    version: str
    beside: str
    folder: str = ""


def framed(frame: Frame, **parts: Any) -> str:
    """The page's HTML.

    Args:
        frame: Its head and foot.
        parts: What the templates of its parts read.
    """
    return _environment().get_template("page.html.j2").render(frame=frame, **parts)


def report_folder(folder: str | Path) -> Path:
    """The folder of a report.

    Raises:
        UsageError: It is a file.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise UsageError("cannot make a folder where a file is", where=str(place), fix="give another name")
    return place


def write_pictures(pictures: Iterable[Picture], folder: Path) -> None:
    """Write every picture as ``.svg`` and ``.png``; the folder is replaced as a whole."""
    with _atomic.folder(folder, overwrite=True) as place:
        for picture in pictures:
            for suffix in (".svg", ".png"):
                picture.write(place / f"{picture.name}{suffix}")


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
