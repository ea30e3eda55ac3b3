"""Calibration against truth: what labels show, and what the exact probabilities of etude's world show.

python bench/truth.py            the whole measurement; goes on where it was stopped
python bench/truth.py --render   only write the report from what is measured
python bench/truth.py --quick    a smoke run: one seed, few rows

Writes its section of docs/evaluation.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache, partial
from statistics import fmean
from typing import TYPE_CHECKING

import _common as common

if TYPE_CHECKING:
    from pegbox import Base

FOLDER = common.RUNS / "bench" / "truth"
PAGE = common.ROOT / "docs" / "evaluation.md"
METHODS = ("zero-shot", "few-shot", "closed-form", "head", "lora")
METRICS = ("accuracy", "ece", "binned", "error", "bias", "kl")


@dataclass(frozen=True)
class Plan:
    """One fit.

    Args:
        domain: Domain of the world's reviews that pretraining never saw.
        method: The method, with its defaults.
        seed: Seed of training rows and fit; the test rows are always the same.
        rows: Training rows.
        tested: Test rows.
    """

    domain: str
    method: str
    seed: int
    rows: int
    tested: int


@cache
def etude() -> Base:
    """Load the base once."""
    from pegbox import load

    return load("etude")


def measure(plan: Plan) -> common.Cell:
    """Fit, and score against labels and truth."""
    from _world import world_rows
    from pegbox import fit
    from pegbox.evaluation import score_truth

    train = world_rows("reviews", plan.domain, plan.rows, seed=1000 + plan.seed)
    test = world_rows("reviews", plan.domain, plan.tested, seed=1)
    tuned = fit(etude(), train.task, plan.method, rows=train.rows, seed=plan.seed, say=common.hush)
    gold = train.task.gold(test.rows)
    scores = score_truth(tuned.probabilities(test.rows), test.truth, gold, resamples=1000)
    return scores.to_json()


def lines(found: dict[Plan, common.Cell]) -> list[list[str]]:
    """A line per domain and method: means over seeds, with the interval of the first seed's rows behind."""
    groups: dict[tuple[str, str], list[common.Cell]] = {}
    for plan, cell in found.items():
        groups.setdefault((plan.domain, plan.method), []).append(cell)
    made = []
    for (domain, method), cells in groups.items():
        shown = [domain, method, str(len(cells))]
        for name in METRICS:
            parts = [cell["metrics"][name] for cell in cells]
            low, high = (fmean(part[end] for part in parts) for end in ("low", "high"))
            sign = "+" if name == "bias" else ""
            value = fmean(part["value"] for part in parts)
            shown.append(f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]")
        made.append(shown)
    return made


def report(found: dict[Plan, common.Cell]) -> str:
    """Return the section in Markdown."""
    plans = list(found)
    best = fmean(cell["metrics"]["best"]["value"] for cell in found.values())
    header = ["reviews of", "method", "seeds", "accuracy to expect", "ECE from labels", "true binned error",
              "true error", "bias", "KL to the truth"]  # fmt: skip
    return "\n\n".join(
        [
            f"Etude on held-back domains, {plans[0].rows} training rows, {plans[0].tested} test rows; the "
            f"exact probabilities themselves would be right in {best:.3f} of the rows. Means over seeds, "
            "with the mean of the seeds' 95 % intervals over rows:",
            common.markdown(header, lines(found)),
            "\n".join(["- Command: `python bench/truth.py`.", *common.provenance(found.values())]),
        ]
    )


def main() -> None:
    """Parse, measure what is missing, write the section."""
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--tested", type=int, default=800)
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    arguments = common.parse(parser)
    if arguments.quick:
        arguments.seeds, arguments.rows, arguments.tested = 1, 48, 100
    store = common.Cells(arguments.out / "cells", arguments.fresh)
    found = {}
    for domain in ("hotels", "bicycles"):
        for method in METHODS:
            for seed in range(arguments.seeds):
                plan = Plan(domain, method, seed, arguments.rows, arguments.tested)
                if arguments.render:
                    cell = store.find(asdict(plan))
                else:
                    with common.threads(arguments.threads):
                        cell = store.get(asdict(plan), partial(measure, plan))
                    common.log(" ".join(map(str, asdict(plan).values())))
                if cell:
                    found[plan] = cell
    common.write_section(arguments.page, "truth", report(found))


if __name__ == "__main__":
    main()
