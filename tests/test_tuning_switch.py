"""Several tuned models in one base's weights: each as by itself, and nothing left behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pegbox
from four_bit_toy import wide_folder
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import build
from pegbox.tuning import Switchboard
from tuning_toy import base_of, checksum, fit, folder_of, hush, rows_of, task_of

QUICK = pegbox.Training(epochs=2, precision="float32", learning_rate=1e-2)
ROWS = rows_of(6, seed=3)
FIXED = {"intercept": True, "penalty": 1.0, "smoothing": 0.1}
TURNS: list[tuple[str, dict[str, Any], str, int]] = [
    ("lora", {"targets": "all-linear"}, "words", 2),
    ("lora", {"rank": 2}, "head", 3),
    ("closed-form", FIXED, "words", 2),
    ("head", {}, "head", 2),
]


def folders(architecture: str, kind: str, root: Path) -> dict[str, Path]:
    made = {}
    for index, (method, options, readout, labels) in enumerate(TURNS):
        task = task_of(labels, readout=readout)
        tuned = fit(
            base_of(architecture, kind),
            build(method, options),
            rows_of(24, labels),
            task=task,
            training=QUICK,
        )
        made[f"{index} {method}"] = tuned.save(root / str(index))
    return made


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("llama", "causal"), pytest.param("gpt2", "causal", marks=pytest.mark.slow), ("bert", "masked")],
)
def test_each_turn_equals_a_fresh_load(architecture: str, kind: str, keep: bool, tmp_path: Path) -> None:
    made = folders(architecture, kind, tmp_path)
    base = pegbox.load(folder_of(architecture, kind))
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    board = Switchboard(base, keep=keep)
    for name, folder in made.items():
        board.add(name, folder, say=hush)
    fresh = {name: pegbox.Tuned.load(folder, say=hush).logits(ROWS) for name, folder in made.items()}
    for name in (*made, *reversed(made)):
        # Products of adapters added to weights of order one, then sums of float32: 1e-4 at most.
        torch.testing.assert_close(board.use(name).logits(ROWS), fresh[name], rtol=1e-4, atol=1e-4)
        assert board.on == name
        if keep:
            assert all(torch.equal(base.model.state_dict()[n], value) for n, value in before.items())
    board.off()
    for name, value in base.model.state_dict().items():
        left = (value - before[name]).abs().max()
        assert left == 0 if keep else left < 1e-6


def test_weights_are_restored_to_the_bit_and_shared() -> None:
    base = base_of("llama")
    before = checksum(base.model)
    board = Switchboard(base)
    for name, seed in (("one", 1), ("two", 2)):
        board.add(name, fit(base, "lora", rows_of(20, seed=seed), training=QUICK))
    first, second = (board.use(name).module for name in ("one", "two"))
    assert first is not None
    assert second is not None
    same = dict(second.named_parameters())
    assert all(value is same[name] for name, value in first.named_parameters())
    board.off()
    assert {name: checksum(module) == before for name, module in (("one", first), ("two", second))} == {
        "one": True,
        "two": True,
    }


def test_what_is_switched_off_does_not_answer() -> None:
    base = base_of("llama")
    board = Switchboard(base)
    for name in ("lora", "closed-form"):
        board.add(name, fit(base, name, rows_of(20), training=QUICK))
    lora = board.use("lora")
    with board.using("closed-form") as other:
        assert board.on == "closed-form"
        assert len(other.predict(ROWS)) == 6
        with pytest.raises(UsageError, match="the tuned model 'lora' is switched off") as error:
            lora.predict(ROWS)
        assert error.value.fix == "switch to it with use('lora')"
    assert board.on == "lora"
    lora.predict(ROWS)
    board.off()
    with pytest.raises(UsageError, match="the tuned model 'closed-form' is switched off"):
        other.logits(ROWS)


def test_a_turn_is_saved_as_a_merged_model(tmp_path: Path) -> None:
    base = base_of("gpt2")
    board = Switchboard(base)
    options = FIXED | {"intercept": False}
    board.add("one", fit(base, build("closed-form", options), rows_of(24)))
    one = board.use("one")
    after = pegbox.Tuned.load(one.save(tmp_path / "out"), say=hush)
    torch.testing.assert_close(after.logits(ROWS), one.logits(ROWS), rtol=1e-4, atol=1e-4)


def test_what_cannot_take_turns_is_refused() -> None:
    base = base_of("llama")
    board = Switchboard(base)
    board.add("one", fit(base, "lora", rows_of(16), training=QUICK))
    with pytest.raises(UsageError, match="the name 'one' is taken"):
        board.add("one", fit(base, "lora", rows_of(16), training=QUICK))
    with pytest.raises(CapabilityError, match="bottleneck is no LoRA adapter"):
        board.add("two", fit(base, "bottleneck", rows_of(16), training=QUICK))
    with pytest.raises(UsageError, match="'other' was tuned on another base"):
        board.add("other", fit(base_of("llama", seed=1), "lora", rows_of(16), training=QUICK))
    with pytest.raises(UsageError, match="there is no tuned model 'oen'") as error:
        board.use("oen")
    assert "did you mean 'one'?" in error.value.fix
    pytest.importorskip("bitsandbytes")
    with pytest.raises(CapabilityError, match="nothing can be added to weights in 4 bits"):
        Switchboard(pegbox.load(wide_folder("llama", "causal"), quantise="nf4"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"use_dora": True}, "rescaled columns"),
        ({"modules_to_save": ["lm_head"]}, "weights trained as a whole"),
        ({"target_modules": ["embed_tokens"]}, "an embedding or parameter among its targets"),
    ],
)
def test_adapters_that_do_more_than_add_a_product_are_refused(options: dict[str, Any], told: str) -> None:
    """From elsewhere: taken in as plain LoRA they would answer by other weights than they have."""
    from peft import LoraConfig, get_peft_model

    base = base_of("llama")
    tuned = fit(base, "lora", rows_of(16), training=QUICK)
    config = LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **options})
    adapter = get_peft_model(base.module(2), config)
    with pytest.raises(CapabilityError, match=told):
        Switchboard(base).add("other", replace(tuned, module=adapter))


def test_an_intercept_takes_the_number_format_of_its_layer() -> None:
    base = pegbox.load(folder_of("llama", "causal"), dtype="bfloat16")
    alone = fit(base, "closed-form", rows_of(20))
    board = Switchboard(base)
    board.add("one", alone)
    torch.testing.assert_close(board.use("one").logits(ROWS), alone.logits(ROWS), rtol=0.05, atol=0.05)
