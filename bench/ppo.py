"""PPO: Pegbox against TRL 1.12's experimental PPOTrainer with PEFT.

python bench/ppo.py            the whole measurement; goes on where it was stopped
python bench/ppo.py --quick    a smoke run with few steps
python bench/ppo.py --render   only write the section from what is measured

Same SFT adapter, reward model, prompts, batches, number format and objective; each run in a process of its
own on one core, both sides by turns. What they have learnt is judged by the same code. The peer has an
environment of its own under runs/, which the first run makes. Writes its section of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import _common as common
import label_step
from _ppo_peer import Course, Order

if TYPE_CHECKING:
    from pegbox import Base, Tuned
    from pegbox.data import Conversations

FOLDER = common.RUNS / "bench" / "ppo"
PAGE = common.ROOT / "docs" / "results.md"
TRL = "1.12.0"
NEEDED = ("transformers", "peft", "accelerate", "datasets", "threadpoolctl", f"trl=={TRL}")
PEER = Path(__file__).with_name("_ppo_peer.py")
AIMS = {"speed": 1.5, "memory": 0.4}
BETAS = tuple(10 ** (exponent / 8) for exponent in range(16, -13, -1))
CHECKED, SAME_REWARD, SAME_POLICY, TRUSTED = 8, 1e-3, 1e-3, 50


@dataclass(frozen=True)
class Work:
    """What is trained on what.

    Args:
        name: ``etude``, the embedded model with the world's replies, or ``random``, a random Llama with
            random words.
        steps: Batches of answers.
        batch: Answers of a batch.
        minibatch: Answers of an optimiser step.
        tokens: Most tokens of an answer.
        prompts: Prompts to learn on.
        held: Prompts to judge on.
        rate: Learning rate.
        beta: Weight of the divergence, in standard deviations of the reward per nat.
        epochs: Passes over a batch.
        vocabulary: Of a random model.
        layers: Of a random model, of width 256.
        asked: Tokens of a prompt, of a random model.
    """

    name: str
    steps: int
    batch: int
    minibatch: int
    tokens: int
    prompts: int
    held: int
    rate: float = 1e-3
    beta: float = 0.3
    epochs: int = 2
    vocabulary: int = 32_000
    layers: int = 8
    asked: int = 40

    @property
    def model(self) -> str:
        if self.name == "random":
            return f"model-{self.vocabulary}-{self.layers}"
        return self.name


@dataclass(frozen=True)
class Side:
    """One way to train.

    Args:
        trl: By TRL, and not by Pegbox.
        options: What TRL's configuration gets besides.
        example: Whether TRL's models are as its example script has them.
    """

    trl: bool
    options: tuple[tuple[str, Any], ...] = ()
    example: bool = False

    @property
    def name(self) -> str:
        return f"TRL {TRL}" if self.trl else "Pegbox"


OURS, THEIRS = Side(trl=False), Side(trl=True)
# What else TRL can do, each measured once.
WAYS = {
    "rollouts in passes of a minibatch": Side(trl=True, options=(("local_rollout_forward_batch_size", 8),)),
    "as its example: merged weights with a new adapter, the value model trained whole": Side(
        trl=True, example=True
    ),
}


# What both sides start from


def model_folder(folder: Path, work: Work) -> Path:
    """The base; a random one is made unless it is there."""
    if work.name == "etude":
        from pegbox.models.etude import folder as embedded

        return Path(embedded("etude"))
    found = folder / "models" / work.model
    label_step.save_model(found, label_step.Setup(work.vocabulary, 256, work.layers))
    return found


def start_folder(folder: Path, work: Work, seed: int) -> Path:
    return folder / "starts" / f"{work.model}-{work.prompts}-{work.tokens}-{seed}"


def random_texts(work: Work, count: int, seed: int) -> list[str]:
    """Texts of random words."""
    dice = random.Random(seed)
    words = work.vocabulary - 100
    return [" ".join(f"w{dice.randrange(words)}" for _ in range(work.asked)) for _ in range(count)]


def texts(work: Work, seed: int) -> tuple[list[str], list[str]]:
    """Prompts to learn on and others to judge on, which are no others' equals."""
    if work.name == "random":
        return random_texts(work, work.prompts, seed), random_texts(work, work.held, seed + 1000)
    import rlhf

    learnt = [one.message for one in rlhf.replies(work.prompts, 3000 + seed)]
    known = set(learnt)
    others = dict.fromkeys(one.message for one in rlhf.replies(16 * work.held, 5000 + seed))
    return learnt, [text for text in others if text not in known][: work.held]


