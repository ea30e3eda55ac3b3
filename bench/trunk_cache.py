"""Five epochs of LoRA on the top quarter of the layers: with the frozen trunk cached, and without.

python bench/trunk_cache.py            the whole measurement; goes on where it was stopped
python bench/trunk_cache.py --quick    a smoke run on a small model
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import _common as common
from label_step import LABELS, TEMPLATE, WORDS, Setup, make_rows, save_model, shortest

FOLDER = common.RUNS / "bench" / "trunk_cache"
CACHES = ("off", "on")


@dataclass(frozen=True)
class Way:
    """How both sides train.

    Args:
        precision: ``float32``, or ``bf16`` under autocast.
        validated: Rows to validate on, as a share of the training rows.
    """

    precision: str
    validated: float

    def __str__(self) -> str:
        return f"{self.precision}, {'with' if self.validated else 'without'} validation"


WAYS = (Way("float32", 0.15), Way("float32", 0.0), Way("bf16", 0.15), Way("bf16", 0.0))


def run(folder: Path, setup: Setup, way: Way, cache: Any, epochs: int, threads: int) -> common.Cell:
    """Train once; return seconds by the clock and of the processor, and the last training loss."""
    from pegbox import Classify, LoRA, load
    from pegbox.models import quiet_libraries
    from pegbox.training import Settings, train
    from pegbox.tuning._label_rows import LabelRows
    from pegbox.tuning._trunk_rows import with_trunk_cached

    quiet_libraries()
    with common.threads(threads), tempfile.TemporaryDirectory() as temporary:
        base = load(folder)
        prompt = base.prepare(Classify(labels=LABELS, template=TEMPLATE, label_words=WORDS))
        precision: Any = way.precision
        settings = Settings(learning_rate=1e-3, epochs=epochs, batch_size=16, patience=0, precision=precision)

        def fit(rows: Any, place: str) -> tuple[float, float, Any]:
            module = LoRA(layers=max(1, setup.layers // 4)).attach(base, prompt, seed=0)
            parts = [rows, rows.select(range(math.ceil(way.validated * len(rows))))]
            coded: list[Any] = [
                LabelRows(base, prompt, prompt.encode(part), prompt.task.gold(part))
                for part in parts
                if len(part)
            ]
            started, busy = time.perf_counter(), time.process_time()
            coded = with_trunk_cached(module, coded, wanted=cache, precision=precision, say=common.hush)
            history = train(
                module,
                coded[0],
                settings=settings,
                folder=Path(temporary) / place,
                valid=coded[1] if len(coded) > 1 else None,
                say=common.hush,
            )
            return time.perf_counter() - started, time.process_time() - busy, history

        rows = make_rows(setup)
        fit(shortest(rows), "first")  # so that late imports do not count
        seconds, processor, history = fit(rows, "run")
    return {"seconds": seconds, "processor": processor, "loss": history.train_losses[-1][1]}


def report(found: dict[Way, dict[str, list[common.Cell]]], setup: Setup, epochs: int, command: str) -> str:
    """Return the report in Markdown."""
    lines = []
    for way, sides in found.items():
        lines.append(
            [
                str(way),
                *(common.spread([c["processor"] for c in sides[cache]], common.seconds) for cache in CACHES),
                *(_ratio(sides, clock) for clock in ("processor", "seconds")),
                *(f"{sides[cache][0]['loss']:.6f}" for cache in CACHES),
            ]
        )
    flat = [cell for sides in found.values() for cells in sides.values() for cell in cells]
    header = [
        *("way", "whole model", "trunk cached", "times as fast", "by the clock"),
        *("last loss, whole", "last loss, cached"),
    ]
    return "\n\n".join(
        [
            "## Trunk cache",
            f"{epochs} epochs of LoRA on the top {max(1, setup.layers // 4)} of {setup.layers} layers, "
            f"{setup.rows} rows, width {setup.width}, one checkpoint an epoch. Both sides are our engine, "
            "interleaved; the time with the cache includes filling it. Seconds are the processor's, of one "
            "thread, which other work disturbs less than it does the clock's. Validation is what "
            "pegbox.fit does by default: twice an epoch, on 15 % as many rows.",
            "\n".join([f"- Command: `{command}`.", *common.provenance(flat)]),
            common.markdown(header, lines),
        ]
    )


def _ratio(sides: dict[str, list[common.Cell]], clock: str) -> str:
    pairs = zip(sides["off"], sides["on"], strict=True)
    return common.spread([off[clock] / on[clock] for off, on in pairs], lambda value: f"{value:.2f}")


def main() -> None:
    """Parse, measure what is missing, write the report."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, flags=("fresh", "quick"))
    arguments = common.parse(parser)
    setup = Setup(vocabulary=8_000, layers=arguments.layers, rows=arguments.rows, typical=60)
    if arguments.quick:
        setup = Setup(vocabulary=500, width=64, layers=4, rows=32, typical=20)
        arguments.repeats = 1
    folder = arguments.out / f"model-{setup.vocabulary}-{setup.width}-{setup.layers}"
    save_model(folder, setup)
    store = common.Cells(arguments.out / "cells", arguments.fresh)
    found: dict[Way, dict[str, list[common.Cell]]] = {way: {"off": [], "on": []} for way in WAYS}
    for repeat in range(arguments.repeats):
        for way in WAYS:
            for cache in CACHES:
                measure = partial(run, folder, setup, way, cache, arguments.epochs, arguments.threads)
                key = {
                    **asdict(setup),
                    **asdict(way),
                    "epochs": arguments.epochs,
                    "threads": arguments.threads,
                }
                found[way][cache].append(store.get({**key, "cache": cache, "repeat": repeat}, measure))
                common.log(f"{way}, cache {cache}, {repeat}: {found[way][cache][-1]['seconds']:.1f} s")
    text = report(found, setup, arguments.epochs, "python bench/trunk_cache.py")
    common.write_report(arguments.out / "report.md", text)


if __name__ == "__main__":
    main()
