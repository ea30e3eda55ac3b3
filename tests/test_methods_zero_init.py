"""Zero-init attention: nothing at first, then the published formula, projected once while decoding."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

import pegbox
from attention_toy import (
    FAMILIES,
    GENERATING,
    IDS,
    attach,
    check_checkpointing,
    check_generation,
    check_off_is_the_base,
    check_two_adapters,
    fill,
    forward,
    generate,
    in_bf16,
    logits,
    trained,
    with_eager,
)
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import ZeroInitAttention, save_adapter
from pegbox.methods._tuners import zero_init
from tiny import tiny_base
from tuning_toy import base_of, fit, hush, rows_of, task_of

families = pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def layers_of(module: Any) -> dict[str, Any]:
    return {
        name.removesuffix(".gated_prompt"): part
        for name, part in module.get_base_model().named_modules()
        if name.endswith("gated_prompt")
    }


@families
def test_it_starts_at_the_base_exactly(architecture: str, kind: str) -> None:
    base = tiny_base(architecture, kind)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    module = attach(ZeroInitAttention(), base)
    assert torch.equal(logits(module, IDS, mask), logits(base.module(2), IDS, mask))
    forward(module).log_softmax(-1)[..., 1].sum().backward()
    for name, tensor in trained(module).items():
        if "zero_init_gate" in name and kind != "encoder":  # an encoder's head starts at zero too
            assert tensor.grad.abs().sum() > 0, name  # type: ignore[union-attr]


def heads(x: Tensor, width: int) -> Tensor:
    """(batch, tokens, heads * width) -> (batch, heads, tokens, width)."""
    return x.unflatten(-1, (-1, width)).transpose(1, 2)


def written_out(attention: Any, prompt: Tensor, gate: Tensor) -> Any:
    """Attention of the Llama family with the formula of the paper, in plain tensor operations."""

    def run(hidden_states: Tensor, position_embeddings: Any, **_: Any) -> Any:
        from transformers.models.llama.modeling_llama import rotate_half

        width = attention.head_dim
        query, key = (heads(layer(hidden_states), width) for layer in (attention.q_proj, attention.k_proj))
        prompt_key = heads(attention.k_proj(prompt[None]), width)
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
            prompt_key = attention.k_norm(prompt_key)
        value, prompt_value = (heads(attention.v_proj(x), width) for x in (hidden_states, prompt[None]))
        cos, sin = (part[:, None] for part in position_embeddings)
        query, key = (x * cos + rotate_half(x) * sin for x in (query, key))
        groups = query.shape[1] // key.shape[1]
        key, value, prompt_key, prompt_value = (
            x.repeat_interleave(groups, dim=1) for x in (key, value, prompt_key, prompt_value)
        )
        tokens = hidden_states.shape[1]
        hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        scores = (query @ key.mT * attention.scaling).masked_fill(hidden, float("-inf"))
        own = (query @ prompt_key.mT * attention.scaling).softmax(-1) @ prompt_value
        answer = scores.softmax(-1) @ value + torch.tanh(gate)[:, None, None] * own
        return attention.o_proj(answer.transpose(1, 2).flatten(2)), None

    return run


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "mistral"])
@pytest.mark.parametrize("eager", [False, True])
def test_equals_the_formula_written_out(architecture: str, eager: bool) -> None:
    base = tiny_base(architecture)
    module = fill(attach(ZeroInitAttention(length=3), with_eager(base) if eager else base))
    plain: Any = base.module(2)
    for name, layer in layers_of(module).items():
        attention = plain.get_submodule(name)
        prompt, gate = layer.zero_init_prompt["default"], layer.zero_init_gate["default"]
        assert gate.shape == (4,)
        attention.forward = written_out(attention, prompt, gate)
    torch.testing.assert_close(logits(module), logits(plain), **CLOSE)


def test_equals_the_formula_in_a_bidirectional_model() -> None:
    base = tiny_base("bert", "masked")
    module = fill(attach(ZeroInitAttention(length=3), base))
    plain: Any = base.module(2)
    for name, layer in layers_of(module).items():
        attention = plain.get_submodule(name)
        prompt, gate = layer.zero_init_prompt["default"], layer.zero_init_gate["default"]

        def run(
            hidden: Tensor, *_: Any, a: Any = attention, p: Any = prompt, g: Any = gate, **__: Any
        ) -> Any:
            query, key, value = (heads(layer(hidden), 8) for layer in (a.query, a.key, a.value))
            own_key, own_value = (heads(layer(p[None]), 8) for layer in (a.key, a.value))
            said = functional.scaled_dot_product_attention(query, own_key.expand(2, -1, -1, -1), own_value)
            answer = functional.scaled_dot_product_attention(query, key, value)
            return (answer + torch.tanh(g)[:, None, None] * said).transpose(1, 2).flatten(2), None

        attention.forward = run
    torch.testing.assert_close(logits(module), logits(plain), **CLOSE)


@pytest.mark.parametrize(("architecture", "kind"), GENERATING)
def test_generation(architecture: str, kind: str) -> None:
    check_generation(ZeroInitAttention(), architecture, kind)


def test_the_prompt_is_projected_once_while_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fill(attach(ZeroInitAttention(), tiny_base("llama")))
    calls: list[int] = []
    real = zero_init.project

    def counted(*args: Any) -> Any:
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(zero_init, "project", counted)
    first = generate(module, IDS)
    assert len(calls) == 2  # layers
    fill(module, seed=5)
    changed = logits(module)
    assert len(calls) == 4
    with torch.no_grad():
        for tensor in trained(module).values():
            tensor.data = tensor.data + 0.5  # replaced, which no version counter tells
    assert not torch.equal(logits(module), changed)
    assert len(calls) == 6
    assert not torch.equal(generate(module, IDS), first)
    forward(module)
    forward(module)
    assert len(calls) == 10  # with gradients nothing is kept
    with torch.inference_mode():
        logits(module)
    forward(module).sum().backward()


def test_a_fused_step_is_seen() -> None:
    module = fill(attach(ZeroInitAttention(), tiny_base("llama")))
    optimiser = torch.optim.AdamW(trained(module).values(), lr=0.1, fused=True)
    before = logits(module)
    for _ in range(2):
        forward(module).log_softmax(-1)[..., 7].sum().backward()
        optimiser.step()
        found = logits(module)
        assert not torch.equal(found, before)
        assert torch.equal(found, logits(copy.deepcopy(module).train().eval()))
        before = found


def test_what_is_kept_is_no_part_of_the_state() -> None:
    module = attach(ZeroInitAttention(), tiny_base("llama"))
    names = module.state_dict().keys()
    logits(module)
    assert module.state_dict().keys() == names
    assert torch.equal(logits(copy.deepcopy(module)), logits(module))


@families
def test_off_is_the_base(architecture: str, kind: str) -> None:
    check_off_is_the_base(ZeroInitAttention(), architecture, kind)


@families
def test_eager_and_sdpa_agree(architecture: str, kind: str) -> None:
    base = tiny_base(architecture, kind)
    one, other = (fill(attach(ZeroInitAttention(), each)) for each in (base, with_eager(base)))
    torch.testing.assert_close(logits(one), logits(other), **CLOSE)


@pytest.mark.parametrize(("architecture", "kind"), [*FAMILIES[:6], FAMILIES[8]])
def test_checkpointing_gives_the_same_gradients(architecture: str, kind: str) -> None:
    check_checkpointing(ZeroInitAttention(), architecture, kind)


@pytest.mark.parametrize(("architecture", "kind"), [FAMILIES[1], FAMILIES[5], FAMILIES[8]])
def test_two_adapters(architecture: str, kind: str) -> None:
    check_two_adapters(ZeroInitAttention(), architecture, kind)


@families
def test_saved_and_loaded_by_plain_peft(architecture: str, kind: str, tmp_path: Path) -> None:
    from peft import PeftModel

    base = tiny_base(architecture, kind)
    module = fill(attach(ZeroInitAttention(), base))
    before = logits(module)
    save_adapter(module, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    ends = {name.rpartition(".")[2] for name in saved if ".score." not in name}
    assert ends == {"zero_init_prompt", "zero_init_gate"}
    again = PeftModel.from_pretrained(base.module(2), tmp_path).eval()
    assert torch.equal(logits(again), before)
    low = PeftModel.from_pretrained(base.module(2), tmp_path, low_cpu_mem_usage=True).eval()
    assert torch.equal(logits(low), before)


@families
@pytest.mark.parametrize("options", [{}, {"length": 3, "layers": 1}])
def test_the_count_is_the_formula(architecture: str, kind: str, options: dict[str, Any]) -> None:
    base = tiny_base(architecture, kind)
    method = ZeroInitAttention(**options)
    module = attach(method, base)
    assert sum(p.numel() for p in trained(module).values()) == method.parameters(
        base, base.prepare(task_of())
    )


@families
def test_the_top_layers_are_tuned(architecture: str, kind: str) -> None:
    base = tiny_base(architecture, kind)
    whole = list(layers_of(attach(ZeroInitAttention(), base)))
    top = list(layers_of(attach(ZeroInitAttention(layers=1), base)))
    assert len(whole) == (4 if kind == "encoder-decoder" else 2)
    assert top == whole[-1:]


def test_all_but_the_lowest_two_of_a_deep_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tiny import SMALL, tokenizer_for

    config = LlamaConfig(**{**SMALL, "num_hidden_layers": 6})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer_for("causal").save_pretrained(tmp_path)
    names = list(layers_of(attach(ZeroInitAttention(), pegbox.load(tmp_path))))
    assert names == [f"model.layers.{index}.self_attn" for index in range(2, 6)]


def test_fitted_and_loaded_again(tmp_path: Path) -> None:
    rows = rows_of(24, noise=0.0)
    training = pegbox.Training(epochs=20, precision="float32", learning_rate=3e-2)
    tuned = fit(base_of("llama"), ZeroInitAttention(), rows, training=training)
    losses = tuned.details["history"]["train_losses"]
    assert losses[-1][1] < 0.7 * losses[0][1]
    before = tuned.probabilities(rows)
    tuned.save(tmp_path / "out")
    again = pegbox.Tuned.load(tmp_path / "out", say=hush)
    assert np.array_equal(again.probabilities(rows), before)


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="layers is 3, and the model has 2 layers"):
        attach(ZeroInitAttention(layers=3), base_of("llama"))
    with pytest.raises(UsageError, match="length is 0; layers is 0"):
        ZeroInitAttention(length=0, layers=0)


def test_bf16_base_with_a_float32_adapter() -> None:
    base = tiny_base("qwen3")
    exact, short = (fill(attach(ZeroInitAttention(), each)) for each in (base, in_bf16(base)))
    assert {p.dtype for p in trained(short).values()} == {torch.float32}
    found = logits(short)
    assert found.dtype == torch.bfloat16
    # Eight bits of mantissa through two layers, on logits of the order of three.
    assert (found.float() - logits(exact)).abs().max() < 0.15
    forward(short).float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trained(short).values())
    with torch.autocast("cpu", torch.bfloat16):
        assert (logits(exact).float() - found.float()).abs().max() < 0.15


def test_families_without_the_interface_are_refused() -> None:
    base = tiny_base("bloom")
    with pytest.raises(CapabilityError, match="zero-init-attention cannot work on bloom models") as error:
        ZeroInitAttention().check(base)
    assert "without Transformers' AttentionInterface" in str(error.value)
    with pytest.raises(CapabilityError, match="nothing can be put beside the attention of bloom models"):
        attach(ZeroInitAttention(), base)


def test_merging_is_refused_and_unloading_gives_the_base() -> None:
    base = tiny_base("gpt2")
    module = fill(attach(ZeroInitAttention(), base))
    with pytest.raises(CapabilityError, match="cannot be merged"):
        module.merge_and_unload()
    plain = module.unload()
    assert torch.equal(logits(plain), logits(base.module(2)))
    assert plain.config._attn_implementation == "sdpa"


def test_the_public_name() -> None:
    assert pegbox.ZeroInitAttention is ZeroInitAttention
