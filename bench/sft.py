"""Supervised instruction tuning: Pegbox against TRL's SFTTrainer with PEFT.

python bench/sft.py            the whole measurement; goes on where it was stopped
python bench/sft.py --quick    a smoke run on a small model
python bench/sft.py --render   only write the section from what is measured

Same model, rows, batches, number format and optimiser steps; each run in a process of its own on one core,
all sides by turns. The peer has an environment of its own under runs/, which the first run makes. Writes its
section of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _common as common
import label_step

if TYPE_CHECKING:
    from pegbox import Base
    from pegbox.data import Conversations

FOLDER = common.RUNS / "bench" / "sft"
PAGE = common.ROOT / "docs" / "results.md"
RANK, ALPHA, RATE, WARMUP = 8, 16, 1e-3, 0.06
CONTEXT = 512
# Where there is no GPU, 1.15 and later score all positions, the last release before them the answers alone,
# so that it is the stronger peer here.
LATEST, OLDER = "1.16.0", "1.14.2"
NEEDED = ("transformers", "peft", "accelerate", "datasets", "threadpoolctl", f"trl=={LATEST}")
AIMS = {"speed": 2.0, "memory": 0.4}
SAME_FIRST, SAME_LAST = 2e-3, 2e-2


@dataclass(frozen=True)
class Setup:
    """The model and the rows.

    Args:
        vocabulary: Tokens.
        width: Hidden width.
        layers: Decoder layers.
        prompt: Median of the prompts' lengths in tokens; log-normal with sigma 0.6.
        answer: Median of the answers' lengths, drawn likewise.
        rows: So many.
        seed: Of weights and rows.
    """

    vocabulary: int = 128_000
    width: int = 256
    layers: int = 8
    prompt: int = 120
    answer: int = 40
    rows: int = 16
    seed: int = 0

    @property
    def model(self) -> str:
        return f"model-{self.vocabulary}-{self.width}-{self.layers}"


@dataclass(frozen=True)
class Side:
    """One way to train.

    Args:
        trl: Version of TRL; none for Pegbox.
        precision: ``float32``, or ``bf16`` for autocast over float32 weights.
        batch: Rows a step.
        options: What the peer's configuration, or Pegbox's ``Training``, gets besides.
        order: Whether the peer reads rows as Pegbox's batches have them, or in its own order.
    """

    trl: str | None
    precision: str
    batch: int
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    order: bool = True

    @property
    def name(self) -> str:
        return f"TRL {self.trl}" if self.trl else "Pegbox"


# The rows and the peer's environment


def make_rows(setup: Setup) -> list[dict[str, str]]:
    """Prompts and completions of random words; of at most the context with both edges."""
    import numpy as np

    random = np.random.default_rng(setup.seed)

    def length(median: int) -> int:
        return int(np.clip(median * math.exp(0.6 * random.standard_normal()), 4, CONTEXT * 3 // 4))

    def text(count: int) -> str:
        return " ".join(f"w{word}" for word in random.integers(0, setup.vocabulary - 100, count))

    rows = []
    for _ in range(setup.rows):
        prompt, answer = length(setup.prompt), length(setup.answer)
        rows.append({"prompt": text(min(prompt, CONTEXT - 2 - answer)), "completion": " " + text(answer)})
    return rows


def environment(folder: Path) -> Path:
    """Return the peer's Python; make its environment, the older release beside it, unless it is there."""
    return common.environment(
        folder,
        ["install", "-q", "-c", str(common.LIMITS), *NEEDED],
        ["install", "-q", "--no-deps", "liger-kernel"],
        ["install", "-q", "--no-deps", "--target", str(folder / OLDER), f"trl=={OLDER}"],
    )


# One run in a process of its own


