from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.evaluation import Scores
from pegbox.reports._figure import check_suffix, new_figure, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _GREY = "#1a1a1a", "#a8a8a8"


def reliability_diagram(scores: Scores, path: str | Path, title: str = "") -> Path:
    """Draw accuracy against confidence, with 95 % intervals, over a histogram of rows.

    Source: DeGroot and Fienberg, The comparison and evaluation of forecasters, 1983. The same scores give
    the same bytes with the same Matplotlib.

    Args:
        scores: What `pegbox.evaluation.score` measured.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: another suffix.
    """
    place = Path(path)
    check_suffix(place)
    figure = new_figure(4.8, 5.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    _draw_accuracy(upper, scores)
    _draw_counts(lower, scores)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    lines = [title, f"ECE {scores.metrics['ece']}, {scores.rows:,} rows"]
    upper.set_title("\n".join(line for line in lines if line), fontsize="medium", parse_math=False)
    return write_figure(figure, place)


def _draw_accuracy(axes: "Axes", scores: Scores) -> None:
    bins = scores.reliability.bins
    confidence = [part.confidence for part in bins]
    accuracy = [part.accuracy for part in bins]
    # Rounding may put an end of a Wilson interval at 0 or 1 on the wrong side of the accuracy.
    below = [max(part.accuracy - part.low, 0.0) for part in bins]
    above = [max(part.high - part.accuracy, 0.0) for part in bins]
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle="--", label="perfect calibration")
    axes.plot(confidence, accuracy, color=_GREY, linewidth=1.5, zorder=1)
    label = "accuracy, 95 % interval"
    style: dict[str, Any] = {
        "color": _INK,
        "ecolor": _INK,
        "elinewidth": 1,
        "capsize": 2.5,
        "markersize": 4.5,
    }
    axes.errorbar(confidence, accuracy, yerr=[below, above], fmt="o", label=label, zorder=3, **style)
    axes.set(ylabel="accuracy", ylim=(-0.02, 1.02), xlim=_limits(scores))
    axes.grid(color=_GREY, linewidth=0.5, alpha=0.5)


def _draw_counts(axes: "Axes", scores: Scores) -> None:
    from matplotlib.ticker import MaxNLocator

    counts = scores.reliability.histogram
    starts = [step / len(counts) for step in range(len(counts))]
    axes.bar(starts, counts, 1 / len(counts), align="edge", color=_GREY, edgecolor=_INK, linewidth=0.7)
    axes.set(xlabel="confidence (probability of the predicted label)", ylabel="rows", xlim=_limits(scores))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def _limits(scores: Scores) -> tuple[float, float]:
    """From the chance level, below which no confidence lies, to one, with a margin for the markers."""
    lowest = 1 / len(scores.labels)
    margin = 0.03 * (1 - lowest)
    return lowest - margin, 1 + margin
