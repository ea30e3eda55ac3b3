"""Policies from tuned models and rewards: every family, saved folders, preferences, what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pegbox
from conformance import FAMILIES
from four_bit_toy import wide_folder
from pegbox.data import Conversations, Message, Preferences, from_prompts
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.models import Base
from pegbox.rlhf import METRICS, Alignment, Batch, logprobs
from pegbox.tuning import align, dpo
from pegbox.tuning._dpo import PairedAnswers, _said, paired
from tuning_toy import base_of, checksum, hush

CAUSAL = [family for family, (_, kind) in FAMILIES.items() if kind == "causal"]
ASKED = tuple(f"What of the {thing} {index}?" for index in range(4) for thing in ("tea", "kettle", "staff"))
GENERATE = pegbox.Generate(
    columns={"instruction": "instruction", "output": "output"}, decoding=pegbox.Decoding(max_tokens=6)
)
TRAINING = pegbox.Training(epochs=1, batch_size=4, precision="float32", patience=0)
FEW = Alignment(
    steps=2, batch_size=8, minibatch_size=4, max_tokens=6, evaluate_every=1, checkpoint_every=1,
    learning_rate=1e-2,
)  # fmt: skip


def conversations() -> Conversations:
    messages = tuple((Message("user", text), Message("assistant", "It was great.")) for text in ASKED)
    return Conversations("toy", messages, (("It was great.",),) * len(ASKED), tuple(range(1, len(ASKED) + 1)))


def preferences() -> Preferences:
    prompts = tuple((Message("user", text),) for text in ASKED)
    chosen = tuple(f"It was great {index}." for index in range(len(ASKED)))
    rejected = tuple(f"bad, terrible {index}" for index in range(len(ASKED)))
    return Preferences("toy pairs", prompts, chosen, rejected, tuple(range(1, len(ASKED) + 1)))


def sft_of(base: Base, method: Any = "lora") -> pegbox.Tuned:
    return pegbox.fit(base, GENERATE, method, rows=conversations(), training=TRAINING, say=hush)


def reward_of(base: Base, **options: Any) -> pegbox.Tuned:
    task = pegbox.Prefer(**options)
    return pegbox.fit(base, task, "lora", rows=preferences(), training=TRAINING, say=hush)


def lengths(_: str, answer: str) -> float:
    return float(len(answer))


EACH = [pytest.param(name, marks=[] if name in ("llama", "gpt2") else [pytest.mark.slow]) for name in CAUSAL]


@pytest.mark.parametrize("family", EACH)
def test_a_policy_starts_as_the_tuned_model_and_leaves_all_else_as_it_is(family: str, tmp_path: Path) -> None:
    base = base_of(*FAMILIES[family])
    sft, reward = sft_of(base), reward_of(base)
    assert sft.module is not None
    assert reward.module is not None
    before = [checksum(part) for part in (base.model, sft.module, reward.module)]
    found = align(sft, reward, from_prompts(ASKED), settings=FEW, folder=tmp_path / "run", say=hush)
    first = found.history[0]
    assert first["kl"] == 0.0
    assert first["first_ratio"] == 1.0
    assert found.history[-1]["kl"] != 0.0
    assert {"win_rate_reward", "held_reward", "value_loss", "explained_variance"} <= set(found.history[-1])
    assert [checksum(part) for part in (base.model, sft.module, reward.module)] == before
    folder = found.tuned.save(tmp_path / "out")
    again = pegbox.Tuned.load(folder, say=hush)
    assert again.predict(list(ASKED)) == found.tuned.predict(list(ASKED))
    assert "alignment" in json.loads((folder / "pegbox.json").read_text())["details"]


def test_a_base_in_4_bits_carries_all_roles(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = pegbox.load(wide_folder("llama", "causal"), quantise="nf4", device="cpu")
    tuned = [
        pegbox.fit(base, task, "qlora", rows=rows, training=TRAINING, say=hush)
        for task, rows in ((GENERATE, conversations()), (pegbox.Prefer(), preferences()))
    ]
    settings = replace(FEW, max_tokens=6)
    found = align(*tuned, from_prompts(ASKED), settings=settings, folder=tmp_path / "run", say=hush)
    first, last = found.history[0], found.history[-1]
    assert (first["kl"], first["first_ratio"]) == (0.0, 1.0)
    assert last["kl"] != 0.0
    again = pegbox.Tuned.load(found.tuned.save(tmp_path / "out"), say=hush)
    assert again.base.quantise == "nf4"
    assert again.predict(list(ASKED)) == found.tuned.predict(list(ASKED))
    direct = dpo(tuned[0], preferences(), training=replace(TRAINING, learning_rate=1e-3), say=hush)
    assert direct.method.name == "qlora"


def test_rloo_needs_no_value_model_and_rewards_may_be_functions(tmp_path: Path) -> None:
    base = base_of("llama")
    settings = replace(FEW, algorithm="rloo")
    found = align(
        sft_of(base), lengths, from_prompts(ASKED), settings=settings, gold=lengths, folder=tmp_path / "run",
        say=hush,
    )  # fmt: skip
    assert "value_loss" not in found.history[-1]
    assert {"gold", "held_gold", "win_rate_gold"} <= set(found.history[-1])
    lines = (tmp_path / "run" / METRICS).read_text().splitlines()
    assert len(lines) == 2


def test_a_fully_tuned_model_is_its_own_base_and_reference(tmp_path: Path) -> None:
    base = base_of("llama")
    folder = sft_of(base, "full").save(tmp_path / "sft")
    found = align(folder, lengths, from_prompts(ASKED), settings=FEW, folder=tmp_path / "run", say=hush)
    assert found.history[0]["kl"] == 0.0
    assert found.tuned.method.name == "lora"
    with pytest.raises(CapabilityError, match="another copy"):
        align(
            sft_of(base, "full"), lengths, from_prompts(ASKED), settings=FEW, folder=tmp_path / "x", say=hush
        )


def test_rules_in_a_file_and_functions_by_name_are_rewards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pegbox.tuning._reward_of import reward_of as found

    base, rows = base_of("llama"), Any
    rules = tmp_path / "rules.json"
    rules.write_text('{"rules": [{"pattern": "thank", "weight": 2}, {"pattern": "^no", "weight": -1}]}')
    reward, model, name = found(rules, base, None)
    assert model is None
    assert name == "rules.json"
    answers = ["Thank you.", "No, thanks.", "maybe"]
    assert reward(rows, ["", "", ""], answers).tolist() == [2.0, 1.0, 0.0]  # type: ignore[arg-type]
    (tmp_path / "mine.py").write_text("def short(prompt, answer):\n    return -len(answer)\n")
    monkeypatch.chdir(tmp_path)
    assert found("mine:short", base, None)[0](rows, ["a"], ["bc"]).tolist() == [-2.0]  # type: ignore[arg-type]
    for wrong in ("mine:long", "nothere:short", "folder-that-is-not"):
        with pytest.raises(UsageError, match="reward"):
            found(wrong, base, None)
    rules.write_text('{"rules": [{"pattern": "(", "weight": 1}]}')
    with pytest.raises(InputError, match="no file of rules"):
        found(rules, base, None)


def test_rewards_of_other_bases_and_chats_are_refused(tmp_path: Path) -> None:
    base = base_of("llama")
    sft = sft_of(base)
    other = reward_of(base_of("llama", seed=1))
    with pytest.raises(InputError, match="another base"):
        align(sft, other, from_prompts(ASKED), settings=FEW, folder=tmp_path / "a", say=hush)
    with pytest.raises(InputError, match="another way"):
        align(
            sft,
            reward_of(base, chat="none"),
            from_prompts(ASKED),
            settings=FEW,
            folder=tmp_path / "b",
            say=hush,
        )
    with pytest.raises(UsageError, match="gives no rewards"):
        align(sft, sft, from_prompts(ASKED), settings=FEW, folder=tmp_path / "c", say=hush)
    with pytest.raises(CapabilityError, match="token by token"):
        align(other, lengths, from_prompts(ASKED), settings=FEW, folder=tmp_path / "d", say=hush)
    assert not any((tmp_path / name).exists() for name in "abcd")


def test_prompts_that_leave_no_room_are_refused_or_shortened_and_told(tmp_path: Path) -> None:
    base = base_of("llama")
    with pytest.raises(UsageError, match="no room"):
        align(
            sft_of(base), lengths, from_prompts(ASKED), settings=replace(FEW, max_tokens=300),
            folder=tmp_path / "a", say=hush,
        )  # fmt: skip
    said: list[str] = []
    long = "The kettle was great and the tea was hot. " * 40
    align(
        sft_of(base), lengths, from_prompts([*ASKED, long]), settings=replace(FEW, steps=1),
        held=from_prompts(ASKED[:2]), folder=tmp_path / "b", say=said.append,
    )  # fmt: skip
    assert any("1 of 13 prompts shortened" in line for line in said)


# Preferences without a reward model


def test_equal_held_out_prompts_are_asked_once_and_those_learnt_on_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    options: dict[str, Any] = {"settings": replace(FEW, steps=1, algorithm="rloo"), "say": said.append}
    held = from_prompts([*ASKED[:2], "What of the moon?", ASKED[0]])
    sft = sft_of(base_of(*FAMILIES["llama"]))
    found = align(sft, lengths, from_prompts(ASKED[:6]), held=held, folder=tmp_path / "run", **options)
    assert list(found.aligner.held.texts) == [*ASKED[:2], "What of the moon?"]
    assert "prompts given in memory: 1 of 4 held-out prompts equal another and are left out (row 4)" in said
    assert "warning: 2 of 3 held-out prompts are learnt on too" in said
    scores = pegbox.tuning.judge(found.tuned, sft, lengths, held, say=said.append, resamples=10)
    assert scores.rows == 3


def test_pairs_are_read_as_the_policy_writes_them() -> None:
    base = base_of("llama")
    sft = sft_of(base)
    prompt: Any = sft.prompt
    chosen, rejected = paired(prompt, preferences(), "shorten", hush)
    assert chosen.prompts == rejected.prompts
    asked, _ = prompt.ask(from_prompts(ASKED), room=250)
    assert list(chosen.prompts) == asked
    end = base.tokenizer.eos_token_id
    for side, texts in ((chosen, preferences().chosen), (rejected, preferences().rejected)):
        for answer, text in zip(side.answers, texts, strict=True):
            assert answer[-1] == end
            assert base.tokenizer.decode(answer[:-1]).strip() == text


def test_the_loss_of_pairs_is_the_published_one() -> None:
    base = base_of("llama")
    sft = sft_of(base)
    prompt: Any = sft.prompt
    chosen, rejected = paired(prompt, preferences(), "shorten", hush)
    assert sft.module is not None
    known = torch.stack([_said(sft.module, base, side) for side in (chosen, rejected)], dim=1)
    rows = PairedAnswers(base, chosen, rejected, 0.3, known)
    batch = rows.collate(range(len(rows)))
    loss, count = rows.loss(sft.module, batch)
    assert int(count) == len(rows)
    # Against itself every margin is 0.
    assert float(loss.detach()) == pytest.approx(len(rows) * 0.6931472, rel=1e-4)
    with torch.no_grad():
        said = [
            logprobs(base.model, Batch.of(side, base.pad, base.device)).sum(1) for side in (chosen, rejected)
        ]
    margin = 0.3 * ((said[0] - known[:, 0]) - (said[1] - known[:, 1]))
    loss, _ = rows.loss(base.model, batch)
    assert float(loss.detach()) == pytest.approx(float(-margin.sigmoid().log().sum()), rel=1e-4)


def test_preferred_answers_become_more_probable(tmp_path: Path) -> None:
    base = base_of("llama")
    sft = sft_of(base)
    assert sft.module is not None
    before = checksum(sft.module)
    training = replace(TRAINING, epochs=8, learning_rate=5e-3)
    tuned = dpo(sft, preferences(), training=training, say=hush)
    assert tuned.module is not None
    prompt: Any = sft.prompt
    sides = paired(prompt, preferences(), "shorten", hush)
    gained = [_said(tuned.module, base, side) - _said(sft.module, base, side) for side in sides]
    assert ((gained[0] - gained[1]) > 0).float().mean() > 0.9
    assert checksum(sft.module) == before
    again = pegbox.Tuned.load(tuned.save(tmp_path / "out"), say=hush)
    assert again.predict(list(ASKED)) == tuned.predict(list(ASKED))


@pytest.mark.parametrize("beta", [0, -1, True, "a"])
def test_a_weight_of_the_divergence_must_be_above_0(beta: Any) -> None:
    with pytest.raises(UsageError, match="beta"):
        dpo(sft_of(base_of("llama")), preferences(), beta=beta, say=hush)