def stages(work: Work, base: Base, seed: int) -> tuple[Tuned, Tuned]:
    """The SFT model and the reward model; of a random model after a few steps, which is all it needs."""
    if work.name == "etude":
        import rlhf

        return rlhf.sft(seed), rlhf.reward(seed)
    import pegbox
    from pegbox.data import Conversations, Message, Preferences

    few = random_texts(work, 12, seed + 2000)
    numbers = tuple(range(1, 5))
    asked = tuple((Message("user", text),) for text in few[:4])
    answered = tuple((*one, Message("assistant", text)) for one, text in zip(asked, few[4:8], strict=True))
    rows = Conversations("random words", answered, tuple((text,) for text in few[4:8]), numbers)
    pairs = Preferences("random words", asked, tuple(few[4:8]), tuple(few[8:]), numbers)
    task = pegbox.Generate(format="input", columns={"input": "message", "output": "reply"}, chat="plain")
    once: dict[str, Any] = {"training": pegbox.Training(max_steps=4), "seed": seed, "say": common.hush}
    sft = pegbox.fit(base, task, "lora", rows=rows, **once)
    return sft, pegbox.fit(base, pegbox.Prefer(chat="plain"), "lora", rows=pairs, **once)


def conversations(prompts: Sequence[str]) -> Conversations:
    from pegbox.data import from_prompts

    return from_prompts(list(prompts))


def asked(sft: Tuned, prompts: Sequence[str], tokens: int) -> list[tuple[int, ...]]:
    """Token ids of prompts that leave room for an answer."""
    prompt: Any = sft.prompt
    found: list[tuple[int, ...]] = prompt.ask(conversations(prompts), room=prompt.context - tokens)[0]
    return found


def settings(order: Order) -> Any:
    """Pegbox's settings: its defaults, but for the gradient's clip, which TRL's trainer does not know."""
    from pegbox.rlhf import Alignment

    return Alignment(
        steps=order.steps,
        batch_size=order.batch,
        minibatch_size=order.minibatch,
        epochs=order.epochs,
        learning_rate=order.rate,
        beta=order.beta,
        max_tokens=order.tokens,
        gradient_clip=0.0,
        checkpoint_every=order.steps,
        evaluate_every=order.steps,
        seed=order.seed,
    )


def start_child(folder: Path, work: Work, seed: int) -> common.Cell:
    """Write both adapters, and what the peer is told: token ids, the reward's scale, rewards to check by."""
    from pegbox import load
    from pegbox.tuning import align

    model, place = model_folder(folder, work), start_folder(folder, work, seed)
    base = load("etude" if work.name == "etude" else model)
    sft, reward = stages(work, base, seed)
    learnt, held = texts(work, seed)
    once = replace(order_of(folder, work, OURS, seed), steps=1)
    with tempfile.TemporaryDirectory() as run:
        found = align(
            sft,
            reward,
            conversations(learnt),
            held=conversations(held),
            settings=settings(once),
            folder=Path(run) / "run",
            say=common.hush,
        )
    scale = found.scale
    ids = [asked(sft, part, work.tokens) for part in (learnt, held)]
    rows = drawn(sft, sft, ids[1][:CHECKED], work.tokens, seed)
    scores = scale.standard(rewards(reward, sft, rows)).tolist()
    told = {
        "prompts": ids[0],
        "held": ids[1],
        "texts": [learnt, held],
        "scale": {"mean": scale.mean, "deviation": scale.deviation},
        "checked": list(zip(rows.prompts, rows.answers, scores, strict=True)),
    }
    sft.save(place / "sft", overwrite=True)
    reward.save(place / "reward", overwrite=True)
    (place / "told.json").write_text(json.dumps(told), "utf-8")
    return {}


