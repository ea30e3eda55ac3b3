"""On one GPU: instruction tuning and PPO of a Llama of 1.2 billion parameters, Pegbox against TRL with PEFT.

python bench/gpu.py            the whole measurement; goes on where it was stopped
python bench/gpu.py --quick    a smoke run on a small model, without a GPU too
python bench/gpu.py --render   only write the section from what is measured

Same model, rows or prompts, batches and optimiser steps; each run in a process of its own, both sides by
turns. Both run in this environment; the first run puts the peer's two releases beside it, under runs/.
Where there is no GPU nothing is measured. Writes its section of docs/one-gpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import _common as common
import _ppo_peer
import label_step
import ppo
import sft

FOLDER = common.RUNS / "bench" / "gpu"
PAGE = common.ROOT / "docs" / "one-gpu.md"
SFT_TRL, PPO_TRL = sft.LATEST, ppo.TRL
FOUR_BITS = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}
SAME_FIRST, SAME_LAST = 2e-2, 5e-2


@dataclass(frozen=True)
class Shape:
    """A Llama with tied embeddings and random weights, kept in bfloat16.

    Args:
        vocabulary: Tokens.
        width: Hidden width; the MLP is four times as wide, and a head has 64 dimensions.
        layers: Decoder layers.
        keys: Heads of keys and values.
    """

    vocabulary: int = 128_000
    width: int = 2048
    layers: int = 16
    keys: int = 8

    def save(self, folder: Path) -> None:
        """Write it with a tokenizer of whole words, unless it is there."""
        if (folder / "tokenizer.json").is_file():
            return
        import torch
        from transformers import LlamaForCausalLM

        setup = label_step.Setup(self.vocabulary, self.width, self.layers)
        config = label_step.configuration(setup, num_key_value_heads=self.keys, max_position_embeddings=4096)
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = LlamaForCausalLM(config)
        model.bfloat16().save_pretrained(folder)
        label_step.tokenizer(self.vocabulary).save_pretrained(folder)


class Watch(sft.Watch):
    """`sft.Watch` of a GPU: it waits for the GPU, and memory is what PyTorch has given out on it."""

    def __init__(self) -> None:
        super().__init__(on_gpu())

    @staticmethod
    def first(rows: Sequence[Mapping[str, str]]) -> list[int]:
        """As many rows as a few steps have, so that kernels are chosen and compiled."""
        return list(range(min(32, len(rows))))


def on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


# One run in a process of its own


def trl_options(bits: bool, gpu: bool) -> dict[str, Any]:
    """What TRL is told besides what `sft` tells it."""
    loading: dict[str, Any] = {"dtype": "bfloat16"}
    if bits:
        loading["quantization_config"] = FOUR_BITS
    return {"use_cpu": not gpu, "model_init_kwargs": loading, "dataloader_pin_memory": gpu}


def sft_child(
    folder: Path, shape: Shape, rows: int, batch: int, bits: bool, trl: bool, order: Sequence[int]
) -> common.Cell:
    """Train one epoch on prompts with answers."""
    setup = setup_of(shape, rows)
    side = sft.Side(None, "bf16", batch)
    if trl:
        side = sft.Side(SFT_TRL, "bf16", batch, trl_options(bits, on_gpu()))
        return sft.trl_child(folder, setup, side, order, Watch)
    from pegbox import load
    from pegbox.models import quiet_libraries

    quiet_libraries()
    loading: dict[str, Any] = {"quantise": "nf4"} if bits else {}
    base = load(folder / setup.model, dtype="bfloat16", **loading)
    return sft.pegbox_train(base, setup, side, Watch)


def setup_of(shape: Shape, rows: int) -> sft.Setup:
    return sft.Setup(shape.vocabulary, shape.width, shape.layers, prompt=240, answer=80, rows=rows)


def ppo_child(folder: Path, work: ppo.Work, what: str, seed: int) -> common.Cell:
    """Make what both sides start from, or train one of them."""
    if what == "start":
        return ppo.start_child(folder, work, seed)
    side = ppo.THEIRS if what == "trl" else ppo.OURS
    order = replace(ppo.order_of(folder, work, side, seed), gpu=on_gpu())
    return _ppo_peer.child(order) if side.trl else ppo.pegbox_child(order)


def in_process(told: Mapping[str, Any], what: str, library: Path | None = None) -> common.Cell:
    """Do one part in a process of its own, with a release of TRL on its path where one is named."""
    path = os.pathsep.join(filter(None, [str(library or ""), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(told)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return common.printed(done, what)


def child(told: Mapping[str, Any]) -> common.Cell:
    warnings.filterwarnings("ignore")
    given = dict(told)
    part, folder = given.pop("part"), Path(given.pop("folder"))
    if part == "sft":
        return sft_child(folder, Shape(**given.pop("shape")), **given)
    return ppo_child(folder, ppo.Work(**given.pop("work")), part, **given)


def library(folder: Path, release: str) -> Path:
    """A release of TRL beside this environment; it is fetched unless it is there."""
    place = folder / f"trl-{release}"
    if not place.is_dir():
        partial = place.with_suffix(".partial")
        command = ["install", "-q", "--no-deps", "--target", str(partial), f"trl=={release}"]
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
        partial.replace(place)
    return place


# The plan


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        shape: The model.
        rows: Of instruction tuning.
        batches: Rows of an optimiser step, with whether the base is in 4 bits.
        work: Of PPO.
        repeats: Runs of each side.
        parts: Which of ``sft`` and ``ppo``.
    """

    shape: Shape
    rows: int
    batches: tuple[tuple[int, bool], ...]
    work: ppo.Work
    repeats: int
    parts: tuple[str, ...]


