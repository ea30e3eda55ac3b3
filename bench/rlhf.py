"""The three stages on etude: polite replies by PPO, RLOO and DPO, and what too little beta does.

python bench/rlhf.py             measure what is missing, then write the section
python bench/rlhf.py --render    only write the section from what is there
python bench/rlhf.py --quick     a smoke run into a folder of its own

The embedded world's replies to messages are polite or rude, and the world knows how polite any text is: that
is the gold reward, which nothing is trained on. The reward model sees pairs only.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _common as common

if TYPE_CHECKING:
    from pegbox import Base, Tuned
    from pegbox.data import Conversations, Preferences

FOLDER = common.RUNS / "bench" / "rlhf"
PAGE = common.ROOT / "docs" / "results.md"
SEEDS = (0, 1, 2)
DOMAINS = ("shop", "office", "neighbours", "library")
ANSWERS, PAIRS, PROMPTS = 600, 500, 320
HELD, MOST = 48, 48
# A reward model from few pairs, a weight of the divergence that hardly holds the policy back, and a rule as
# one might write it at first, which counts each polite word as often as it occurs.
STEPS, TOO_FEW, TOO_LITTLE = 40, 40, 0.002
POLITE = re.compile("please|thank|sorry|kind|welcome|happy|pleasure|appreciate")
MODELS = ("etude", "minilm")
JUDGED = {"draws": 128, "prompts": 8}


@cache
def replies(rows: int, seed: int) -> list[Any]:
    """Replies of all domains that etude was raised in, in turn."""
    from pegbox.models.etude import world

    parts = [world.replies(domain, rows // len(DOMAINS), seed) for domain in DOMAINS]
    return [one for row in zip(*parts, strict=True) for one in row]


@cache
def held(seed: int) -> frozenset[str]:
    """Messages that no stage sees; the world knows fewer than 150."""
    return frozenset(random.Random(seed).sample(sorted({one.message for one in replies(4096, 0)}), HELD))


def seen(rows: int, seed: int, without: int) -> list[Any]:
    """Replies to all other messages than those that the seed ``without`` holds back."""
    return [one for one in replies(2 * rows, seed) if one.message not in held(without)][:rows]


def gold(_: str, answer: str) -> float:
    """How polite an answer is, by the world's own rule."""
    from pegbox.models.etude import world

    return float(world.politeness(answer))


def polite_words(_: str, answer: str) -> float:
    return float(len(POLITE.findall(answer.lower())))


def pairs(seed: int, without: int, count: int = PAIRS) -> Preferences:
    """Pairs of replies to a message of the same domain, the more polite one chosen; ties left out."""
    from pegbox.data import Message, Preferences

    dice, rows = random.Random(seed), seen(4 * PAIRS, 1000 + seed, without)
    found: list[tuple[str, str, str]] = []
    by_domain = {domain: [one for one in rows if one.domain == domain] for domain in DOMAINS}
    for one in rows:
        other = dice.choice(by_domain[one.domain])
        first, second = gold("", one.reply), gold("", other.reply)
        if first != second and len(found) < count:
            better = (one.reply, other.reply) if first > second else (other.reply, one.reply)
            found.append((one.message, *better))
    prompts = tuple((Message("user", asked),) for asked, _, _ in found)
    chosen, rejected = (tuple(row[at] for row in found) for at in (1, 2))
    return Preferences("pairs of replies", prompts, chosen, rejected, tuple(range(1, len(found) + 1)))


def answered(rows: list[Any]) -> Conversations:
    """Messages with their replies."""
    from pegbox.data import Conversations, Message

    messages = tuple((Message("user", one.message), Message("assistant", one.reply)) for one in rows)
    references = tuple((one.reply,) for one in rows)
    return Conversations("replies", messages, references, tuple(range(1, len(rows) + 1)))


@cache
def base() -> Base:
    """Etude."""
    import pegbox

    return pegbox.load("etude")


@cache
def sft(seed: int) -> Tuned:
    """The first stage: replies as they are, polite and rude."""
    import pegbox

    task = pegbox.Generate(
        format="input",
        columns={"input": "message", "output": "reply"},
        chat="plain",
        decoding=pegbox.Decoding(max_tokens=48),
    )
    training = pegbox.Training(epochs=2)
    rows = answered(seen(ANSWERS, 2000 + seed, seed))
    return pegbox.fit(base(), task, "lora", rows=rows, training=training, seed=seed, say=common.hush)