# Pegbox's side, and the judge of both


def drawn(sft: Tuned, policy: Tuned, prompts: Sequence[Sequence[int]], tokens: int, seed: int) -> Any:
    """One answer of the policy to each prompt, at temperature 1."""
    from pegbox.rlhf import sample

    dice, prompt = random.Random(f"{seed} judge"), sft.prompt
    seeds = [dice.getrandbits(62) for _ in prompts]
    stops: Sequence[int] = prompt.stops  # type: ignore[attr-defined]
    assert policy.module is not None
    return sample(policy.module, sft.base, prompts, seeds, most=tokens, stops=stops)


def rewards(reward: Tuned, sft: Tuned, rows: Any) -> Any:
    """Rewards of answers in the reward model's own units."""
    from pegbox.tuning._reward_of import reward_of

    task: Any = sft.prompt.task
    found = reward_of(reward, sft.base, task.chat_template)[0]
    return found(rows, [""] * len(rows), [""] * len(rows)).double()


def divergences(policy: Tuned, sft: Tuned, rows: Any, size: int) -> list[float]:
    """Log-ratio of policy and SFT model over each whole answer of the policy, in nats."""
    import torch

    from pegbox.rlhf import Batch, logprobs

    assert policy.module is not None
    assert sft.module is not None
    found = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda row: rows.lengths[row])
    for at in range(0, len(order), size):
        places = order[at : at + size]
        batch = Batch.of(rows.select(places), sft.base.pad, sft.base.device)
        with torch.no_grad():
            change = logprobs(policy.module, batch) - logprobs(sft.module, batch)
        for place, value in zip(places, change.double().sum(1).tolist(), strict=True):
            found[place] = value
    return found


def pegbox_child(order: Order) -> common.Cell:
    """Train with Pegbox."""
    pegbox_train(order.tiny(), Course(order.gpu))
    return pegbox_train(order, Course(order.gpu))


def pegbox_train(order: Order, course: Course) -> common.Cell:
    """One training; the cell is empty where it has too few steps for one."""
    from pegbox import Tuned, load
    from pegbox.models import quiet_libraries
    from pegbox.tuning import align

    quiet_libraries()
    told, start = order.told(), Path(order.start)
    base = load(order.model)
    sft, reward = (Tuned.load(start / name, model=base, say=common.hush) for name in ("sft", "reward"))
    learnt, held = map(conversations, told["texts"])

    def say(line: str) -> None:
        if line.startswith("step "):
            course.step()

    options: dict[str, Any] = {"held": held, "settings": settings(order), "say": say}
    with tempfile.TemporaryDirectory() as run:
        found = course.train(lambda: align(sft, reward, learnt, folder=Path(run) / "run", **options))
    if order.steps == 1:
        return {}
    found.tuned.save(order.policy, overwrite=True)
    scale, trained = found.scale, sum(learner.count for learner in found.aligner.learners.values())
    apart = abs(scale.mean - told["scale"]["mean"]) + abs(scale.deviation / told["scale"]["deviation"] - 1)
    history = [{name: line[name] for name in ("kl", "reward", "length")} for line in found.history]
    return {**course.cell(order), "trained": trained, "apart": apart, "history": history}


