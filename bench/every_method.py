"""Every method on every kind of task, over several seeds; fills a cache and writes docs/every-method.md.

python bench/every_method.py             measure what is missing, then write the page
python bench/every_method.py --part 0/2  measure every other cell, for a second process beside this one
python bench/every_method.py --render    only write the page from what is measured
python bench/every_method.py --keep      also write all cells to every_method.jsonl beside this script
python bench/every_method.py --quick     a smoke run: few rows, one seed, into a folder of its own
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import _common as common

FOLDER = common.RUNS / "every_method"
PAGE = common.ROOT / "docs" / "every-method.md"
KEPT = Path(__file__).with_suffix(".jsonl")
SEEDS = (0, 1, 2)
SOLVED = ("zero-shot", "few-shot", "closed-form")
TRAINED = (
    "head",
    "full",
    "lora",
    "qlora",
    "ia3",
    "bottleneck",
    "soft-prompt",
    "p-tuning",
    "prefix",
    "zero-init-attention",
)
ON_TOKENS = ("head", "full", "lora", "bottleneck", "ia3")
ON_CHOICES = ("zero-shot", "lora", "bottleneck", "ia3", "soft-prompt", "prefix", "full")
REVIEWS = "reviews"  # hotels, a domain held back from the embedded models
READ = "reviews of phones"  # a domain that they have read about
ROWS, TESTED = 128, 400
WORLD_SEEDS = {"test": 1_000_001, "valid": 2_000_001}


@dataclass(frozen=True)
class Plan:
    """One fit to be scored.

    Args:
        section: Part of the page.
        data: ``reviews`` or a folder of the data.
        model: ``etude``, ``etude-masked``, ``minilm``.
        method: Name of the method.
        rows: Training rows.
        seed: Of the choice of rows and of the method.
        options: The method's options.
        label: How the line is called; the method when empty.
        readout: ``words``, or ``head`` where label words could be had too.
        test_rows: Rows that are scored.
        epochs: Most epochs; the package's default when ``None``.
    """

    section: str
    data: str
    model: str
    method: str
    rows: int
    seed: int
    options: tuple[tuple[str, Any], ...] = ()
    label: str = ""
    readout: str = "words"
    test_rows: int = TESTED
    epochs: float | None = None

    @property
    def name(self) -> str:
        """How the line is called."""
        return self.label or self.method


def plans() -> Iterator[Plan]:
    """Yield all that the page shows, in its order, for one seed."""
    for method in SOLVED + TRAINED:
        yield Plan("methods", REVIEWS, "etude", method, ROWS, 0)
    for model in ("etude-masked", "minilm"):
        for method in SOLVED + TRAINED:
            if model != "minilm" or method not in ("zero-shot", "few-shot"):
                yield Plan("methods", "sst2", model, method, ROWS, 0)
    for data in ("snli", "ag_news"):
        for method in ("closed-form", *TRAINED):
            yield Plan("methods", data, "minilm", method, ROWS, 0)
    for data in ("wnut17_ner", "sec_filings_ner"):
        for method in ON_TOKENS:
            yield Plan("methods", data, "minilm", method, 2 * ROWS, 0)
    for method in ON_CHOICES:
        yield Plan("methods", "arc_easy", "etude", method, ROWS, 0, test_rows=300)
    yield from findings()


def findings() -> Iterator[Plan]:
    """Yield what the literature says something about."""
    for method in ("full", "lora"):
        for readout in ("words", "head"):
            label = f"{method}, {'label words' if readout == 'words' else 'new head'}"
            few = Plan("readout", REVIEWS, "etude-masked", method, 32, 0, label=label, readout=readout)
            yield from (replace(few, data=data, epochs=20) for data in (REVIEWS, READ))
    for start in ("labels", "random", "vocabulary"):
        chosen: tuple[tuple[str, Any], ...] = (("initialise", start),)
        yield Plan("start", REVIEWS, "etude", "soft-prompt", ROWS, 0, chosen, f"soft prompt from {start}")
    for method in ("soft-prompt", "prefix"):
        for length in (2, 8, 32):
            chosen = (("length", length),)
            yield Plan("length", REVIEWS, "etude", method, ROWS, 0, chosen, f"{method}, {length} tokens")
    for targets in ("q_proj", "v_proj", "q_proj,v_proj", "all-linear"):
        for rank in (1, 2, 4, 8, 64):
            chosen = (("rank", rank), ("alpha", 2 * rank), ("targets", targets))
            yield Plan("rank", REVIEWS, "etude", "lora", ROWS, 0, chosen, f"{targets}, rank {rank}")


# One cell


@dataclass(frozen=True)
class Data:
    """A task with its training and test rows."""

    task: Any
    train: Any
    test: Any
    options: dict[str, Any] = field(default_factory=dict)


def data_of(plan: Plan, scored: str = "test") -> Data:
    """Return the task and the rows of a plan; those to score may be of another split than the test's."""
    if plan.data in (REVIEWS, READ):
        return _reviews(plan, scored)
    if plan.data.endswith("_ner") or plan.data.startswith("arc"):
        return _shaped(plan, scored)
    task, train = common.task_and_rows(plan.data)
    test = common.task_and_rows(plan.data, scored)[1]
    return Data(task, common.part(train, plan.rows, plan.seed), common.part(test, plan.test_rows, 0))


