"""One training step of our own methods against PEFT's counterparts, over the frozen-base lower bound.

The bound is a forward pass of the frozen base with a backward pass to its input embeddings: what any method
that changes the lowest layer must pay. Every step is that plus what the method adds.

python bench/methods.py            the whole measurement; goes on where it was stopped
python bench/methods.py --quick    a smoke run on a small model
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import _common as common
from label_step import LABELS, TEMPLATE, WORDS, Setup, make_rows, save_model

FOLDER = common.RUNS / "bench" / "methods"
LENGTH, TOP, SIZE = 16, 4, 16
BOUND = "frozen base"
# What stands against what: ours, PEFT's.
PAIRS = {
    "prefix, 16 tokens": ("prefix", "PrefixTuning"),
    "zero-init attention, 16 tokens, top layers": ("zero-init-attention", "AdaptionPrompt"),
    "bottleneck, Pfeiffer": ("bottleneck", "LoRA of equal parameters"),
    "soft prompt, 16 tokens": ("soft-prompt", "PromptTuning"),
    "LoRA, q and v": ("lora", "LoRA"),
}


def steps(folder: Path, setup: Setup) -> dict[str, Callable[[], None]]:
    """Return one training step (forward, loss, backward, AdamW) of every contestant, by its name."""
    import torch
    from torch.nn import functional

    from pegbox import Classify, load
    from pegbox.methods import build
    from pegbox.models import collate, quiet_libraries, read

    quiet_libraries()
    base = load(folder)
    task = Classify(labels=LABELS, template=TEMPLATE, label_words=WORDS)
    rows = make_rows(setup)

    def step(module: Any, prompt: Any) -> Callable[[], None]:
        coded = prompt.encode(rows)
        batch = collate(coded, range(len(coded)), kind=base.kind, pad=base.pad)
        gold = torch.tensor(prompt.task.gold(rows))
        tokens = torch.tensor(prompt.tokens)
        module.train()
        trained = [value for value in module.parameters() if value.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=1e-4, fused=True)

        def run() -> None:
            optimiser.zero_grad()
            logits = read(module, batch, tokens, use_cache=False).logits
            functional.cross_entropy(logits, gold).backward()
            optimiser.step()

        return run

    made = {BOUND: _bound(base, base.prepare(task), rows)}
    options: dict[str, dict[str, Any]] = {
        "prefix": {"length": LENGTH},
        "zero-init-attention": {"length": LENGTH, "layers": min(TOP, setup.layers)},
        "bottleneck": {"size": SIZE},
        "soft-prompt": {"length": LENGTH},
        "lora": {},
    }
    for name, chosen in options.items():
        method: Any = build(name, chosen)
        prompt = method.prompt(base, base.prepare(task))
        made[f"pegbox {name}"] = step(method.attach(base, prompt, seed=0), prompt)
    for name, config in _theirs(setup).items():
        from peft import get_peft_model

        made[f"peft {name}"] = step(get_peft_model(base.module(2), config), base.prepare(task))
    return made


def _bound(base: Any, prompt: Any, rows: Any) -> Callable[[], None]:
    """Return the lower bound: gradients reach the input embeddings and nothing is trained."""
    import torch
    from torch.nn import functional

    from pegbox.models import collate, read

    module = base.module(2)
    coded = prompt.encode(rows)
    batch = collate(coded, range(len(coded)), kind=base.kind, pad=base.pad)
    gold, tokens = torch.tensor(prompt.task.gold(rows)), torch.tensor(prompt.tokens)
    module.get_input_embeddings().register_forward_hook(lambda _, __, out: out.requires_grad_(True))

    def run() -> None:
        logits = read(module, batch, tokens, use_cache=False).logits
        functional.cross_entropy(logits, gold).backward()

    return run


def _theirs(setup: Setup) -> dict[str, Any]:
    from peft import AdaptionPromptConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig

    # A bottleneck has 2 d m + m + d parameters a layer; LoRA of rank r on q and v has 4 d r.
    rank = round((2 * setup.width * SIZE + SIZE + setup.width) / (4 * setup.width))
    qv = ["q_proj", "v_proj"]
    kind: Any = "CAUSAL_LM"
    return {
        "PrefixTuning": PrefixTuningConfig(num_virtual_tokens=LENGTH, task_type=kind),
        "AdaptionPrompt": AdaptionPromptConfig(
            adapter_len=LENGTH, adapter_layers=min(TOP, setup.layers), task_type=kind
        ),
        "LoRA of equal parameters": LoraConfig(r=rank, target_modules=qv, task_type=kind),
        "PromptTuning": PromptTuningConfig(num_virtual_tokens=LENGTH, task_type=kind),
        "LoRA": LoraConfig(r=8, target_modules=qv, task_type=kind),
    }


def measure(folder: Path, setup: Setup, rounds: int, threads: int) -> common.Cell:
    """Run every contestant's step in turn, ``rounds`` times; return the seconds of each."""
    warnings.filterwarnings("ignore", category=UserWarning)
    with common.threads(threads):
        made = steps(folder, setup)
        for run in made.values():
            run()
        seconds: dict[str, list[float]] = {name: [] for name in made}
        for _ in range(rounds):
            for name, run in made.items():
                started = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - started)
    return {"seconds": seconds}


def report(cell: common.Cell, setup: Setup, rounds: int, command: str) -> str:
    """Return the report in Markdown."""
    seconds = cell["seconds"]

    def ratio(over: str, under: str) -> str:
        pairs = [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]
        return f"{common.median(pairs):.2f}"

    lines = [
        [
            what,
            theirs,
            ratio(f"pegbox {ours}", BOUND),
            ratio(f"peft {theirs}", BOUND),
            ratio(f"pegbox {ours}", f"peft {theirs}"),
        ]
        for what, (ours, theirs) in PAIRS.items()
    ]
    bound = common.seconds(common.median(seconds[BOUND]))
    return "\n\n".join(
        [
            "## Training step of each method",
            f"Llama, {setup.layers} layers, width {setup.width}, {setup.rows} rows of about "
            f"{setup.typical} tokens a step, float32; zero-init attention on the top "
            f"{min(TOP, setup.layers)} layers. All steps read the answer by Pegbox's readout. Medians of "
            f"{rounds} interleaved rounds, as ratios; the bound ({bound}) is the frozen base's forward pass "
            "with a backward pass to its embeddings and no optimiser; a method on the top layers can be "
            "below it.",
            "\n".join([f"- Command: `{command}`.", *common.provenance([cell])]),
            common.markdown(
                ["method", "PEFT's counterpart", "ours / bound", "PEFT's / bound", "ours / PEFT's"], lines
            ),
        ]
    )


def main() -> None:
    """Parse, measure what is missing, write the report."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, flags=("fresh", "quick"))
    arguments = common.parse(parser)
    setup = Setup(vocabulary=8_000, layers=8, rows=arguments.rows, typical=60)
    if arguments.quick:
        setup = Setup(vocabulary=500, width=64, layers=4, rows=8, typical=20)
        arguments.rounds = 3
    folder = arguments.out / f"model-{setup.vocabulary}-{setup.width}-{setup.layers}"
    save_model(folder, setup)
    key = {**asdict(setup), "rounds": arguments.rounds, "threads": arguments.threads}
    cells = common.Cells(arguments.out / "cells", arguments.fresh)
    cell = cells.get(key, partial(measure, folder, setup, arguments.rounds, arguments.threads))
    text = report(cell, setup, arguments.rounds, "python bench/methods.py")
    common.write_report(arguments.out / "report.md", text)


if __name__ == "__main__":
    main()