def plan(quick: bool, repeats: int, parts: Sequence[str]) -> Plan:
    shape = Shape()
    work = ppo.Work(
        "random", 5, batch=64, minibatch=16, tokens=128, prompts=320, held=8, vocabulary=shape.vocabulary,
        layers=shape.layers, asked=128,
    )  # fmt: skip
    if quick:
        shape = Shape(vocabulary=2000, width=128, layers=2, keys=1)
        work = replace(work, steps=3, batch=8, minibatch=4, tokens=8, prompts=24, held=4,
                       vocabulary=2000, layers=2, asked=10)  # fmt: skip
        return Plan(shape, 16, ((4, False),), work, 1, tuple(parts))
    return Plan(shape, 512, ((16, False), (16, True)), work, repeats, tuple(parts))


Take = Callable[[Mapping[str, Any]], "common.Cell | None"]
Found = dict[tuple[str, bool], list[common.Cell]]


def keys(wanted: Plan) -> list[dict[str, Any]]:
    """One key for each run, both sides by turns."""
    found: list[dict[str, Any]] = []
    for repeat in range(wanted.repeats):
        for batch, bits in wanted.batches if "sft" in wanted.parts else ():
            told = {"shape": asdict(wanted.shape), "rows": wanted.rows, "batch": batch, "bits": bits}
            found += [{"part": "sft", "trl": trl, "repeat": repeat, **told} for trl in (False, True)]
        if "ppo" not in wanted.parts:
            continue
        told = {"shape": asdict(wanted.shape), "work": asdict(wanted.work)}
        found += [{"part": "ppo", "trl": trl, "repeat": repeat, **told} for trl in (False, True)]
    return found


def setting(key: Mapping[str, Any]) -> str:
    if key["part"] == "ppo":
        return "PPO, bfloat16"
    return f"instruction tuning, {'4 bits' if key['bits'] else 'bfloat16'}, {key['batch']} rows a step"


def gather(wanted: Plan, take: Take) -> Found:
    """Take all runs by setting and side."""
    found: Found = {(setting(key), key["trl"]): [] for key in keys(wanted)}
    for key in keys(wanted):
        cell = take(key)
        found[setting(key), key["trl"]] += [] if cell is None else [cell]
    return found


