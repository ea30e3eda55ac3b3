"""A learning curve: what was measured, what is expected of twice the labels, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.reports import _format
from pegbox.reports._figure import GREY, INK, draw, entitle, new_figure, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pegbox.comparison import LearningCurve, Metric

_STEPS = 48
_TICKS = 7


def learning_curve_diagram(curve: LearningCurve, path: str | Path, title: str = "") -> Path:
    """Draw accuracy and log-loss against the number of labels, measured and extrapolated to twice as many.

    The dashed line stands at the labels there are.

    The same curve gives the same bytes with the same Matplotlib.

    Args:
        curve: What `pegbox.comparison.learning_curve` measured.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: another suffix.
    """
    return draw(path, lambda: curve_figure(curve, title))


def curve_figure(curve: LearningCurve, title: str = "") -> Figure:
    """The same as a figure."""
    figure = new_figure(7.2, 3.4)
    left, right = figure.subplots(1, 2)
    _draw(left, curve, "accuracy", "accuracy")
    _draw(right, curve, "nll", "log-loss, nats")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    entitle(figure, title)
    return figure


def _draw(axes: Axes, curve: LearningCurve, metric: Metric, name: str) -> None:
    from matplotlib.ticker import NullLocator

    measured = [getattr(point, metric) for point in curve.points]
    sizes = [point.labels for point in curve.points]
    first, last = min(sizes), 2 * curve.rows
    grid = sorted({round(first * (last / first) ** (step / _STEPS)) for step in range(_STEPS + 1)})
    expected = [curve.at(labels, metric) for labels in grid]
    low, high = [part.low for part in expected], [part.high for part in expected]
    axes.fill_between(grid, low, high, color=GREY, alpha=0.3, linewidth=0, label="95 % of single draws")
    axes.plot(grid, [part.value for part in expected], color=INK, linewidth=1, label="power law")
    axes.vlines(
        sizes, [part.low for part in measured], [part.high for part in measured], color=INK, linewidth=1
    )
    axes.plot(sizes, [part.value for part in measured], "o", color=INK, markersize=4, label="measured")
    axes.axvline(curve.rows, color=INK, linewidth=0.8, linestyle="--")
    axes.set(xscale="log", xlabel="labels", ylabel=name)
    quiet(axes)
    ticks = _ticks([*sizes, curve.rows, last])
    axes.set_xticks(ticks, [_format.short_count(tick) for tick in ticks], fontsize="small")
    axes.xaxis.set_minor_locator(NullLocator())


def _ticks(sizes: Sequence[int]) -> list[int]:
    """The labels there are and twice as many, and of the sizes measured so many that none touches another."""
    kept = list(sizes[-2:])
    for size in sorted(set(sizes), reverse=True):
        if all(size * 1.5 < other or other * 1.5 < size for other in kept) and len(kept) < _TICKS:
            kept.append(size)
    return sorted(kept)
