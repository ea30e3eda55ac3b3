"""The course of a policy's training: what each step measured, as small pictures side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.reports._figure import ACCENT, GREY, INK, draw, entitle, new_figure, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Title, then the metrics drawn in it: name, what it is called, colour, line.
_Line = tuple[str, str, str, str]
_PARTS: tuple[tuple[str, tuple[_Line, ...]], ...] = (
    ("reward", (("reward", "learnt on", INK, "-"), ("held_reward", "held out", ACCENT, "--"))),
    ("gold reward", (("gold", "learnt on", INK, "-"), ("held_gold", "held out", ACCENT, "--"))),
    ("divergence, nats per answer", (("kl", "divergence", INK, "-"),)),
    ("entropy, nats per token", (("entropy", "entropy", INK, "-"),)),
    ("tokens per answer", (("length", "tokens", INK, "-"),)),
    ("answers that end", (("ended", "ended", INK, "-"),)),
    ("ratios clipped", (("clipped", "clipped", INK, "-"),)),
    ("explained variance", (("explained_variance", "explained", INK, "-"),)),
    ("gradient norm", (("gradient", "gradient", INK, "-"),)),
)
_ACROSS = 3


def course_diagram(history: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> Path:
    """Draw what each step of a policy's training measured.

    Bands are two standard errors. The same history gives the same bytes with the same Matplotlib.

    Args:
        history: Metrics of each step, as :class:`pegbox.tuning.Aligned` has them or ``metrics.jsonl``.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: another suffix.
    """
    return draw(path, lambda: course_figure(history, title))


def course_figure(history: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """The same as a figure."""
    known = {name for metrics in history for name in metrics}
    parts = [(head, lines) for head, lines in _PARTS if any(name in known for name, *_ in lines)]
    down = -(-len(parts) // _ACROSS)
    figure = new_figure(2.6 * _ACROSS, 1.9 * down)
    places = figure.subplots(down, _ACROSS, squeeze=False).flatten()
    for axes, (head, lines) in zip(places, parts, strict=False):
        _draw(axes, history, head, lines)
    for axes in places[len(parts) :]:
        axes.set_axis_off()
    entitle(figure, title)
    return figure


def _draw(axes: Axes, history: Sequence[Mapping[str, Any]], head: str, lines: Sequence[_Line]) -> None:
    from matplotlib.ticker import MaxNLocator

    drawn = 0
    for name, called, colour, style in lines:
        found = [(one["step"], one[name], one.get(f"{name}_error", 0.0)) for one in history if name in one]
        if not found:
            continue
        steps, values, errors = zip(*found, strict=True)
        if any(errors):
            low, high = (
                [value + sign * 2 * error for value, error in zip(values, errors, strict=True)]
                for sign in (-1, 1)
            )
            axes.fill_between(steps, low, high, color=GREY, alpha=0.25, linewidth=0)
        marker = "o" if len(found) < len(history) or len(found) == 1 else ""
        axes.plot(
            steps, values, style, color=colour, linewidth=1.2, marker=marker, markersize=3, label=called
        )
        drawn += 1
    axes.set_title(head, fontsize="small", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.tick_params(labelsize="x-small")
    quiet(axes)
    if drawn > 1:
        axes.legend(fontsize="x-small", frameon=False)


def held_diagram(
    history: Sequence[Mapping[str, Any]],
    path: str | Path,
    before: Mapping[str, float] | None = None,
    title: str = "",
) -> Path:
    """Draw the rewards on held-out prompts by step, the learned one beside gold where there is one.

    Args:
        history: As for :func:`course_diagram`.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        before: Rewards of the model before, ``reward`` and ``gold``.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: another suffix.
    """
    return draw(path, lambda: held_figure(history, before, title))


def held_figure(
    history: Sequence[Mapping[str, Any]], before: Mapping[str, float] | None = None, title: str = ""
) -> Figure:
    """The same as a figure."""
    found = [one for one in history if "held_reward" in one]
    figure = new_figure(7.2, 3.0)
    gold = any("held_gold" in one for one in found)
    places = figure.subplots(1, 2 if gold else 1, squeeze=False).flatten()
    names = (("held_reward", "reward it is tuned by", INK), ("held_gold", "gold reward", ACCENT))
    for axes, (name, head, colour) in zip(places, names, strict=False):
        axes.errorbar(
            [one["step"] for one in found],
            [one[name] for one in found],
            yerr=[2 * one[f"{name}_error"] for one in found],
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.2,
        )
        known = (before or {}).get(name.removeprefix("held_"))
        if known is not None:
            axes.axhline(known, color=GREY, linewidth=1, linestyle="--")
        axes.set_title(head, fontsize="small", loc="left")
        axes.set_xlabel("step")
        quiet(axes)
    entitle(figure, title)
    return figure