def measure(folder: Path, key: Mapping[str, Any]) -> common.Cell:
    """Measure one run."""
    models = folder / "models"
    release = PPO_TRL if key["part"] == "ppo" else SFT_TRL
    peer = library(FOLDER, release) if key["trl"] else None
    if key["part"] == "sft":
        told = {name: key[name] for name in ("part", "shape", "rows", "batch", "bits", "trl")}
        told |= {"folder": str(models), "order": []}
        if key["trl"]:
            setup = setup_of(Shape(**key["shape"]), key["rows"])
            told["order"] = sft.batches(models, setup, key["batch"])
        return in_process(told, setting(key), peer)
    work, seed = ppo.Work(**key["work"]), key["repeat"]
    told = {"folder": str(folder), "work": asdict(work), "seed": seed}
    if not (ppo.start_folder(folder, work, seed) / "told.json").is_file():
        in_process({"part": "start", **told}, "the start")
    return in_process({"part": "trl" if key["trl"] else "pegbox", **told}, setting(key), peer)


def prepare(folder: Path, wanted: Plan) -> None:
    """Write the model under the names that both parts look for."""
    setup = setup_of(wanted.shape, wanted.rows)
    place = folder / "models" / setup.model
    wanted.shape.save(place)
    other = folder / "models" / wanted.work.model
    if not other.exists():
        other.symlink_to(place.resolve(), target_is_directory=True)


# The report


def line(name: str, ours: Sequence[common.Cell], cells: Sequence[common.Cell], side: str) -> list[str]:
    speeds = [cell["clock"] for cell in cells]
    memory = [f"{common.middle(cells, what) / 2**30:.2f}" for what in ("grown", "peak")]
    against = ["", ""]
    if ours is not cells:
        runs = {cell["key"]["repeat"]: cell for cell in ours}
        pairs = [(runs[cell["key"]["repeat"]], cell) for cell in cells if cell["key"]["repeat"] in runs]
        against = [common.spread([own[what] / peer[what] for own, peer in pairs], "{:.2f}".format)
                   for what in ("clock", "peak")]  # fmt: skip
    digits = "{:,.0f}" if name.startswith("instruction") else "{:.1f}"
    return [name, side, str(len(cells)), common.spread(speeds, digits.format), *memory, *against]


def table(found: Found) -> str:
    lines = []
    for (name, trl), cells in found.items():
        if cells:
            release = PPO_TRL if name.startswith("PPO") else SFT_TRL
            lines.append(line(name, found[name, False], cells, f"TRL {release}" if trl else "Pegbox"))
    header = ["what", "side", "runs", "tokens or answers a second", "GiB to train", "GiB in all",
              "Pegbox, times as fast", "Pegbox's share of the memory in all"]  # fmt: skip
    return common.markdown(header, lines)


def agreement(found: Found) -> list[str]:
    """How far both sides are apart in what they train; instruction tuning's losses must agree."""
    parts = []
    for (name, trl), cells in found.items():
        ours = found[name, False]
        if not trl or not cells or not ours:
            continue
        if name.startswith("PPO"):
            first = max(abs(cell["history"][0]["kl"]) for cell in (*ours, *cells))
            apart = max(cell["apart"] for cell in cells)
            parts.append(f"{name}: rewards of equal answers at most {apart:.3f} standard deviations apart, "
                         f"divergence at the first step at most {first:.4f}")  # fmt: skip
            continue
        own, theirs = ours[0]["losses"], cells[0]["losses"]
        assert ours[0]["tokens"] == cells[0]["tokens"], f"{name}: the sides have other tokens"
        assert len(own) == len(theirs), f"{name}: the sides take other steps"
        first, last = abs(own[0] - theirs[0]), abs(own[-1] - theirs[-1])
        within = first < SAME_FIRST and last < SAME_LAST
        assert within, f"{name}: losses are {first} and {last} apart"
        parts.append(f"{name}: {len(own)} steps; loss of the first {own[0]:.4f} and {theirs[0]:.4f}, of the "
                     f"last {own[-1]:.4f} and {theirs[-1]:.4f}")  # fmt: skip
    return parts


