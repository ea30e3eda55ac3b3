"""What each rung of a comparison scores against the time that it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.reports._figure import ACCENT, GREY, INK, draw, new_figure, quiet
from pegbox.reports._labels import place_labels
from pegbox.reports._names import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pegbox.comparison import Comparison, Rung

LOWER = frozenset({"nll", "brier", "ece", "ece_width"})
# Seconds below which a rung counts as free, the left end of the scale.
FREE = 0.01
_NAMED = 14
_TIMES = {
    **{time: f"{time:g} s" for time in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40)},
    **{60.0 * time: f"{time} min" for time in (1, 2, 5, 10, 20, 30)},
    **{3600.0 * time: f"{time} h" for time in (1, 2, 5, 10, 20, 50, 100)},
}


def cost_diagram(comparison: Comparison, path: str | Path, title: str = "") -> Path:
    """Draw the decisive metric against what a rung costs in time, with 95 % intervals and the Pareto front.

    The same comparison gives the same bytes with the same Matplotlib.

    Args:
        comparison: What was compared.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: another suffix.
    """
    return draw(path, lambda: cost_figure(comparison, title))


def front(rungs: Sequence[Rung], metric: str) -> tuple[Rung, ...]:
    """The rungs that no other one equals or beats in less time, or beats in the same, quickest first."""
    sign = -1 if metric in LOWER else 1
    known = [rung for rung in rungs if not math.isnan(rung.metrics[metric].value)]
    kept: list[Rung] = []
    for rung in sorted(known, key=lambda rung: (spent(rung), -sign * rung.metrics[metric].value)):
        if not kept or sign * (rung.metrics[metric].value - kept[-1].metrics[metric].value) > 0:
            kept.append(rung)
    return tuple(kept)


def spent(rung: Rung) -> float:
    """Seconds of its fit and of some answers, at least :data:`FREE`."""
    return max(rung.seconds, FREE)


def named(comparison: Comparison) -> tuple[Rung, ...]:
    """The rungs that the diagram calls by name: all of a few, of many the front and the recommended one."""
    if len(comparison.rungs) <= _NAMED:
        return comparison.rungs
    best = front(comparison.rungs, comparison.metric)
    return tuple(rung for rung in comparison.rungs if rung in best or rung.name == comparison.recommended)


def cost_figure(comparison: Comparison, title: str = "") -> Figure:
    """The same as a figure."""
    from pegbox.comparison import ANSWERS

    figure = new_figure(7.2, 3.8)
    axes = figure.subplots()
    metric = comparison.metric
    best = front(comparison.rungs, metric)
    shown = [rung for rung in comparison.rungs if not math.isnan(rung.metrics[metric].value)]
    for rung in shown:
        _draw(axes, rung, metric, on_front=rung in best, recommended=rung.name == comparison.recommended)
    steps = _steps(best, metric)
    for line in steps:
        axes.plot(line[::2], line[1::2], color=INK, linewidth=0.8, zorder=2)
    axes.set(xscale="log", xlabel=f"time of a fit and {ANSWERS:,} answers", ylabel=NAMES.get(metric, metric))
    axes.margins(x=0.08, y=0.1)
    quiet(axes)
    _name_times(axes, [spent(rung) for rung in shown])
    axes.set_title(title, fontsize="medium", parse_math=False)
    names = {rung.name for rung in named(comparison)}
    labels = [
        (
            rung.name if rung.name in names else "",
            spent(rung),
            rung.metrics[metric].value,
            rung.name == comparison.recommended,
        )
        for rung in shown
    ]
    place_labels(axes, labels, [*steps, *(_interval(rung, metric) for rung in shown)])
    return figure


def _draw(axes: Axes, rung: Rung, metric: str, *, on_front: bool, recommended: bool) -> None:
    seconds, low, _, high = _interval(rung, metric)
    axes.vlines(seconds, low, high, color=GREY, linewidth=1, zorder=1)
    colour = ACCENT if recommended else INK
    axes.plot(
        seconds,
        rung.metrics[metric].value,
        marker="D" if recommended else "o",
        markersize=6,
        markeredgecolor=colour,
        markerfacecolor=colour if on_front else "#ffffff",
        linestyle="none",
        zorder=3,
    )


def _interval(rung: Rung, metric: str) -> tuple[float, float, float, float]:
    """Its interval as an upright line; a point where it is not known."""
    estimate, seconds = rung.metrics[metric], spent(rung)
    low, high = (estimate.value if math.isnan(end) else end for end in (estimate.low, estimate.high))
    return seconds, low, seconds, high


def _steps(best: Sequence[Rung], metric: str) -> list[tuple[float, float, float, float]]:
    """The front as level and upright lines: what can be had in so much time."""
    places = [(spent(rung), rung.metrics[metric].value) for rung in best]
    lines = []
    for (x, y), (next_x, next_y) in pairwise(places):
        lines += [(x, y, next_x, y), (next_x, y, next_x, next_y)]
    return lines


def _name_times(axes: Axes, seconds: Sequence[float]) -> None:
    """Ticks at round times; between them where few lie in sight."""
    from matplotlib.ticker import NullLocator

    low, high = (min(seconds) / 1.5, max(seconds) * 1.5) if seconds else (FREE, 1.0)
    rough = {time: name for time, name in _TIMES.items() if low <= time <= high and _is_rough(time)}
    fine = {time: name for time, name in _TIMES.items() if low <= time <= high}
    ticks = rough if len(rough) > 2 else fine
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.xaxis.set_minor_locator(NullLocator())


def _is_rough(time: float) -> bool:
    return time in (0.01, 0.1, 1, 10, 60, 600, 3_600, 36_000, 360_000)
