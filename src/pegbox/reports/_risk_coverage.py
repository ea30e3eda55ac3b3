"""Share of wrong answers against share of rows answered, of one uncertainty or several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pegbox.errors import UsageError
from pegbox.evaluation import RiskCoverage, wilson
from pegbox.reports._figure import GREY, INK, draw, new_figure, quiet
from pegbox.reports._format import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STROKES: tuple[dict[str, Any], ...] = tuple(
    {"color": color, "linestyle": dashes}
    for dashes in ("-", "--", ":", (0, (5, 1, 1, 1)))
    for color in (INK, GREY)
)
_POINTS = 400


def risk_coverage_diagram(
    curves: RiskCoverage | Mapping[str, RiskCoverage], path: str | Path, title: str = ""
) -> Path:
    """Draw the share of wrong answers against the share of rows answered, the most certain first.

    One curve is drawn with its pointwise 95 % Wilson interval and the ideal order of the same answers;
    several are drawn bare, for one another. Source: El-Yaniv and Wiener, On the foundations of noise-free
    selective classification, 2010. The same curves give the same bytes with the same Matplotlib.

    Args:
        curves: What `pegbox.evaluation.risk_coverage` measured, or several of them by name.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: Another suffix, no curve, or more than can be told apart.
    """
    return draw(path, lambda: risk_coverage_figure(curves, title))


def risk_coverage_figure(curves: RiskCoverage | Mapping[str, RiskCoverage], title: str = "") -> Figure:
    """The same as a figure."""
    if not isinstance(curves, RiskCoverage) and not 0 < len(curves) <= len(_STROKES):
        raise UsageError(
            f"{len(curves)} curves cannot be drawn in one diagram",
            expected=f"1 to {len(_STROKES)}, as many as can be told apart without colours",
        )
    figure = new_figure(4.8, 4.6)
    axes = figure.subplots()
    named = _draw_one(axes, curves) if isinstance(curves, RiskCoverage) else _draw_many(axes, curves)
    axes.set(xlabel="coverage (share of rows answered)", ylabel="risk (share of answers wrong)")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02 * axes.get_ylim()[1], None))
    quiet(axes)
    # Letters are put in afterwards: Matplotlib leaves out names that begin with an underscore.
    legend = figure.legend(
        list(named.values()), ["x"] * len(named), loc="outside lower center", fontsize="small", frameon=False
    )
    for text, name in zip(legend.get_texts(), named, strict=True):
        text.set(text=legible(name), parse_math=False)
    if title:
        axes.set_title(legible(title), fontsize="medium", parse_math=False)
    return figure


def _draw_one(axes: Axes, curve: RiskCoverage) -> dict[str, Any]:
    places = _shown(curve)
    coverage = curve.coverage[places]
    ends = np.array([wilson(curve.wrong[place], curve.answered[place]) for place in places])
    band = axes.fill_between(coverage, ends[:, 0], ends[:, 1], color=GREY, alpha=0.3, linewidth=0)
    right = (curve.rows - curve.wrong[-1]) / curve.rows
    grid = np.r_[0.0, np.linspace(right, 1.0, 100)] if right else np.array([0.0, 1.0])
    # Right answers come first: of a share c answered, c - right are wrong.
    ideal = np.maximum(1 - right / np.maximum(grid, right), 0.0) if right else np.ones(2)
    (least,) = axes.plot(grid, ideal, color=INK, linewidth=1, linestyle="--")
    (line,) = axes.plot(coverage, curve.risk[places], color=INK, linewidth=1.5, **_dots(places))
    return {f"AURC {curve.aurc}": line, "95 % interval at each threshold": band, "ideal order": least}


def _draw_many(axes: Axes, curves: Mapping[str, RiskCoverage]) -> dict[str, Any]:
    named = {}
    for (name, curve), stroke in zip(curves.items(), _STROKES, strict=False):
        places = _shown(curve)
        (line,) = axes.plot(
            curve.coverage[places], curve.risk[places], linewidth=1.5, **stroke, **_dots(places)
        )
        named[f"{name}: AURC {curve.aurc}"] = line
    return named


def _shown(curve: RiskCoverage) -> list[int]:
    """Points that a picture can show: at most one for each of `_POINTS` steps of coverage, and the last."""
    steps = np.ceil(curve.coverage * _POINTS)
    return np.flatnonzero(np.r_[steps[1:] > steps[:-1], True]).tolist()


def _dots(places: list[int]) -> dict[str, Any]:
    """A line of one point shows nothing without its marker."""
    return {"marker": "o", "markersize": 3} if len(places) <= _POINTS // 10 else {}
