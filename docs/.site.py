"""Formulas become MathML while the site is built: a page needs no script for them, and no other server."""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")


def on_page_content(html: str, **_: Any) -> str:
    """Replace what arithmatex marked, and drop the roles of docstrings; MkDocs calls it for each page."""
    return ROLE.sub("", FORMULA.sub(_mathml, html))


def _mathml(found: re.Match[str]) -> str:
    return convert(unescape(found[2]), display="block" if found[1] == "div" else "inline")
