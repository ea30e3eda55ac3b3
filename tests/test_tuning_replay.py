"""Replay in a fit: what text is read, what is remembered, what is refused, and resuming."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pegbox
from pegbox.data import GeneralText
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import LoRA
from pegbox.models import LanguageRows
from pegbox.tasks import Choose
from pegbox.tuning._general import MEASURED, SIZE, world_text
from pegbox.tuning._replay import read_replay
from tiny import TEXT
from tuning_toy import base_of, fit, hush, rows_of, task_of

TRAINING = pegbox.Training(epochs=2, batch_size=8, precision="float32", patience=0)


class Killed(BaseException):
    """Stands for a signal that nobody handles."""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "general.txt"
    words = " ".join(TEXT[:4]).split()
    file.write_text("\n\n".join(" ".join(words[at : at + 9]) for at in range(40)), "utf-8")
    return file


def tuned(method: Any, plan: pegbox.Replay | None, kind: str = "causal", **options: Any) -> pegbox.Tuned:
    base = base_of("llama" if kind == "causal" else "bert", kind)
    return fit(base, method, rows_of(40), **{"training": TRAINING, "replay": plan, **options})


def adapter(model: pegbox.Tuned) -> dict[str, torch.Tensor]:
    assert model.module is not None
    return {name: value for name, value in model.module.named_parameters() if "lora_" in name}


def same(first: pegbox.Tuned, second: pegbox.Tuned) -> bool:
    left, right = adapter(first), adapter(second)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("kind", ["causal", "masked"])
@pytest.mark.parametrize("method", ["lora", "full", "soft-prompt", "prefix"])
def test_every_kind_of_method_replays_and_remembers_what_it_read(text: Path, kind: str, method: str) -> None:
    told: list[str] = []
    found = tuned(method, pegbox.Replay(text, 0.25), kind, say=told.append)
    history, kept = found.details["history"], found.details["replay"]
    # 34 of 40 rows in 5 steps an epoch: 6.8 rows a step, and a third as many windows.
    assert history["replayed"] == int(10 * 6.8 / 3)
    assert (kept["source"], kept["ratio"], kept["windows"]) == (text.name, 0.25, history["replayed"])
    assert 0 < len(kept["documents"]) <= history["replayed"]
    assert any(line.startswith(f"replay: {text}: 40 documents") for line in told)


def test_a_high_share_keeps_the_language_that_full_fine_tuning_loses(text: Path) -> None:
    training = replace(TRAINING, epochs=4, learning_rate=2e-2)
    rows = LanguageRows(base_of("llama"), text.read_text("utf-8").split("\n\n"))
    losses = {}
    for share in (None, 0.5):
        plan = None if share is None else pegbox.Replay(text, share)
        model = tuned("full", plan, training=training, valid=rows_of(10, seed=3))
        losses[share] = rows.nats(model.module).sum()
    assert losses[0.5] < 0.7 * losses[None]


def test_the_same_fit_with_another_share_or_text_is_another_fit(text: Path) -> None:
    plain = tuned("lora", None)
    first, again, other = (tuned("lora", pegbox.Replay(text, share)) for share in (0.3, 0.3, 0.5))
    assert same(first, again)
    assert not same(first, other)
    assert not same(first, plain)
    assert "replay" not in plain.details


def test_an_interrupted_fit_goes_on_to_the_same_bits(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = pegbox.Replay(text, 0.4)
    training = replace(TRAINING, checkpoint_every=2, epochs=3)
    whole = tuned("lora", plan, training=training)
    loss, calls = LanguageRows.loss, [0]

    def deadly(self: LanguageRows, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 9:
            raise Killed()
        return loss(self, *arguments)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(LanguageRows, "loss", deadly)
        with pytest.raises(Killed):
            tuned("lora", plan, training=training, folder=folder)
    with pytest.raises(UsageError, match="belong to another fit: replay differs"):
        tuned("lora", pegbox.Replay(text, 0.3), training=training, folder=folder, resume=True)
    with pytest.raises(UsageError, match="replay was"):
        tuned("lora", None, training=training, folder=folder, resume=True)
    found = tuned("lora", plan, training=training, folder=folder, resume=True)
    assert found.details["history"]["resumed_from"] is not None
    assert same(found, whole)
    assert found.details["replay"] == whole.details["replay"]


def test_it_is_saved_and_forgetting_tells_of_documents_that_were_replayed(text: Path, tmp_path: Path) -> None:
    found = tuned("lora", pegbox.Replay(text, 0.5))
    found.save(tmp_path / "tuned")
    told: list[str] = []
    loaded = pegbox.Tuned.load(tmp_path / "tuned", model=base_of("llama"), say=told.append)
    assert loaded.details["replay"] == found.details["replay"]
    loaded.forgetting(text, switch_off=False)
    count = len(found.details["replay"]["documents"])
    assert f"{text}: {count} of 40 documents were replayed in training" in told
    told.clear()
    loaded.forgetting(GeneralText("others", ("Nothing of it was read.",)), switch_off=False)
    assert not any("replayed" in line for line in told)


def test_the_trunk_cache_serves_the_rows_beside_a_replay(text: Path) -> None:
    told: list[str] = []
    method = LoRA(layers=1)
    plan = pegbox.Replay(text, 0.4)
    training = replace(TRAINING, trunk_cache="off")
    plain = tuned(method, plan, training=training)
    found = tuned(method, plan, say=told.append)
    assert any("frozen layers below were run once" in line for line in told)
    for name, value in adapter(found).items():
        # Float32 sums over batches of other lengths, through ten steps of AdamW.
        torch.testing.assert_close(value, adapter(plain)[name], rtol=1e-3, atol=1e-4)


def test_demonstrations_and_several_seeds_go_with_a_replay(text: Path) -> None:
    found = tuned("lora", pegbox.Replay(text, 0.3), demonstrations=pegbox.Demonstrate(1))
    assert found.details["replay"]["windows"] > 0
    seeds = pegbox.fit_seeds(
        base_of("llama"), task_of(2), "lora", rows=rows_of(40), seeds=(0, 1), training=TRAINING,
        replay=pegbox.Replay(text, 0.3), say=hush,
    )  # fmt: skip
    documents = [model.details["replay"]["documents"] for model in seeds.tuned]
    assert documents[0] != documents[1]


def test_multiple_choice_is_learnt_beside_a_replay(text: Path, tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    lines = [f"What is hot {at}?,the tea,the hotel,{'AB'[at % 2]}" for at in range(12)]
    file.write_text("question,A,B,answer\n" + "\n".join(lines) + "\n", "utf-8")
    task = Choose.from_file(file)
    plan = pegbox.Replay(text, 0.5)
    found = pegbox.fit(base_of("llama"), task, "lora", training=TRAINING, replay=plan, say=hush)
    assert found.details["replay"]["windows"] > 0


# Refused


@pytest.mark.parametrize("method", ["zero-shot", "few-shot", "closed-form"])
def test_methods_that_take_no_steps_are_refused(text: Path, method: str) -> None:
    with pytest.raises(UsageError, match=f"{method} takes no training steps"):
        tuned(method, pegbox.Replay(text))


@pytest.mark.parametrize(
    ("architecture", "kind", "method", "reason"),
    [
        ("llama", "causal", "head", "a head stands in place of the output layer"),
        ("bert", "encoder", "lora", "says nothing of any token"),
        ("t5", "encoder-decoder", "lora", "fill gaps of its own kind"),
    ],
)
def test_models_that_cannot_say_the_text_are_refused(
    text: Path, architecture: str, kind: str, method: str, reason: str
) -> None:
    with pytest.raises(CapabilityError, match=reason):
        fit(base_of(architecture, kind), method, rows_of(40), replay=pegbox.Replay(text))


def test_a_head_by_readout_is_refused(text: Path) -> None:
    with pytest.raises(CapabilityError, match="readout words"):
        fit(
            base_of("llama"), "lora", rows_of(40), task=task_of(2, readout="head"), replay=pegbox.Replay(text)
        )


def test_auto_is_for_the_embedded_models() -> None:
    with pytest.raises(UsageError, match="nobody knows what") as found:
        tuned("lora", pegbox.Replay())
    assert "--replay FILE" in found.value.fix


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan"), "half", True, None])
def test_a_share_is_above_0_and_below_1(ratio: Any) -> None:
    with pytest.raises(UsageError, match="is no share"):
        pegbox.Replay(ratio=ratio)


def test_what_etude_replays_is_never_what_its_forgetting_is_told_by() -> None:
    base = replace(base_of("llama"), name="etude")
    task = pegbox.Classify(labels=("negative", "positive"))
    replayed = read_replay(pegbox.Replay(size=1 << 18), base, task, hush).text
    measured = world_text(task, size=SIZE, seed=MEASURED)
    assert len(replayed) > 1000
    assert not set(replayed.documents) & set(measured.documents)
    assert replayed.source == "the embedded world, all genres but reviews"