class Watch:
    """Takes the time from the first forward pass that trains to the end of the last optimiser step."""

    def __init__(self, gpu: bool = False) -> None:
        from torch.nn.modules.module import register_module_forward_pre_hook
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.gpu = gpu
        self.began: tuple[float, float] | None = None
        self.ended: list[tuple[float, float]] = []
        self._first = register_module_forward_pre_hook(self._begin)
        self._steps = register_optimizer_step_post_hook(self._end)
        self.before = 0

    def _begin(self, *_: Any) -> None:
        import torch

        if torch.is_grad_enabled():
            self.began = (time.perf_counter(), time.process_time())
            self._first.remove()

    @staticmethod
    def first(rows: Sequence[Mapping[str, str]]) -> list[int]:
        """The two shortest rows, trained on first, so that late imports count for nothing."""
        return sorted(range(len(rows)), key=lambda row: len("".join(rows[row].values())))[:2]

    def _end(self, *_: Any) -> None:
        common.finish(self.gpu)
        self.ended.append((time.perf_counter(), time.process_time()))

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Give back what is free, and start the high-water mark there."""
        self.before = common.settle(self.gpu)
        yield
        self.peak = common.peak(self.gpu)

    def cell(self, tokens: int, losses: Sequence[float]) -> common.Cell:
        assert self.began is not None
        clock, processor = (self.ended[-1][which] - self.began[which] for which in (0, 1))
        return {
            "clock": tokens / clock,
            "processor": tokens / processor,
            "grown": self.peak - self.before,
            "peak": self.peak,
            "tokens": tokens,
            "steps": len(self.ended),
            "losses": list(losses),
        }


def pegbox_child(folder: Path, setup: Setup, side: Side) -> common.Cell:
    """Train one epoch with Pegbox."""
    from pegbox import load
    from pegbox.models import quiet_libraries

    quiet_libraries()
    return pegbox_train(load(folder / setup.model), setup, side, Watch)


def pegbox_train(base: Base, setup: Setup, side: Side, watching: type[Watch]) -> common.Cell:
    from pegbox import Generate, LoRA, Training, fit
    from pegbox.data import Table

    made = make_rows(setup)
    columns: dict[str, tuple[object, ...]] = {
        name: tuple(row[name] for row in made) for name in ("prompt", "completion")
    }
    task = Generate.from_table(Table("made rows", columns, tuple(range(1, len(made) + 1))), format="prompt")
    assert task.rows is not None
    rows, few = task.rows, watching.first(made)
    training = Training(
        epochs=1,
        learning_rate=RATE,
        warmup=WARMUP,
        batch_size=side.batch,
        precision=side.precision,  # type: ignore[arg-type]
        patience=0,
        evaluations_per_epoch=1,
        **side.options,
    )
    # Rows must not be held out; the one that is read instead is read after the last step.
    method = LoRA(rank=RANK, alpha=ALPHA)
    options: dict[str, Any] = {"valid": rows.select(few[:1]), "training": training, "say": common.hush}

    def train(part: Conversations) -> Any:
        return fit(base, task, method, rows=part, **options)

    train(rows.select(few))
    watch = watching()
    with watch.memory():
        tuned = train(rows)
    spoken = tuned.prompt.speak(rows)
    losses = [loss for _, loss in tuned.details["history"]["train_losses"]]
    cell = watch.cell(sum(map(len, spoken.ids)), losses)
    return cell | {"said": sum(map(sum, spoken.said)), "parameters": base.parameters}


def batches(folder: Path, setup: Setup, size: int) -> list[int]:
    """The rows as Pegbox's batches have them in the first epoch, one after the other."""
    from pegbox.models import tokenizer
    from pegbox.training._batches import Buckets

    words = tokenizer(folder / setup.model)
    texts = [row["prompt"] + row["completion"] for row in make_rows(setup)]
    lengths = [len(ids) + 1 for ids in words(texts)["input_ids"]]
    return [row for batch in Buckets(lengths, size, seed=0) for row in batch]


