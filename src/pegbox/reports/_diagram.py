from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.evaluation import RewardScores, Scores
from pegbox.reports._figure import GREY, INK, draw, new_figure, quiet
from pegbox.reports._format import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def reliability_diagram(scores: Scores | RewardScores, path: str | Path, title: str = "") -> Path:
    """Draw accuracy against confidence, with 95 % intervals, over a histogram of rows.

    Source: DeGroot and Fienberg, The comparison and evaluation of forecasters, 1983. The same scores give
    the same bytes with the same Matplotlib.

    Args:
        scores: What `pegbox.evaluation.score` or `score_rewards` measured.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: another suffix.
    """
    lines = [title, f"ECE {scores.metrics['ece']}, {scores.rows:,} rows"]
    return draw(path, lambda: reliability_figure(scores, "\n".join(line for line in lines if line)))


def reliability_figure(scores: Scores | RewardScores, title: str = "", *, small: bool = False) -> "Figure":
    """The reliability diagram as a figure.

    Args:
        scores: What `pegbox.evaluation.score` or `score_rewards` measured.
        title: Lines above it.
        small: For many beside each other: half as wide, without legend.
    """
    figure = new_figure(2.6, 2.9) if small else new_figure(4.8, 5.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    _draw_accuracy(upper, scores, small)
    _draw_counts(lower, scores)
    if small:
        _shrink(upper, lower)
    else:
        figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    upper.set_title(legible(title), fontsize="medium", parse_math=False)
    return figure


def _shrink(upper: "Axes", lower: "Axes") -> None:
    for axes in (upper, lower):
        quiet(axes)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
    lower.set(xlabel="confidence", ylabel="")


def _draw_accuracy(axes: "Axes", scores: Scores | RewardScores, small: bool) -> None:
    bins = scores.reliability.bins
    confidence = [part.confidence for part in bins]
    accuracy = [part.accuracy for part in bins]
    # Rounding may put an end of a Wilson interval at 0 or 1 on the wrong side of the accuracy.
    below = [max(part.accuracy - part.low, 0.0) for part in bins]
    above = [max(part.high - part.accuracy, 0.0) for part in bins]
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="perfect calibration")
    axes.plot(confidence, accuracy, color=GREY, linewidth=1 if small else 1.5, zorder=1)
    label = "accuracy, 95 % interval"
    style: dict[str, Any] = {
        "color": INK,
        "ecolor": INK,
        "elinewidth": 0.8 if small else 1,
        "capsize": 0 if small else 2.5,
        "markersize": 3 if small else 4.5,
    }
    axes.errorbar(confidence, accuracy, yerr=[below, above], fmt="o", label=label, zorder=3, **style)
    axes.set(ylabel="accuracy", ylim=(-0.02, 1.02), xlim=_limits(scores))
    axes.grid(color=GREY, linewidth=0.5, alpha=0.5)


def _draw_counts(axes: "Axes", scores: Scores | RewardScores) -> None:
    from matplotlib.ticker import MaxNLocator

    counts = scores.reliability.histogram
    starts = [step / len(counts) for step in range(len(counts))]
    axes.bar(starts, counts, 1 / len(counts), align="edge", color=GREY, edgecolor=INK, linewidth=0.7)
    axes.set(xlabel="confidence (probability of the predicted label)", ylabel="rows", xlim=_limits(scores))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def _limits(scores: Scores | RewardScores) -> tuple[float, float]:
    """From the chance level, below which no confidence lies, to one, with a margin for the markers."""
    lowest = 1 / len(scores.labels)
    margin = 0.03 * (1 - lowest)
    return lowest - margin, 1 + margin
