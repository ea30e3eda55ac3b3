"""One epoch of LoRA on label words: Pegbox's engine against PEFT + transformers.Trainer.

python bench/label_step.py            the whole measurement; goes on where it was stopped
python bench/label_step.py --quick    a smoke run on a small model
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _common as common

if TYPE_CHECKING:
    from pegbox.data import Examples

FOLDER = common.RUNS / "bench" / "label_step"
TEMPLATE, WORDS, LABELS = "{text} It was {answer}", ("great", "terrible"), ("positive", "negative")
SYSTEMS = ("pegbox", "trainer")
BATCHES = (8, 16, 32, 64)


@dataclass(frozen=True)
class Setup:
    """The model and the rows, the same for all.

    Args:
        vocabulary: Tokens.
        width: Hidden width; heads have 64 dimensions.
        layers: Decoder layers.
        rows: Training rows of one epoch.
        typical: Median length of a row in tokens; lengths are log-normal with sigma 0.5, cut at 160.
        seed: Of weights and rows.
    """

    vocabulary: int = 128_000
    width: int = 256
    layers: int = 8
    rows: int = 512
    typical: int = 40
    seed: int = 0


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Args:
        system: ``pegbox`` or ``trainer``.
        bf16: Autocast to bfloat16, else float32.
        batch_size: Rows per step.
        by_length: Whether the Trainer groups rows by length; Pegbox always does.
        threads: Threads of torch.
    """

    system: str
    bf16: bool
    batch_size: int = 16
    by_length: bool = False
    threads: int = 1

    def __str__(self) -> str:
        name = {"pegbox": "Pegbox", "trainer": "PEFT + Trainer"}[self.system]
        grouped = ", by length" if self.by_length else ""
        return f"{name}, {'bf16' if self.bf16 else 'float32'}, {self.batch_size} rows a step{grouped}"


# The model and the rows


def save_model(folder: Path, setup: Setup) -> None:
    """Write a random Llama with tied embeddings and a tokenizer of whole words, unless it is there."""
    if (folder / "model.safetensors").is_file():
        return
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(setup.seed)
    LlamaForCausalLM(configuration(setup)).save_pretrained(folder)
    tokenizer(setup.vocabulary).save_pretrained(folder)


def configuration(setup: Setup, **others: Any) -> Any:
    """Return the configuration of a Llama with tied embeddings; ``others`` are Transformers' own names."""
    from transformers import LlamaConfig

    told = {
        "vocab_size": setup.vocabulary,
        "hidden_size": setup.width,
        "intermediate_size": 4 * setup.width,
        "num_hidden_layers": setup.layers,
        "num_attention_heads": setup.width // 64,
        "num_key_value_heads": setup.width // 64,
        "max_position_embeddings": 512,
    }
    return LlamaConfig(
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2, **{**told, **others}
    )


