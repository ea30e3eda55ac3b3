"""The language loss over a large vocabulary: in chunks, against all logits at once.

python bench/language_loss.py            the whole measurement; goes on where it was stopped
python bench/language_loss.py --quick    a smoke run with a small vocabulary

Forward and backward pass from the output layer's inputs, each in a process of its own. Writes its section of
docs/forgetting.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial

import _common as common

FOLDER = common.RUNS / "bench" / "language_loss"
PAGE = common.ROOT / "docs" / "forgetting.md"
WAYS = ("plain", "chunked")


@dataclass(frozen=True)
class Case:
    """What is measured.

    Args:
        trained: Whether the output layer is trained.
        positions: Tokens that are asked.
        vocabulary: Outputs.
        width: Width of what enters the output layer.
    """

    trained: bool
    positions: int
    vocabulary: int
    width: int


def child(case: Case, way: str) -> common.Cell:
    """Measure one pass in this process, after a small one that counts for nothing."""
    import torch
    from torch import nn
    from torch.nn import functional

    from pegbox.models import chunked_cross_entropy

    torch.manual_seed(0)
    layer = nn.Linear(case.width, case.vocabulary, bias=False).requires_grad_(case.trained)

    def loss(count: int) -> torch.Tensor:
        hidden = torch.randn(count, case.width, requires_grad=True)
        targets = torch.randint(0, case.vocabulary, (count,))
        if way == "plain":
            return functional.cross_entropy(layer(hidden), targets, reduction="sum")
        parameters = [value for value in layer.parameters() if value.requires_grad]
        outputs = case.vocabulary
        return chunked_cross_entropy(hidden, targets, layer, outputs=outputs, parameters=parameters).sum()

    loss(4).backward()
    layer.weight.grad = None
    common.reset_peak()
    before, started = common.resident(), time.process_time()
    found = loss(case.positions)
    found.backward()
    seconds = time.process_time() - started
    memory = common.peak_resident() - before
    return {"seconds": seconds, "memory": memory, "loss": found.item() / case.positions}


def measure(case: Case, way: str) -> common.Cell:
    """Measure in a process of its own, on one thread."""
    command = [sys.executable, __file__, "--child", json.dumps({**asdict(case), "way": way})]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: common.Cell = json.loads(done.stdout)
    return found


def report(found: Mapping[Case, Mapping[str, list[common.Cell]]]) -> str:
    """Return the section in Markdown."""
    lines = []
    for case, ways in found.items():
        seconds = {way: common.median(cell["seconds"] for cell in ways[way]) for way in WAYS}
        memory = {way: common.median(cell["memory"] for cell in ways[way]) / 2**20 for way in WAYS}
        lines.append(
            [
                "trained" if case.trained else "frozen",
                f"{case.positions:,}",
                *(f"{memory[way]:,.0f} MiB" for way in WAYS),
                *(common.seconds(seconds[way]) for way in WAYS),
            ]
        )
    case = next(iter(found))
    head = ["output layer", "tokens", "memory, plain", "memory, chunked", "time, plain", "time, chunked"]
    flat = [cell for ways in found.values() for cells in ways.values() for cell in cells]
    return "\n\n".join(
        [
            "## Measured: the loss in chunks",
            f"Forward and backward pass from {case.width} hidden numbers to {case.vocabulary:,} outputs in "
            "float32 on one thread; peak memory beyond what the process had, and processor time; medians of "
            f"{len(found[case]['plain'])}, the two ways by turns. A trained layer's own gradient takes "
            f"{case.width * case.vocabulary * 4 / 2**20:,.0f} MiB either way.",
            "\n".join(["- Command: `python bench/language_loss.py`.", *common.provenance(flat)]),
            common.markdown(head, lines),
        ]
    )


def main() -> None:
    """Parse, measure what is missing, write the section."""
    parser = common.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "quick"))
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = common.parse(parser)
    if given.child:
        with common.threads(1):
            way = given.child.pop("way")
            print(json.dumps(child(Case(**given.child), way)))
        return
    vocabulary = 2000 if given.quick else 128_000
    cases = [Case(trained, count, vocabulary, 256) for trained in (False, True) for count in (512, 2048)]
    store = common.Cells(given.out / "cells", given.fresh)
    found: dict[Case, dict[str, list[common.Cell]]] = {case: {way: [] for way in WAYS} for case in cases}
    for repeat in range(1 if given.quick else given.repeats):
        for case in cases:
            for way in WAYS:
                key = {**asdict(case), "way": way, "repeat": repeat}
                found[case][way].append(store.get(key, partial(measure, case, way)))
                common.log(f"{case}, {way}: {found[case][way][-1]}")
    for ways in found.values():
        losses = [cell["loss"] for cells in ways.values() for cell in cells]
        assert max(losses) - min(losses) < 1e-4 * max(losses), losses
    common.write_section(given.page, "language-loss", report(found))


if __name__ == "__main__":
    main()