def policy_of(place: Path, start: Path, base: Base) -> Tuned:
    """A policy that either side has written: the SFT model's folder with the policy's adapter."""
    import shutil

    from pegbox import Tuned

    with tempfile.TemporaryDirectory() as folder:
        whole = Path(shutil.copytree(start / "sft", Path(folder) / "policy"))
        found = next(place.rglob("adapter_model.safetensors"))
        shutil.copy(found, whole)
        return Tuned.load(whole, model=base, say=common.hush)


def judge_child(folder: Path, work: Work, seed: int, place: str | None, draws: int) -> common.Cell:
    """What a policy's answers to held-out prompts are worth; without a policy, those of the SFT model."""
    from pegbox import Tuned, load
    from pegbox.models import quiet_libraries
    from pegbox.rlhf import Scale, frontier

    quiet_libraries()
    start = start_folder(folder, work, seed)
    told = json.loads((start / "told.json").read_text("utf-8"))
    base = load(model_folder(folder, work))
    sft, reward = (Tuned.load(start / name, model=base, say=common.hush) for name in ("sft", "reward"))
    policy = sft if place is None else policy_of(Path(place), start, base)
    asked = [prompt for prompt in told["held"] for _ in range(draws)]
    rows = drawn(sft, policy, asked, work.tokens, seed)
    missing = [not end for end in rows.finished]
    scores = Scale(**told["scale"]).standard(rewards(reward, sft, rows))
    scores -= scores.new_tensor(missing)
    cell = {
        "reward": by_prompt(scores.tolist(), draws),
        "kl": by_prompt(divergences(policy, sft, rows, work.minibatch), draws),
        "ended": 1 - fmean(missing),
        "length": fmean(map(len, rows.answers)),
    }
    if work.name == "etude":
        import rlhf

        answers = sft.prompt.tokenizer.batch_decode(list(map(list, rows.answers)), skip_special_tokens=True)
        cell["gold"] = by_prompt([rlhf.gold("", answer) for answer in answers], draws)
    if place is None:
        cell["frontier"] = asdict(frontier(scores.reshape(-1, draws), BETAS))
    return cell


def by_prompt(values: Sequence[float], draws: int) -> list[float]:
    """Means over the draws of each prompt."""
    return [fmean(values[at : at + draws]) for at in range(0, len(values), draws)]


# One run in a process of its own


def order_of(folder: Path, work: Work, side: Side, seed: int) -> Order:
    name = "-".join([work.model, "trl" if side.trl else "pegbox", str(work.steps), str(seed)])
    way = "" if side in (OURS, THEIRS) else f"-{list(WAYS.values()).index(side)}"
    return Order(
        model=str(model_folder(folder, work)),
        start=str(start_folder(folder, work, seed)),
        policy=str(folder / "policies" / f"{name}{way}"),
        seed=seed,
        steps=work.steps,
        batch=work.batch,
        minibatch=work.minibatch,
        epochs=work.epochs,
        tokens=work.tokens,
        rate=work.rate,
        beta=work.beta,
        options=dict(side.options),
        example=side.example,
    )


def measure(folder: Path, python: Path, core: int, work: Work, side: Side, seed: int) -> common.Cell:
    """Train one side."""
    order = order_of(folder, work, side, seed)
    told = json.dumps(asdict(order))
    command = [str(python), str(PEER), told] if side.trl else child_command("train", told)
    return common.printed(common.on_core(core, command), f"{side}, {work.name}, seed {seed},")


def judged(folder: Path, core: int, work: Work, seed: int, side: Side | None, draws: int) -> common.Cell:
    """Judge one side's policy, or the SFT model."""
    place = None if side is None else order_of(folder, work, side, seed).policy
    told = json.dumps([str(folder), asdict(work), seed, place, draws])
    return common.printed(common.on_core(core, child_command("judge", told)), "the judge")


def start(folder: Path, core: int, work: Work, seed: int) -> None:
    """Make what both sides start from, unless it is there."""
    if (start_folder(folder, work, seed) / "told.json").is_file():
        return
    common.log(f"SFT and reward model for {work.model}, seed {seed}")
    told = json.dumps([str(folder), asdict(work), seed])
    common.printed(common.on_core(core, child_command("start", told)), "the start")


