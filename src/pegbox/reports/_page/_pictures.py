"""The pictures of a report, each with the words that say what can be seen in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.evaluation import Scores
from pegbox.reports import _format
from pegbox.reports._curve import curve_figure, learning_curve_diagram
from pegbox.reports._diagram import reliability_diagram, reliability_figure
from pegbox.reports._names import NAMES
from pegbox.reports._page._inline import inline
from pegbox.reports._page._table import entry
from pegbox.reports._pareto import cost_diagram, cost_figure, front, named

if TYPE_CHECKING:
    from markupsafe import Markup

    from pegbox.comparison import Comparison, LearningCurve, Rung

# Reliability diagrams beside each other; of more rungs the front, and the best of the others.
MOST = 9


@dataclass(frozen=True)
class Picture:
    """One picture.

    Args:
        name: Of its files, and unique in the page.
        title: What it is, in a few words.
        caption: What stands below it.
        svg: The picture as part of a page.
        write: Draws it into a file, by suffix.
    """

    name: str
    title: str
    caption: str
    svg: Markup
    write: Callable[[Path], Path]


def cost_picture(comparison: Comparison) -> Picture:
    """The decisive metric against what a rung costs in time."""
    metric = NAMES.get(comparison.metric, comparison.metric)
    best = front(comparison.rungs, comparison.metric)
    points = "; ".join(_point(rung, comparison.metric) for rung in comparison.rungs)
    names = ", ".join(rung.name for rung in best)
    title = f"{metric} against the time that a rung costs"
    caption = (
        f"Filled points joined by the line are the front: no other rung is as good in less time ({names}). "
        f"The diamond is {comparison.recommended}, which is recommended. Upright lines are 95 % intervals."
    )
    if len(named(comparison)) < len(comparison.rungs):
        caption += (
            " Names of other rungs, and of those that would collide, are left out; the table has them all."
        )
    return Picture(
        "pareto",
        title,
        caption,
        inline(cost_figure(comparison), "pareto", title, f"{points}. On the front: {names}."),
        lambda path: cost_diagram(comparison, path, title),
    )


def _point(rung: Rung, metric: str) -> str:
    return f"{rung.name} {_format.interval(rung.metrics[metric])} in {_format.duration(rung.seconds)}"


def reliability_pictures(comparison: Comparison) -> list[Picture]:
    """Accuracy against confidence of the main rungs; none where there are no probabilities."""
    found: list[Picture] = []
    for rung in main_rungs(comparison):
        scores = rung.typical.scores
        if isinstance(scores, Scores):
            found.append(_reliability(rung, scores, {picture.name for picture in found}))
    return found


def curve_picture(curve: LearningCurve) -> Picture:
    """Accuracy and log-loss of the closed form against the number of labels."""
    title = "The closed form by number of labels"
    points = "; ".join(
        f"{point.labels:,} labels: accuracy {point.accuracy}, log-loss {point.nll}" for point in curve.points
    )
    held = f"of {curve.test_source}" if curve.test_source else "held out of the same source"
    caption = (
        f"Measured on {curve.repeats} subsets of each size and {curve.tested:,} rows {held}; the dashed line "
        "stands at the labels there are. The grey band holds 95 % of what one such set of labels would "
        "reach, as far as the power law can be trusted."
    )
    words = f"{points}. Expected of {2 * curve.rows:,}: accuracy {curve.at(2 * curve.rows)}."
    return Picture(
        "learning-curve",
        title,
        caption,
        inline(curve_figure(curve), "learning-curve", title, words),
        lambda path: learning_curve_diagram(curve, path, title),
    )


def main_rungs(comparison: Comparison) -> tuple[Rung, ...]:
    """Rungs whose calibration is drawn: all of a few, else the recommended, the front, then the first."""
    best = front(comparison.rungs, comparison.metric)
    order = sorted(comparison.rungs, key=lambda rung: (rung.name != comparison.recommended, rung not in best))
    chosen = order[:MOST]
    return tuple(rung for rung in comparison.rungs if rung in chosen)


def _reliability(rung: Rung, scores: Scores, taken: set[str]) -> Picture:
    name = _free(f"reliability-{_file_name(rung.name)}", taken)
    bins = scores.reliability.bins
    words = (
        f"ECE {scores.metrics['ece']}. In {len(bins)} groups of rows of rising confidence: "
        + "; ".join(f"confidence {part.confidence:.2f}, accuracy {part.accuracy:.2f}" for part in bins)
        + "."
    )
    seed = f", seed {rung.typical_seed}" if len(rung.cells) > 1 else ""
    title = f"Reliability of {rung.name}"
    svg = inline(reliability_figure(scores, small=True), name, title, words)
    ece = entry(scores.metrics["ece"])
    caption = f"{rung.name}\nECE {ece.text} {ece.small}{seed}"
    return Picture(name, title, caption, svg, lambda path: reliability_diagram(scores, path, rung.name))


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "rung"


def _free(name: str, taken: set[str]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found
