"""Reward models: the loss against a plain one, the place that is scored, scores, scale, saving, posterior."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pegbox
from pegbox.data import from_answers
from pegbox.errors import CapabilityError, InputError, RunError, UsageError
from pegbox.evaluation import RewardScores, score_rewards
from pegbox.methods import Attached, LoRA, build, methods
from pegbox.models import Base, score_layer
from pegbox.reports import scores_panel
from pegbox.tasks import Prefer, PreferPrompt
from pegbox.tuning import (
    OtherTask,
    Preferred,
    Rewarded,
    reward_scale,
    reward_scores,
    with_reward_scale,
)
from pegbox.tuning._shapes import Work
from pegbox.tuning._shapes.prefer import PreferShape
from reward_toy import preferences_of, toy_pairs, world_pairs
from tuning_toy import base_of, checksum, fit, folder_of, hush

ROWS = toy_pairs()
FAMILIES = [("llama", "causal"), ("gpt2", "causal"), ("gemma3_text", "causal"), ("bert", "encoder")]
HEART = pegbox.Training(epochs=20, batch_size=8, learning_rate=1e-2, precision="float32")


def attached(base: Base) -> tuple[Base, PreferPrompt, Any]:
    """The trunk with LoRA and a head, neither of which is zero any more."""
    headed = PreferShape().base(base, LoRA())
    prompt: Any = headed.prepare(Prefer())
    module = LoRA(rank=4).attach(headed, prompt, seed=0)
    draw = torch.Generator().manual_seed(0)
    for value in module.parameters():
        if value.requires_grad:
            value.data = 0.3 * torch.randn(value.shape, generator=draw)
    return headed, prompt, module


def alone(module: Any, prompt: PreferPrompt, ids: tuple[int, ...], types: Any = None) -> Tensor:
    """The reward of one sequence without padding, read at its end, or by the mean of an encoder."""
    inner = module.base_model.model
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if types is not None:
        inputs["token_type_ids"] = torch.tensor([types])
    hidden = inner.encoder(**inputs).last_hidden_state[0]
    pooled = hidden[-1] if prompt.writer is not None else hidden.mean(0)
    return inner.score(pooled.float())[0]


@pytest.mark.parametrize(("family", "kind"), FAMILIES)
def test_loss_and_gradients_are_those_of_bradley_and_terry(family: str, kind: str) -> None:
    base, prompt, module = attached(base_of(family, kind))
    work = Work(base, prompt, 0, "shorten", None, hush)
    (rows,) = PreferShape().trainable(work, [ROWS])
    trained = [value for value in module.parameters() if value.requires_grad]
    loss, count = rows.loss(module, rows.collate(range(len(ROWS))))
    found = torch.autograd.grad(loss, trained)
    pairs = prompt.encode_pairs(ROWS)
    types = pairs.encoded.types or [None] * len(pairs.encoded)
    rewards = [alone(module, prompt, *row) for row in zip(pairs.encoded.ids, types, strict=True)]
    wanted = sum(
        -torch.log(torch.sigmoid(one - other)) for one, other in zip(rewards[::2], rewards[1::2], strict=True)
    )
    assert isinstance(wanted, Tensor)
    assert int(count) == len(ROWS)
    # Of each pair; sums of float32 in another order.
    torch.testing.assert_close(loss / len(ROWS), wanted / len(ROWS), atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(found, torch.autograd.grad(wanted, trained), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_end_of_the_answer_is_scored_whatever_the_padding(family: str) -> None:
    base, prompt, module = attached(base_of(family))
    end = base.tokenizer.eos_token_id
    pairs = prompt.encode_pairs(ROWS)
    assert {ids[-1] for ids in pairs.encoded.ids} == {end}
    assert len(set(pairs.encoded.lengths)) > 1
    tuned = fit(base_of(family), "lora", ROWS, task=Prefer(), training=pegbox.Training(max_steps=1))
    tuned = replace(tuned, module=module)
    found = reward_scores(tuned, pairs.encoded.ids)
    with torch.no_grad():
        wanted = torch.stack([alone(module, prompt, ids) for ids in pairs.encoded.ids])
        before = torch.stack([alone(module, prompt, ids[:-1]) for ids in pairs.encoded.ids])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    # The end itself matters: a token earlier there is another reward.
    assert (wanted - before).abs().min() > 1e-4
    # Any id pads alike, that of the end of sequence too.
    for pad in (end, 5):
        tokenizer = base.tokenizer.__class__.from_pretrained(folder_of(family, "causal"))
        tokenizer.pad_token_id = pad
        other = replace(tuned, base=replace(tuned.base, tokenizer=tokenizer))
        assert other.base.pad == pad
        torch.testing.assert_close(reward_scores(other, pairs.encoded.ids), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "causal"), ("bert", "encoder"), ("roberta", "masked")]
)
def test_pairs_are_learnt_by_heart_and_saved(family: str, kind: str, tmp_path: Path) -> None:
    base = base_of(family, kind)
    before = checksum(base.model)
    tuned = fit(base, LoRA(rank=8, targets="all-linear"), ROWS, task=Prefer(), training=HEART)
    scores = tuned.evaluate(ROWS, resamples=20)
    assert scores.metrics["accuracy"].value == 1.0
    assert scores.metrics["nll"].value < 0.2
    assert checksum(base.model) == before
    folder = tuned.save(tmp_path / "out", scores=scores)
    again = pegbox.Tuned.load(folder, say=hush)
    assert torch.equal(again.logits(ROWS), tuned.logits(ROWS))
    assert reward_scale(again) == reward_scale(tuned) is not None
    saved = json.loads((folder / "scores.json").read_text())
    assert RewardScores.from_json(saved) == scores
    card = (folder / "README.md").read_text()
    for part in ("reward-model", "Against longer wins", "Rewards of the training rows", "an answer never"):
        assert part in card
    prompt = tuned.prompt
    assert isinstance(prompt, PreferPrompt)
    ids = prompt.encode_pairs(ROWS).ids(1)
    if kind == "causal":
        torch.testing.assert_close(reward_scores(again, ids), tuned.logits(ROWS)[:, 1])


@pytest.mark.parametrize("method", [name for name in methods() if name != "qlora"])
def test_every_method_that_trains_can_reward(method: str, tmp_path: Path) -> None:
    built = build(method)
    if not isinstance(built, Attached):
        pytest.skip("it does not train")
    training = pegbox.Training(max_steps=2, precision="float32")
    tuned = fit(base_of("llama"), method, ROWS, task=Prefer(), training=training)
    again = pegbox.Tuned.load(tuned.save(tmp_path / "out"), say=hush)
    torch.testing.assert_close(again.logits(ROWS), tuned.logits(ROWS), atol=1e-5, rtol=1e-5)
    assert tuned.logits(ROWS).shape == (len(ROWS), 2)
    assert tuned.module is not None
    assert score_layer(tuned.module) is not None


def test_answers_get_rewards_and_pairs_a_probability() -> None:
    tuned = fit(base_of("llama"), "lora", ROWS, task=Prefer(), training=HEART)
    rewards = tuned.logits(ROWS)
    scale = reward_scale(tuned)
    assert scale is not None
    assert scale == pytest.approx((rewards.mean().item(), rewards.std(correction=0).item()), abs=1e-5)
    assert tuned.details["reward"]["of"] == "training rows"
    single = [(list(p), a) for p, a in zip(ROWS.prompts, ROWS.chosen, strict=True)]
    found = tuned.predict(single)
    assert all(isinstance(item, Rewarded) for item in found)
    assert [item.reward for item in found] == pytest.approx(rewards[:, 0].tolist(), abs=1e-5)
    assert found[0].standard == pytest.approx((found[0].reward - scale[0]) / scale[1])
    pairs = [(list(ROWS.prompts[0]), ROWS.rejected[0], ROWS.chosen[0])]
    (pair,) = tuned.predict(pairs)
    assert isinstance(pair, Preferred)
    assert (pair.index, pair.text) == (1, ROWS.chosen[0])
    assert pair.probability == pytest.approx(1 / (1 + math.exp(pair.rewards[1] - pair.rewards[0])), abs=1e-6)
    assert pair.probability < 0.5
    (same,) = tuned.predict([("Is it good?", "yes", "yes")])
    assert (same.probability, same.index) == (0.5, 0)
    assert tuned.predict([]) == []
    with pytest.raises(InputError, match="not known which of two answers is better"):
        tuned.evaluate(from_answers(pairs))
    assert tuned.predict(ROWS)[0].index == 0


def test_rewards_can_be_scaled_anew_but_not_by_nothing() -> None:
    tuned = fit(base_of("llama"), "lora", ROWS, task=Prefer(), training=HEART)
    other = with_reward_scale(tuned, [1.0, 3.0, 5.0], "samples of a policy")
    assert reward_scale(other) == pytest.approx((3.0, math.sqrt(8 / 3)))
    assert other.details["reward"]["answers"] == 3
    assert reward_scale(tuned) != reward_scale(other)
    with pytest.raises(RunError, match="the reward is the same for all answers") as caught:
        with_reward_scale(tuned, [2.0, 2.0], "samples of a policy")
    assert "2 answers of the samples of a policy" in str(caught.value)
    assert reward_scale(replace(tuned, details={})) is None


def test_sequences_that_cannot_be_scored_are_named() -> None:
    tuned = fit(base_of("llama"), "lora", ROWS, task=Prefer(), training=pegbox.Training(max_steps=1))
    context = tuned.base.context
    with pytest.raises(InputError, match="a sequence has 0 tokens") as caught:
        reward_scores(tuned, [(1, 2), ()])
    assert "sequence 1, counted from 0" in str(caught.value)
    with pytest.raises(InputError, match=f"a sequence has {context + 1} tokens"):
        reward_scores(tuned, [(1,) * (context + 1)])
    assert reward_scores(tuned, []).shape == (0,)
    head: Any = score_layer(tuned.module)  # type: ignore[arg-type]
    for value in head.parameters():
        value.data = torch.full_like(value, math.nan)
    with pytest.raises(RunError, match="a reward is not a finite number"):
        reward_scores(tuned, [(1, 2, 3)])


def test_rows_that_do_not_fit_are_told_and_never_guessed() -> None:
    base = pegbox.load(folder_of("llama", "causal"), max_length=64)
    rows = preferences_of(
        *zip([t[0] for t in ROWS.texts], ROWS.chosen, ROWS.rejected, strict=True),
        ("Is it?", "tea " * 80, "no"),
    )
    said: list[str] = []
    training = pegbox.Training(max_steps=2, precision="float32")
    tuned = fit(base, "lora", rows, task=Prefer(), training=training, say=said.append)
    left = "toy pairs: 1 of 9 rows left out, since they do not fit into the context, answers never being cut"
    assert any(line.startswith(left) for line in said)
    assert tuned.provenance is not None
    assert any("1 of 9 rows left out" in line for line in tuned.provenance.fitting)
    assert tuned.evaluate(rows, resamples=5).rows == 8
    with pytest.raises(InputError, match="a row is longer than the context"):
        tuned.predict(rows)
    with pytest.raises(InputError, match="a row is longer than the context"):
        tuned.predict([("Is it?", "tea " * 80)])
    dropped = fit(base, "lora", rows, task=Prefer(), training=training, too_long="drop")
    assert dropped.evaluate(rows, resamples=5).rows == 8
    with pytest.raises(InputError, match="longer than the context"):
        fit(base, "lora", rows, task=Prefer(), training=training, too_long="error")


def test_what_cannot_work_is_refused_with_the_reason(tmp_path: Path) -> None:
    base = base_of("llama")
    for method in ("zero-shot", "few-shot", "closed-form"):
        with pytest.raises(CapabilityError, match=f"{method} trains no head") as caught:
            fit(base, method, ROWS, task=Prefer())
        assert "lora" in caught.value.fix
    with pytest.raises(CapabilityError, match="divides them between two"):
        fit(base_of("t5", "encoder-decoder"), "lora", ROWS, task=Prefer())
    task = Prefer().with_rows(ROWS)
    with pytest.raises(CapabilityError, match="a reward is a number"):
        pegbox.compare(base, task, folder=tmp_path / "out")
    with pytest.raises(CapabilityError, match="a reward is a number") as advised:
        pegbox.advise(base, task)
    assert "pegbox reward" in advised.value.fix
    with pytest.raises(InputError, match="not known which of two answers is better"):
        fit(base, "lora", replace(ROWS, answered=False), task=Prefer())
    with pytest.raises(UsageError, match="label words belong to classification"):
        fit(base, "lora", ROWS, task=Prefer(), label_words="auto")


def test_a_posterior_tells_how_sure_a_preference_is(tmp_path: Path) -> None:
    training = pegbox.Training(max_steps=8, learning_rate=5e-3, precision="float32")
    tuned = fit(base_of("llama"), LoRA(rank=2), ROWS, task=Prefer(), training=training)
    sure = tuned.with_posterior(ROWS, prior_precision=1.0)
    (plain, *_), (found, *_) = tuned.predict(ROWS), sure.predict(ROWS)
    assert plain.deviation is None
    assert found.deviation is not None
    assert found.deviation > 0
    # Averaged over, a probability comes nearer to a half.
    assert abs(found.probability - 0.5) < abs(plain.probability - 0.5)
    assert found.rewards == plain.rewards
    spread = sure.predictive(replace(ROWS, answered=False))
    assert spread.mean.shape == (len(ROWS), 2)
    scores, own = sure.evaluate(ROWS, resamples=5), tuned.evaluate(ROWS, resamples=5)
    assert scores.metrics["nll"].value > own.metrics["nll"].value
    assert scores.metrics["length_correlation"] == own.metrics["length_correlation"]
    again = pegbox.Tuned.load(sure.save(tmp_path / "out", scores=scores), say=hush)
    assert again.predict(ROWS)[0].probability == pytest.approx(found.probability, abs=1e-5)


def test_a_reward_of_a_base_fully_tuned_loads_without_it(tmp_path: Path) -> None:
    training = pegbox.Training(max_steps=3, precision="float32")
    tuned = fit(base_of("llama"), "full", ROWS, task=Prefer(), training=training)
    again = pegbox.Tuned.load(tuned.save(tmp_path / "out"), say=hush)
    assert again.origin is not None
    # The trunk in the folder is told from an encoder by how it was pooled.
    assert isinstance(again.prompt, PreferPrompt)
    assert again.prompt.writer is not None
    assert torch.equal(again.logits(ROWS), tuned.logits(ROWS))


def test_a_merged_reward_is_the_same(tmp_path: Path) -> None:
    training = pegbox.Training(max_steps=4, learning_rate=1e-2, precision="float32")
    tuned = fit(base_of("llama"), "lora", ROWS, task=Prefer(), training=training)
    again = pegbox.Tuned.load(tuned.merge().save(tmp_path / "out"), say=hush)
    torch.testing.assert_close(again.logits(ROWS), tuned.logits(ROWS), atol=1e-5, rtol=1e-5)
    assert reward_scale(again) == reward_scale(tuned)


def test_other_tasks_cannot_be_rewards() -> None:
    with pytest.raises(CapabilityError, match="rewards cannot be asked of a model without a head"):
        OtherTask.of(Prefer().with_rows(ROWS))


CHOSEN, REJECTED = [2.0, 0.5, 0.0, 1.0], [1.0, 1.0, 0.0, -1.0]


def test_scores_equal_those_by_hand() -> None:
    scores = score_rewards(CHOSEN, REJECTED, [10, 20, 5, 7], [4, 30, 6, 7], resamples=200)
    values = {name: estimate.value for name, estimate in scores.metrics.items()}
    # Right, wrong, a tie, right.
    assert values["accuracy"] == pytest.approx(2.5 / 4)
    assert values["mean_margin"] == pytest.approx((1 - 0.5 + 0 + 2) / 4)
    nll = [math.log(1 + math.exp(-margin)) for margin in (1, -0.5, 0, 2)]
    assert values["nll"] == pytest.approx(sum(nll) / 4)
    assert values["accuracy_longer_chosen"] == 1.0
    assert values["accuracy_shorter_chosen"] == pytest.approx(0.25)
    # The longer answer gets the higher reward in the first pair and in the second; the third ties.
    assert values["prefers_longer"] == pytest.approx(2.5 / 3)
    from scipy.stats import spearmanr

    wanted = spearmanr([*CHOSEN, *REJECTED], [10, 20, 5, 7, 4, 30, 6, 7]).statistic
    assert values["length_correlation"] == pytest.approx(wanted)
    gaps = [abs(right - 1 / (1 + math.exp(-abs(m)))) for right, m in ((1, 1), (0, -0.5), (0.5, 0), (1, 2))]
    assert values["ece"] == pytest.approx(sum(gaps) / 4)
    assert scores.counts == {"ties": 1, "chosen_longer": 1, "chosen_shorter": 2, "same_length": 1}
    baselines = {name: part.b for name, part in scores.baselines.items()}
    assert baselines == {"longer wins": 1.5 / 4, "shorter wins": 2.5 / 4, "chance": 0.5}
    assert scores.baselines["longer wins"].difference.value == pytest.approx(0.25)
    assert sum(scores.margins.counts) == 4
    assert scores.margins.edges[0] == -2.0
    assert sum(scores.reliability.histogram) == 4
    assert RewardScores.from_json(json.loads(json.dumps(scores.to_json()))) == scores
    text = str(scores)
    assert "accuracy                0.625 [" in text
    assert "against longer wins     0.375, +0.250 [" in text


def test_a_constant_reward_is_a_guess() -> None:
    scores = score_rewards([1.0] * 30, [1.0] * 30, range(1, 31), [15] * 30, resamples=50)
    assert scores.metrics["accuracy"].value == 0.5
    assert scores.metrics["nll"].value == pytest.approx(math.log(2))
    assert scores.counts["ties"] == 30
    assert math.isnan(scores.metrics["length_correlation"].value)
    assert scores.baselines["chance"].p == 1.0


def test_length_alone_is_found_out() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(10, 100, size=(200, 2))
    longer = lengths.max(1), lengths.min(1)
    scores = score_rewards(longer[0] / 20, longer[1] / 20, *longer, resamples=100)
    assert scores.metrics["prefers_longer"].value > 0.99
    assert scores.metrics["length_correlation"].value == pytest.approx(1.0)
    assert scores.baselines["longer wins"].difference.value == pytest.approx(0)
    assert scores.baselines["chance"].p < 0.01


def test_scores_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="rewards and lengths have the shapes"):
        score_rewards([1.0], [1.0, 2.0], [1], [1])
    with pytest.raises(InputError, match="have the shapes"):
        score_rewards([], [], [], [])
    with pytest.raises(InputError, match="not a finite number") as caught:
        score_rewards([1.0, math.nan], [1.0, 2.0], [1, 1], [1, 1])
    assert "pair 1, counted from 0" in str(caught.value)
    with pytest.raises(InputError, match="not a file of reward scores"):
        RewardScores.from_json({"format": "pegbox.scores/1"})
    whole = score_rewards(CHOSEN, REJECTED, [1] * 4, [2] * 4, resamples=5).to_json()
    del whole["margins"]
    with pytest.raises(InputError, match="scores lack a part"):
        RewardScores.from_json(whole)
    one = score_rewards([1.0], [0.0], [3], [2], resamples=5)
    assert math.isnan(one.metrics["nll"].low)


def test_a_reward_that_knows_lengths_alone_is_said_to_have_learnt_no_more() -> None:
    """Chosen answers are longer in 3 of 4 pairs, and rewards are lengths: nothing beats 'longer wins'."""
    dice = np.random.default_rng(0)
    first = dice.integers(5, 50, 200)
    second = np.where(np.arange(200) % 4 > 0, first - 4, first + 4)
    scores = score_rewards(first, second, first, second, resamples=200)
    assert scores.unbeaten == "longer wins"
    assert scores.verdict().startswith("Its accuracy is not surely above that of 'longer wins', 0.750")
    # Rewards that are right throughout beat 0.75 on 200 pairs.
    right = score_rewards(np.ones(200), np.zeros(200), first, second, resamples=200)
    assert right.unbeaten == ""
    assert right.verdict().startswith("It is more accurate than chance")


def test_the_panel_shows_metrics_baselines_and_margins() -> None:
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(scores_panel(score_rewards(CHOSEN, REJECTED, [1] * 4, [2] * 4, resamples=5), title="toy"))
    text = console.export_text()
    for part in ("pairs", "prefers longer", "longer wins", "chance", "margin", "+1.60 to +2.00"):
        assert part in text
    assert "not surely above" in text


@pytest.mark.slow
def test_the_worlds_politeness_is_learnt() -> None:
    rows, test = world_pairs("shop", 96, 1), world_pairs("library", 150, 2)
    assert not set(rows.texts) & set(test.texts)
    training = pegbox.Training(epochs=3, learning_rate=3e-3, batch_size=16, precision="float32")
    tuned = fit(pegbox.load("etude"), "lora", rows, task=Prefer(), training=training)
    scores = tuned.evaluate(test, resamples=200)
    assert scores.metrics["accuracy"].low > 0.6
    assert scores.baselines["longer wins"].difference.low > 0.1
    kind, rude = (
        item.reward for item in tuned.predict([("Where is it?", t) for t in ("Thank you.", "Shut up.")])
    )
    assert kind > rude
