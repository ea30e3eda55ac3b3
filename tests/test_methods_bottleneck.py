"""Bottleneck adapters: where they sit, what they compute, and that they come back, go away and refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
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
    prompt,
    quick,
    reloaded,
    trained,
)
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import Bottleneck, load_adapter, save_adapter
from pegbox.models import Base
from tiny import SMALL
from tuning_toy import fit, folder_of, hush, rows_of

PLACEMENTS = ["pfeiffer", "houlsby"]
# The layers that end the sublayers, read from the model classes of Transformers.
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
ATTENTION = {
    "llama": ["self_attn.o_proj"],
    "qwen3": ["self_attn.o_proj"],
    "gemma3_text": ["self_attn.o_proj"],
    "mistral": ["self_attn.o_proj"],
    "gpt2": ["attn.c_proj"],
    "bert": ["attention.output.dense"],
    "roberta": ["attention.output.dense"],
    "t5": ["SelfAttention.o", "EncDecAttention.o"],
}


def places(module: nn.Module, architecture: str, placement: str) -> list[str]:
    endings = FEEDFORWARD[architecture] + (ATTENTION[architecture] if placement == "houlsby" else [])
    return names_that_end(module, *endings)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_it_starts_at_the_base_and_only_it_is_trained(architecture: str, kind: str, placement: Any) -> None:
    base, method = family(architecture, kind), Bottleneck(size=3, placement=placement)
    plain = base.module(2)
    expected = places(plain, architecture, placement)
    # Two layers, in T5 two in the encoder and two in the decoder, which also attend to the encoder.
    many = {"pfeiffer": 2, "houlsby": 4} if architecture != "t5" else {"pfeiffer": 4, "houlsby": 10}
    assert len(expected) == many[placement]
    module = attach(method, base, seed=3)
    found = {name.partition(".bottleneck_")[0] for name in trained(module) if "bottleneck_" in name}
    assert found == {"base_model.model." + name for name in expected}
    assert torch.equal(logits(module), logits(plain))
    head = 2 * 33 if kind == "encoder" else 0
    assert count(module) == many[placement] * (2 * 32 * 3 + 3 + 32) + head
    assert count(module) == method.parameters(base, prompt())
    forward(module).square().sum().backward()
    assert all(p.grad is not None for p in trained(module).values())
    assert all(p.grad is None for p in base.model.parameters())
    if kind != "encoder":  # whose score layer is zero, so that nothing reaches below it yet
        assert all(p.grad.abs().max() > 0 for name, p in trained(module).items() if "bottleneck_up" in name)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_it_computes_the_formula(architecture: str, kind: str, placement: Any) -> None:
    base = family(architecture, kind)
    module = attach(Bottleneck(size=3, placement=placement, activation="gelu"), base)
    fill(module)
    weights = {name: tensor.detach() for name, tensor in trained(module).items()}
    plain: Any = base.module(2)
    for name in places(plain, architecture, placement):
        part = {
            f"{way}.{kind_}": weights[f"base_model.model.{name}.bottleneck_{way}.default.{kind_}"]
            for way in ("down", "up")
            for kind_ in ("weight", "bias")
        }

        def change(_module: Any, _inputs: Any, y: Any, part: dict[str, Any] = part) -> Any:
            inner = functional.gelu(y @ part["down.weight"].T + part["down.bias"])
            return y + inner @ part["up.weight"].T + part["up.bias"]

        plain.get_submodule(name).register_forward_hook(change)
    if kind == "encoder":
        score = "base_model.model.score.modules_to_save.default"
        plain.score.weight.data, plain.score.bias.data = weights[f"{score}.weight"], weights[f"{score}.bias"]
    # float32 sums in another order; the adapter moves the logits by far more.
    torch.testing.assert_close(logits(module), logits(plain), rtol=1e-4, atol=1e-4)
    assert (logits(module) - logits(base.module(2))).abs().max() > 0.05


@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_it_comes_back_and_goes_away(architecture: str, kind: str, tmp_path: Path) -> None:
    base = family(architecture, kind)
    before = checksum(base.model)
    module = attach(Bottleneck(size=3, placement="houlsby", activation="tanh", dropout=0.2), base)
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
    plain = module.unload()
    if kind != "encoder":
        assert torch.equal(logits(plain), logits(base.module(2)))


@pytest.mark.slow
@pytest.mark.parametrize("imports", ["pegbox", "peft, pegbox"])
def test_plain_peft_loads_it_after_importing_pegbox(imports: str, tmp_path: Path) -> None:
    module = attach(Bottleneck(size=3, placement="houlsby"), family("qwen3", "causal"))
    fill(module)
    save_adapter(module, tmp_path)
    answers = in_a_fresh_process(folder_of("qwen3", "causal"), tmp_path, imports)
    # The same program on the same machine; only the number of threads might differ, which orders sums.
    torch.testing.assert_close(answers, logits(module), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "causal"), ("t5", "encoder-decoder")])
def test_two_adapters_switch_add_and_go(architecture: str, kind: str, tmp_path: Path) -> None:
    base = family(architecture, kind)
    first, second = (attach(Bottleneck(size=size), base) for size in (3, 5))
    fill(first, 1)
    fill(second, 2)
    save_adapter(second, tmp_path)
    alone, other = logits(first), logits(second)
    first.load_adapter(tmp_path, "other")
    assert torch.equal(logits(first), alone)
    first.set_adapter("other")
    assert torch.equal(logits(first), other)
    assert all(".other." in name for name in trained(first))
    first.base_model.set_adapter(["default", "other"])
    both = logits(first)
    assert not torch.equal(both, alone)
    assert not torch.equal(both, other)
    first.set_adapter("default")
    first.delete_adapter("other")
    assert torch.equal(logits(first), alone)
    assert not [name for name, _ in first.named_parameters() if ".other." in name]


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "causal"), ("bert", "encoder")])
def test_only_the_top_layers(architecture: str, kind: str) -> None:
    base, method = family(architecture, kind), Bottleneck(layers=1, size=2)
    names = [name for name in trained(attach(method, base)) if "bottleneck_" in name]
    assert len(names) == 4
    assert all(".1." in name for name in names)
    assert method.parameters(base, prompt()) == count(attach(method, base))


def test_the_decoder_stands_on_the_encoder() -> None:
    base = family("t5", "encoder-decoder")
    names = trained(attach(Bottleneck(layers=3), base))
    blocks = {name.partition("base_model.model.")[2].rpartition(".layer.")[0] for name in names}
    assert blocks == {"encoder.block.1", "decoder.block.0", "decoder.block.1"}
    with pytest.raises(UsageError, match="layers is 5, and the model has 4 layers"):
        attach(Bottleneck(layers=5), base)


def test_a_bf16_base_keeps_adapters_in_float32_and_starts_at_itself() -> None:
    base = in_bf16(family("llama", "causal"))
    module = attach(Bottleneck(size=3, placement="houlsby"), base)
    assert {tensor.dtype for tensor in trained(module).values()} == {torch.float32}
    assert torch.equal(logits(module), logits(base.module(2)))
    fill(module)
    answers = logits(module)
    assert answers.dtype == torch.bfloat16
    assert not torch.equal(answers, logits(base.module(2)))


@pytest.mark.parametrize("again", [False, True], ids=["free", "reentrant"])
def test_checkpointing_gives_the_same_gradients(again: bool) -> None:
    base = family("qwen3", "causal")
    check_checkpointing(Bottleneck(size=3, placement="houlsby"), base, use_reentrant=again)


def test_dropout_drops_only_in_training() -> None:
    module = attach(Bottleneck(size=8, dropout=0.5), family("llama", "causal"))
    fill(module)
    still = logits(module)
    assert torch.equal(logits(module), still)
    module.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(logits(module), logits(module))


def test_four_bit_layers_carry_adapters(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base, method = in_four_bit(family("llama", "causal")), Bottleneck(size=3, placement="houlsby")
    module = attach(method, base)
    assert torch.equal(logits(module), logits(base.module(2)))
    forward(module.train()).float().square().mean().backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in trained(module).values())
    assert count(module) == method.parameters(base, prompt())
    fill(module)
    answers = logits(module.eval())
    assert torch.equal(logits(reloaded(module, base, tmp_path)), answers)


def test_it_cannot_be_merged_and_says_so() -> None:
    module = attach(Bottleneck(), family("llama", "causal"))
    for merge in (module.merge_adapter, module.merge_and_unload):
        with pytest.raises(CapabilityError, match="a bottleneck adapter cannot be merged") as error:
            merge()
        assert "lora or ia3" in str(error.value)
    assert not Bottleneck.capability.mergeable


def test_reduction_takes_the_place_of_size() -> None:
    base = family("llama", "causal")
    assert Bottleneck(reduction=8).parameters(base, prompt()) == Bottleneck(size=4).parameters(base, prompt())
    with pytest.raises(UsageError, match="reduction is 64, and the model is 32 wide") as error:
        attach(Bottleneck(reduction=64), base)
    assert "from 1 to 32" in str(error.value)


def test_wrong_options_are_gathered() -> None:
    with pytest.raises(UsageError) as error:
        Bottleneck(0, 0, "middle", "swish", 1.0, 0)  # type: ignore[arg-type]
    for part in (
        "size is 0",
        "reduction is 0",
        "placement is 'middle'",
        "activation is 'swish'",
        "dropout is 1.0",
        "layers is 0",
        "pfeiffer or houlsby",
        "relu, gelu, silu, tanh",
    ):
        assert part in str(error.value)


def test_more_layers_than_there_are() -> None:
    with pytest.raises(UsageError, match="bottleneck: layers is 3, and the model has 2 layers") as error:
        fit(family("llama", "causal"), Bottleneck(layers=3), rows_of(8), training=quick())
    assert "a whole number from 1 to 2" in str(error.value)


def random_model(architecture: str, **options: Any) -> Base:
    config = AutoConfig.for_model(architecture, **{**SMALL, **options})
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return Base(architecture, "causal", model, None, "random", 64)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("architecture", "options", "ends"),
    [
        ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, {"out_proj", "fc2"}),
        ("phi", {}, {"dense", "fc2"}),
        ("gpt_neox", {}, {"dense", "dense_4h_to_h"}),
        ("falcon", {}, {"dense", "dense_4h_to_h"}),
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}, {"out_proj", "down_proj"}),
    ],
)
def test_families_without_a_row_are_found_out(architecture: str, options: Any, ends: set[str]) -> None:
    base, method = random_model(architecture, **options), Bottleneck(size=2, placement="houlsby")
    module = attach(method, base)
    names = {name.partition(".bottleneck_")[0] for name in trained(module)}
    assert len(names) == 4
    assert {name.rpartition(".")[2] for name in names} == ends
    assert torch.equal(logits(module), logits(base.module(2)))


def test_what_has_no_such_sublayers_is_refused_with_the_reason() -> None:
    mamba = random_model("mamba", expand=2, state_size=4)
    with pytest.raises(CapabilityError, match="cannot work on mamba models: no attention was found") as error:
        attach(Bottleneck(), mamba)
    assert "lora with targets all-linear" in str(error.value)
    experts = random_model("mixtral", num_local_experts=2, num_key_value_heads=2)
    with pytest.raises(CapabilityError, match="routes tokens between experts"):
        attach(Bottleneck(), experts)


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "causal"), ("bert", "encoder")])
def test_it_learns_and_comes_back_the_same(architecture: str, kind: str, tmp_path: Path) -> None:
    base, rows = family(architecture, kind), rows_of(24, noise=0.0)
    training = pegbox.Training(epochs=40, precision="float32", learning_rate=1e-2)
    tuned = fit(base, Bottleneck(placement="houlsby"), rows, training=training)
    losses = tuned.details["history"]["train_losses"]
    assert losses[-1][1] < 0.2 * losses[0][1]
    tuned.save(tmp_path / "out")
    again = pegbox.Tuned.load(tmp_path / "out", model=str(folder_of(architecture, kind)), say=hush)
    probe = rows_of(7, seed=4)
    assert np.array_equal(again.probabilities(probe), tuned.probabilities(probe))