def trl_child(
    folder: Path, setup: Setup, side: Side, order: Sequence[int], watching: type[Watch]
) -> common.Cell:
    """Train one epoch with SFTTrainer, as its documentation has it."""
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    made = make_rows(setup)
    steps = math.ceil(len(made) / side.batch)
    given: dict[str, Any] = {
        "per_device_train_batch_size": side.batch,
        "num_train_epochs": 1,
        "learning_rate": RATE,
        "warmup_steps": math.ceil(WARMUP * steps),
        "bf16": side.precision == "bf16",
        "gradient_checkpointing": False,
        "completion_only_loss": True,
        "max_length": CONTEXT,
        "model_init_kwargs": {"dtype": "float32"},
        "train_sampling_strategy": "sequential" if side.order else "random",
        "use_cpu": True,
        "seed": 0,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **side.options,
    }
    lora: dict[str, Any] = {
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
    }

    def trainer(rows: Sequence[int], place: str) -> Any:
        torch.manual_seed(0)
        return SFTTrainer(
            model=str(folder / setup.model),
            args=SFTConfig(output_dir=place, **given),
            train_dataset=Dataset.from_list([made[row] for row in rows]),
            peft_config=LoraConfig(task_type="CAUSAL_LM", **lora),
        )

    with tempfile.TemporaryDirectory() as place:
        trainer(watching.first(made), place).train()
        whole = trainer(order if side.order else range(len(made)), place)
        tokens = sum(map(len, whole.train_dataset["input_ids"]))
        watch = watching()
        with watch.memory():
            whole.train()
    return watch.cell(tokens, [line["loss"] for line in whole.state.log_history if "loss" in line])


def measure(folder: Path, python: Path, core: int, setup: Setup, side: Side) -> common.Cell:
    """Measure in a process of its own, on one core."""
    told: dict[str, Any] = {"folder": str(folder), "setup": asdict(setup), "side": asdict(side)}
    if side.trl:
        told["order"] = batches(folder, setup, side.batch)
    command = [str(python if side.trl else sys.executable), __file__, "--child", json.dumps(told)]
    variables = {"PYTHONPATH": str(python.parent.parent / OLDER)} if side.trl == OLDER else {}
    done = common.on_core(core, command, **variables)
    if done.returncode and side.options.get("use_liger_kernel"):
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return common.printed(done, str(side))


