"""Ways to be as sure as one is right: MAP, temperature, ensemble and Laplace posteriors, over seeds.

python bench/calibrate.py                      measure what is missing, then write the tables
python bench/calibrate.py --model minilm       only this model
python bench/calibrate.py --data sst2          only this data
python bench/calibrate.py --render             only write the tables from what is there
python bench/calibrate.py --quick              a smoke run into a folder of its own

Each cell is one seed of one case: other training rows, held-out rows and initial values. Temperature and
prior precision are chosen on held-out rows, which early stopping used as well; the test rows choose nothing.
The evidence's precision is measured beside the chosen one, from the same curvature.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import _common as common

FOLDER = common.RUNS / "calibrate"
PAGE = common.ROOT / "docs" / "results.md"
SEEDS = (0, 1, 2, 3, 4)
WAYS = ("map", "temperature", "ensemble", "exact", "kron", "ekfac", "diag")
TESTED = 500
METRICS = ("accuracy", "nll", "ece", "error_auroc")
# Two-sided 97.5 % quantiles of Student's t for 1 to 4 degrees of freedom.
T = (12.706, 4.303, 3.182, 2.776)


@dataclass(frozen=True)
class Case:
    """One data set with a number of training rows.

    Args:
        data: Data set; ``reviews`` is the embedded world's hotels.
        rows: Training rows.
        valid: Held-out rows.
        outside: Data sets with rows from elsewhere.
        epochs: Passes over the rows.
    """

    data: str
    rows: int
    valid: int = 64
    outside: tuple[str, ...] = ()
    epochs: float = 20


CASES = (
    Case("sst2", 64, outside=("ood_customer_reviews", "ood_tweet_sentiment")),
    Case("sst2", 256, outside=("ood_customer_reviews", "ood_tweet_sentiment")),
    Case("financial_phrasebank", 256),
    Case("snli", 256, outside=("ood_snli_counterfactual",)),
    Case("arc_easy", 256),
    Case("clinc_small", 256, outside=("clinc_small:ood",)),
    Case("reviews", 256),
)


def rows_of(case: Case, seed: int, tested: int) -> tuple[Any, Any, Any, Any]:
    """The task, training rows, held-out rows and test rows of a seed; the test rows are the same for all."""
    if case.data == "reviews":
        return _world(case, seed, tested)
    from pegbox.data import text_key
    from pegbox.tasks import task_from_file

    folder = common.DATA / case.data
    task = task_from_file(folder / "train.jsonl")
    rows: Any = task.rows
    task = task.with_rows(None)
    drawn = _drawn(rows, case.rows + case.valid, seed)
    train, valid = drawn.select(range(case.rows)), drawn.select(range(case.rows, len(drawn)))
    from pegbox.tuning import labelled_rows

    test: Any = labelled_rows(task, folder / "test.jsonl", say=common.hush)
    known = {text_key(texts) for texts in drawn.texts}
    apart = [at for at, texts in enumerate(test.texts) if text_key(texts) not in known]
    return task, train, valid, _drawn(test.select(apart), tested, 0)


def _drawn(rows: Any, count: int, seed: int) -> Any:
    """Seeded rows in random order; every label occurs among the first."""
    import random

    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    if rows.labels is not None:
        first: dict[str, int] = {}
        for at in order:
            first.setdefault(rows.labels[at], at)
        head = list(first.values())
        order = head + [at for at in order if at not in set(head)]
    return rows.select(order[:count])


def _world(case: Case, seed: int, tested: int) -> tuple[Any, Any, Any, Any]:
    from pegbox import Classify
    from pegbox.data import Examples
    from pegbox.models.etude.world import reviews

    def made(count: int, own: int) -> Examples:
        found = reviews("hotels", count, seed=own)
        texts, labels = tuple(row.text for row in found), tuple(row.label for row in found)
        return Examples("hotel reviews", {"text": texts}, labels, tuple(range(1, count + 1)))

    task = Classify(
        labels=("negative", "positive"),
        template="{text} It was {answer}.",
        label_words=("terrible", "great"),
    )
    both = made(case.rows + case.valid, 100 + seed)
    train, valid = both.select(range(case.rows)), both.select(range(case.rows, len(both)))
    return task, train, valid, made(tested, 1)


def measure(case: Case, model: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit, calibrate in all ways, and score."""
    import pegbox
    from pegbox.tuning import calibrate

    quick = arguments.quick
    task, train, valid, test = rows_of(case, seed, 60 if quick else arguments.tested)
    if quick:
        case = replace(case, outside=())
        train, valid = train.select(range(32)), valid.select(range(16))
    training = pegbox.Training(epochs=1 if quick else case.epochs)
    with common.threads(arguments.threads):
        base = pegbox.load(common.model_path(model), device=arguments.device, dtype="float32")
        tuned = pegbox.fit(
            base, task, "lora", rows=train, valid=valid, training=training, seed=seed,
            say=common.hush,
        )  # fmt: skip
        found = calibrate(
            tuned, train, test, valid=valid, ways=arguments.ways, training=training, seed=seed, resamples=200
        )
        ways = {way.name: _numbers(way) for way in found.ways}
        ways["exact, evidence"] = _by_evidence(tuned, train, test)
        outside = _outside(tuned, train, valid, test, case.outside, arguments)
    gap = _loss(found["exact"], gold := _gold(tuned, test)) - _loss(found["temperature"], gold)
    return {
        "ways": ways, "exact_less_temperature": gap, "outside": outside,
    }  # fmt: skip