def child_command(what: str, told: str) -> list[str]:
    return [sys.executable, __file__, "--child", what, told]


def child(what: str, told: str) -> common.Cell:
    warnings.filterwarnings("ignore")
    given = json.loads(told)
    with common.threads(1):
        if what == "train":
            return pegbox_child(Order(**given))
        folder, work = Path(given[0]), Work(**given[1])
        if what == "start":
            return start_child(folder, work, given[2])
        return judge_child(folder, work, *given[2:])


# The plan


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        learnt: What is trained for long, and judged.
        large: What is trained for a few steps, for its speed and memory.
        seeds: Of both.
        reference: Answers of the SFT model to each prompt, for the frontier.
        draws: Answers of a policy to each prompt.
    """

    learnt: Work
    large: Work
    seeds: tuple[int, ...]
    reference: int = 256
    draws: int = 64


def plan(quick: bool, seeds: Sequence[int], steps: int) -> Plan:
    learnt = Work("etude", steps, batch=64, minibatch=16, tokens=48, prompts=320, held=16)
    large = Work("random", 4, batch=16, minibatch=8, tokens=32, prompts=64, held=4)
    if quick:
        learnt = replace(learnt, steps=3, batch=16, minibatch=8, tokens=24, prompts=64, held=4)
        large = replace(large, steps=3, batch=8, minibatch=4, tokens=8, vocabulary=2000, layers=2)
        return Plan(learnt, large, (0,), reference=16, draws=8)
    return Plan(learnt, large, tuple(seeds))


def key(part: str, work: Work, side: Side | None, seed: int, draws: int = 0) -> dict[str, Any]:
    told = {} if side is None else {"options": dict(side.options), "example": side.example}
    name = "SFT" if side is None else side.name
    return {"part": part, "side": name, "seed": seed, "draws": draws, "work": asdict(work), "way": told}


Runs = dict[tuple[Work, Side], list[common.Cell]]
Judgements = dict[Side | None, dict[int, common.Cell]]


@dataclass(frozen=True)
class Found:
    """Cells: runs of both works, TRL's other ways, and judgements by seed."""

    runs: Runs
    ways: dict[str, common.Cell]
    judged: Judgements


Train = Callable[[Work, Side, int], common.Cell | None]
Judge = Callable[[Work, int, Side | None, int], common.Cell | None]


def gather(wanted: Plan, train: Train, judge: Judge) -> Found:
    """Take all runs, both sides by turns, seed by seed."""
    works, sides = (wanted.learnt, wanted.large), (OURS, THEIRS)
    found = Found(
        {(work, side): [] for work in works for side in sides}, {}, {None: {}, OURS: {}, THEIRS: {}}
    )
    for seed in wanted.seeds:
        for work, side in found.runs:
            cell = train(work, side, seed)
            found.runs[work, side] += [] if cell is None else [cell]
        for policy, cells in found.judged.items():
            cell = judge(wanted.learnt, seed, policy, wanted.draws if policy else wanted.reference)
            if cell is not None:
                cells[seed] = cell
    for way, side in WAYS.items():
        cell = train(wanted.large, side, wanted.seeds[0])
        if cell is not None:
            found.ways[way] = cell
    return found


# The report


def ratios(ours: Sequence[common.Cell], theirs: Sequence[common.Cell]) -> list[str]:
    """How many times as fast Pegbox is, and its share of the memory, by seeds; bold where an aim is met."""
    runs = {cell["key"]["seed"]: cell for cell in ours}
    pairs = [(runs[cell["key"]["seed"]], cell) for cell in theirs if cell["key"]["seed"] in runs]
    if not pairs:
        return ["", ""]
    speeds, shares = ([own[what] / other[what] for own, other in pairs] for what in ("processor", "grown"))
    return [
        common.met(common.spread(speeds, "{:.2f}".format), common.median(speeds) >= AIMS["speed"]),
        common.met(common.spread(shares, "{:.2f}".format), common.median(shares) <= AIMS["memory"]),
    ]


