"""A drawn figure as part of a page: in its font and colours, with words for those who cannot see it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pegbox.reports._figure import ACCENT, GREY, INK, svg_text
from pegbox.reports._format import legible

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

# The page names its colours, so that a picture is dark where the page is.
COLOURS = {
    INK: "var(--ink)",
    "#000000": "var(--ink)",
    GREY: "var(--grey)",
    ACCENT: "var(--accent)",
    "#ffffff": "var(--paper)",
}
_FONT = re.compile(r"font: (?:(\w+) )?([\d.]+)px [^;]*")
_LONG = re.compile(r"\d+\.\d{3,}")
_REFERENCE = re.compile(r"#([\w-]+)")
_COORDINATES = ("d", "x", "y", "width", "height", "transform", "points")


def inline(figure: Figure, name: str, title: str, description: str) -> Markup:
    """Return a figure as an ``<svg>`` element.

    Args:
        figure: What is drawn.
        name: Unique in the page; all ids begin with it.
        title: What it is, in a few words.
        description: What can be seen in it, in words.
    """
    from markupsafe import Markup

    root = ElementTree.fromstring(svg_text(figure))
    box = root.get("viewBox", "0 0 1 1")
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    _drop(root)
    _rename(root, name)
    for element in root.iter():
        _restyle(element)
    root.attrib = {
        "viewBox": box,
        "class": "picture",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-words",
        "style": f"max-width: {1.4 * float(box.split()[2]):.0f}px",
    }
    root.insert(0, _words("desc", f"{name}-words", description))
    root.insert(0, _words("title", f"{name}-title", title))
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _words(tag: str, key: str, text: str) -> ElementTree.Element:
    element = ElementTree.Element(tag, {"id": key})
    element.text = legible(text)
    return element


def _drop(root: ElementTree.Element) -> None:
    """Remove metadata, and style rules that would hold for the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)


def _rename(root: ElementTree.Element, name: str) -> None:
    """Put the picture's name before every id that is referred to, and drop the others."""
    used: set[str] = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "href" or "url(#" in value:
                used |= set(_REFERENCE.findall(value))
                element.set(key, _REFERENCE.sub(rf"#{name}-\1", value))
    for element in root.iter():
        key = element.attrib.pop("id", "")
        if key in used:
            element.set("id", f"{name}-{key}")


def _restyle(element: ElementTree.Element) -> None:
    style = element.get("style")
    if style is not None:
        style = _FONT.sub(_font, style)
        for drawn, named in COLOURS.items():
            style = style.replace(drawn, named)
        element.set("style", style)
    for key in _COORDINATES:
        if key in element.attrib:
            element.set(key, _LONG.sub(lambda number: f"{float(number[0]):.2f}", element.attrib[key]))


def _font(found: re.Match[str]) -> str:
    weight = f"; font-weight: {found[1]}" if found[1] else ""
    return f"font-size: {found[2]}px{weight}"