def tokenizer(vocabulary: int) -> Any:
    """Return a tokenizer of whole words: the template's, the label words, and numbered ones."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<pad>", "<unk>", "It", "was", *WORDS]
    words += [f"w{number}" for number in range(vocabulary - len(words))]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def make_rows(setup: Setup) -> Examples:
    """Return rows of random words with random labels, in lengths as texts have them."""
    import numpy as np

    from pegbox.data import Examples

    random = np.random.default_rng(setup.seed)
    lengths = np.clip(setup.typical * np.exp(0.5 * random.standard_normal(setup.rows)), 8, 160).astype(int)
    texts = (random.integers(0, setup.vocabulary - 100, length) for length in lengths)
    return Examples(
        source="random words",
        fields={"text": tuple(" ".join(f"w{word}" for word in text) for text in texts)},
        labels=tuple(LABELS[index] for index in random.integers(0, 2, setup.rows)),
        numbers=tuple(range(1, setup.rows + 1)),
    )


def shortest(rows: Examples) -> Examples:
    """Return the shortest row alone."""
    texts = rows.fields["text"]
    return rows.select([min(range(len(texts)), key=lambda index: len(texts[index].split()))])


# One variant in a process of its own


def child(folder: Path, setup: Setup, variant: Variant) -> common.Cell:
    """Train one epoch; return examples per second and the growth of resident memory."""
    from pegbox import Classify, load
    from pegbox.models import quiet_libraries

    quiet_libraries()
    with common.threads(variant.threads), tempfile.TemporaryDirectory() as temporary:
        base = load(folder)
        prompt = base.prepare(Classify(labels=LABELS, template=TEMPLATE, label_words=WORDS))
        rows = make_rows(setup)
        prepare = {"pegbox": prepare_pegbox, "trainer": prepare_trainer}[variant.system]
        # One short row first, so that late imports count for neither time nor memory.
        prepare(base, prompt, shortest(rows), variant, Path(temporary) / "first")()
        train = prepare(base, prompt, rows, variant, Path(temporary) / "run")
        before = common.resident()
        common.reset_peak()
        started = time.perf_counter()
        train()
        elapsed = time.perf_counter() - started
        peak = common.peak_resident()
    return {
        "examples_per_second": setup.rows / elapsed,
        "seconds": elapsed,
        "memory": peak - before,
        "before": before,
        "parameters": base.parameters,
    }


def prepare_pegbox(base: Any, prompt: Any, rows: Examples, variant: Variant, folder: Path) -> Any:
    """Return what trains one epoch by the engine, its checkpoint at the end included."""
    from pegbox import LoRA
    from pegbox.training import Settings, train

    # pegbox.fit would hold rows out and validate on them, which the Trainer is not asked to do.
    from pegbox.tuning._label_rows import LabelRows

    module = LoRA().attach(base, prompt, seed=0)
    label_rows = LabelRows(base, prompt, prompt.encode(rows), prompt.task.gold(rows))
    settings = Settings(
        learning_rate=1e-3,
        epochs=1,
        batch_size=variant.batch_size,
        precision="bf16" if variant.bf16 else "float32",
    )
    return lambda: train(module, label_rows, settings=settings, folder=folder, say=common.hush)


def prepare_trainer(base: Any, prompt: Any, rows: Examples, variant: Variant, folder: Path) -> Any:
    """Return what trains one epoch by the Trainer, on the same prompts with the answer appended."""
    import _peer

    settings = _peer.Settings(
        epochs=1, batch_size=variant.batch_size, bf16=variant.bf16, by_length=variant.by_length
    )
    model = _peer.put_lora(base.module(len(LABELS)), settings)
    return _peer.trainer(model, base.tokenizer, _peer.completions(prompt, rows), settings, str(folder)).train


def measure(cells: common.Cells, folder: Path, setup: Setup, variant: Variant, repeat: int) -> common.Cell:
    """Return one measurement, made in a fresh process unless it is there."""
    key = {"setup": asdict(setup), "variant": asdict(variant), "name": str(variant), "repeat": repeat}
    order = json.dumps({"folder": str(folder), "setup": asdict(setup), "variant": asdict(variant)})

    def run() -> common.Cell:
        common.log(f"{variant}, {variant.threads} threads, run {repeat + 1}")
        done = subprocess.run(
            [sys.executable, __file__, "--child", order], stdout=subprocess.PIPE, text=True, check=True
        )
        found: common.Cell = json.loads(done.stdout.splitlines()[-1])
        return found

    return cells.get(key, run)


# The plan


def run(arguments: argparse.Namespace) -> str:
    """Measure all variants in turn and return the report."""
    setup = Setup(rows=arguments.rows)
    batches: tuple[int, ...] = tuple(arguments.batches)
    if arguments.quick:
        setup, batches = replace(setup, vocabulary=2000, width=64, layers=2, rows=64), (16,)
    cells = common.Cells(arguments.out / "cells", arguments.fresh)
    folder = arguments.out / f"model-{setup.vocabulary}-{setup.width}-{setup.layers}"
    save_model(folder, setup)
    same = [Variant(system, bf16, 16, threads=common.cores()) for bf16 in (False, True) for system in SYSTEMS]
    swept = [
        Variant(system, bf16, batch, system == "trainer", common.cores())
        for batch in batches
        for bf16 in (False, True)
        for system in SYSTEMS
    ]
    tried = {variant: measure(cells, folder, setup, variant, -1) for variant in swept}
    best = [fastest(tried, system) for system in SYSTEMS]
    lean = [leanest(tried, system) for system in SYSTEMS]
    found: dict[Variant, list[common.Cell]] = {variant: [] for variant in [*same, *best, *lean]}
    for repeat in range(arguments.repeats):
        for variant, kept in found.items():
            kept.append(measure(cells, folder, setup, variant, repeat))
    pairs = {
        "float32, 16 rows a step": same[:2],
        "bf16, 16 rows a step": same[2:],
        "each at its fastest": best,
        "each at its leanest": lean,
    }
    return report(setup, found, tried, pairs)


def fastest(tried: dict[Variant, common.Cell], system: str) -> Variant:
    """Return the system's variant of most examples per second."""
    return max(own(tried, system), key=lambda variant: tried[variant]["examples_per_second"])