# The plan


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        same: Sides on the same batches, by setting: number format and rows a step.
        best: Each side's own ways, one run each.
        repeats: Runs of each side on the same batches.
        slow: Those of the latest release, which take minutes and are far away.
    """

    same: Mapping[tuple[str, int], tuple[Setup, tuple[Side, ...]]]
    best: tuple[tuple[str, Setup, Side], ...]
    repeats: int
    slow: int

    def runs(self, side: Side) -> int:
        return self.slow if side.trl == LATEST else self.repeats


WAYS: dict[str, dict[str, Any]] = {
    "random order, its default": {},
    "grouped by length": {"train_sampling_strategy": "group_by_length"},
    "padding-free": {"padding_free": True, "max_length": None},
    "packed": {"packing": True},
    "gradient checkpointing, its default": {"gradient_checkpointing": True},
}
OWN_WAYS: dict[str, dict[str, Any]] = {
    "its defaults": {},
    "gradient checkpointing": {"gradient_checkpointing": True},
}
LIGER = {"use_liger_kernel": True}


def plan(quick: bool, repeats: int) -> Plan:
    setup = Setup(vocabulary=2000, width=128, layers=2, prompt=30, answer=10) if quick else Setup()
    same = {}
    for precision in ("float32", "bf16"):
        for size in (4, 16):
            # Of 16 rows the latest release's tiles take several GiB, and each step minutes.
            versions = (None, OLDER, LATEST) if size == 4 else (None, OLDER)
            sides = tuple(Side(version, precision, size) for version in versions)
            same[precision, size] = (replace(setup, rows=16 if size == 4 else 32), sides)
    few = replace(setup, rows=32)

    def peer(version: str, size: int, options: Mapping[str, Any]) -> Side:
        return Side(version, "bf16", size, options, order=False)

    best = [(way, few, Side(None, "bf16", size, told)) for size in (4, 16) for way, told in OWN_WAYS.items()]
    best += [(way, few, peer(OLDER, 4, WAYS[way])) for way in WAYS if way != "grouped by length"]
    best += [(way, few, peer(OLDER, 16, WAYS[way])) for way in ("grouped by length", "padding-free")]
    best += [(way, setup, peer(LATEST, 4, WAYS[way])) for way in ("padding-free", "packed")]
    best += [("Liger's kernels", setup, peer(LATEST, 4, LIGER))]
    if quick:
        same = {setting: same[setting] for setting in (("bf16", 4),)}
        best = [best[0], *best[-3:]]
    return Plan(same, tuple(best), repeats, slow=1)


def key(setup: Setup, side: Side, repeat: int) -> dict[str, Any]:
    told = asdict(side)
    return {
        "side": side.name,
        "precision": side.precision,
        "batch": side.batch,
        "repeat": repeat,
        "options": {name: told[name] for name in ("options", "order")},
        "setup": asdict(setup),
    }


Same = dict[tuple[str, int], dict[Side, list[common.Cell]]]
Best = list[tuple[str, Side, common.Cell]]


def gather(wanted: Plan, take: Callable[[Setup, Side, int], common.Cell | None]) -> tuple[Same, Best]:
    """Take all runs, those of one setting by turns; at the end those of the latest release."""
    same: Same = {setting: {side: [] for side in sides} for setting, (_, sides) in _settings(wanted)}
    own: Best = []
    for late in (False, True):
        for repeat in range(wanted.repeats):
            for setting, (setup, sides) in _settings(wanted):
                for side in sides:
                    if (side.trl == LATEST) == late and repeat < wanted.runs(side):
                        found = take(setup, side, repeat)
                        same[setting][side] += [] if found is None else [found]
        for way, setup, side in wanted.best:
            if (side.trl == LATEST) == late:
                found = take(setup, side, 0)
                own += [] if found is None else [(way, side, found)]
    return same, own


def _settings(wanted: Plan) -> list[tuple[tuple[str, int], tuple[Setup, tuple[Side, ...]]]]:
    return list(wanted.same.items())


# The report


def ratios(ours: Sequence[common.Cell], theirs: Sequence[common.Cell]) -> list[str]:
    """How many times as fast Pegbox is, and its share of the memory; bold where an aim is met."""
    speed, share = (
        common.middle(ours, what) / common.middle(theirs, what) for what in ("processor", "grown")
    )
    return [
        common.met(f"{speed:.1f}", speed >= AIMS["speed"]),
        common.met(f"{share:.2f}", share <= AIMS["memory"]),
    ]


def table(found: Same) -> str:
    lines = []
    for (precision, size), sides in found.items():
        ours = next(cells for side, cells in sides.items() if side.trl is None)
        for side, cells in sides.items():
            if not cells:
                continue
            speeds = [common.spread([cell[clock] for cell in cells], "{:,.0f}".format)
                      for clock in ("processor", "clock")]  # fmt: skip
            memory = [common.mebibytes(common.middle(cells, what)) for what in ("grown", "peak")]
            against = ratios(ours, cells) if side.trl else ["", ""]
            setting = f"{precision}, {size} rows a step"
            lines.append([setting, side.name, str(len(cells)), *speeds, *memory, *against])
    header = ["setting", "side", "runs", "tokens/s", "by the clock", "MiB to train", "MiB in all",
              "Pegbox, times as fast", "Pegbox's share of the memory"]  # fmt: skip
    return common.markdown(header, lines)


def agreement(found: Same) -> str:
    """Check that all sides train the same thing: the losses of the first and the last step."""
    lines = []
    for (precision, size), sides in found.items():
        ends = {side.name: cells[0]["losses"] for side, cells in sides.items() if cells}
        counts = {cell["tokens"] for cells in sides.values() for cell in cells}
        assert len(counts) == 1, f"tokens differ: {counts}"
        own = ends["Pegbox"]
        for name, losses in ends.items():
            assert len(losses) == len(own), f"{name}: {len(losses)} steps, not {len(own)}"
            apart = abs(losses[0] - own[0]), abs(losses[-1] - own[-1])
            within = apart[0] < SAME_FIRST and apart[1] < SAME_LAST
            assert within, f"{name}: losses differ by {apart}"
            shown = [f"{losses[0]:.4f}", f"{losses[-1]:.4f}"]
            lines.append([f"{precision}, {size} rows a step", name, str(len(losses)), *shown])
    return common.markdown(["setting", "side", "steps", "loss, first step", "loss, last step"], lines)


def ways(found: Best) -> str:
    lines = []
    for way, side, cell in found:
        if "failed" in cell:
            shown = ["does not run here", "", ""]
        else:
            shown = [f"{cell['processor']:,.0f}", f"{cell['clock']:,.0f}", common.mebibytes(cell["grown"])]
        lines.append([side.name, way, str(side.batch), *shown])
    header = ["side", "way", "rows a step", "tokens/s", "by the clock", "MiB to train"]
    return common.markdown(header, lines)


def best(found: Best) -> str:
    """Each side's fastest and leanest way against one another."""
    ran = [(way, side, cell) for way, side, cell in found if "failed" not in cell]

    def pick(ours: bool, what: str, sign: int) -> tuple[str, Side, common.Cell]:
        own = [one for one in ran if (one[1].trl is None) == ours]
        return max(own, key=lambda one: sign * one[2][what])

    lines = []
    for title, what, sign in (("fastest", "processor", 1), ("leanest", "grown", -1)):
        (own_way, own, ours), (their_way, their, theirs) = (pick(who, what, sign) for who in (True, False))
        names = [f"{own_way}, {own.batch} rows a step"]
        names += [f"{their.name}, {their_way}, {their.batch} rows a step"]
        lines.append([title, *names, *ratios([ours], [theirs])])
    header = ["each at its", "Pegbox", "TRL", "Pegbox, times as fast", "Pegbox's share of the memory"]
    return common.markdown(header, lines)


