"""Reward against divergence: what reweighting reaches, and the way that a policy took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.evaluation import Reach
from pegbox.reports._figure import ACCENT, GREY, INK, draw, entitle, new_figure, quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def frontier_diagram(
    reach: Reach, path: str | Path, history: Sequence[Mapping[str, Any]] = (), title: str = ""
) -> Path:
    """Draw a policy's reward against its divergence beside the frontier.

    The frontier is grey where fewer than 50 answers per prompt have weight, which makes it a poor estimate.
    The same numbers give the same bytes with the same Matplotlib.

    Args:
        reach: What `pegbox.tuning.judge` measured with draws.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        history: Metrics of each step, for the way that the policy took on the prompts it learnt on.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: another suffix.
    """
    return draw(path, lambda: frontier_figure(reach, history, title))


def frontier_figure(reach: Reach, history: Sequence[Mapping[str, Any]] = (), title: str = "") -> Figure:
    """The same as a figure."""
    figure = new_figure(7.2, 3.6)
    axes = figure.subplots()
    spent, best = list(reach.divergences), list(reach.rewards)
    fair = reach.fair
    axes.plot(spent[:fair], best[:fair], color=INK, linewidth=1.4, label="reachable")
    axes.plot(
        spent[max(fair - 1, 0) :],
        best[max(fair - 1, 0) :],
        color=GREY,
        linewidth=1.4,
        linestyle="--",
        label="reachable, poorly known",
    )
    if history:
        axes.plot(
            [one["kl"] for one in history],
            [one["reward"] for one in history],
            ".",
            color=GREY,
            markersize=4,
            label="each step, on prompts learnt on",
        )
    x, y = reach.divergence, reach.reward
    ends = [[[max(one.value - one.low, 0.0)], [max(one.high - one.value, 0.0)]] for one in (x, y)]
    axes.errorbar(
        [x.value], [y.value], xerr=ends[0], yerr=ends[1], fmt="D", color=ACCENT, markersize=6, label="policy"
    )
    axes.set(xlabel="divergence, nats per answer", ylabel="reward less the penalty of a missing end, sd")
    most = max([x.value if x.low != x.low else x.high, *(one["kl"] for one in history), 0.1])
    axes.set_xlim(left=min(0.0, *(one["kl"] for one in history), 0.0), right=1.15 * most)
    quiet(axes)
    axes.legend(fontsize="small", frameon=False)
    entitle(figure, title)
    return figure
