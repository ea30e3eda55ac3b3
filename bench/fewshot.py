"""Few-shot scoring: demonstrations in one shared key-value cache, against a full prompt for every row.

python bench/fewshot.py            the whole measurement; goes on where it was stopped
python bench/fewshot.py --quick    a smoke run on etude alone

Same model, same prompts, same engine; asserts that the probabilities agree. Writes its section of
docs/prompts.md.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import _common as common

if TYPE_CHECKING:
    from pegbox import Base
    from pegbox.tasks import Encoded, Prompt

FOLDER = common.RUNS / "bench" / "fewshot"
PAGE = common.ROOT / "docs" / "prompts.md"
SHOWN = (4, 16, 64)
SIDES = ("shared cache", "full prompts")
# Both sides add the same numbers in another order; a float32 softmax then differs in its last digits.
AGREE = 1e-5


@dataclass(frozen=True)
class Setup:
    """What is scored.

    Args:
        model: ``etude``, or a random Llama of the given layers and width with etude's tokenizer.
        layers: Its layers; 0 for etude.
        width: Its width.
        shown: Demonstrations before each question.
        rows: Questions.
    """

    model: str
    layers: int
    width: int
    shown: int
    rows: int


def random_llama(folder: Path, layers: int, width: int, context: int = 8192) -> Path:
    """Write a random Llama with etude's tokenizer and a long context, unless it is there."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from pegbox.models import find_model

    if (folder / "model.safetensors").is_file():
        return folder
    tokenizer = AutoTokenizer.from_pretrained(find_model("etude"))
    tokenizer.model_max_length = context
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        intermediate_size=width * 8 // 3,
        max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@cache
def base_of(model: str, layers: int, width: int) -> Base:
    """Load a model once."""
    from pegbox import load
    from pegbox.models import quiet_libraries

    quiet_libraries()
    if model == "etude":
        return load(model)
    return load(random_llama(FOLDER / f"llama-{layers}-{width}", layers, width))


@cache
def prompts(setup: Setup) -> tuple[Base, Prompt, Encoded]:
    """Questions behind random demonstrations, as many of each label."""
    from _world import world_rows
    from pegbox.tasks import random_draws

    base = base_of(setup.model, setup.layers, setup.width)
    train, asked = (
        world_rows("reviews", "hotels", 400, seed=1),
        world_rows("reviews", "hotels", setup.rows, seed=2),
    )
    labels = train.task.labels
    shown = random_draws(train.rows, labels, setup.shown // len(labels), 1, seed=0)[0]
    prompt = base.prepare(train.task).with_demonstrations(shown)
    return base, prompt, prompt.encode(asked.rows, too_long="error")


def full(encoded: Encoded) -> Encoded:
    """The same prompts without a shared part."""
    return replace(encoded, ids=tuple((*encoded.prefix, *row) for row in encoded.ids), prefix=())


def run(setup: Setup, side: str) -> common.Cell:
    """Score all questions by one side; return seconds and the probabilities of the first label."""
    from pegbox.models import answer_logits

    base, prompt, encoded = prompts(setup)
    rows = encoded if side == SIDES[0] else full(encoded)
    started = time.perf_counter()
    found = answer_logits(base.model, base, prompt, rows)
    seconds = time.perf_counter() - started
    first = found.logits.double().softmax(1)[:, 0].tolist()
    mean = sum(encoded.lengths) / len(encoded)
    return {"seconds": seconds, "first": first, "prefix": len(encoded.prefix), "question": mean}


def check(cells: dict[str, list[common.Cell]]) -> float:
    """Largest difference of the probabilities; the measurement is void where they do not agree."""
    ours, theirs = (cells[side][0]["first"] for side in SIDES)
    largest = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    assert largest < AGREE, f"the two sides differ by {largest}"
    return float(largest)


def line(setup: Setup, sides: dict[str, list[common.Cell]]) -> list[str]:
    """One line of the table."""
    times = {side: [cell["seconds"] for cell in cells] for side, cells in sides.items()}
    ratios = [b / a for a, b in zip(times[SIDES[0]], times[SIDES[1]], strict=True)]
    cell = sides[SIDES[0]][0]
    each = [[value / setup.rows for value in times[side]] for side in SIDES]
    return [
        f"random Llama, {setup.layers} layers of {setup.width}" if setup.layers else setup.model,
        str(setup.shown),
        f"{cell['prefix']:,} + {cell['question']:.0f}",
        *(common.spread(values, common.seconds) for values in each),
        common.spread(ratios, lambda value: f"{value:.1f}"),
        f"{check(sides):.0e}",
    ]


def report(found: dict[Setup, dict[str, list[common.Cell]]]) -> str:
    """Return the section in Markdown."""
    lines = [line(setup, sides) for setup, sides in found.items()]
    flat = [cell for sides in found.values() for cells in sides.values() for cell in cells]
    rows, runs = next(iter(found)).rows, len(flat) // len(found) // len(SIDES)
    command = f"python bench/fewshot.py --rows {rows} --repeats {runs}"
    header = ["model", "demonstrations", "tokens, shown + asked", "a question, shared", "a question, in full",
              "times as fast", "probabilities differ by"]  # fmt: skip
    return "\n\n".join(
        [
            f"{rows} questions, medians of {runs} interleaved runs with their range; the time with the cache "
            "includes filling it:",
            common.markdown(header, lines),
            "\n".join([f"- Command: `{command}`.", *common.provenance(flat)]),
        ]
    )


def main() -> None:
    """Parse, measure what is missing, write the section."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "quick"))
    arguments = common.parse(parser)
    setups = [Setup("etude", 0, 0, 4, arguments.rows)]
    if arguments.quick:
        arguments.repeats = 1
    else:
        setups += [
            Setup("llama", arguments.layers, arguments.width, shown, arguments.rows) for shown in SHOWN
        ]
    store = common.Cells(arguments.out / "cells", arguments.fresh)
    found: dict[Setup, dict[str, list[common.Cell]]] = {
        setup: {side: [] for side in SIDES} for setup in setups
    }
    for repeat in range(arguments.repeats):
        for setup in setups:
            for side in SIDES:
                key = {**asdict(setup), "threads": arguments.threads, "side": side, "repeat": repeat}
                with common.threads(arguments.threads):
                    found[setup][side].append(store.get(key, partial(run, setup, side)))
                seconds = found[setup][side][-1]["seconds"]
                common.log(f"{setup.model}, {setup.shown} shown, {side}, {repeat}: {seconds:.1f} s")
    common.write_section(arguments.page, "fewshot", report(found))


if __name__ == "__main__":
    main()
