"""Estimated against measured memory and time of every method, each measured in a process of its own.

python bench/estimates.py            the whole measurement; goes on where it was stopped
python bench/estimates.py --quick    a smoke run of two methods on etude
python bench/estimates.py --render   only write the section of docs/advise.md from what was measured
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _common as common
from label_step import LABELS, TEMPLATE, WORDS, Setup, make_rows, save_model

if TYPE_CHECKING:
    from pegbox import Classify
    from pegbox.data import Examples
    from pegbox.tuning import Training

FOLDER = common.RUNS / "bench" / "estimates"
PAGE = common.ROOT / "docs" / "advise.md"
METHODS = (
    *("zero-shot", "few-shot", "closed-form", "head", "lora", "ia3", "bottleneck", "soft-prompt", "prefix"),
    *("zero-init-attention", "qlora", "full"),
)
# Sizes on which nothing was developed: those were random models of 7, 10 and 59 million parameters.
MODELS = {"etude": "Etude", "llama": "A random Llama", "bert": "A random BERT"}
LLAMA = Setup(vocabulary=12_000, width=384, layers=10)
BERT: dict[str, Any] = {
    "vocab_size": 12_000,
    "hidden_size": 384,
    "num_hidden_layers": 9,
    "num_attention_heads": 6,
}
ROWS, EPOCHS = 128, 1.0
MIB = 2**20


def folder_of(name: str) -> str:
    """Return what pegbox.load takes for a model, made on disk where it is random."""
    if name == "etude":
        return name
    folder = FOLDER / "models" / name
    if name == "llama":
        save_model(folder, LLAMA)
    elif not (folder / "model.safetensors").is_file():
        save_bert(folder)
    return str(folder)


def save_bert(folder: Path) -> None:
    """Write a random BERT and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "It", "was", *WORDS]
    words += [f"w{number}" for number in range(BERT["vocab_size"] - len(words))]
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    edges = [("[CLS]", 0), ("[SEP]", 1)]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=edges)
    PreTrainedTokenizerFast(
        tokenizer_object=made,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(**BERT, intermediate_size=1536, pad_token_id=2)
    BertForMaskedLM(config).save_pretrained(folder)


def asked_of(name: str) -> tuple[Classify, Examples]:
    """Return the task and rows of a model: reviews for etude, random words for random models."""
    from pegbox import Classify
    from pegbox.data import Examples
    from pegbox.models.etude.world import reviews

    task = Classify(labels=LABELS, template=TEMPLATE, label_words=WORDS)
    if name != "etude":
        return task, make_rows(Setup(vocabulary=LLAMA.vocabulary, rows=ROWS))
    found = reviews("hotels", ROWS, seed=0)
    texts, labels = tuple(one.text for one in found), tuple(one.label for one in found)
    return task, Examples("reviews", {"text": texts}, labels, tuple(range(1, ROWS + 1)))


def training() -> Training:
    """Return how gradient methods train: never stopped early, so that as many epochs run as are foreseen."""
    from pegbox.tuning import Training

    return Training(epochs=EPOCHS, patience=0)


# In processes of their own


def estimated(name: str) -> common.Cell:
    """Estimate all methods on a model; return their costs and what the estimates took."""
    from pegbox import load
    from pegbox.comparison import Estimator
    from pegbox.models import quiet_libraries

    quiet_libraries()
    task, rows = asked_of(name)
    base = load(folder_of(name))
    started = time.process_time()
    estimator = Estimator(base, task, rows, training=training(), clock=time.process_time)
    found = {method: estimator.costs(method).to_json() for method in METHODS}
    return {"costs": found, "seconds": time.process_time() - started, "parameters": base.parameters}


def measured(name: str, method: str) -> common.Cell:
    """Load, fit and answer with one method; return seconds of this process and its memory at the peak."""
    from pegbox import fit, load
    from pegbox.methods import build
    from pegbox.models import quiet_libraries

    quiet_libraries()
    built = build(method)
    task, rows = asked_of(name)
    imported(built)
    give_back()
    before = common.resident()
    common.reset_peak()
    base = load(folder_of(name), quantise=built.quantise)
    started = time.process_time()
    tuned = fit(base, task, built, rows=rows, training=training(), say=common.hush)
    fitted = time.process_time()
    tuned.logits(rows)
    return {
        "seconds": fitted - started,
        "answer_seconds": time.process_time() - fitted,
        "memory": common.peak_resident() - before,
    }


def imported(method: Any) -> None:
    """Fit the method to a few rows of a tiny model, so that imports count for neither time nor memory."""
    from pegbox import Classify, fit, load
    from pegbox.data import Examples
    from pegbox.tuning import Training

    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), Setup(vocabulary=300, width=64, layers=1))
        base = load(folder, quantise=method.quantise)
        texts = tuple(f"w{number} w{number + 1}" for number in range(8))
        rows = Examples("tiny", {"text": texts}, LABELS * 4, tuple(range(1, 9)))
        task = Classify(labels=LABELS, template=TEMPLATE, label_words=WORDS)
        fit(base, task, method, rows=rows, training=Training(epochs=1), say=common.hush).logits(rows)