def report(found: Found, wanted: Plan, command: str) -> str:
    """Return the section in Markdown."""
    cells = [cell for kept in found.values() for cell in kept]
    if not cells:
        return "## Measured\n\nNot measured yet: `python bench/gpu.py` fills this section, on a GPU."
    work, shape = wanted.work, wanted.shape
    setup = setup_of(shape, wanted.rows)
    facts = [
        f"- Command: `{command}`.",
        *common.provenance(cells),
        f"- Peers: `SFTTrainer` of TRL {SFT_TRL}, and `PPOTrainer` of TRL {PPO_TRL}, its last release.",
        f"- Model: random Llama, width {shape.width:,}, {shape.layers} layers, {shape.width // 64} heads, "
        f"{shape.keys} of keys and values, vocabulary {shape.vocabulary:,}, tied, in bfloat16.",
        f"- Instruction tuning: LoRA as in [results](results.md#instruction-tuning-against-trl), "
        f"{wanted.rows} rows of random words, prompts of median {setup.prompt} tokens, answers of "
        f"{setup.answer}, at most {sft.CONTEXT} together, both sides in the same batches.",
        f"- PPO: {work.steps} steps of {work.batch} answers of at most {work.tokens} tokens to prompts of "
        f"{work.asked} words, minibatches of {work.minibatch}, {work.epochs} passes.",
    ]
    same = "\n".join(f"- {one}." for one in agreement(found))
    return "\n\n".join(["## Measured", ABOUT, "\n".join(facts), table(found), same])


ABOUT = (
    "Pegbox beside TRL with PEFT on one GPU. Tokens are those of the rows without padding, per second from "
    "the first forward pass to the end of the last step; answers are per second of whole steps of PPO, but "
    "the first and the last. Memory is the most that PyTorch has given out on the GPU; to train, what was "
    "given out before is left out. Each run has a process of its own, both sides by turns; medians and "
    "ranges, ratios of runs that followed one another. TRL has the adapter of PPO's value model in bfloat16, "
    "as the base is; what Pegbox trains is in float32."
)


def main() -> None:
    """Parse, measure what is missing, write the section; or do one part for the process that asked."""
    parser = common.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=("sft", "ppo"), default=("sft", "ppo"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so many")
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = common.parse(parser)
    if given.child:
        print(json.dumps(child(given.child)))
        return
    wanted = plan(given.quick, given.repeats, given.only)
    store = common.Cells(given.out / "cells", given.fresh)
    if given.render or not (given.quick or on_gpu()):
        common.log("nothing is measured: " + ("--render" if given.render else "there is no GPU"))
        found = gather(wanted, store.find)
    else:
        with tempfile.TemporaryDirectory() if given.quick else nullcontext(given.out) as folder:
            found = gather(wanted, runner(store, Path(folder), wanted, given.seconds))
    command = f"python bench/gpu.py --repeats {given.repeats}"
    common.write_section(given.page, "gpu", report(found, wanted, command))


def runner(store: common.Cells, folder: Path, wanted: Plan, most: float) -> Take:
    """What measures one run unless it is there, or the time is up."""
    prepare(folder, wanted)
    began = time.monotonic()

    def take(key: Mapping[str, Any]) -> common.Cell | None:
        if time.monotonic() - began > most:
            return store.find(key)
        started = time.monotonic()
        cell = store.get(key, partial(measure, folder, key))
        side = "TRL" if key["trl"] else "Pegbox"
        common.log(
            f"{setting(key)}, {side}: {cell['clock']:,.1f} a second, {cell['peak'] / 2**30:.2f} GiB "
            f"({common.seconds(time.monotonic() - started)})"
        )
        return cell

    return take


if __name__ == "__main__":
    main()