HEADER = ["answers/s", "by the clock", "CPU s beside the steps", "MiB of parameters", "MiB to train",
          "MiB in all", "Pegbox, times as fast", "Pegbox's share of the memory"]  # fmt: skip


def figures(cells: Sequence[common.Cell]) -> list[str]:
    speeds = [
        common.spread([cell[clock] for cell in cells], "{:.2f}".format) for clock in ("processor", "clock")
    ]
    memory = [common.mebibytes(common.middle(cells, what)) for what in ("parameters", "grown", "peak")]
    return [*speeds, f"{max(0.0, common.middle(cells, 'beside')):.0f}", *memory]


def called(work: Work) -> str:
    return "etude" if work.name == "etude" else f"random Llama, vocabulary {work.vocabulary:,}"


def table(found: Runs) -> str:
    lines = []
    for (work, side), cells in found.items():
        if cells:
            against = ratios(found[work, OURS], cells) if side.trl else ["", ""]
            lines.append([called(work), side.name, str(len(cells)), *figures(cells), *against])
    return common.markdown(["model", "side", "runs", *HEADER], lines)


def ways(found: Found, large: Work) -> str:
    ours = found.runs[large, OURS]
    lines = [[way, *figures([cell]), *ratios(ours, [cell])] for way, cell in found.ways.items()]
    return common.markdown(["TRL's way", *HEADER], lines)


def error(values: Sequence[float]) -> float:
    """Standard error of a mean over prompts."""
    mean = fmean(values)
    spread = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return float((spread / len(values)) ** 0.5)


def share(cell: common.Cell, reference: common.Cell) -> tuple[float, float]:
    """Of the gain reachable at its divergence the share a policy has, and the effective number of answers."""
    from pegbox.rlhf import Frontier

    reached = Frontier(**reference["frontier"])
    divergence = fmean(cell["kl"])
    nearest = min(range(len(reached.beta)), key=lambda at: abs(reached.divergence[at] - divergence))
    return reached.share(fmean(cell["reward"]), divergence), reached.effective[nearest]


def quality(found: Judgements) -> tuple[str, dict[Side, list[float]]]:
    """Each policy beside the SFT model, and the shares of both sides."""
    lines, shares = [], {OURS: list[float](), THEIRS: list[float]()}
    for seed, reference in found[None].items():
        for side, cells in found.items():
            cell = cells.get(seed)
            if cell is None:
                continue
            row = [
                f"{fmean(cell['reward']):+.2f} ± {error(cell['reward']):.2f}",
                f"{fmean(cell['gold']):+.2f}",
                f"{fmean(cell['kl']):.2f} ± {error(cell['kl']):.2f}",
                f"{100 * cell['ended']:.0f} %",
                f"{cell['length']:.0f}",
            ]
            last = ["", ""]
            if side is not None:
                reached, effective = share(cell, reference)
                shares[side] += [reached] if reached == reached else []
                shown = "beyond it" if reached != reached else f"{100 * reached:.0f} %"
                last = [shown, f"{effective:.0f}"]
            lines.append([str(seed), "SFT" if side is None else side.name, *row, *last])
    header = ["seed", "model", "reward", "gold", "KL", "ended", "tokens", "share reached",
              "effective answers"]  # fmt: skip
    return common.markdown(header, lines), shares


