"""How far a reward model sets chosen and rejected answers apart."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.evaluation import Margins
from pegbox.reports._figure import ACCENT, GREY, INK, draw, entitle, new_figure, quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def margins_diagram(margins: Margins, path: str | Path, title: str = "") -> Path:
    """Draw a histogram of chosen less rejected reward.

    Args:
        margins: What `pegbox.evaluation.score_rewards` measured.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: another suffix.
    """
    return draw(path, lambda: margins_figure(margins, title))


def margins_figure(margins: Margins, title: str = "") -> Figure:
    """The same as a figure."""
    figure = new_figure(2.9, 2.9)
    axes = figure.subplots()
    edges = margins.edges
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    colours = [INK if middle > 0 else GREY for middle in middles]
    axes.bar(middles, margins.counts, width=0.9 * (edges[1] - edges[0]), color=colours)
    axes.axvline(0, color=ACCENT, linewidth=1)
    axes.set(xlabel="chosen less rejected reward", ylabel="pairs")
    quiet(axes)
    entitle(figure, title)
    return figure
