"""The rate of a new head, chosen on validation rows: full fine-tuning and LoRA at several rates of the head.

python bench/head_rate.py            the whole measurement; goes on where it was stopped
python bench/head_rate.py --quick    a smoke run: few rows, one seed, two rates
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial

import _common as common
from every_method import READ, REVIEWS, ROWS, Plan, data_of

FOLDER = common.RUNS / "bench" / "head_rate"
SEEDS = (0, 1, 2)
# The first is the method's own rate, at which all else learns.
RATES = {"full": (1e-4, 1e-3, 3e-3, 1e-2), "lora": (1e-3, 3e-3, 1e-2)}
TASKS = (
    ("sst2", "minilm", ROWS),
    ("snli", "minilm", ROWS),
    ("ag_news", "minilm", ROWS),
    ("wnut17_ner", "minilm", 2 * ROWS),
    ("sec_filings_ner", "minilm", 2 * ROWS),
    (REVIEWS, "etude", ROWS),
    (REVIEWS, "etude-masked", ROWS),
    (READ, "etude-masked", ROWS),
)


def plans() -> Iterator[Plan]:
    """Yield every task with every method, for one seed."""
    for method in RATES:
        for data, model, rows in TASKS:
            yield Plan("head rate", data, model, method, rows, 0, readout="head")


def measure(plan: Plan, rate: float, threads: int) -> common.Cell:
    """Tune on training rows, score validation rows."""
    import pegbox
    from pegbox.models import quiet_libraries
    from pegbox.tasks import Classify

    quiet_libraries()
    with common.threads(threads):
        found = data_of(plan, "valid")
        task = replace(found.task, readout="head") if isinstance(found.task, Classify) else found.task
        training = pegbox.Training(head_learning_rate=rate, epochs=plan.epochs)
        started = time.perf_counter()
        tuned = pegbox.fit(
            pegbox.load(common.model_path(plan.model)),
            task,
            plan.method,
            rows=found.train,
            training=training,
            seed=plan.seed,
            say=common.hush,
        )
        seconds = time.perf_counter() - started
        scores = tuned.evaluate(found.test, resamples=2).to_json()["metrics"]
    kept = {name: scores[name]["value"] for name in ("accuracy", "f1", "nll") if name in scores}
    return {"metrics": kept, "seconds": seconds, "valid_rows": len(found.test)}


def report(found: dict[tuple[Plan, float], common.Cell], command: str) -> str:
    """Return the report in Markdown."""
    parts = [
        "## Rate of a new head",
        f"The head's peak learning rate; all else learns at {RATES['full'][0]:g} in full fine-tuning and at "
        f"{RATES['lora'][0]:g} in LoRA. {ROWS} training rows ({2 * ROWS} of entities), scored on at most 400 "
        "rows of the validation split, unseen by early stopping: entity F1 or accuracy, and the NLL in "
        "brackets where there is one; means over the seeds measured at every rate. By this table the head "
        "on tokens of `full` and `lora` learns at 0.003, that of `qlora` as `lora`'s, and a head that reads "
        "a whole text at the rate of all else.",
        "\n".join([f"- Command: `{command}`.", *common.provenance(found.values())]),
    ]
    for method in RATES:
        mine = {pair: cell for pair, cell in found.items() if pair[0].method == method}
        if mine:
            parts.append(_table(method, mine))
    return "\n\n".join(parts)


def _table(method: str, found: dict[tuple[Plan, float], common.Cell]) -> str:
    rates = list(dict.fromkeys(rate for _, rate in found))
    lines = []
    for data, model in dict.fromkeys((plan.data, plan.model) for plan, _ in found):
        cells = {(p.seed, rate): c for (p, rate), c in found.items() if (p.data, p.model) == (data, model)}
        every = {seed for seed, _ in cells}
        seeds = [seed for seed in sorted(every) if all((seed, rate) in cells for rate in rates)]
        if seeds:
            means = [_mean([cells[seed, rate] for seed in seeds]) for rate in rates]
            lines.append([f"{data}, {common.model_name(model)}", *means, str(len(seeds))])
    return common.markdown([f"{method}: head at", *(f"{rate:g}" for rate in rates), "seeds"], lines)


def _mean(cells: list[common.Cell]) -> str:
    means = {name: sum(cell["metrics"][name] for cell in cells) / len(cells) for name in cells[0]["metrics"]}
    score = means.get("f1", means.get("accuracy"))
    return f"{score:.3f}" + (f" ({means['nll']:.3f})" if "nll" in means else "")


def main() -> None:
    """Parse, measure what is missing, write the report."""
    parser = common.parser(__doc__)
    parser.add_argument("--methods", nargs="+", choices=list(RATES), default=list(RATES))
    parser.add_argument("--data", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, flags=("render", "quick"))
    arguments = common.parse(parser)
    chosen = [plan for plan in plans() if plan.method in arguments.methods]
    chosen = [plan for plan in chosen if not arguments.data or plan.data in arguments.data]
    rates = RATES
    if arguments.quick:
        chosen = [replace(plan, rows=48, test_rows=40, epochs=1.0) for plan in chosen]
        rates = {method: values[:2] for method, values in RATES.items()}
        arguments.seeds = [0]
    store = common.Cells(arguments.out / "cells")
    found: dict[tuple[Plan, float], common.Cell] = {}
    for seed in arguments.seeds:
        for plan in (replace(plan, seed=seed) for plan in chosen):
            for rate in rates[plan.method]:
                key = {**asdict(plan), "options": {}, "head rate": rate}
                make = partial(measure, plan, rate, arguments.threads)
                cell = store.find(key) if arguments.render else store.get(key, make)
                if cell is not None:
                    found[plan, rate] = cell
                    common.log(f"{plan.data}, {plan.model}, {plan.method}, {rate}, {seed}: {cell['metrics']}")
    common.write_report(arguments.out / "report.md", report(found, "python bench/head_rate.py"))


if __name__ == "__main__":
    main()