def _reviews(plan: Plan, scored: str) -> Data:
    from pegbox import Classify
    from pegbox.data import Examples
    from pegbox.models.etude.world import reviews

    def rows(count: int, seed: int) -> Examples:
        made = reviews("hotels" if plan.data == REVIEWS else "phones", count, seed=seed)
        texts, labels = tuple(row.text for row in made), tuple(row.label for row in made)
        return Examples(plan.data, {"text": texts}, labels, tuple(range(1, count + 1)))

    task = Classify(
        labels=("negative", "positive"),
        template="{text} It was {answer}.",
        label_words=("terrible", "great"),
    )
    return Data(task, rows(plan.rows, 2 * plan.seed), rows(plan.test_rows, WORLD_SEEDS[scored]))


def _shaped(plan: Plan, scored: str) -> Data:
    import random

    from pegbox import Choose, Tag

    kind: Any = Tag if plan.data.endswith("_ner") else Choose
    folder = common.DATA / plan.data
    if not folder.is_dir():
        raise SystemExit(f"no data set {plan.data} in {common.DATA}: set PEGBOX_DATA to its folder")
    task = kind.from_file(folder / "train.jsonl", on_bad="drop")

    def part(rows: Any, count: int, seed: int) -> Any:
        picked = random.Random(seed).sample(range(len(rows)), min(count, len(rows)))
        return rows.select(sorted(picked))

    test = kind.from_file(folder / f"{scored}.jsonl", on_bad="drop").rows
    train = part(task.rows, plan.rows, plan.seed)
    return Data(task.with_rows(None), train, part(test, plan.test_rows, 0))


def apart(plan: Plan, threads: int) -> common.Cell:
    """Measure in a process of its own, so that its memory is its own; libraries are loaded only once."""
    import pegbox.tuning  # noqa: F401

    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def work() -> None:
        with common.threads(threads):
            send.send(measure(plan))

    child = context.Process(target=work)
    child.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        raise SystemExit(f"failed: {plan}") from None
    finally:
        child.join()


def measure(plan: Plan) -> common.Cell:
    """Tune on training rows, score the test rows once."""
    import pegbox
    from pegbox.errors import CapabilityError
    from pegbox.methods import build
    from pegbox.models import quiet_libraries

    quiet_libraries()
    found = data_of(plan)
    before = common.resident()
    task = replace(found.task, readout="head") if plan.readout == "head" else found.task
    quantise: Any = "nf4" if plan.method == "qlora" else None
    base = pegbox.load(common.model_path(plan.model), quantise=quantise)
    training = pegbox.Training(epochs=plan.epochs) if plan.epochs else None
    common.reset_peak()
    started = time.perf_counter()
    try:
        method = build(plan.method, dict(plan.options))
        tuned = pegbox.fit(
            base, task, method, rows=found.train, training=training, seed=plan.seed, say=common.hush
        )
    except CapabilityError as error:
        return {"refused": error.what}
    seconds, peak = time.perf_counter() - started, common.peak_resident()
    scores = tuned.evaluate(found.test, resamples=200)
    return {
        "train_rows": len(found.train),
        "test_rows": len(found.test),
        "metrics": {name: value["value"] for name, value in _metrics(scores).items()},
        "seconds": seconds,
        "memory": peak - before,
        "parameters": tuned.cost.parameters,
        "steps": dict(tuned.details).get("history", {}).get("steps"),
    }