@cache
def reward(seed: int, count: int = PAIRS) -> Tuned:
    """The second stage: a reward model from pairs."""
    import pegbox

    task, training = pegbox.Prefer(chat="plain"), pegbox.Training(epochs=3)
    rows = pairs(seed, seed, count)
    return pegbox.fit(base(), task, "lora", rows=rows, training=training, seed=seed, say=common.hush)


def rewarded(seed: int) -> common.Cell:
    """How good the reward model is on pairs of another seed."""
    scores = reward(seed).evaluate(pairs(seed + 100, seed), resamples=500)
    return {"scores": scores.to_json()}


def aligned(
    algorithm: str,
    seed: int,
    steps: int,
    beta: float,
    count: int = PAIRS,
    rule: Callable[[str, str], float] | None = None,
    **options: Any,
) -> common.Cell:
    """One policy: its course, and how it is judged; ``rule`` takes the place of the reward model."""
    from pegbox.data import from_prompts
    from pegbox.rlhf import Alignment
    from pegbox.tuning import align

    settings = Alignment(
        algorithm=algorithm,  # type: ignore[arg-type]
        steps=steps,
        beta=beta,
        max_tokens=MOST,
        seed=seed,
        checkpoint_every=steps,
        **options,
    )
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        found = align(
            sft(seed),
            rule or reward(seed, count),
            from_prompts([one.message for one in seen(PROMPTS, 3000 + seed, seed)]),
            held=from_prompts(sorted(held(seed))),
            settings=settings,
            gold=gold,
            folder=Path(folder) / "run",
            say=said.append,
        )
        scores = found.judge(**JUDGED)
    return {
        "scores": scores.to_json(),
        "seconds": sum(step["seconds"] for step in found.history),
        "history": found.history,
        "samples": list(found.samples),
        "warnings": [line for line in said if line.startswith("warning")],
    }


def direct(seed: int) -> common.Cell:
    """DPO on the pairs that the reward model learnt from, judged in the same way."""
    import pegbox
    from pegbox.data import from_prompts
    from pegbox.tuning import dpo, judge

    tuned = dpo(sft(seed), pairs(seed, seed), training=pegbox.Training(epochs=3), seed=seed, say=common.hush)
    scores = judge(
        tuned,
        sft(seed),
        reward(seed),
        from_prompts(sorted(held(seed))),
        gold=gold,
        max_tokens=MOST,
        draws=JUDGED["draws"],
        frontier_prompts=JUDGED["prompts"],
        seed=seed,
        say=common.hush,
    )
    return {"scores": scores.to_json(), "seconds": tuned.cost.seconds}


def harmless(model: str) -> common.Cell:
    """How well a reward model tells people's own preferences, one seed, on pairs it was not tuned on."""
    import pegbox

    folder = common.DATA / "hh_harmless"
    task, valid, test = (
        pegbox.Prefer.from_file(folder / f"{part}.jsonl", chat="none") for part in ("train", "valid", "test")
    )
    tuned = pegbox.fit(
        pegbox.load(common.model_path(model), dtype="float32"),
        task,
        "lora",
        valid=valid.rows,
        training=pegbox.Training(epochs=3),
        seed=0,
        say=common.hush,
    )
    assert test.rows is not None
    return {"scores": tuned.evaluate(test.rows).to_json(), "seconds": tuned.cost.seconds}