def _gold(tuned: Any, rows: Any) -> Any:
    import numpy as np

    return np.array(tuned.prompt.task.gold(rows))


def _loss(way: Any, gold: Any) -> float:
    import numpy as np

    return float(-np.log(way.probabilities[np.arange(len(gold)), gold]).mean())


def _by_evidence(tuned: Any, train: Any, test: Any) -> dict[str, Any]:
    """The exact posterior with the precision of most evidence."""
    from pegbox.evaluation import score
    from pegbox.tuning import option_names

    sure = tuned.with_posterior(train, prior_precision=1.0)
    best = sure.laplace.evidence.best()
    sure = replace(sure, laplace=sure.laplace.with_precision(best))
    found = sure.probabilities(test)
    labels = tuned.labels if len(tuned.labels) == found.shape[1] else option_names(found.shape[1])
    scores = score(found, _gold(tuned, test), labels, resamples=1)
    values = {name: one.value for name, one in scores.metrics.items()}
    return {**values, "note": f"precision {best:.3g}"}


def _outside(
    tuned: Any, train: Any, valid: Any, test: Any, names: Sequence[str], arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """How well 1 - probability tells rows from elsewhere from the test rows, by data set and way."""
    from pegbox.evaluation import ood_auroc, uncertainties

    if not names:
        return {}
    models = {"map": tuned, "exact": tuned.with_posterior(train, valid=valid)}
    if _has_head(tuned):
        models["exact, head alone"] = tuned.with_posterior(train, valid=valid, part="head")
    inside = {way: uncertainties(one.probabilities(test))["confidence"] for way, one in models.items()}
    found: dict[str, dict[str, float]] = {}
    for name in names:
        data, _, split = name.partition(":")
        rows = tuned.read(common.DATA / data / f"{split or 'test'}.jsonl", labelled=False)
        rows = _drawn(replace(rows, labels=None), arguments.tested, 0)
        found[name] = {}
        for way, one in models.items():
            other = uncertainties(one.probabilities(rows))["confidence"]
            found[name][way] = ood_auroc(inside[way], other, resamples=1).value
    return found


def _has_head(tuned: Any) -> bool:
    return tuned.base.kind == "encoder"


def _numbers(way: Any) -> dict[str, Any]:
    values = {name: one.value for name, one in way.scores.metrics.items()}
    times = {"seconds": way.seconds, "predict_seconds": way.predict_seconds}
    return {
        **values,
        "error_auroc": way.error_auroc.value,
        "aurc": way.curve.aurc.value,
        "note": way.note,
        **times,
    }


def _mean(values: list[float]) -> str:
    """Mean over seeds with the half width of its 95 % t-interval."""
    own = [value for value in values if value is not None and not math.isnan(value)]
    if not own:
        return "-"
    if len(own) == 1:
        return f"{own[0]:.3f}"
    return f"{fmean(own):.3f} ± {T[len(own) - 2] * stdev(own) / math.sqrt(len(own)):.3f}"


def _table(cells: list[dict[str, Any]]) -> str:
    names = [name for name in (*WAYS, "exact, evidence") if any(name in cell["ways"] for cell in cells)]
    lines = []
    for name in names:
        own = [cell["ways"][name] for cell in cells if name in cell["ways"]]
        against = [one["nll"] - cell["ways"]["map"]["nll"] for one, cell in zip(own, cells, strict=True)]
        values = [_mean([one.get(metric, math.nan) for one in own]) for metric in METRICS]
        lines.append([name, *values, "" if name == "map" else _mean(against)])
    table = common.markdown(
        ["way", "accuracy", "NLL", "ECE", "AUROC of errors", "NLL less that of map"], lines
    )
    outside = sorted({name for cell in cells for name in cell["outside"]})
    parts = [table]
    for name in outside:
        means = ", ".join(
            f"{way} {_mean([cell['outside'][name][way] for cell in cells])}"
            for way in cells[0]["outside"][name]
        )
        parts.append(f"AUROC of rows from {name} against the test rows: {means}.")
    gap = _mean([cell["exact_less_temperature"] for cell in cells])
    parts.append(f"NLL of exact less that of temperature: {gap}.")
    return "\n\n".join(parts)


def report(cells: common.Cells) -> str:
    """Tables of all cells that are there, those of other options than the given ones too."""
    parts, have = [], []
    for model in ("minilm", "etude"):
        for case in CASES:
            own = _found(cells.folder, case, model)
            if not own:
                continue
            have += own
            tested = sorted({cell["key"]["tested"] for cell in own})
            title = f"### {case.data}, {case.rows} rows, {common.model_name(model)}"
            count = f"{len(own)} seeds, at most {' or '.join(map(str, tested))} test rows."
            parts += [title, count, _table(own)]
    lines = [f"- Commands: {'; '.join(_commands(have))}.", *common.provenance(have)]
    head = "\n".join(lines)
    intro = (
        "LoRA (and a head on the encoder) fitted to few rows; each number is a mean over seeds with the half "
        "width of its 95 % t-interval over seeds, each with training rows of its own and the same test rows. "
        "Temperature and prior precision are chosen on 64 held-out rows, which early stopping used too; "
        "`exact, evidence` takes the precision of most evidence instead. A temperature is at least 1, and a "
        "posterior too only makes a model less sure: where neither changes anything, the model was not too "
        "sure. What the ways are: "
        "[uncertainty](uncertainty.md)."
    )
    return "\n\n".join(["## Calibration by temperature, ensemble and Laplace", intro, head, *parts])


def _commands(cells: Sequence[dict[str, Any]]) -> list[str]:
    """What measures the cells: the options of each that are not the script's own."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        known, options = cell["key"], []
        if known["tested"] != TESTED:
            options.append(f"--tested {known['tested']}")
        if tuple(known["ways"]["names"]) != WAYS:
            options.append(f"--ways {' '.join(known['ways']['names'])}")
        where = found.setdefault(" ".join(options), [])
        if known["data"] not in where:
            where.append(known["data"])
    return [
        f"`python bench/calibrate.py{' ' + options if options else ''}` ({', '.join(data)})"
        for options, data in sorted(found.items())
    ]


def _found(folder: Path, case: Case, model: str) -> list[dict[str, Any]]:
    """The newest cell of each seed."""
    newest: dict[int, dict[str, Any]] = {}
    paths = folder.glob("*.json") if folder.is_dir() else ()
    for path in sorted(paths, key=lambda one: one.stat().st_mtime):
        cell = json.loads(path.read_text("utf-8"))
        known = cell["key"]
        if (known["data"], known["rows"], known["model"]) == (case.data, case.rows, model):
            newest[known["seed"]] = cell
    return [newest[seed] for seed in sorted(newest)]


def key(case: Case, model: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a cell depends on."""
    return {
        "data": case.data, "rows": case.rows, "model": model, "seed": seed, "tested": arguments.tested,
        "epochs": case.epochs, "ways": {"names": list(arguments.ways)},
    }  # fmt: skip


def main() -> None:
    """Parse, measure what is missing, write the tables."""
    parser = common.parser(__doc__)
    parser.add_argument("--data", nargs="+", choices=sorted({case.data for case in CASES}), help="only these")
    parser.add_argument("--model", nargs="+", choices=["etude", "minilm"], default=["minilm", "etude"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--tested", type=int, default=TESTED, help="most test rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto; in float32 everywhere")
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    arguments = common.parse(parser)
    if arguments.quick:
        arguments.seeds, arguments.data = [0], ["reviews"]
    cells = common.Cells(arguments.out, arguments.fresh)
    for seed in () if arguments.render else arguments.seeds:
        for model in arguments.model:
            for case in CASES:
                if arguments.data and case.data not in arguments.data:
                    continue
                if case.data == "clinc_small" and model == "etude":
                    continue  # its labels share first tokens
                asked = key(case, model, seed, arguments)
                made = cells.get(asked, partial(measure, case, model, seed, arguments))
                common.log(f"{case.data} {case.rows} {model} seed {seed}: {json.dumps(_short(made))}")
    common.write_section(arguments.page, "calibrate", report(cells))


def _short(cell: dict[str, Any]) -> dict[str, float]:
    return {name: round(one["nll"], 3) for name, one in cell["ways"].items()}


if __name__ == "__main__":
    main()