def _metrics(scores: Any) -> dict[str, Any]:
    found = scores.to_json()["metrics"]
    return {name: value for name, value in found.items() if isinstance(value, dict) and "value" in value}


# The page


def page(found: dict[Plan, common.Cell], command: str) -> str:
    """Return the whole page in Markdown."""
    parts = ["# Every method", INTRODUCTION]
    parts.append(READING)
    parts.append("\n".join([f"- Command: `{command}`.", *common.provenance(found.values())]))
    for section, heading in SECTIONS.items():
        mine = {plan: cell for plan, cell in found.items() if plan.section == section}
        if mine:
            parts += [f"## {heading}", *_tables(mine)]
    return "\n\n".join([*parts, *benchmarks()])


def benchmarks() -> Iterator[str]:
    """Yield the reports of the other benchmarks, else what the page holds of them already."""
    for name in ("head_rate", "trunk_cache", "methods"):
        path = common.RUNS / "bench" / name / "report.md"
        text = common.marked(name, path.read_text("utf-8")) if path.is_file() else common.section(PAGE, name)
        if text:
            yield text


def _tables(found: dict[Plan, common.Cell]) -> Iterator[str]:
    for data, model in dict.fromkeys((plan.data, plan.model) for plan in found):
        mine = {plan: cell for plan, cell in found.items() if (plan.data, plan.model) == (data, model)}
        cells = [cell for cell in mine.values() if "refused" not in cell]
        if not cells:
            continue
        counts = sorted({cell["train_rows"] for cell in cells})
        tested = sorted({cell["test_rows"] for cell in cells})
        yield (
            f"### {data}, {common.model_name(model)}\n\n{_span(counts)} training rows, "
            f"{_span(tested)} test rows:"
        )
        yield _table(mine)


def _span(counts: list[int]) -> str:
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _table(found: dict[Plan, common.Cell]) -> str:
    names = list(dict.fromkeys(plan.name for plan in found))
    shown = _shown(found.values())
    lines, refused = [], []
    for name in names:
        cells = [cell for plan, cell in found.items() if plan.name == name]
        if any("refused" in cell for cell in cells):
            refused.append(f"{name}: {cells[0]['refused']}")
            continue
        lines.append(
            [
                name,
                *(_mean(cell["metrics"][metric] for cell in cells) for metric in shown),
                f"{cells[0]['parameters']:,}",
                common.seconds(common.median(cell["seconds"] for cell in cells)),
                f"{common.median(cell['memory'] for cell in cells) / 2**20:,.0f} MiB",
                str(len(cells)),
            ]
        )
    header = ["method", *(HEADERS.get(metric, metric) for metric in shown)]
    note = f"\n\nDoes not apply: {'; '.join(refused)}." if refused else ""
    return common.markdown([*header, "parameters", "tuned in", "memory", "seeds"], lines) + note


def _shown(cells: Iterable[common.Cell]) -> list[str]:
    have = next(cell["metrics"] for cell in cells if "refused" not in cell)
    return [name for name in HEADERS if name in have][:3]


def _mean(values: Iterable[float | None]) -> str:
    from pegbox.tuning._seeds import mean_interval

    kept = [value for value in values if value is not None]
    if not kept:
        return "undefined"
    return str(mean_interval(kept)) if len(kept) > 1 else f"{kept[0]:.3f}"


