"""Ways to be as sure as one is right, side by side."""

import math
from typing import TYPE_CHECKING

from pegbox.reports import _format
from pegbox.reports._cell import plain
from pegbox.reports._table import new_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from pegbox.evaluation import Estimate, Paired
    from pegbox.tuning import Calibrated


def calibrated_table(found: "Calibrated", *, title: str = "") -> "RenderableType":
    """Two rich tables with one line per way, and what each chose; 80 columns wide.

    Args:
        found: What :func:`pegbox.tuning.calibrate` returned.
        title: Line above the tables.
    """
    from rich.console import Group

    first = _table(title, "accuracy", "NLL", "NLL against map", "ECE")
    heads = ["Brier", "AUROC of errors", "AURC"] + (["AUROC elsewhere"] if found.outside else [])
    second = _table("", *heads, "ready in", "answers")
    for way in found.ways:
        metrics = way.scores.metrics
        first.add_row(
            way.name, *(_value(metrics[name]) for name in ("accuracy", "nll")), _paired(way.against_map),
            _value(metrics["ece"]),
        )  # fmt: skip
        values = [metrics["brier"], way.error_auroc, way.curve.aurc]
        values += [] if way.ood_auroc is None else [way.ood_auroc]
        times = (_format.duration(way.seconds), _format.duration(way.predict_seconds))
        second.add_row(way.name, *map(_value, values), *times)
    told = [plain(f"{way.name}: {way.note}", "dim") for way in found.ways if way.note]
    return Group(first, second, *told)


def calibrated_markdown(found: "Calibrated") -> str:
    """One Markdown table with one line per way."""
    heads = ["way", "accuracy", "NLL", "NLL against map", "Brier", "ECE", "AUROC of errors", "AURC"]
    heads += ["AUROC elsewhere"] if found.outside else []
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for way in found.ways:
        metrics = way.scores.metrics
        values = [metrics["brier"], metrics["ece"], way.error_auroc, way.curve.aurc]
        values += [] if way.ood_auroc is None else [way.ood_auroc]
        cells = [way.name, _flat(metrics["accuracy"]), _flat(metrics["nll"])]
        cells += ["" if way.against_map is None else str(way.against_map), *map(_flat, values)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _table(title: str, *heads: str) -> "Table":
    table = new_table(title)
    table.add_column("way", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _value(estimate: "Estimate") -> str:
    if math.isnan(estimate.value):
        return _format.NONE
    if math.isnan(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f}\n[{estimate.low:.3f}, {estimate.high:.3f}]"


def _flat(estimate: "Estimate") -> str:
    return _value(estimate).replace("\n", " ")


def _paired(paired: "Paired | None") -> str:
    if paired is None:
        return _format.NONE
    gap = paired.difference
    p = "p < 0.001" if paired.p < 0.001 else f"p = {paired.p:.3f}"
    interval = "" if math.isnan(gap.low) else f"\n[{gap.low:+.3f}, {gap.high:+.3f}]"
    return f"{gap.value:+.3f}, {p}{interval}"