def give_back() -> None:
    """Return what was freed to the system, where the C library can."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def child(arguments: Sequence[str], threads: int) -> common.Cell:
    """Run this script in a process of its own and return the cell that it prints."""
    command = [sys.executable, __file__, "--threads", str(threads), "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    found: common.Cell = json.loads(done.stdout.strip().splitlines()[-1])
    return found


# The page


def lines_of(costs: dict[str, Any], cells: dict[str, common.Cell]) -> tuple[list[list[str]], list[float]]:
    """Return one line per method and the ratios of estimated to measured memory."""
    lines, ratios = [], []
    for method, cell in cells.items():
        found = costs[method]
        answers = found["answer_seconds"] * ROWS / 1000
        spent = cell["seconds"] + cell["answer_seconds"]
        memory = found["memory"] / cell["memory"]
        ratios.append(memory)
        lines.append(
            [
                method,
                f"{found['memory'] / MIB:,.0f} MiB",
                f"{cell['memory'] / MIB:,.0f} MiB",
                f"{memory:.2f}",
                common.seconds(found["seconds"] + answers),
                common.seconds(spent),
                f"{(found['seconds'] + answers) / spent:.2f}",
            ]
        )
    return lines, ratios


HEADER = ["method", "memory, estimated", "measured", "ratio", "time, estimated", "measured", "ratio"]


def page(store: common.Cells, names: Sequence[str], methods: Sequence[str], threads: int) -> str:
    """Return the section in Markdown, from the cells that were measured."""
    parts, cells, within = [], [], [0, 0, 0]
    for name in names:
        guess = store.find(key(name, None, threads))
        own = {method: store.find(key(name, method, threads)) for method in methods}
        known = {method: cell for method, cell in own.items() if cell is not None}
        if guess is None or not known:
            continue
        cells += [guess, *known.values()]
        lines, ratios = lines_of(guess["costs"], known)
        times = [float(line[-1]) for line in lines]
        within[0] += len(lines)
        within[1] += sum(0.75 <= ratio <= 1.25 for ratio in ratios)
        within[2] += sum(0.5 <= ratio <= 2.0 for ratio in times)
        size = f"{guess['parameters'] / 1e6:.1f} million parameters"
        parts += [
            f"{MODELS[name]} of {size}. The estimates of all methods took {guess['seconds']:.0f} s.",
            common.markdown(HEADER, lines),
        ]
    if not cells:
        return "Not measured yet."
    missing = len(names) * len(methods) - within[0]
    summary = (
        f"Of {within[0]} cells {within[1]} are within 25 % of the measured memory and {within[2]} within a "
        "factor of two of the measured time."
    )
    if missing:
        summary += f" {missing} cells are not measured yet; the same command goes on with them."
    command = "- Command: `python bench/estimates.py`."
    how = (
        f"{ROWS} rows, {EPOCHS:g} epoch without early stopping, {threads} thread(s). Time is that of the "
        "processor, since the machine did other work too, of fitting and of answering the same rows; memory "
        "is resident memory at its peak above that before the base was loaded, libraries already imported."
    )
    return "\n\n".join([how, "\n".join([command, *common.provenance(cells)]), summary, *parts])


def key(name: str, method: str | None, threads: int) -> dict[str, Any]:
    """Return the key of a cell; without a method, of the estimates."""
    return {
        "model": name,
        "method": method or "estimates",
        "rows": ROWS,
        "epochs": EPOCHS,
        "threads": threads,
    }


def main() -> None:
    """Parse, measure what is missing, write the section."""
    parser = common.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = common.parse(parser)
    if arguments.child:
        with common.threads(arguments.threads):
            run = measured if len(arguments.child) == 2 else estimated
            print(json.dumps(run(*arguments.child)))
        return
    if arguments.quick:
        arguments.models, arguments.methods = ["etude"], ["zero-shot", "lora"]
    store = common.Cells(arguments.out / "cells", arguments.fresh)
    for name in arguments.models if not arguments.render else ():
        folder_of(name)
        for method in (None, *arguments.methods):
            parts = [name, *([method] if method else [])]
            store.get(key(name, method, arguments.threads), partial(child, parts, arguments.threads))
            common.log(f"{name}, {method or 'estimates'}: done")
    text = page(store, arguments.models, arguments.methods, arguments.threads)
    common.write_section(arguments.page, "estimates", text)


if __name__ == "__main__":
    main()