HEADERS = {
    "accuracy": "accuracy",
    "f1": "entity F1",
    "precision": "precision",
    "recall": "recall",
    "nll": "NLL",
    "ece": "ECE",
}
SECTIONS = {
    "methods": "Methods on kinds of tasks",
    "readout": "Label words or a new head, 16 rows per class",
    "start": "How a soft prompt starts",
    "length": "Length of soft prompts and prefixes",
    "rank": "Rank and targets of LoRA",
}
READING = """What we read from it, where it agrees with the literature and where it does not:

- On reviews full fine-tuning, bottleneck adapters and LoRA come out ahead of zero-shot in accuracy, full
  fine-tuning not in NLL; with so few rows and seeds most intervals overlap. On arc_easy everything is at
  chance, as a model of this size must be. The etude models know nothing of sst2.
- Label words have a higher accuracy than a new head at 16 rows per class, by full fine-tuning and by LoRA
  (agrees with Schick & Schütze 2021). On the domain that the base has not read, these few seeds do not
  settle it.
- A soft prompt started from class labels is not better than one from random vectors here (Lester et al.
  2021 found it better on large models), and longer soft prompts or prefixes are not better than short
  ones.
- LoRA, one seed: queries and values together have a lower NLL than either alone at ranks 2 to 8 (agrees
  with Hu et al. 2021), and rank 64 is no better than rank 8.
- With a new head on tokens full fine-tuning would find no entity, and LoRA few on wnut17_ner, at the rate
  of all else: by default that head learns at one of its own ([chosen](#rate-of-a-new-head) by validation).

The column "seeds" says how many seeds a line has. t-intervals are not cut at 0 and 1, and those of two
seeds are hardly worth having."""
INTRODUCTION = """Written by `bench/every_method.py`; do not edit. Every method runs with its defaults, on the
same seeded training rows and the same test rows, scored once; early stopping looks at training rows alone.
Numbers are means over seeds (which choose the rows, the initial values and the batches) with 95 %
t-intervals: wide for three seeds, and that is what three seeds can say. "reviews" are hotel
reviews of the embedded world, a domain held back when the embedded models were pretrained; their labels
carry noise, so that no method can reach 1. "Tuned in" includes attaching the method and, for solvers, reading
the features; "memory" is the peak of resident memory during the fit over that before the base was loaded,
so the base counts too."""


def fill(arguments: argparse.Namespace) -> dict[Plan, common.Cell]:
    """Return the cells of all plans, measured where they are missing unless only the page is wanted."""
    cells = common.Cells(arguments.out, arguments.fresh)
    wanted = [
        replace(plan, seed=seed)
        for seed in arguments.seeds
        for plan in _chosen(arguments)
        if plan.section != "rank" or seed == 0 or arguments.all_ranks
    ]
    kept = {} if arguments.fresh or arguments.quick else _kept()
    part, parts = (int(number) for number in arguments.part.split("/"))
    found = {}
    for number, plan in enumerate(wanted):
        key = {**asdict(plan), "options": dict(plan.options)}
        cell = cells.find(key) or kept.get(_name(key))
        if cell is None and not arguments.render and number % parts == part:
            common.log(f"{number + 1} of {len(wanted)}: {plan}")
            cell = cells.get(key, partial(apart, plan, arguments.threads))
        if cell is not None:
            found[plan] = cell
    order = {plan: at for at, plan in enumerate(_chosen(arguments))}
    return dict(sorted(found.items(), key=lambda item: (order[replace(item[0], seed=0)], item[0].seed)))


def _name(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def _kept() -> dict[str, common.Cell]:
    """Return the cells that come with the project, by their keys."""
    lines = KEPT.read_text("utf-8").splitlines() if KEPT.is_file() else []
    return {_name(cell["key"]): cell for cell in map(json.loads, lines)}


def keep(found: Iterable[common.Cell]) -> None:
    """Write cells to the file that comes with the project, beside those that are in it."""
    cells = _kept() | {_name(cell["key"]): cell for cell in found}
    KEPT.write_text("".join(json.dumps(cells[name]) + "\n" for name in sorted(cells)), "utf-8")


def _chosen(arguments: argparse.Namespace) -> list[Plan]:
    made = [plan for plan in plans() if not arguments.data or plan.data in arguments.data]
    made = [plan for plan in made if not arguments.sections or plan.section in arguments.sections]
    made = [plan for plan in made if not arguments.methods or plan.method in arguments.methods]
    if arguments.quick:
        made = [replace(plan, rows=48, test_rows=40, epochs=1.0) for plan in made]
    return made


def main() -> None:
    """Parse, measure what is missing, write the page."""
    parser = common.parser(__doc__)
    parser.add_argument("--data", nargs="+", help="only these")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), help="only these")
    parser.add_argument("--methods", nargs="+", choices=[*SOLVED, *TRAINED], help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--all-ranks", action="store_true", help="all seeds for the ranks too, not one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", default="0/1", help="which share of the cells to measure")
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    parser.add_argument("--keep", action="store_true", help="also write the cells to every_method.jsonl")
    arguments = common.parse(parser)
    if arguments.quick:
        arguments.seeds = [0]
    found = fill(arguments)
    if arguments.keep:
        keep(found.values())
    text = page(found, "python bench/every_method.py")
    common.write_report(arguments.page, text)


if __name__ == "__main__":
    main()