def leanest(tried: dict[Variant, common.Cell], system: str) -> Variant:
    """Return the system's variant of least memory."""
    return min(own(tried, system), key=lambda variant: tried[variant]["memory"])


def own(tried: dict[Variant, common.Cell], system: str) -> list[Variant]:
    """Return the variants of one system."""
    return [variant for variant in tried if variant.system == system]


def report(
    setup: Setup,
    found: dict[Variant, list[common.Cell]],
    tried: dict[Variant, common.Cell],
    pairs: dict[str, list[Variant]],
) -> str:
    """Return the comparison and the sweep in Markdown."""
    cells = [cell for kept in found.values() for cell in kept] + list(tried.values())
    million = cells[0]["parameters"] / 1e6
    batches = " ".join(str(size) for size in sorted({variant.batch_size for variant in tried}))
    lines = [
        f"- Command: `python bench/label_step.py --rows {setup.rows} --batches {batches}`.",
        *common.provenance(cells),
        f"- Model: random Llama, {million:.1f} M parameters, width {setup.width}, {setup.layers} layers, "
        f"vocabulary {setup.vocabulary:,}, tied embeddings.",
        f"- Rows: {setup.rows} of random words, median {setup.typical} tokens, LoRA of rank 8 on queries "
        f"and values, one epoch, {common.cores()} threads.",
        "- Time is that of the whole call to train. Memory is the high-water mark of resident memory while "
        "training, less what was resident before. Medians (ranges) of runs in a process each, in turn.",
    ]
    return "\n\n".join(
        [
            "## One LoRA epoch on label words: the engine against PEFT + Trainer",
            "\n".join(lines),
            compared(found, pairs),
            "Batch sizes tried for the fastest and the leanest, one run each:",
            sweep(tried),
        ]
    )


def compared(found: dict[Variant, list[common.Cell]], pairs: dict[str, list[Variant]]) -> str:
    """Return each pair with its ratios."""
    lines = []
    for title, variants in pairs.items():
        speeds = [common.middle(found[variant], "examples_per_second") for variant in variants]
        memories = [common.middle(found[variant], "memory") for variant in variants]
        for variant in variants:
            kept = found[variant]
            ratios = [f"{speeds[0] / speeds[1]:.2f}", f"{memories[0] / memories[1]:.2f}"]
            speed = common.spread([cell["examples_per_second"] for cell in kept], "{:.1f}".format)
            memory = common.spread([cell["memory"] / 2**20 for cell in kept], "{:.0f}".format)
            lines.append(
                [title, str(variant), speed, memory, *(ratios if variant is variants[0] else ["", ""])]
            )
    header = ["comparison", "side", "examples/s", "memory, MiB", "speed, times", "memory, times"]
    return common.markdown(header, lines)


def sweep(tried: dict[Variant, common.Cell]) -> str:
    """Return what was tried."""
    lines = [
        [str(variant), f"{cell['examples_per_second']:.1f}", f"{cell['memory'] / 2**20:.0f}"]
        for variant, cell in tried.items()
    ]
    return common.markdown(["side", "examples/s", "memory, MiB"], lines)


def main() -> None:
    """Parse, measure, report; or measure one variant for the process that asked for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=Setup.rows, help="rows of the epoch")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each variant")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="batch sizes to try")
    common.add_options(parser, FOLDER, flags=("fresh", "quick"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = common.parse(parser)
    if arguments.child:
        order = json.loads(arguments.child)
        found = child(Path(order["folder"]), Setup(**order["setup"]), Variant(**order["variant"]))
        print(json.dumps(found))
        return
    if arguments.quick:
        arguments.repeats = 1
    common.write_report(arguments.out / "report.md", run(arguments))


if __name__ == "__main__":
    main()
