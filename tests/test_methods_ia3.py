"""IA3: that it scales keys, values and inner activations and nothing else, on every family."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

import pegbox
from adapters_toy import (
    FAMILIES,
    attach,
    check_checkpointing,
    checksum,
    count,
    family,
    fill,
    forward,
    in_a_fresh_process,
    in_bf16,
    in_four_bit,
    logits,
    names_that_end,
    own_copy,
    prompt,
    quick,
    reloaded,
    trained,
)
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import IA3, load_adapter, save_adapter
from pegbox.methods._layers import blocks, key_value_units
from pegbox.models import Base
from tiny import SMALL
from tuning_toy import fit, folder_of, hush, rows_of

# Keys and values, and the last feed-forward layer, read from the model classes of Transformers.
KEYS_VALUES = {
    "llama": ["k_proj", "v_proj"],
    "qwen3": ["k_proj", "v_proj"],
    "gemma3_text": ["k_proj", "v_proj"],
    "mistral": ["k_proj", "v_proj"],
    "gpt2": ["c_attn"],
    "bert": ["self.key", "self.value"],
    "roberta": ["self.key", "self.value"],
    "t5": ["SelfAttention.k", "SelfAttention.v", "EncDecAttention.k", "EncDecAttention.v"],
}
FEEDFORWARD = {
    "llama": ["mlp.down_proj"],
    "qwen3": ["mlp.down_proj"],
    "gemma3_text": ["mlp.down_proj"],
    "mistral": ["mlp.down_proj"],
    "gpt2": ["mlp.c_proj"],
    "bert": ["0.output.dense", "1.output.dense"],
    "roberta": ["0.output.dense", "1.output.dense"],
    "t5": ["DenseReluDense.wo"],
}
# Key width of tiny.py's models (heads x head width); the inner feed-forward width is 48 for all.
WIDTH = {"llama": 16, "qwen3": 32, "gemma3_text": 32, "mistral": 16, "gpt2": 32, "bert": 32, "roberta": 32}


def scales(module: nn.Module, name: str) -> torch.Tensor:
    """The learned scales of one layer, flat."""
    found = [p for n, p in trained(module).items() if n.startswith(f"base_model.model.{name}.")]
    assert len(found) == 1
    return found[0].detach().flatten()


def formula(module: nn.Module, plain: Any, architecture: str) -> None:
    """Make a plain base compute what the scales of ``module`` should do."""
    for name in names_that_end(plain, *KEYS_VALUES[architecture]):
        scale = scales(module, name)
        if architecture == "gpt2":
            scale = torch.cat([torch.ones(32), scale])  # c_attn makes queries, keys, values, 32 wide each

        def outputs(_module: Any, _inputs: Any, y: Any, scale: torch.Tensor = scale) -> Any:
            return y * scale

        plain.get_submodule(name).register_forward_hook(outputs)
    for name in names_that_end(plain, *FEEDFORWARD[architecture]):

        def inner(_module: Any, x: Any, scale: torch.Tensor = scales(module, name)) -> Any:  # noqa: B008
            return (x[0] * scale,)

        plain.get_submodule(name).register_forward_pre_hook(inner)


@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_it_starts_at_the_base_and_only_it_is_trained(architecture: str, kind: str) -> None:
    base, method = family(architecture, kind), IA3()
    module = attach(method, base, seed=3)
    assert torch.equal(logits(module), logits(base.module(2)))
    head = 2 * 33 if kind == "encoder" else 0
    if architecture == "t5":  # 4 blocks, and cross attention in 2 of them
        assert count(module) == 4 * (2 * 32 + 48) + 2 * 2 * 32
    else:
        assert count(module) == 2 * (2 * WIDTH[architecture] + 48) + head
    assert count(module) == method.parameters(base, prompt())
    forward(module).square().sum().backward()
    assert all(p.grad is not None for p in trained(module).values())
    assert all(p.grad is None for p in base.model.parameters())
    if kind != "encoder":  # whose score layer is zero, so that nothing reaches below it yet
        assert all(p.grad.abs().max() > 0 for p in trained(module).values())


@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_it_computes_the_formula(architecture: str, kind: str) -> None:
    base = family(architecture, kind)
    module, plain = attach(IA3(), base), base.module(2)
    fill(module)
    formula(module, plain, architecture)
    if kind == "encoder":
        weights, score = trained(module), "base_model.model.score.modules_to_save.default"
        head: Any = plain.score
        head.weight.data, head.bias.data = weights[f"{score}.weight"].data, weights[f"{score}.bias"].data
    # float32 sums in another order; the scales move the logits by far more.
    torch.testing.assert_close(logits(module), logits(plain), rtol=1e-4, atol=1e-4)
    assert (logits(module) - logits(base.module(2))).abs().max() > 0.05


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_queries_of_a_fused_layer_stay_as_they_are(decay: float) -> None:
    base = family("gpt2", "causal")
    module = attach(IA3(), base)
    optimiser = torch.optim.AdamW(trained(module).values(), lr=0.05, weight_decay=decay)
    seen: list[torch.Tensor] = []
    layer = module.get_submodule("base_model.model.transformer.h.1.attn.c_attn")
    for _ in range(3):
        forward(module).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    layer.register_forward_hook(lambda _m, x, y: seen.extend([layer.base_layer(x[0]), y]))
    logits(module)
    before, after = seen
    assert torch.equal(after[..., :32], before[..., :32])
    # A unit that was never touched would be equal; every key and value was.
    assert (after[..., 32:] != before[..., 32:]).flatten(0, 1).any(0).all()
    assert not [p for n, p in trained(module).items() if "c_attn" in n and p.numel() != 64]


@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_it_comes_back_and_goes_away(architecture: str, kind: str, tmp_path: Path) -> None:
    base = family(architecture, kind)
    before = checksum(base.model)
    module = attach(IA3(), base)
    fill(module)
    answers = logits(module)
    with torch.no_grad(), module.disable_adapter():
        off = forward(module)
    assert torch.equal(off, logits(base.module(2)))
    assert torch.equal(logits(module), answers)
    again = reloaded(module, base, tmp_path)
    assert torch.equal(logits(again), answers)
    assert torch.equal(logits(load_adapter(base, 2, tmp_path)), answers)
    assert checksum(base.model) == before


# Where one layer makes queries, keys and values, the adapter is of our own kind.
@pytest.mark.parametrize(("architecture", "imports"), [("llama", "peft"), ("gpt2", "pegbox")])
def test_plain_peft_loads_it(architecture: str, imports: str, tmp_path: Path) -> None:
    module = attach(IA3(), family(architecture, "causal"))
    fill(module)
    save_adapter(module, tmp_path)
    answers = in_a_fresh_process(folder_of(architecture, "causal"), tmp_path, imports)
    # The same program on the same machine; only the number of threads might differ, which orders sums.
    torch.testing.assert_close(answers, logits(module), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_merged_answers_alike_and_unmerged_restores(architecture: str, kind: str) -> None:
    base = own_copy(family(architecture, kind))
    module = attach(IA3(), base)
    fill(module)
    answers, before = logits(module), checksum(base.model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unmerge result can be inaccurate")
        module.merge_adapter()
        # The scale is multiplied into float32 weights (and biases of keys and values) instead of activations.
        torch.testing.assert_close(logits(module), answers, rtol=1e-4, atol=1e-4)
        assert checksum(base.model) != before
        module.unmerge_adapter()
    # PEFT divides again, which rounds; ours puts the weights back.
    torch.testing.assert_close(logits(module), answers, rtol=1e-4, atol=1e-4)
    assert (checksum(base.model) == before) == (architecture == "gpt2")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_merging_leaves_a_plain_model(architecture: str) -> None:
    base = own_copy(family(architecture, "causal"))
    module = attach(IA3(), base)
    fill(module)
    answers = logits(module)
    plain = module.merge_and_unload()
    assert not [name for name, _ in plain.named_parameters() if "ia3" in name]
    torch.testing.assert_close(logits(plain), answers, rtol=1e-4, atol=1e-4)


def test_a_merge_that_is_not_finite_is_refused() -> None:
    module = attach(IA3(), own_copy(family("gpt2", "causal")))
    next(iter(trained(module).values())).data[0] = float("nan")
    with pytest.raises(ValueError, match="weights that are not finite"):
        module.merge_adapter(safe_merge=True)


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "causal"), ("gpt2", "causal")])
def test_two_adapters_switch_multiply_and_go(architecture: str, kind: str, tmp_path: Path) -> None:
    base = family(architecture, kind)
    first, second = attach(IA3(), base), attach(IA3(layers=1), base)
    fill(first, 1)
    fill(second, 2)
    save_adapter(second, tmp_path)
    alone, other = logits(first), logits(second)
    first.load_adapter(tmp_path, "other")
    assert torch.equal(logits(first), alone)
    first.set_adapter("other")
    assert torch.equal(logits(first), other)
    first.base_model.set_adapter(["default", "other"])
    both = logits(first)
    assert not torch.equal(both, alone)
    assert not torch.equal(both, other)
    first.set_adapter("default")
    first.delete_adapter("other")
    assert torch.equal(logits(first), alone)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_bf16_base_keeps_scales_in_float32_and_starts_at_itself(architecture: str) -> None:
    base = in_bf16(family(architecture, "causal"))
    module = attach(IA3(), base)
    assert {tensor.dtype for tensor in trained(module).values()} == {torch.float32}
    assert torch.equal(logits(module), logits(base.module(2)))
    assert logits(module).dtype == torch.bfloat16


def test_four_bit_layers_carry_scales_and_refuse_the_merge(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = in_four_bit(family("llama", "causal"))
    module = attach(IA3(), base)
    assert torch.equal(logits(module), logits(base.module(2)))
    forward(module.train()).float().square().mean().backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in trained(module).values())
    assert count(module) == IA3().parameters(base, prompt())
    fill(module)
    answers = logits(module.eval())
    assert torch.equal(logits(reloaded(module, base, tmp_path)), answers)
    with pytest.raises(CapabilityError, match="ia3 cannot be merged into a quantised layer") as error:
        module.merge_adapter()
    assert "load the base without quantisation" in str(error.value)


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_checkpointing_gives_the_same_gradients(architecture: str) -> None:
    check_checkpointing(IA3(), family(architecture, "causal"))


def test_only_the_top_layers() -> None:
    base = family("t5", "encoder-decoder")
    names = trained(attach(IA3(layers=1), base))
    assert len(names) == 5
    assert all("decoder.block.1." in name for name in names)
    with pytest.raises(UsageError, match="ia3: layers is 3, and the model has 2 layers"):
        fit(family("llama", "causal"), IA3(layers=3), rows_of(8), training=quick())
    with pytest.raises(UsageError, match="layers is 0"):
        IA3(layers=0)


def random_model(architecture: str, **options: Any) -> Base:
    config = AutoConfig.for_model(architecture, **{**SMALL, **options})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return Base(architecture, "causal", model, None, "random", 64)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        # One layer for all: queries, keys, values in thirds (Phi-3); by heads of 8 in turn (Bloom, GPT-NeoX).
        ("phi3", [False] * 32 + [True] * 64),
        ("bloom", ([False] * 8 + [True] * 16) * 4),
        ("gpt_neox", ([False] * 8 + [True] * 16) * 4),
        # 4 heads of queries, one of keys and values
        ("falcon", [False] * 32 + [True] * 16),
    ],
)
def test_how_one_layer_packs_keys_and_values_is_measured(architecture: str, expected: list[bool]) -> None:
    base = random_model(architecture)
    module = base.module(2)
    units = key_value_units(base, module, blocks(base, module, "ia3"))
    assert len(units) == 2
    assert all(mask.tolist() == expected for mask in units.values())


def test_what_has_no_keys_is_refused_with_the_reason() -> None:
    with pytest.raises(CapabilityError, match="ia3 cannot work on mamba models: no attention was found"):
        attach(IA3(), random_model("mamba", expand=2, state_size=4))


# A random GPT-2 has little that scales alone could use; it must only be seen to learn.
@pytest.mark.parametrize(
    ("architecture", "kind", "rate", "share"),
    [("llama", "causal", 0.1, 0.1), ("gpt2", "causal", 0.3, 0.85), ("bert", "encoder", 0.1, 0.2)],
)
def test_it_learns_and_comes_back_the_same(
    architecture: str, kind: str, rate: float, share: float, tmp_path: Path
) -> None:
    base, rows = family(architecture, kind), rows_of(24, noise=0.0)
    training = pegbox.Training(epochs=40, precision="float32", learning_rate=rate)
    tuned = fit(base, IA3(), rows, training=training)
    losses = tuned.details["history"]["train_losses"]
    assert losses[-1][1] < share * losses[0][1]
    assert tuned.cost.parameters == IA3().parameters(base, tuned.prompt)
    tuned.save(tmp_path / "out")
    again = pegbox.Tuned.load(tmp_path / "out", model=str(folder_of(architecture, kind)), say=hush)
    probe = rows_of(7, seed=4)
    assert np.array_equal(again.probabilities(probe), tuned.probabilities(probe))
