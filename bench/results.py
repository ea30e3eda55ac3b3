"""How good each method is on real data: fills the cache of results and writes docs/results.md.

python bench/results.py             measure what is missing, then write the page
python bench/results.py --render    only write the page from what is measured
python bench/results.py --quick     a smoke run: few rows, into a folder of its own
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import _common as common

FOLDER = common.RUNS / "results"
PAGE = common.ROOT / "docs" / "results.md"
# Scripts whose reports the page takes up.
BENCHMARKS = ("closed_form", "label_step")
SIZES = {
    "sst2": (64, 256, 1000),
    "sms_spam": (1000,),
    "financial_phrasebank": (1000,),
    "boolq_closed": (1000,),
    "snli": (1000,),
}
MODELS = ("etude", "minilm")
METHODS = {
    "zero-shot": "zero-shot",
    "few-shot": "few-shot",
    "closed form, squared": "closed-form",
    "closed form, log": "closed-form",
    "LoRA": "lora",
}
MAJORITY = "label shares"


@dataclass(frozen=True)
class Plan:
    """One number to be had: which method, on which model and rows.

    Args:
        model: ``etude``, ``minilm`` or a folder; empty for the baseline without a model.
        data: Name of the data set.
        rows: Training rows.
        method: A key of ``METHODS``, or ``MAJORITY``.
        test_rows: Rows of the test split; all by default.
        epochs: Most epochs of LoRA; the default of the package when None.
        seed: Of the choice of rows and of the method.
    """

    model: str
    data: str
    rows: int
    method: str
    test_rows: int | None = None
    epochs: float | None = None
    seed: int = 0


def plans(arguments: argparse.Namespace) -> Iterator[Plan]:
    """Yield all that the page shows, in its order."""
    for data in arguments.data:
        for rows in arguments.rows or SIZES.get(data, (1000,)):
            rest = {"test_rows": arguments.test_rows, "seed": arguments.seed}
            yield Plan("", data, rows, MAJORITY, **rest)
            for model in arguments.models:
                for method in METHODS:
                    yield Plan(model, data, rows, method, **rest, epochs=arguments.epochs)


# One cell


def measure(plan: Plan) -> common.Cell:
    """Tune on training rows, score the test split once."""
    import pegbox
    from pegbox.errors import CapabilityError
    from pegbox.models import quiet_libraries

    quiet_libraries()
    task, train = common.task_and_rows(plan.data)
    train = common.part(train, plan.rows, plan.seed)
    test = common.part(common.task_and_rows(plan.data, "test")[1], plan.test_rows, plan.seed)
    found: common.Cell = {"train_rows": len(train), "test_rows": len(test)}
    if plan.method == MAJORITY:
        return found | baseline(task, train, test)
    base = pegbox.load(common.model_path(plan.model))
    training = pegbox.Training(epochs=plan.epochs) if plan.epochs else None
    try:
        tuned = pegbox.fit(
            base, task, method(plan.method), rows=train, training=training, seed=plan.seed, say=common.hush
        )
    except CapabilityError as error:
        return found | {"refused": error.what}
    scores = tuned.evaluate(test)
    return found | {
        "scores": scores.to_json(),
        "fit_seconds": tuned.cost.seconds,
        "predict_seconds": scores.seconds,
        "parameters": tuned.cost.parameters,
        "details": dict(tuned.details),
        "template": tuned.prompt.task.template,
        "label_words": dict(zip(task.labels, tuned.prompt.task.label_words or (), strict=False)),
    }


def method(name: str) -> Any:
    """Return the method of a name in ``METHODS``."""
    from pegbox import ClosedForm

    return ClosedForm(loss="log") if name == "closed form, log" else METHODS[name]


def baseline(task: Any, train: Any, test: Any) -> common.Cell:
    """Score the shares of the labels among the training rows, given for every row."""
    import numpy as np

    from pegbox.evaluation import score

    shares = np.bincount(task.gold(train), minlength=len(task.labels)) / len(train)
    gold = np.array(task.gold(test))
    return {"scores": score(np.tile(shares, (len(gold), 1)), gold, task.labels).to_json(), "parameters": 0}


# The page


def page(found: dict[Plan, common.Cell], command: str, old: Path) -> str:
    """Return the whole page in Markdown, with what other scripts wrote into the old one."""
    parts = [
        "# Results",
        INTRODUCTION,
        "\n".join(
            [
                f"- Command: `{command}` (goes on where it was stopped; `--render` only writes this page).",
                *common.provenance(found.values()),
            ]
        ),
    ]
    for data in dict.fromkeys(plan.data for plan in found):
        parts.append(f"## {data}")
        mine = {plan: cell for plan, cell in found.items() if plan.data == data}
        parts += wording(mine)
        for rows in dict.fromkeys(plan.rows for plan in mine):
            cells = {plan: cell for plan, cell in mine.items() if plan.rows == rows}
            first = next(iter(cells.values()))
            parts.append(f"{first['train_rows']:,} training rows, {first['test_rows']:,} test rows:")
            parts.append(table(cells))
    others = common.sections(old)
    for name in BENCHMARKS:
        if written := common.section(old, name):
            others = others.replace(written, "")
    return "\n\n".join(part for part in [*parts, *benchmarks(old), others.strip()] if part)


def wording(found: dict[Plan, common.Cell]) -> list[str]:
    """Return a line with the template and label words of each model that needs them."""
    lines = {}
    for plan, cell in found.items():
        if cell.get("template"):
            words = ", ".join(f"{label}: {word}" for label, word in cell["label_words"].items())
            lines[plan.model] = (
                f"{common.model_name(plan.model)} was asked `{cell['template']!r}` with the label words "
                f"{words}, both as derived by default."
            )
    return list(lines.values())


def table(cells: dict[Plan, common.Cell]) -> str:
    """Return one line per model and method."""
    from pegbox.evaluation import Scores

    lines, refusals = [], []
    for plan, cell in cells.items():
        name = common.model_name(plan.model) if plan.model else ""
        if "refused" in cell:
            refusals.append(f"{plan.method} on {name} ({cell['refused']})")
            continue
        scores = Scores.from_json(cell["scores"])
        numbers = scores.metrics
        lines.append(
            [
                name or "none",
                plan.method,
                str(numbers["accuracy"]),
                str(numbers["macro_f1"]),
                str(numbers["nll"]),
                str(numbers["ece"]),
                flips(scores),
                common.seconds(cell["fit_seconds"]) if cell["parameters"] else "",
                common.seconds(cell["predict_seconds"]) if plan.model else "",
                f"{cell['parameters']:,}",
            ]
        )
    header = ["model", "method", "accuracy", "macro-F1", "NLL", "ECE", "flips", "tuned in", "tested in"]
    note = f"\n\nDoes not apply: {', '.join(refusals)}." if refusals else ""
    return common.markdown([*header, "parameters"], lines) + note


def flips(scores: Any) -> str:
    """Return how many rows went from wrong to right and from right to wrong against zero-shot."""
    found = scores.flips
    if found is None or not found.count:
        return ""
    return f"+{found.wrong_to_right.count} −{found.right_to_wrong.count}"


def benchmarks(old: Path) -> Iterator[str]:
    """Yield the reports of two other benchmarks, or what the old page has of them where they were not run."""
    for name in BENCHMARKS:
        path = common.RUNS / "bench" / name / "report.md"
        if path.is_file():
            yield common.marked(name, path.read_text("utf-8"))
        elif kept := common.section(old, name):
            common.log(f"{path} is not there: section {name} of {old} is kept as it is")
            yield kept
        else:
            common.log(f"{path} is not there, nor a section {name} in {old}: bench/{name}.py makes it")


INTRODUCTION = """Written by `bench/results.py`; do not edit. Each number is that of one fit on a seeded
stratified subset of the training split (a smaller one is the start of a larger one), scored once on the test
split. All choices (penalty, smoothing, early stopping) are made on training rows, and every method runs with
its defaults. Intervals are 95 %, by bootstrap over the test rows; they do not show how much another choice of
training rows would change. "Label shares" gives every row the shares of the labels among the training rows,
so that its accuracy is that of the majority class. Flips are test rows whose answer changed from zero-shot's
(+ from wrong to right, − from right to wrong). "Tuned in" is the time from encoded rows to the tuned model,
"tested in" that of answering the test rows; "parameters" are the numbers that were tuned."""


def fill(arguments: argparse.Namespace) -> dict[Plan, common.Cell]:
    """Return the cells of all plans, measured where they are missing unless only the page is wanted."""
    cells = common.Cells(arguments.out, arguments.fresh)
    wanted = list(plans(arguments))
    found = {}
    for number, plan in enumerate(wanted, start=1):
        if arguments.render:
            cell = cells.find(asdict(plan))
            if cell is None:
                common.log(f"not measured: {plan}")
                continue
        else:
            common.log(f"{number} of {len(wanted)}: {plan}")
            cell = cells.get(asdict(plan), partial(measure, plan))
        found[plan] = cell
    return found


def main() -> None:
    """Parse, measure what is missing, write the page."""
    parser = common.parser(__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="etude, minilm or folders")
    parser.add_argument("--data", nargs="+", default=list(SIZES))
    parser.add_argument(
        "--rows", nargs="+", type=int, help="training rows; 64, 256 and 1000 of sst2, else 1000"
    )
    parser.add_argument("--test-rows", type=int, help="all by default")
    parser.add_argument(
        "--epochs", type=float, help="most epochs of LoRA; the package's default when not given"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of rows and of the methods")
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    arguments = common.parse(parser)
    if arguments.quick:
        arguments.data, arguments.rows, arguments.test_rows = ["sst2", "snli"], [64], 100
        arguments.epochs = 1
    found = fill(arguments)
    if not found:
        sys.exit(f"nothing is measured in {arguments.out}: {arguments.page} stays as it is")
    common.write_report(arguments.page, page(found, "python bench/results.py", arguments.page))


if __name__ == "__main__":
    main()