def plans(arguments: argparse.Namespace) -> list[tuple[dict[str, Any], Any]]:
    """Keys of cells and what measures them."""
    found: list[tuple[dict[str, Any], Any]] = []
    for seed in arguments.seeds:
        own = {"seed": seed, "held": HELD}
        found.append(({"part": "reward", **own}, partial(rewarded, seed)))
        for algorithm in ("ppo", "rloo"):
            key = {"part": algorithm, **own, "steps": arguments.steps, "beta": 0.1}
            found.append((key, partial(aligned, algorithm, seed, arguments.steps, 0.1)))
        found.append(({"part": "dpo", **own}, partial(direct, seed)))
    if not arguments.quick and (common.DATA / "hh_harmless").is_dir():
        for model in MODELS:
            found.append(({"part": "hh_harmless", "model": model}, partial(harmless, model)))
    long = 3 * arguments.steps
    key = {"part": "ppo", "seed": 0, "held": HELD, "steps": long, "beta": TOO_LITTLE, "pairs": TOO_FEW}
    few = partial(aligned, "ppo", 0, long, TOO_LITTLE, TOO_FEW, held_draws=4)
    found.append(({**key, "draws": 4}, few))
    found.append((counting(arguments.steps), partial(counted, arguments.steps)))
    return found


