"""Bases in 4 bits: what is packed, that evaluation does not spoil training, that sharing copies nothing."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pegbox
from four_bit_toy import wide_folder
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import build
from pegbox.models import answer_tokens, collate, output_layer, read, share
from pegbox.models._quantised import plain_layers, quantised_layers, size
from tuning_toy import fit, folder_of, hush, rows_of, task_of

pytest.importorskip("bitsandbytes")

QUICK = pegbox.Training(epochs=2, precision="float32")
KINDS = [("llama", "causal"), ("gpt2", "causal"), ("bert", "masked"), ("bert", "encoder")]
METHODS = [
    "qlora",
    "lora",
    "ia3",
    "bottleneck",
    "head",
    "closed-form",
    "prefix",
    "soft-prompt",
    "zero-init-attention",
]


def packed(architecture: str = "llama", kind: str = "causal") -> pegbox.Base:
    return pegbox.load(wide_folder(architecture, kind), quantise="nf4")


def plain_base_of(width: int) -> pegbox.Base:
    return pegbox.load(wide_folder("llama", "causal", width))


def plain_base(architecture: str = "llama", kind: str = "causal") -> pegbox.Base:
    return pegbox.load(wide_folder(architecture, kind))


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_linear_layers_are_packed_and_nothing_else(architecture: str, kind: str) -> None:
    base, plain = packed(architecture, kind), plain_base(architecture, kind)
    assert base.quantise == "nf4"
    assert base.parameters == plain.parameters
    assert base.fingerprint != plain.fingerprint
    assert base.fingerprint == packed(architecture, kind).fingerprint
    place = wide_folder(architecture, kind)
    assert pegbox.load(place, dtype="bfloat16", quantise="nf4").fingerprint == base.fingerprint
    names = quantised_layers(base.model)
    assert names
    if kind != "encoder":
        assert output_layer(base.model)[0] not in names
        assert torch.equal(
            base.model.get_output_embeddings().weight, plain.model.get_output_embeddings().weight
        )
    assert torch.equal(base.model.get_input_embeddings().weight, plain.model.get_input_embeddings().weight)
    # NF4's largest gap between neighbouring levels is 0.304 of a block's largest value, so no value moves by
    # more than half of it; double quantisation moves the scale by a little more, whence 0.17.
    restored = plain_layers(share(base.model), torch.float32)
    for name in names:
        was, now = (model.get_submodule(name).weight for model in (plain.model, restored))
        assert was.shape == now.shape
        assert (was - now).abs().max() <= 0.17 * was.abs().max()


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_modules_share_the_packed_weights(architecture: str, kind: str) -> None:
    base = packed(architecture, kind)
    module = base.module(2)
    inner = module.encoder if kind == "encoder" else module
    own, shared = (dict(model.named_parameters()) for model in (base.model, inner))
    assert all(shared[name] is own[name] for name in own)
    for name, layer in quantised_layers(inner).items():
        assert layer is not base.model.get_submodule(name)
        assert layer.quant_state is base.model.get_submodule(name).quant_state
    assert all(size(value) >= value.numel() for value in own.values())


def test_evaluating_first_does_not_change_the_gradients() -> None:
    """On AVX512-BF16 processors bitsandbytes 0.50 repacks weights in eval mode and ruins later gradients."""
    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor has no AVX512-BF16, on which alone bitsandbytes repacks weights")
    found = []
    for evaluate in (False, True):
        base = packed()
        prompt = base.prepare(task_of())
        module: Any = pegbox.QLoRA(targets="all-linear").attach(base, prompt, seed=0)
        batch = collate(prompt.encode(rows_of(6)), range(6), kind=base.kind, pad=base.pad)
        tokens = torch.tensor(answer_tokens(prompt))
        if evaluate:
            with torch.no_grad():
                read(module.eval(), batch, tokens)
                read(base.model, batch, tokens)
        read(module.train(), batch, tokens).logits.square().sum().backward()
        found.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
    assert found[0]
    assert all(torch.equal(found[1][name], gradient) for name, gradient in found[0].items())
    assert max(gradient.abs().max() for gradient in found[0].values()) > 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_says_so_works_on_4_bits(method: str, tmp_path: Path) -> None:
    assert build(method).capability.quantised
    tuned = fit(packed(), method, rows_of(20), training=QUICK)
    folder, rows = tuned.save(tmp_path / "out"), rows_of(5, seed=3)
    meta = json.loads((folder / "pegbox.json").read_text())
    assert meta["base"]["quantise"] == "nf4"
    again = pegbox.Tuned.load(folder, say=hush)
    assert again.base.quantise == "nf4"
    torch.testing.assert_close(again.logits(rows), tuned.logits(rows), rtol=0, atol=0)


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_qlora_starts_at_its_base_and_counts_its_parameters(architecture: str, kind: str) -> None:
    base = packed(architecture, kind)
    prompt = base.prepare(task_of())
    method = pegbox.QLoRA(rank=3, targets="all-linear")
    module = method.attach(base, prompt, seed=0)
    batch = collate(prompt.encode(rows_of(4)), range(4), kind=base.kind, pad=base.pad)
    tokens = torch.tensor(answer_tokens(prompt))
    logits = read(module.eval(), batch, tokens).logits
    assert torch.equal(logits, read(base.module(2), batch, tokens).logits)
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == method.parameters(base, prompt)
    assert all("lora_" in name or "score" in name for name in trained)


def test_fit_by_name_loads_in_4_bits_and_says_so() -> None:
    told: list[str] = []
    tuned = fit(wide_folder("llama", "causal"), "qlora", rows_of(16), training=QUICK, say=told.append)  # type: ignore[arg-type]
    assert tuned.base.quantise == "nf4"
    assert any("is loaded in 4 bits (nf4)" in line for line in told)


def test_layers_of_odd_width_stay_as_they_are() -> None:
    """On processors bitsandbytes 0.50 reads the wrong scales where a row is no whole number of blocks."""
    base, plain = pegbox.load(wide_folder("llama", "causal", 96), quantise="nf4"), plain_base_of(96)
    packed_names = set(quantised_layers(base.model))
    assert packed_names == {f"model.layers.{index}.mlp.down_proj" for index in (0, 1)}  # 128 inputs, not 96
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"):
        assert torch.equal(base.model.get_submodule(name).weight, plain.model.get_submodule(name).weight)
    with pytest.raises(CapabilityError, match="no linear layer has a multiple of 64 inputs"):
        pegbox.load(folder_of("llama", "causal"), quantise="nf4")


def test_a_base_that_is_not_in_4_bits_is_refused() -> None:
    with pytest.raises(CapabilityError, match="qlora needs a base in 4 bits") as error:
        fit(plain_base(), "qlora", rows_of(16))
    assert 'quantise="nf4"' in error.value.fix


def test_unknown_quantisation_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown quantisation") as error:
        pegbox.load(folder_of("llama", "causal"), quantise="nf5")  # type: ignore[arg-type]
    assert "did you mean 'nf4'?" in error.value.fix


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest)
    )
    with pytest.raises(CapabilityError, match="4-bit weights need bitsandbytes") as error:
        pegbox.load(folder_of("llama", "causal"), quantise="nf4")
    assert "pegbox[qlora]" in error.value.fix


@pytest.mark.slow  # a process of its own
def test_nothing_is_said_about_missing_kernels() -> None:
    code = "import pegbox, peft, bitsandbytes"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "kernels" not in done.stderr


def test_a_base_in_float16_is_trained_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its layers answer in float16, which autocast to bfloat16 refuses to mix: auto must not choose that.
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    base = pegbox.load(wide_folder("llama", "causal"), quantise="nf4", dtype="float16")
    tuned = fit(base, "lora", rows_of(12), training=pegbox.Training(max_steps=2))
    assert torch.isfinite(tuned.logits(rows_of(4))).all()
    with pytest.raises(CapabilityError, match="cannot be trained in bf16"):
        fit(base, "lora", rows_of(12), training=pegbox.Training(max_steps=2, precision="bf16"))


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_a_bfloat16_base_is_trained_in_bf16(architecture: str, kind: str) -> None:
    """Its layer norms are in bfloat16, and take no float32 from attention that is computed in float32."""
    base = pegbox.load(wide_folder(architecture, kind), dtype="bfloat16", quantise="nf4")
    training = pegbox.Training(max_steps=2, precision="bf16")
    tuned = pegbox.fit(base, task_of(), "qlora", rows=rows_of(16), training=training, say=hush)
    assert torch.isfinite(tuned.logits(rows_of(4))).all()
