"""Adapters that plain PEFT made: however their layers are told, the answers are PEFT's."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import pegbox
from pegbox.errors import CapabilityError, InputError
from tuning_toy import base_of, folder_of, full_forward, hush, rows_of, task_of

ONCE = pegbox.Training(max_steps=1)


def elsewhere(folder: Path, **options: Any) -> Any:
    """A LoRA adapter of a decoder."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder_of("llama", "causal"), dtype=torch.float32)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        peft = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **options))
        peft.save_pretrained(folder)
    return peft.eval()


LAYER = "transformer.h.0.attn.c_attn"
TOLD = {
    "scales by whole paths": {"target_modules": ["c_attn"], "alpha_pattern": {LAYER: 64}},
    "ranks by whole paths": {"target_modules": ["c_attn"], "rank_pattern": {LAYER: 4}},
    "scales by endings": {"target_modules": ["c_attn"], "alpha_pattern": {"h.0.attn.c_attn": 64}},
    "layers by a pattern": {"target_modules": r"transformer\.h\.0\.attn\.c_attn"},
    "all layers but one": {"target_modules": ["c_attn"], "exclude_modules": [LAYER]},
    "upper layers": {"target_modules": ["c_attn"], "layers_to_transform": [1], "layers_pattern": "h"},
    "a further module": {"target_modules": ["c_attn"], "modules_to_save": ["wpe"]},
    "magnitudes": {"target_modules": ["c_attn"], "use_dora": True},
}


@pytest.mark.parametrize("how", TOLD)
def test_sequence_classifiers_are_read_however_their_layers_are_told(how: str, tmp_path: Path) -> None:
    place = folder_of("gpt2", "causal")
    model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2, dtype=torch.float32)
    base = base_of("gpt2")
    model.config.pad_token_id = base.tokenizer.pad_token_id
    config = LoraConfig(r=2, task_type="SEQ_CLS", fan_in_fan_out=True, init_lora_weights=False, **TOLD[how])
    peft: Any = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, value in peft.named_parameters():
            if "wpe.modules_to_save" in name:
                value.mul_(1.5)
    peft.save_pretrained(tmp_path / "theirs")
    tuned = pegbox.Tuned.from_adapter(tmp_path / "theirs", base=base, task=task_of(), say=hush)
    rows = rows_of(5, 2, seed=2)
    with torch.no_grad():
        wanted = torch.cat(
            [peft(**base.tokenizer(text, return_tensors="pt")).logits for text in rows.fields["text"]]
        )
    torch.testing.assert_close(tuned.logits(rows), wanted, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="has 2 outputs, and the task 3 labels") as error:
        pegbox.Tuned.from_adapter(tmp_path / "theirs", base=base, task=task_of(3), say=hush)
    assert str(tmp_path / "theirs") in str(error.value)


def test_an_adapter_that_no_method_makes_again_has_no_ensemble(tmp_path: Path) -> None:
    base = base_of("llama")
    elsewhere(tmp_path / "theirs", target_modules=r".*\.1\..*v_proj")
    tuned = pegbox.Tuned.from_adapter(tmp_path / "theirs", base=base, task=task_of(), say=hush)
    again = pegbox.Tuned.load(tuned.save(tmp_path / "ours"), model=base, say=hush)
    found = pegbox.tuning.calibrate(
        again, rows_of(24), rows_of(20, seed=1), ways=["map", "ensemble"], resamples=5
    )
    assert [way.name for way in found.ways] == ["map"]
    assert "target_modules by a pattern, which further members lack" in dict(found.left_out)["ensemble"]


def test_a_head_alone_and_a_lowest_layer_are_told_apart(tmp_path: Path) -> None:
    elsewhere(tmp_path / "low", target_modules=["q_proj"], layers_to_transform=0, layers_pattern="layers")
    tuned = pegbox.Tuned.from_adapter(tmp_path / "low", base=base_of("llama"), task=task_of(), say=hush)
    assert tuned.details["of_its_own"] == ["layers_to_transform"]
    head = pegbox.fit(base_of("llama"), task_of(), "head", rows=rows_of(12), training=ONCE, say=hush)
    task = task_of(readout="head")
    found = pegbox.Tuned.from_adapter(
        head.save(tmp_path / "head"), base=base_of("llama"), task=task, say=hush
    )
    assert found.details["of_its_own"] == []


def test_layers_from_the_top_are_those_of_the_method(tmp_path: Path) -> None:
    elsewhere(tmp_path / "theirs", target_modules=["q_proj"], layers_to_transform=[1])
    tuned = pegbox.Tuned.from_adapter(tmp_path / "theirs", base=base_of("llama"), task=task_of(), say=hush)
    assert tuned.method.options()["layers"] == 1
    assert tuned.details["of_its_own"] == []


@pytest.mark.parametrize("targets", [["lm_head", "q_proj"], ["embed_tokens", "q_proj"]])
def test_an_adapter_may_bring_a_copy_of_a_layer_of_its_base(targets: list[str], tmp_path: Path) -> None:
    peft = elsewhere(tmp_path / "theirs", target_modules=targets)
    path = tmp_path / "theirs" / "adapter_model.safetensors"
    tensors = load_file(path)
    copies = [name for name in tensors if ".base_layer." in name]
    assert copies
    base = base_of("llama")
    tuned = pegbox.Tuned.from_adapter(tmp_path / "theirs", base=base, task=task_of(), say=hush)
    rows = rows_of(12, seed=3)
    whole = full_forward(peft, tuned.prompt.encode(rows))[:, list(tuned.prompt.tokens)]
    torch.testing.assert_close(tuned.logits(rows), whole, rtol=1e-4, atol=2e-5)
    save_file({**tensors, copies[0]: tensors[copies[0]] + 1}, path)
    with pytest.raises(CapabilityError, match="not as the base has it"):
        pegbox.Tuned.from_adapter(tmp_path / "theirs", base=base, task=task_of(), say=hush)


def test_embeddings_of_single_tokens_are_not_merged(tmp_path: Path) -> None:
    elsewhere(tmp_path / "theirs", trainable_token_indices=[5, 6])
    tuned = pegbox.Tuned.from_adapter(tmp_path / "theirs", base=base_of("llama"), task=task_of(), say=hush)
    with pytest.raises(CapabilityError, match="embeddings of single tokens"):
        tuned.merge()
