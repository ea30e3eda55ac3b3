"""The ladder on four data sets; fills a cache of comparisons and writes the tables of docs/results.md.

python bench/ladders.py                 climb what is missing, then write the tables
python bench/ladders.py --data sst2     only this one
python bench/ladders.py --render        only write the tables from what is there
python bench/ladders.py --quick         a smoke run: few rows, few rungs, one seed, into a folder of its own
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _common as common

FOLDER = common.RUNS / "ladders"
PAGE = common.ROOT / "docs" / "results.md"
SEEDS = (0, 1, 2)
WORLD = "reviews"


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        data: ``reviews`` (hotels, held back from the embedded models) or a folder of the data.
        model: ``etude`` or ``minilm``.
        rows: Training rows.
        tested: Test rows at the most.
    """

    data: str
    model: str
    rows: int
    tested: int = 1000


CASES = (
    Case(WORLD, "etude", 256),
    Case("sst2", "minilm", 256),
    Case("financial_phrasebank", "minilm", 256),
    Case("sms_spam", "minilm", 256),
)


def rows_of(case: Case, rows: int, tested: int) -> tuple[Any, Any]:
    """The task with its training rows, and the test rows."""
    if case.data != WORLD:
        task, train = common.task_and_rows(case.data)
        test = common.task_and_rows(case.data, "test")[1]
        return task.with_rows(common.part(train, rows)), common.part(test, tested)
    from pegbox import Classify
    from pegbox.data import Examples
    from pegbox.models.etude.world import reviews

    def made(count: int, seed: int) -> Examples:
        found = reviews("hotels", count, seed=seed)
        texts, labels = tuple(row.text for row in found), tuple(row.label for row in found)
        return Examples(f"hotel reviews, seed {seed}", {"text": texts}, labels, tuple(range(1, count + 1)))

    task = Classify(
        labels=("negative", "positive"),
        template="{text} It was {answer}.",
        label_words=("terrible", "great"),
    )
    return task.with_rows(made(rows, 0)), made(tested, 1)


def climb(case: Case, arguments: argparse.Namespace) -> None:
    """Climb all rungs of a case, or go on with them."""
    import pegbox
    from pegbox.reports import rung_line, write_report

    rows, tested = (48, 60) if arguments.quick else (case.rows, case.tested)
    task, test = rows_of(case, rows, tested)
    folder = arguments.out / f"{case.data}-{case.model}"
    begun = folder / "begun.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not begun.is_file():
        note = {"commit": common.commit(), "date": common.today(), "load": common.load()}
        note |= {"machine": common.machine(), "versions": common.versions()}
        begun.write_text(json.dumps(note) + "\n", "utf-8")
    with common.threads(arguments.threads):
        found = pegbox.compare(
            common.model_path(case.model),
            task,
            ("majority", "bag-of-words", "closed-form", "head", "lora") if arguments.quick else None,
            folder=folder / "compare",
            test=test,
            seeds=(0,) if arguments.quick else SEEDS,
            patience=0,
            command=f"python bench/ladders.py --data {case.data}",
            done=lambda rung: common.log(rung_line(rung)),
            say=common.hush,
        )
    write_report(found, folder / "compare")


def section(case: Case, folder: Path) -> tuple[str, common.Cell] | None:
    """One case's table and verdict in Markdown, and when it was measured."""
    from pegbox.comparison import Comparison

    path = folder / "compare" / "comparison.json"
    if not path.is_file():
        return None
    found = Comparison.from_json(json.loads(path.read_text("utf-8")))
    title = "hotel reviews of the embedded world" if case.data == WORLD else case.data
    parts = [
        f"### {title}, {common.model_name(case.model)}",
        f"{found.data.train_rows:,} training rows, {found.data.test_rows:,} test rows, seeds "
        f"{', '.join(map(str, found.seeds))}.",
        (folder / "compare" / "ladder.md").read_text("utf-8").strip(),
    ]
    if found.curve is not None:
        parts.append(f"Learning curve of the closed form: {found.curve.sentence()}")
    text = "\n\n".join(parts).replace(common.model_path(case.model), common.model_name(case.model))
    return text, json.loads((folder / "begun.json").read_text("utf-8"))


def report(out: Path, command: str) -> str:
    """The tables of all cases that were climbed."""
    made = [section(case, out / f"{case.data}-{case.model}") for case in CASES]
    have = [part for part in made if part is not None]
    head = "\n".join([f"- Command: `{command}`.", *common.provenance([cell for _, cell in have])])
    intro = (
        "`pegbox compare` with all rungs climbed (patience 0); each number is a mean over the seeds with a "
        "95 % interval over rows and seeds. Times were taken on one core while other work ran on the "
        "machine. How rungs are judged: [compare](compare.md)."
    )
    return "\n\n".join(["## Ladders", intro, head, *(text for text, _ in have)])


def main() -> None:
    """Parse, climb what is missing, write the tables."""
    parser = common.parser(__doc__)
    parser.add_argument("--data", nargs="+", choices=[case.data for case in CASES], help="only these")
    parser.add_argument("--threads", type=int, default=common.cores())
    common.add_options(parser, FOLDER, PAGE, flags=("render", "quick"))
    arguments = common.parse(parser)
    for case in CASES:
        if not arguments.render and (not arguments.data or case.data in arguments.data):
            common.log(f"{case.data} on {case.model}")
            climb(case, arguments)
    text = report(arguments.out, "python bench/ladders.py")
    common.write_section(arguments.page, "ladders", text)


if __name__ == "__main__":
    main()