def same(found: Found) -> list[str]:
    """Check that both sides train the same thing."""
    parts = []
    for work in dict.fromkeys(work for work, _ in found.runs):
        cells = [cell for side in (OURS, THEIRS) for cell in found.runs[work, side]]
        trained = sorted({cell["trained"] for cell in cells})
        assert len(trained) == 1, f"trained parameters differ: {trained}"
        apart = max(cell["apart"] for cell in cells)
        assert apart < SAME_REWARD, f"rewards differ by {apart}"
        first = max(abs(cell["history"][0]["kl"]) for cell in cells)
        assert first < SAME_POLICY, f"divergence at the first step is {first}"
        parts.append(
            f"{called(work)}: {trained[0]:,} trained parameters on both sides, rewards apart by at most "
            f"{apart:.0e}, divergence at the first step at most {first:.0e}"
        )
    return parts


def report(found: Found, wanted: Plan, command: str) -> str:
    """Return the section in Markdown."""
    cells = [cell for kept in found.runs.values() for cell in kept] + list(found.ways.values())
    cells += [cell for kept in found.judged.values() for cell in kept.values()]
    if not cells:
        return "## PPO against TRL\n\nNot measured yet: `python bench/ppo.py` fills this section."
    learnt, large = wanted.learnt, wanted.large
    shown, shares = quality(found.judged)
    parts = [
        "## PPO against TRL",
        ABOUT,
        "\n".join(
            [
                f"- Command: `{command}`.",
                *common.provenance(cells),
                f"- Peer: TRL {TRL}, the last release with PPO, `trl.experimental.ppo`.",
                f"- etude: {learnt.steps} steps of {learnt.batch} answers of at most {learnt.tokens} tokens "
                f"to {learnt.prompts} prompts, minibatches of {learnt.minibatch}.",
                f"- Random Llama: width 256, {large.layers} layers, vocabulary {large.vocabulary:,}, tied; "
                f"{large.steps} steps of {large.batch} answers of {large.tokens} tokens to prompts of "
                f"{large.asked} words, minibatches of {large.minibatch}; four steps of SFT and reward.",
                f"- Both: {learnt.epochs} passes over each batch, learning rate {learnt.rate:g} falling to a "
                f"tenth, beta {learnt.beta:g}, temperature 1, gamma 1, lambda 0.95, clip 0.2, no clip of "
                "values and gradients, whitened advantages, an answer without end loses 1, AdamW with "
                "epsilon 1e-5 and no decay, float32.",
            ]
        ),
        SPEED,
        table(found.runs),
        "Ratios are of the two runs of a seed, which followed one another: medians and ranges. Bold is what "
        "meets an aim, {speed:g} times the answers per second and {memory:g} of the memory.".format(**AIMS),
        "\n".join(f"- {line}." for line in same(found)),
    ]
    if found.ways:
        parts += [WAYS_SHOWN, ways(found, large)]
    if any(found.judged.values()):
        means = [
            f"{side.name} {100 * fmean(kept):.0f} % ({100 * min(kept):.0f} to {100 * max(kept):.0f})"
            for side, kept in shares.items()
            if kept
        ]
        parts += [JUDGED.format(held=learnt.held, draws=wanted.draws, reference=wanted.reference), shown]
        parts += [f"Mean share reached, with its range: {', '.join(means)}."] if means else []
    missing = absent(found, wanted)
    if missing:
        parts.append("Not measured: " + "; ".join(missing) + ".")
    return "\n\n".join(parts)


def absent(found: Found, wanted: Plan) -> list[str]:
    """What the plan has and no cell holds."""
    seeds = len(wanted.seeds)
    parts = [f"{seeds - len(cells)} of {seeds} runs of {side.name} on {called(work)}"
             for (work, side), cells in found.runs.items() if len(cells) < seeds]  # fmt: skip
    parts += [f"the way of TRL {way!r}" for way in WAYS if way not in found.ways]
    for side, judged in found.judged.items():
        if len(judged) < seeds:
            name = "the SFT model" if side is None else side.name
            parts.append(f"{seeds - len(judged)} of {seeds} judgements of {name}")
    return parts


