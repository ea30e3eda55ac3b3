"""Comparisons of made-up answers, scored for real: no model is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pegbox.comparison import (
    BaseNote,
    Cell,
    ChangedRow,
    Comparison,
    CurvePoint,
    DataNote,
    LearningCurve,
    PowerLaw,
    Rung,
    RungCost,
    Skipped,
    WrongRow,
)
from pegbox.evaluation import (
    Estimate,
    Forgetting,
    Sample,
    Scores,
    TagScores,
    class_sample,
    compare_several,
    score,
    score_also,
    score_forgetting,
    score_tags,
    several,
    tag_sample,
)

RESAMPLES = 60


@dataclass(frozen=True)
class Made:
    """A rung to make: its name, how much its answers know, and what it cost.

    Args:
        answers: Seconds of 1,000 answers.
    """

    name: str
    strength: float
    seconds: float
    parameters: int = 0
    seeded: bool = True
    answers: float = 0.05


LADDER = (
    Made("majority", 0.0, 0.01, seeded=False),
    Made("bag-of-words", 0.5, 0.42, 1_204, seeded=False),
    Made("zero-shot", 0.6, 0.0, seeded=False, answers=0.6),
    Made("closed-form", 1.0, 1.9, 514, seeded=False),
    Made("lora", 1.7, 25.4, 32_768),
    Made("full", 1.72, 310.0, 1_234_567),
)


def comparison_of(
    ladder: Sequence[Made] = LADDER,
    *,
    kind: str = "classify",
    labels: Sequence[str] = ("negative", "positive"),
    rows: int = 160,
    seeds: Sequence[int] = (0, 1, 2),
    text: str = "A text of row {}.",
    **parts: Any,
) -> Comparison:
    """A comparison with the verdict left to whoever made it: the recommended rung is the last but one.

    Args:
        ladder: The rungs, cheapest first.
        kind: ``classify``, ``choose`` or ``tag``.
        labels: The labels, or types of entities.
        rows: Test rows.
        seeds: Seeds of the rungs that draw at random.
        text: Text of a row, with its number for ``{}``.
        parts: Other fields of the comparison.
    """
    maker = _tagged if kind == "tag" else _classified
    metric = parts.setdefault("metric", "f1" if kind == "tag" else "accuracy")
    rungs: list[Rung] = []
    samples: dict[str, list[Sample]] = {}
    for place, made in enumerate(ladder):
        own = list(seeds) if made.seeded else [seeds[0]]
        found = [maker(made.strength, labels, rows, 1000 * place + seed) for seed in own]
        samples[made.name] = [sample for _, sample in found]
        cells = [_cell(made, seed, scores) for seed, (scores, _) in zip(own, found, strict=True)]
        rungs.append(_rung(made, cells, rungs, samples, metric))
    return _comparison(tuple(rungs), kind, tuple(labels), rows, tuple(seeds), text, parts)


def curve_of(rows: int = 256) -> LearningCurve:
    """A curve with a power law that runs through its points, and an interval of its own making."""
    sizes = [size for size in (16, 32, 64, 128, 256) if size <= rows]
    error, nll = (
        PowerLaw(((limit, 1.2, 0.5),), replicates=tuple((limit, 1.2 + n / 100, 0.5) for n in range(-20, 21)))
        for limit in (0.1, 0.2)
    )
    points = tuple(
        CurvePoint(size, _around(1 - error.at(size).value), _around(nll.at(size).value)) for size in sizes
    )
    return LearningCurve("reviews.csv", "etude", rows, 160, None, 10, 0, points, error, nll, 4.0)


def _around(value: float) -> Estimate:
    return Estimate(value, value - 0.03, value + 0.03)


def forgetting_of(harm: float, *, off: bool = True, also: bool = True) -> Forgetting:
    """What tuning that adds ``harm`` nats to each of 40 documents did."""
    generator = np.random.default_rng(1)
    before = generator.uniform(80, 120, size=40)
    gold = generator.integers(2, size=50)
    tables = [_shares(strength * np.eye(2)[gold] + generator.normal(size=(50, 2))) for strength in (1.0, 0.6)]
    others = (score_also("questions.csv", *tables, gold, resamples=RESAMPLES),) if also else ()
    return score_forgetting(
        before,
        before + harm * generator.uniform(0.5, 1.5, size=40),
        np.full(40, 60.0),
        source="news",
        off=before if off else None,
        also=others,
        resamples=RESAMPLES,
    )


def with_forgetting(comparison: Comparison) -> Comparison:
    """The same with forgetting measured for every rung that has parameters."""
    rungs = []
    for place, rung in enumerate(comparison.rungs):
        found = forgetting_of(0.5 * place, off=rung.name != "full") if rung.cost.parameters else None
        rungs.append(replace(rung, cells=tuple(replace(cell, forgetting=found) for cell in rung.cells)))
    return replace(comparison, rungs=tuple(rungs))


def _classified(strength: float, labels: Sequence[str], rows: int, seed: int) -> tuple[Scores, Sample]:
    gold = np.random.default_rng(0).integers(len(labels), size=rows)
    margins = np.random.default_rng(seed).normal(size=(rows, len(labels)))
    base = _shares(np.random.default_rng(9).normal(size=margins.shape) + 0.6 * np.eye(len(labels))[gold])
    table = _shares(margins + strength * np.eye(len(labels))[gold])
    numbers = range(2, rows + 2)
    scores = score(table, gold, labels, base=base, numbers=numbers, resamples=RESAMPLES)
    return scores, class_sample(table, gold)


def _shares(margins: Any) -> Any:
    powers = np.exp(2 * margins)
    return powers / powers.sum(1, keepdims=True)


def _tagged(strength: float, labels: Sequence[str], rows: int, seed: int) -> tuple[TagScores, Sample]:
    kinds = np.random.default_rng(0).integers(len(labels), size=(rows, 2))
    gold = [["O", f"B-{labels[a]}", "O", f"B-{labels[b]}"] for a, b in kinds]
    kept = np.random.default_rng(seed).random((rows, 4)) < strength / 2
    said = [
        [tag if keep else "O" for tag, keep in zip(tags, line, strict=True)]
        for tags, line in zip(gold, kept, strict=True)
    ]
    return score_tags(said, gold, types=labels, resamples=RESAMPLES), tag_sample(said, gold)


def _cell(made: Made, seed: int, scores: Scores | TagScores) -> Cell:
    cost = RungCost(
        seconds=made.seconds * (1 + seed / 10),
        predict_seconds=made.answers * scores.rows / 1000,
        parameters=made.parameters,
        adapter_bytes=4 * made.parameters,
        peak_memory=300 * 2**20,
        flops=1e9 * made.seconds,
        predict_flops=2.5e8,
    )
    return Cell(made.name, seed, scores, cost, folder=f"rungs/{made.name}-{seed}")


def _rung(
    made: Made, cells: list[Cell], cheaper: list[Rung], samples: dict[str, list[Sample]], metric: str
) -> Rung:
    own = samples[made.name]
    middle = sorted(cells, key=lambda cell: cell.scores.metrics[metric].value)[len(cells) // 2]
    rung = Rung(
        made.name,
        f"what {made.name} turns",
        {"rank": 8} if made.parameters else {},
        tuple(cells),
        several(own, resamples=RESAMPLES),
        middle.cost,
        typical_seed=middle.seed,
    )
    if not cheaper:
        return rung
    best = max(cheaper, key=lambda other: other.metrics[metric].value)
    difference = compare_several(own, samples[best.name], metric=metric, resamples=RESAMPLES)
    worth = difference.p < 0.05 and difference.difference.value > 0.01
    return replace(rung, against=best.name, difference=difference, needed=0.01, worth=worth)


def _comparison(
    rungs: tuple[Rung, ...],
    kind: str,
    labels: tuple[str, ...],
    rows: int,
    seeds: tuple[int, ...],
    text: str,
    parts: dict[str, Any],
) -> Comparison:
    best, metric = rungs[max(len(rungs) - 2, 0)], parts["metric"]
    first, last = labels[0], labels[-1]
    given: dict[str, Any] = {
        "kind": kind,
        "labels": labels,
        "data": DataNote(
            "reviews.csv", 256, None, rows, dict.fromkeys(labels, 256 // len(labels)), "0a" * 32
        ),
        "base": BaseNote("etude", "causal", 2_400_000, "f1" * 8),
        "seeds": seeds,
        "rungs": rungs,
        "skipped": (Skipped("qlora", "needs bitsandbytes"),),
        "recommended": best.name,
        "verdict": (
            f"{best.name} is recommended: {metric} {best.metrics[metric]} on {rows:,} test rows, ahead of "
            f"{best.against}, the best cheaper rung, by {best.difference}.",
            "None of the 1 costlier rungs measured higher; the best of them is full (310.0 s to fit).",
        ),
        "rule": "A rung is worth its cost when it has shown a gain of 1 point.",
        "changed": (
            ChangedRow(7, (text.format(7),), first, last, first),
            ChangedRow(9, (text.format(9),), last, last, first),
            ChangedRow(12, (text.format(12),), first, first, last),
        ),
        "changed_from": "zero-shot",
        "errors": (
            WrongRow(9, (text.format(9),), last, first, 0.9876, 0.0124),
            WrongRow(12, (text.format(12),), first, last, 0.75, 0.25),
        ),
        "findings": ("warning: 2 texts occur twice (rows 5, 9)", "info: 2 classes"),
        "configuration": {"seeds": list(seeds), "holdout": 0.2, "methods": None, "training": {"epochs": 3}},
        "command": "pegbox compare reviews.csv --model etude --seeds 3",
        "versions": {"pegbox": "0.1.0", "torch": "2.13.0"},
        "date": "2026-11-21T10:00:00+00:00",
        "machine": "2 cores, 24 GiB, no GPU",
        "seconds": sum(cell.cost.seconds for rung in rungs for cell in rung.cells),
    }
    return Comparison(**{**given, **parts})