def report(same: Same, own: Best, setup: Setup, command: str) -> str:
    """Return the section in Markdown."""
    flat = [cell for sides in same.values() for cells in sides.values() for cell in cells]
    flat += [cell for _, _, cell in own]
    ours = [cell for cell in flat if "said" in cell]
    said = sorted({(cell["tokens"], cell["said"]) for cell in ours})
    shape = "; ".join(f"{tokens:,} tokens, {share:,} of them answers" for tokens, share in said)
    failed = sorted({f"{side.name}, {way}: {cell['failed']}" for way, side, cell in own if "failed" in cell})
    return "\n\n".join(
        [
            "## Instruction tuning against TRL",
            ABOUT,
            "\n".join(
                [
                    f"- Command: `{command}`.",
                    *common.provenance(flat),
                    f"- Peer: TRL {LATEST}, the latest, and TRL {OLDER}, with the same other libraries.",
                    f"- Model: random Llama of {ours[0]['parameters'] / 1e6:.0f} M parameters, width "
                    f"{setup.width}, {setup.layers} layers, vocabulary {setup.vocabulary:,}, tied.",
                    f"- Rows: of random words, lengths log-normal, prompts of median {setup.prompt} tokens, "
                    f"answers of {setup.answer}, at most {CONTEXT} together. 16 rows at 4 a step, 32 at 16: "
                    f"{shape}.",
                ]
            ),
            table(same),
            "Ratios are Pegbox's medians over the peer's; bold is what meets an aim, {speed:g} times the "
            "tokens per second and {memory:g} of the memory.".format(**AIMS),
            NOTES,
            agreement(same),
            "Each side in its own ways, bf16, one run each; the peer's rows are in its own order:",
            ways(own),
            *([] if not failed else ["\n".join(f"- {line}" for line in failed)]),
            best(own),
        ]
    )