ABOUT = (
    "Proximal policy optimisation by `pegbox.tuning.align` and by TRL's `PPOTrainer` with PEFT: same base, "
    "SFT adapter, reward model, prompts, batches, epochs, Adam and objective. Policy and value model are "
    "LoRA of rank 8 on queries and values (and the value's head) on both sides. They start as copies of the "
    "SFT adapter and of the reward model, whose scores are told in standard deviations of the SFT model's "
    "answers. TRL has one copy of the base for policy and reference, by its `ref_adapter_name`, and one each "
    "for the reward model (adapter merged) and the value model; Pegbox has one for all four. Each run has a "
    "process of its own on one thread of one core, both sides by turns, one run for each seed."
)
SPEED = (
    "Answers per second are those of processor time (user and system) over all steps but the first and the "
    "last, and beside it by the clock, which other work on the machine disturbs: medians and ranges. Beside "
    "the steps Pegbox draws up to 256 answers of the SFT model for the reward's scale, which TRL is told, "
    "answers held-out prompts and writes a checkpoint. Memory to train is the high-water mark of resident "
    "memory in training beyond what was resident after one small step, all models gone; parameters "
    "are those that the process holds at the end, each once."
)
WAYS_SHOWN = "TRL in other ways on the random Llama, one run each, beside Pegbox's run of the same seed:"
JUDGED = (
    "etude's policies, judged by the same code on {held} held-out prompts, {draws} answers each at "
    "temperature 1. Reward is the learned one, in standard deviations, less 1 without an end; gold is the "
    "world's rule for politeness, which nothing is trained on; KL is the log-ratio of policy and SFT model, "
    "in nats per answer; ± is one standard error over prompts. The share is of the reward gain that "
    "reweighting {reference} answers of the SFT model per prompt reaches at the same KL; with few effective "
    "answers (below 50) that frontier is itself a poor estimate."
)


def main() -> None:
    """Parse, measure what is missing, write the section; or do one part for the process that asked."""
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20, help="batches of answers on etude")
    parser.add_argument("--core", type=int, default=0, help="the core that all runs are on")
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = common.parse(parser)
    if given.child:
        print(json.dumps(child(*given.child)))
        return
    wanted = plan(given.quick, given.seeds, given.steps)
    store = common.Cells(given.out / "cells", given.fresh)
    if given.render:
        found = gather(
            wanted,
            lambda *run: store.find(key("train", *run)),
            lambda *run: store.find(judge_key(*run)),
        )
    else:
        found = gather(wanted, *runners(store, given.out, given.core))
    command = f"python bench/ppo.py --steps {given.steps} --seeds {' '.join(map(str, given.seeds))}"
    common.write_section(given.page, "ppo", report(found, wanted, command))


def judge_key(work: Work, seed: int, side: Side | None, draws: int) -> dict[str, Any]:
    return key("judge", work, side, seed, draws)


def runners(store: common.Cells, folder: Path, core: int) -> tuple[Train, Judge]:
    """What trains and what judges, each unless it has been done."""
    python = common.environment(FOLDER / "environment", ["install", "-q", "-c", str(common.LIMITS), *NEEDED])

    def train(work: Work, side: Side, seed: int) -> common.Cell:
        start(folder, core, work, seed)
        found = store.get(
            key("train", work, side, seed), partial(measure, folder, python, core, work, side, seed)
        )
        shown = f"{found['processor']:.2f} answers/s, {common.mebibytes(found['grown'])} MiB"
        common.log(f"{called(work)}, seed {seed}, {side.name} {dict(side.options)}: {shown}")
        return found

    def judge(work: Work, seed: int, side: Side | None, draws: int) -> common.Cell:
        found = store.get(
            judge_key(work, seed, side, draws), partial(judged, folder, core, work, seed, side, draws)
        )
        shown = f"reward {fmean(found['reward']):+.2f}, KL {fmean(found['kl']):.2f}"
        common.log(f"{called(work)}, seed {seed}, {side.name if side else 'SFT'} judged: {shown}")
        return found

    return train, judge


if __name__ == "__main__":
    main()
