"""Five epochs of LoRA on the top quarter of the layers: with the frozen trunk cached, and without.

python bench/trunk_cache.py            the whole measurement; goes on where it was stopped
python bench/trunk_cache.py --quick    a smoke run on a small model
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import _common as common
from label_step import LABELS, TEMPLATE, WORDS, Setup, make_rows, save_model, shortest

FOLDER = common.RUNS / "bench" / "trunk_cache"
WAYS = ("off", "on")


def run(folder: Path, setup: Setup, cache: Any, epochs: int, threads: int) -> common.Cell:
    """Train once; return seconds, the last training loss and the bytes of the stored states."""
    from pegbox import Classify, LoRA, load
    from pegbox.models import quiet_libraries
    from pegbox.training import Settings, train
    from pegbox.tuning._label_rows import LabelRows
    from pegbox.tuning._trunk_rows import with_trunk_cached

    quiet_libraries()
    with common.threads(threads), tempfile.TemporaryDirectory() as temporary:
        base = load(folder)
        prompt = base.prepare(Classify(labels=LABELS, template=TEMPLATE, label_words=WORDS))
        settings = Settings(learning_rate=1e-3, epochs=epochs, batch_size=16, precision="float32")

        def fit(rows: Any, place: str) -> tuple[float, Any]:
            module = LoRA(layers=max(1, setup.layers // 4)).attach(base, prompt, seed=0)
            coded: Any = LabelRows(base, prompt, prompt.encode(rows), prompt.task.gold(rows))
            started = time.perf_counter()
            [coded] = with_trunk_cached(
                module,
                [coded],
                wanted=cache,
                precision="float32",
                say=common.hush,
            )
            history = train(module, coded, settings=settings, folder=Path(temporary) / place, say=common.hush)
            return time.perf_counter() - started, history

        rows = make_rows(setup)
        fit(shortest(rows), "first")  # so that late imports do not count
        seconds, history = fit(rows, "run")
    tokens = sum(len(text.split()) + 3 for text in rows.fields["text"])
    return {
        "seconds": seconds,
        "loss": history.train_losses[-1][1],
        "states": 4 * setup.width * tokens if cache == "on" else 0,
    }


def report(cells: dict[str, list[common.Cell]], setup: Setup, epochs: int, command: str) -> str:
    """Return the report in Markdown."""
    found = {way: [cell["seconds"] for cell in cells[way]] for way in WAYS}
    ratios = [off / on for off, on in zip(found["off"], found["on"], strict=True)]
    lines = [
        [
            {"off": "the whole model in every step", "on": "the frozen trunk once per row"}[way],
            common.spread(found[way], common.seconds),
            f"{cells[way][0]['states'] / 2**20:.0f} MiB" if way == "on" else "",
            f"{cells[way][0]['loss']:.6f}",
        ]
        for way in WAYS
    ]
    flat = [cell for way in WAYS for cell in cells[way]]
    return "\n\n".join(
        [
            "## Trunk cache",
            f"{epochs} epochs of LoRA on the top {max(1, setup.layers // 4)} of {setup.layers} layers, "
            f"{setup.rows} rows, width {setup.width}, float32, one checkpoint an epoch, no validation. Both "
            "are Pegbox's engine, interleaved; the time with the cache includes filling it.",
            "\n".join([f"- Command: `{command}`.", *common.provenance(flat)]),
            common.markdown(["way", "time", "stored states", "last training loss"], lines),
            f"With the cache {common.spread(ratios, lambda value: f'{value:.2f} times')} as fast "
            "(median of the pairs).",
        ]
    )


def main() -> None:
    """Parse, measure what is missing, write the report."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments: argparse.Namespace = parser.parse_args()
    setup = Setup(vocabulary=8_000, layers=arguments.layers, rows=arguments.rows, typical=60)
    if arguments.quick:
        setup = Setup(vocabulary=500, width=64, layers=4, rows=32, typical=20)
        arguments.repeats, arguments.out = 1, arguments.out.with_name("trunk_cache-quick")
    folder = arguments.out / f"model-{setup.vocabulary}-{setup.width}-{setup.layers}"
    save_model(folder, setup)
    store = common.Cells(arguments.out / "cells", arguments.fresh)
    cells: dict[str, list[common.Cell]] = {way: [] for way in WAYS}
    for repeat in range(arguments.repeats):
        for way in WAYS:
            key = {**asdict(setup), "epochs": arguments.epochs, "threads": arguments.threads}
            measure = partial(run, folder, setup, way, arguments.epochs, arguments.threads)
            cells[way].append(store.get({**key, "way": way, "repeat": repeat}, measure))
            common.log(f"{way} {repeat}: {cells[way][-1]['seconds']:.1f} s")
    text = report(cells, setup, arguments.epochs, "python bench/trunk_cache.py")
    common.write_report(arguments.out / "report.md", text)


if __name__ == "__main__":
    main()