ABOUT = (
    f"One epoch of LoRA (rank {RANK}, alpha {ALPHA}, queries and values) on prompts with answers, the "
    "loss over the answers alone, by `pegbox.fit` and by TRL's `SFTTrainer` with PEFT: same model, "
    "rows, batches in the same order, first weights, learning rates, AdamW and number format (bf16 is "
    "autocast over float32 weights). Each run has a process of its own on one thread of one core, by "
    "turns; medians and ranges. Tokens are all tokens of the rows, prompts and answers without padding, "
    "per second of processor time from the first forward pass to the end of the last step, and beside "
    "it by the clock, which other work on the machine disturbs. Memory is the high-water mark of "
    "resident memory beyond what was resident after loading and an epoch on two short rows."
)
NOTES = (
    f'Why two releases: TRL {OLDER} has `loss_type="chunked_nll"` as its default, which sends the '
    "answers alone through the output layer, 256 at a time, and again in the backward pass. TRL "
    f"{LATEST} has a fused output layer in its place (`chunked_nll` is an alias of the default there). "
    "Without a GPU it scores every position, prompts and padding too, in tiles of up to 4,096 "
    "positions by 32,768 outputs, and no option turns that off; it was run at 4 rows a step alone. "
    "Pegbox's batches hold rows of similar length, and the peer gets the same ones here, which spares "
    "it padding. Pegbox cannot be told to validate on nothing; it gets one short row, which it reads "
    "after the last step only. Losses of all sides:"
)


def main() -> None:
    """Parse, measure what is missing, write the section; or measure one side for the process that asked."""
    parser = common.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--core", type=int, default=0, help="the core that all runs are on")
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = common.parse(parser)
    if given.child:
        print(json.dumps(child(given.child)))
        return
    if given.quick:
        given.repeats = 1
    wanted = plan(given.quick, given.repeats)
    setup = next(iter(wanted.same.values()))[0]
    store = common.Cells(given.out / "cells", given.fresh)
    if given.render:
        found = gather(wanted, lambda *run: store.find(key(*run)))
    else:
        found = gather(wanted, runner(store, given.out / "models", setup, given.core))
    command = f"python bench/sft.py --repeats {given.repeats}"
    common.write_section(given.page, "sft", report(*found, setup, command))


def runner(
    store: common.Cells, models: Path, setup: Setup, core: int
) -> Callable[[Setup, Side, int], common.Cell]:
    """What measures one run unless it is there."""
    python = environment(FOLDER / "environment")
    shape = {"vocabulary": setup.vocabulary, "width": setup.width, "layers": setup.layers, "seed": setup.seed}
    label_step.save_model(models / setup.model, label_step.Setup(**shape))

    def run(setup: Setup, side: Side, repeat: int) -> common.Cell:
        found = store.get(key(setup, side, repeat), partial(measure, models, python, core, setup, side))
        shown = (
            found.get("failed")
            or f"{found['processor']:.0f} tokens/s, {common.mebibytes(found['grown'])} MiB"
        )
        common.log(f"{side.name}, {side.precision}, {side.batch} rows a step, {dict(side.options)}: {shown}")
        return found

    return run


def child(told: Mapping[str, Any]) -> common.Cell:
    warnings.filterwarnings("ignore")
    folder, setup, side = Path(told["folder"]), Setup(**told["setup"]), Side(**told["side"])
    with common.threads(1):
        if side.trl:
            return trl_child(folder, setup, side, told["order"], Watch)
        return pegbox_child(folder, setup, side)


if __name__ == "__main__":
    main()
