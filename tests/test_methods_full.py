"""Full fine-tuning: on a copy, tied weights tied, saved as a model that stands alone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

import pegbox
from four_bit_toy import wide_folder
from pegbox.errors import CapabilityError, InputError
from pegbox.models import answer_tokens
from pegbox.tuning import adapter_bytes
from tuning_toy import base_of, checksum, fit, folder_of, full_forward, hush, rows_of, task_of

QUICK = pegbox.Training(epochs=2, precision="float32", learning_rate=1e-3)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("llama", "causal"), ("gpt2", "causal"), ("bert", "masked"), ("roberta", "masked")],
)
def test_by_label_words_it_is_a_plain_model(architecture: str, kind: str, tmp_path: Path) -> None:
    base = base_of(architecture, kind)
    before = checksum(base.model)
    tuned = fit(base, "full", rows_of(24), training=QUICK)
    assert checksum(base.model) == before
    assert tuned.cost.parameters == base.parameters == tuned.method.parameters(base, tuned.prompt)
    tied = base.model.get_output_embeddings().weight is base.model.get_input_embeddings().weight
    own = tuned.module
    assert (own.get_output_embeddings().weight is own.get_input_embeddings().weight) == tied
    assert not torch.equal(own.get_input_embeddings().weight, base.model.get_input_embeddings().weight)
    folder, rows = tuned.save(tmp_path / "out"), rows_of(5, seed=3)
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForMaskedLM
    plain, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    logits = full_forward(plain.eval(), tuned.prompt.encode(rows))[:, list(answer_tokens(tuned.prompt))]
    torch.testing.assert_close(logits, tuned.logits(rows), rtol=1e-4, atol=1e-5)  # other order of sums


@pytest.mark.parametrize(
    ("architecture", "kind", "readout"),
    [
        ("llama", "causal", "words"),
        ("llama", "causal", "head"),
        ("bert", "masked", "head"),
        ("bert", "encoder", "words"),
    ],
)
def test_the_folder_stands_alone(architecture: str, kind: str, readout: str, tmp_path: Path) -> None:
    base, rows = base_of(architecture, kind), rows_of(6, seed=3)
    tuned = fit(base, "full", rows_of(24), task=task_of(readout=readout), training=QUICK)
    headed = tuned.base.kind == "encoder"
    folder = tuned.save(tmp_path / "out")
    assert (folder / "head.safetensors").is_file() == headed
    assert not (folder / "adapter_config.json").exists()
    meta = json.loads((folder / "pegbox.json").read_text())
    assert (meta["adapter"], meta["weights"]) == (False, True)
    assert str(folder) not in (folder / "config.json").read_text()
    assert adapter_bytes(folder) >= 4 * (tuned.cost.parameters - 2 * 33 * headed)
    # The base's folder is gone: nothing of it may be needed.
    meta["base"]["name"] = str(tmp_path / "gone")
    (folder / "pegbox.json").write_text(json.dumps(meta))
    alone = pegbox.Tuned.load(folder, say=hush)
    assert torch.equal(alone.logits(rows), tuned.logits(rows))
    assert alone.evaluate(rows, resamples=5).flips is None
    beside = pegbox.Tuned.load(folder, model=base, say=hush)
    assert torch.equal(beside.logits(rows), tuned.logits(rows))
    assert (beside.evaluate(rows, resamples=5).flips is None) == headed
    again = alone.save(tmp_path / "again")
    assert json.loads((again / "pegbox.json").read_text())["base"] == meta["base"]
    assert torch.equal(pegbox.Tuned.load(again, say=hush).logits(rows), tuned.logits(rows))


def test_the_card_says_how_to_load_it(tmp_path: Path) -> None:
    words = fit(base_of("llama"), "full", rows_of(16), training=QUICK).save(tmp_path / "words")
    assert 'AutoModelForCausalLM.from_pretrained("FOLDER")' in (words / "README.md").read_text()
    head = fit(base_of("bert", "encoder"), "full", rows_of(16), training=QUICK).save(tmp_path / "head")
    told = (head / "README.md").read_text()
    assert 'AutoModel.from_pretrained("FOLDER")' in told
    assert "head.safetensors" in told
    assert "PeftModel" not in told


def test_a_bf16_base_is_trained_in_float32_and_kept_in_bf16(tmp_path: Path) -> None:
    base = pegbox.load(folder_of("llama", "causal"), dtype="bfloat16")
    module = pegbox.Full().attach(base, base.prepare(task_of()), seed=0)
    assert {value.dtype for value in module.parameters()} == {torch.float32}
    tuned = fit(base, "full", rows_of(16), training=QUICK)
    assert {value.dtype for value in tuned.module.parameters()} == {torch.bfloat16}
    folder = tuned.save(tmp_path / "out")
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    again = pegbox.Tuned.load(folder, dtype="bfloat16", say=hush)
    assert torch.equal(again.logits(rows_of(4)), tuned.logits(rows_of(4)))


def test_a_pooler_that_no_answer_passes_through_is_left_alone() -> None:
    base = base_of("bert", "encoder")
    module = pegbox.Full().attach(base, base.prepare(task_of()), seed=0)
    frozen = {name for name, value in module.named_parameters() if not value.requires_grad}
    assert frozen == {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}


def test_a_damaged_head_is_refused(tmp_path: Path) -> None:
    folder = fit(base_of("bert", "encoder"), "full", rows_of(16), training=QUICK).save(tmp_path / "out")
    head = load_file(folder / "head.safetensors")
    for change, told in (
        (head | {"bias": torch.zeros(3)}, "the head does not fit: bias"),
        (
            head | {"bias": torch.tensor([0.0, float("nan")])},
            "the head holds a value that is not a finite number",
        ),
    ):
        save_file(change, folder / "head.safetensors")
        with pytest.raises(InputError, match=told):
            pegbox.Tuned.load(folder)
    (folder / "head.safetensors").unlink()
    with pytest.raises(InputError, match="the file is missing"):
        pegbox.Tuned.load(folder)


def test_weights_in_4_bits_are_refused() -> None:
    pytest.importorskip("bitsandbytes")
    base = pegbox.load(wide_folder("llama", "causal"), quantise="nf4")
    with pytest.raises(CapabilityError, match="full cannot work on a base in 4 bits") as error:
        fit(base, "full", rows_of(16))
    assert "use qlora" in error.value.fix