def counting(steps: int) -> dict[str, Any]:
    """The key of `counted`."""
    told = {"steps": steps * 3 // 2, "beta": TOO_LITTLE, "rate": 1e-3, "rule": POLITE.pattern}
    return {"part": "ppo", "seed": 0, "held": HELD, **told}


def counted(steps: int) -> common.Cell:
    """What becomes of a policy that a rule rewards for each polite word."""
    key = counting(steps)
    options: dict[str, Any] = {"learning_rate": key["rate"], "held_draws": 4, "evaluate_every": 6}
    return aligned("ppo", 0, key["steps"], key["beta"], rule=polite_words, **options)


def wanted(key: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Whether a cell shall be measured in this call; the section tells of all that there are."""
    if arguments.render or key.get("model", arguments.model[0]) not in arguments.model:
        return False
    return key["part"] == "hh_harmless" or not arguments.people


def report(cells: common.Cells, arguments: argparse.Namespace) -> str:
    """The section in Markdown."""
    from pegbox.evaluation import PolicyScores

    known = [(key, cell) for key, _ in plans(arguments) if (cell := cells.find(key)) is not None]
    if not known:
        return "## Rewards and policies\n\nNot measured yet: `python bench/rlhf.py` fills this section."
    lines = []
    for key, cell in known:
        if key["part"] in ("reward", "hh_harmless"):
            continue
        scores = PolicyScores.from_json(cell["scores"])
        told, learned, reach = scores.rewards["gold"], scores.rewards["reward"], scores.reach
        assert reach is not None
        share = "outside" if reach.share.value != reach.share.value else str(reach.share)
        lines.append(
            [
                _called(key),
                f"{told.before.value:+.2f}",
                f"{told.after.value:+.2f}",
                str(told.wins),
                f"{learned.after.value:+.2f}",
                str(scores.divergence),
                f"{share} ({reach.answers:.0f})",
                f"{cell['seconds']:.0f}",
            ]
        )
    header = ["", "gold before", "after", "wins by gold", "reward after", "KL, nats", "share reached", "s"]
    accuracies = [
        cell["scores"]["metrics"]["accuracy"]["value"] for key, cell in known if key["part"] == "reward"
    ]
    warned = [
        f"{_called(key)}: {line.removeprefix('warning: ')}"
        for key, cell in known
        for line in cell.get("warnings", ())
    ]
    missing = len(plans(arguments)) - len(known)
    parts = [
        "Replies of the embedded world to messages, polite and rude; the gold reward is the world's own "
        f"rule for politeness, on which nothing is trained. SFT on {ANSWERS} replies, a reward model from "
        f"{PAIRS} pairs (accuracy on pairs of other rows "
        f"{', '.join(f'{value:.2f}' for value in accuracies)}), then {arguments.steps} steps of 64 answers "
        f"at beta 0.1; DPO takes 3 epochs of the pairs. All are judged on {HELD} messages that no "
        "stage saw, three answers of each model drawn to each: gold before and after, wins over the SFT "
        "model's answer with a tie counted half, the learned reward after in standard deviations of the SFT "
        "model's own, the divergence from that model. The share is of the learned reward reachable at that "
        f"divergence by reweighting {JUDGED['draws']} of the SFT model's own answers to each of "
        f"{JUDGED['prompts']} of the messages, in parentheses how many answers have weight there: below 50 "
        "the frontier is itself a poor estimate.",
        "\n".join(["- Command: `python bench/rlhf.py`.", *common.provenance([cell for _, cell in known])]),
        common.markdown(header, lines),
    ]
    for key, cell in known:
        parts += _overdone(cell) if "rule" in key else []
    parts += _people([(key["model"], cell) for key, cell in known if key["part"] == "hh_harmless"])
    if missing:
        parts.append(f"{missing} of {len(plans(arguments))} fits are not measured yet.")
    if warned:
        parts.append(
            "Warnings that were given:\n\n" + "\n".join(f"- {line}" for line in dict.fromkeys(warned))
        )
    samples: list[dict[str, str]] = next((cell["samples"] for key, cell in known if key["part"] == "ppo"), [])
    shown = [[one["prompt"], one["before"], one["after"]] for one in samples]
    if shown:
        parts.append(
            "Greedy answers of the first PPO policy:\n\n" + common.markdown(["", "SFT", "PPO"], shown)
        )
    return "## Rewards and policies\n\n" + "\n\n".join(parts)


def _called(key: dict[str, Any]) -> str:
    """A run in a few words."""
    by = f"{key['pairs']} pairs" if "pairs" in key else "words counted" if "rule" in key else ""
    few = f", beta {key['beta']:g}, {key['steps']} steps, {by}" if by else ""
    return f"{key['part']}, seed {key['seed']}{few}"


def _overdone(cell: common.Cell) -> list[str]:
    """The course of the policy that is rewarded by the rule."""
    measured = [one for one in cell["history"] if "held_gold" in one]
    lines = [
        [
            str(one["step"]),
            f"{one['kl']:.0f}",
            *(f"{one[f'held_{name}']:.2f} ± {one[f'held_{name}_error']:.2f}" for name in ("reward", "gold")),
            f"{one['length']:.0f}",
        ]
        for one in measured
    ]
    answer = cell["samples"][0]
    return [
        "Over-optimisation: the policy is rewarded by a rule that counts polite words "
        f"(`{POLITE.pattern.replace('|', ', ')}`), each as often as it occurs, at beta {TOO_LITTLE:g} and a "
        "learning rate of 0.001. The gold reward counts each expression once. Rewards on the held-out "
        "messages, four answers to each, ± is one standard error over messages; the rule's is in standard "
        "deviations of its values on the SFT model's answers:",
        common.markdown(["step", "KL, nats", "the rule's reward", "gold", "tokens"], lines),
        f'Its answer to "{answer["prompt"]}" at the end: "{answer["after"]}"',
    ]


def _people(known: list[tuple[str, common.Cell]]) -> list[str]:
    """Accuracy on people's preferences beside simple baselines on the same pairs."""
    from pegbox.evaluation import RewardScores

    rows = []
    for model, cell in known:
        scores = RewardScores.from_json(cell["scores"])
        against = [f"{part.b:.3f}: {part}" for part in scores.baselines.values()]
        rows.append([common.model_name(model), str(scores.metrics["accuracy"]), *against])
    if not rows:
        return []
    header = ["reward model", "accuracy", "against longer wins", "shorter wins", "chance"]
    told = (
        "Preferences of people (hh_harmless, 1,703 pairs to learn from, 500 others to measure on, prompt and "
        "answer as they stand, LoRA, three epochs with early stopping, one seed): accuracy with its "
        "interval, and the paired difference from simple rules on the same pairs."
    )
    return [told, common.markdown(header, rows)]


def main() -> None:
    """Parse, measure what is missing, write the section."""
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS), help="of the rewards")
    parser.add_argument("--people", action="store_true", help="only people's preferences")
    parser.add_argument("--threads", type=int, default=1)
    common.add_options(parser, FOLDER, PAGE, flags=("fresh", "render", "quick"))
    arguments = common.parse(parser)
    if arguments.quick:
        arguments.seeds, arguments.steps = [0], 2
        JUDGED.update(draws=4, prompts=2)
    cells = common.Cells(arguments.out, arguments.fresh)
    for key, make in plans(arguments):
        if not wanted(key, arguments):
            continue
        with common.threads(arguments.threads):
            cells.get(key, make)
        common.log(f"{key}: done")
    common.write_section(arguments.page, "rlhf", report(cells, arguments))


if __name__ == "__main__":
    main()
