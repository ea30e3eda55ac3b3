"""RLHF in three stages: answers to imitate, pairs to learn a reward from, and a policy that is rewarded.

    python examples/three_stages.py

The replies of etude's world are polite or rude, and the world knows how polite any text is: that is the gold
reward, which shows whether the learned one can be trusted. With your own data: jsonl with prompts and
answers, and jsonl with prompt, chosen and rejected.
"""

import json
import random
import tempfile
from pathlib import Path

import pegbox
from pegbox.models.etude import world
from pegbox.rlhf import Alignment
from pegbox.tuning import align

ANSWERS, PAIRS, STEPS = 200, 200, 16


def gold(_: str, answer: str) -> float:
    """How polite an answer is, by the world's own rule."""
    return float(world.politeness(answer))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def pairs(count: int, seed: int) -> list[dict[str, str]]:
    """Two replies to a message, the more polite one chosen."""
    dice, replies = random.Random(seed), world.replies("shop", 2 * count, seed=seed)
    found = []
    for one in replies:
        good, bad = sorted((one.reply, dice.choice(replies).reply), key=world.politeness, reverse=True)
        if world.politeness(good) > world.politeness(bad):
            found.append({"prompt": one.message, "chosen": good, "rejected": bad})
    return found[:count]


def hush(line: str) -> None:
    """Leave out what is said on the way."""


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pegbox-rlhf-"))
    replies = world.replies("shop", ANSWERS, seed=1)
    write(folder / "answers.jsonl", [{"input": row.message, "target": row.reply} for row in replies])
    write(folder / "pairs.jsonl", pairs(PAIRS, seed=2))
    write(folder / "other-pairs.jsonl", pairs(PAIRS, seed=3))
    base = pegbox.load("etude")

    # 1. A model that answers.
    sft = pegbox.fit(
        base, pegbox.Generate.from_file(folder / "answers.jsonl"), "lora",
        training=pegbox.Training(epochs=3), say=hush,
    )  # fmt: skip

    # 2. A reward from pairs. It must beat "the longer one wins", or it has learnt nothing.
    reward = pegbox.fit(
        base, pegbox.Prefer.from_file(folder / "pairs.jsonl"), "lora",
        training=pegbox.Training(epochs=3), say=hush,
    )  # fmt: skip
    print(reward.evaluate(folder / "other-pairs.jsonl"))

    # 3. A policy on the same copy of the base, held to the first model by beta.
    settings = Alignment(
        steps=STEPS, batch_size=32, minibatch_size=16, max_tokens=32, learning_rate=1e-3, evaluate_every=STEPS
    )
    aligned = align(
        sft, reward, folder / "answers.jsonl", settings=settings, gold=gold, folder=folder / "policy-run"
    )
    print(aligned.judge())
    for sample in aligned.samples[:2]:
        print(f"prompt: {sample['prompt']}\n  before: {sample['before']}\n  after:  {sample['after']}")
    aligned.tuned.save(folder / "policy")
    print(f"data and the policy are in {folder}")


if __name__ == "__main__":
    main()
