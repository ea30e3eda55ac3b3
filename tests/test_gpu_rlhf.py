"""Writing, rewards and policies on a GPU: a CPU's in float32, near them in bfloat16, and in 4 bits.

PEGBOX_TEST_PLACE=cpu runs the same checks on a CPU, to work on them.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import pegbox
from gpu_toy import DTYPES, MARKS, PLACE, Killed, adapter, base_on, distance, no_tensor_elsewhere
from pegbox.data import from_prompts
from pegbox.rlhf import METRICS
from pegbox.tuning import align, dpo, judge
from test_tuning_align import (
    ASKED,
    FEW,
    GENERATE,
    TRAINING,
    conversations,
    lengths,
    preferences,
)
from tuning_toy import checksum, hush

pytestmark = MARKS
LONGER = replace(TRAINING, epochs=6, learning_rate=5e-3)


@cache
def writer(family: str, dtype: Any, quantise: Any = None) -> pegbox.Tuned:
    base = base_on(family, dtype, quantise=quantise)
    method = "qlora" if quantise else "lora"
    return pegbox.fit(base, GENERATE, method, rows=conversations(), training=LONGER, say=hush)


@cache
def judged_by(family: str, dtype: Any, quantise: Any = None) -> pegbox.Tuned:
    base = base_on(family, dtype, quantise=quantise)
    method = "qlora" if quantise else "lora"
    return pegbox.fit(base, pegbox.Prefer(), method, rows=preferences(), training=LONGER, say=hush)


def said(tuned: pegbox.Tuned) -> list[str]:
    return [str(answer) for answer in tuned.predict(list(ASKED))]


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_greedy_answers_are_those_of_a_cpu(family: str, tmp_path: Path) -> None:
    tuned = writer(family, "float32")
    here = pegbox.Tuned.load(tuned.save(tmp_path / "out"), device="cpu", dtype="float32", say=hush)
    assert said(tuned) == said(here)
    assert no_tensor_elsewhere(tuned.module) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "dtype"), [("llama", "float32"), ("bert-encoder", "float32"), ("gpt2", "bfloat16")]
)
def test_rewards_are_those_of_a_cpu(family: str, dtype: str, tmp_path: Path) -> None:
    tuned = judged_by(family, dtype)
    here = pegbox.Tuned.load(tuned.save(tmp_path / "out"), device="cpu", dtype="float32", say=hush)
    close = 1e-3 if dtype == "float32" else 0.15
    found, wanted = (one.logits(preferences()).float().cpu() for one in (tuned, here))
    torch.testing.assert_close(found, wanted, rtol=close, atol=close)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_policy_starts_as_the_tuned_model_and_moves(algorithm: Any, dtype: str, tmp_path: Path) -> None:
    sft, reward = writer("llama", dtype), judged_by("llama", dtype)
    before = [checksum(part) for part in (sft.base.model, sft.module, reward.module)]  # type: ignore[arg-type]
    settings = replace(FEW, algorithm=algorithm)
    found = align(sft, reward, from_prompts(ASKED), settings=settings, folder=tmp_path / "run", say=hush)
    first, last = found.history[0], found.history[-1]
    # Products of bfloat16 numbers may be summed in another order in a batch of another shape.
    assert first["kl"] == pytest.approx(0.0, abs=1e-6 if dtype == "float32" else 0.05)
    assert first["first_ratio"] == pytest.approx(1.0, abs=1e-5 if dtype == "float32" else 0.05)
    assert last["kl"] != 0.0
    assert [checksum(part) for part in (sft.base.model, sft.module, reward.module)] == before  # type: ignore[arg-type]
    again = pegbox.Tuned.load(found.tuned.save(tmp_path / "out"), device=PLACE, dtype=dtype, say=hush)
    assert said(again) == said(found.tuned)


def test_a_base_in_4_bits_carries_all_roles(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    sft, reward = writer("llama", "bfloat16", "nf4"), judged_by("llama", "bfloat16", "nf4")
    found = align(sft, reward, from_prompts(ASKED), settings=FEW, folder=tmp_path / "run", say=hush)
    assert found.history[0]["kl"] == pytest.approx(0.0, abs=0.05)
    assert found.history[-1]["kl"] != 0.0
    direct = dpo(sft, preferences(), training=replace(TRAINING, learning_rate=1e-3), say=hush)
    assert direct.method.name == "qlora"


def test_a_killed_run_goes_on_to_the_same_policy(tmp_path: Path) -> None:
    sft, settings = writer("llama", "float32"), replace(FEW, steps=4, algorithm="rloo")
    calls = [0]
    dying = [False]

    def reward(prompt: str, answer: str) -> float:
        calls[0] += 1
        if dying[0] and calls[0] > 20:
            raise Killed()
        return lengths(prompt, answer)

    def run(name: str, *, resume: bool = False) -> Any:
        calls[0] = 0
        folder = tmp_path / name
        return align(
            sft, reward, from_prompts(ASKED), settings=settings, folder=folder, resume=resume, say=hush
        )

    whole, twice = (adapter(run(name).tuned) for name in ("whole", "twice"))
    dying[0] = True
    with pytest.raises(Killed):
        run("killed")
    dying[0] = False
    found = run("killed", resume=True)
    assert len((tmp_path / "killed" / METRICS).read_text().splitlines()) == 4
    apart = distance(whole, twice)
    assert distance(adapter(found.tuned), whole) <= (0.0 if apart == 0 else 10 * apart + 1e-5)


def test_pairs_alone_move_a_policy_as_on_a_cpu(tmp_path: Path) -> None:
    training = replace(TRAINING, epochs=4, learning_rate=5e-3)
    sft = writer("llama", "float32")
    here = pegbox.Tuned.load(sft.save(tmp_path / "sft"), device="cpu", dtype="float32", say=hush)
    found, wanted = (dpo(start, preferences(), training=training, say=hush) for start in (sft, here))
    near = [{name: value.cpu() for name, value in adapter(one).items()} for one in (found, wanted)]
    moved = distance({name: value.cpu() for name, value in adapter(sft).items()}, near[0])
    assert moved > 0
    assert distance(*near) < 0.05 * moved


def test_a_policy_is_judged() -> None:
    sft, reward = writer("llama", "bfloat16"), judged_by("llama", "bfloat16")
    tuned = dpo(sft, preferences(), training=TRAINING, say=hush)
    scores = judge(
        tuned, sft, reward, from_prompts(ASKED), gold=lengths, max_tokens=6, draws=8, frontier_prompts=2,
        say=hush,
    )  # fmt: skip
    assert scores.reach is not None
    assert {"reward", "gold"} <= set(scores.rewards)
