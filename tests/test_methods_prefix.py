"""Prefix: the same as PEFT's and as real words, on every family, cached or not, saved plain."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

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
    gradients,
    in_bf16,
    logits,
    trained,
    with_eager,
)
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import Prefix, save_adapter
from pegbox.methods._tuners._probe import probe, states
from pegbox.training._objective import Objective
from tiny import tiny_base
from tuning_toy import base_of, fit, hush, rows_of, task_of

WORDS = [40, 41, 90, 17, 300]
families = pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
# Sums of float32 numbers of the order of one in another order.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def layers_of(module: Any) -> dict[str, Any]:
    return {
        name.removesuffix(".learned_prefix"): part
        for name, part in module.get_base_model().named_modules()
        if name.endswith("learned_prefix")
    }


def spoken(architecture: str, kind: str = "causal", words: list[int] = WORDS) -> Any:
    """A module whose prefix is the real keys and values of words, without special tokens around them."""
    base = tiny_base(architecture, kind)
    module = attach(Prefix(length=len(words), initialise="random"), base)
    found = states(base.module(2), words, 0, len(words))
    layers = layers_of(module)
    assert layers.keys() == found.keys()
    for name, layer in layers.items():
        layer.start("default", *found[name])
    return module


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "mistral", "gpt2"])
def test_equals_the_prefix_tuning_of_peft(architecture: str) -> None:
    """PEFT hands the prefix over as a cache, so that the text's positions start at P; ours are told so."""
    from peft import PrefixTuningConfig, get_peft_model

    base = tiny_base(architecture)
    ours = fill(attach(Prefix(length=5, initialise="random"), base))
    layers = list(layers_of(ours).values())
    keys, values = layers[0].learned("default")
    theirs: Any = get_peft_model(
        base.module(2),
        PrefixTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=5,
            num_layers=2,
            num_attention_heads=len(keys),
            token_dim=keys.shape[0] * keys.shape[2],
        ),
    ).eval()
    rows = []
    for layer in layers:
        keys, values = layer.learned("default")
        rows += [part.transpose(0, 1).flatten(1) for part in (keys, values)]
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(torch.cat(rows, dim=1))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    positions = torch.arange(5, 11)[None].expand(2, -1)
    mine = logits(ours, IDS, mask, position_ids=positions)
    with torch.no_grad():
        other = theirs(input_ids=IDS, attention_mask=mask).logits
    # One order of sums on both sides: measured equal to the bit; a last bit is left to other processors.
    torch.testing.assert_close(mine[mask.bool()], other[mask.bool()], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "mistral", "gpt2"])
@pytest.mark.parametrize("eager", [False, True])
def test_keys_and_values_of_words_act_as_the_words(architecture: str, eager: bool) -> None:
    base = tiny_base(architecture)
    module = spoken(architecture)
    if eager:
        module.get_base_model().set_attn_implementation("pegbox_eager")
    text = torch.cat([torch.tensor([WORDS]).expand(2, -1), IDS], dim=1)
    expected = logits(base.module(2), text)[:, len(WORDS) :]
    # GPT-2's positions are absolute and start at the words' own; rotary ones are relative and need no help.
    options = {"position_ids": torch.arange(5, 11)[None]} if architecture == "gpt2" else {}
    torch.testing.assert_close(logits(module, **options), expected, **CLOSE)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text"])
def test_words_stand_before_the_text_below_a_head_too(architecture: str) -> None:
    """Rotary keys are turned to the same places whether the output layer or a head reads the trunk."""
    base, words = base_of(architecture), [5, 77, 12, 301]
    plain = states(base.module(2), words, 1, 4)
    headed = states(base.headed().module(2), words, 1, 4)
    assert len(plain) == len(headed) == 2
    for (keys, values), (others, more) in zip(plain.values(), headed.values(), strict=True):
        torch.testing.assert_close(others, keys, atol=1e-5, rtol=1e-5)  # float32, the same sums
        torch.testing.assert_close(more, values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["mistral", "gemma3_text"])
def test_a_sliding_window_never_hides_the_prefix(architecture: str) -> None:
    """Against the base on words and text with a mask written out: a window of 16, and the words always."""
    base = tiny_base(architecture)
    assert base.model.config.sliding_window == 16  # type: ignore[union-attr]
    long = torch.arange(100, 130)[None]
    size, tokens = len(WORDS), long.shape[1]
    at = torch.arange(size + tokens)
    causal = at[None] <= at[:, None]
    window = causal & ((at[None] > at[:, None] - 16) | (at[None] < size))
    masks: Any = window[None, None]
    if architecture == "gemma3_text":
        masks = {"full_attention": causal[None, None], "sliding_attention": window[None, None]}
    with torch.no_grad():
        text = torch.cat([torch.tensor([WORDS]), long], dim=1)
        expected = base.module(2)(input_ids=text, attention_mask=masks).logits[:, size:]
    torch.testing.assert_close(logits(spoken(architecture), long), expected, **CLOSE)


def test_every_attention_gets_a_prefix() -> None:
    module = attach(Prefix(), tiny_base("t5", "encoder-decoder"))
    ends = sorted(name.rpartition(".")[2] for name in layers_of(module))
    assert ends == ["EncDecAttention"] * 2 + ["SelfAttention"] * 4
    geometry = probe(tiny_base("qwen3").module(2))["model.layers.0.self_attn"]
    assert (geometry.heads, geometry.key_heads, geometry.key_width, geometry.width) == (4, 2, 16, 32)
    assert (geometry.rotary, geometry.cross) == (16, False)


@pytest.mark.parametrize(("architecture", "kind"), [("bert", "masked"), ("t5", "encoder-decoder")])
def test_an_encoder_sees_the_prefix_beside_padding(architecture: str, kind: str) -> None:
    module = fill(attach(Prefix(length=4), tiny_base(architecture, kind)))
    padded = torch.cat([IDS, torch.ones(2, 3, dtype=torch.long)], dim=1)
    mask = torch.cat([torch.ones(2, 6), torch.zeros(2, 3)], dim=1).long()
    if kind == "masked":
        torch.testing.assert_close(logits(module, padded, mask)[:, :6], logits(module), **CLOSE)
        return
    with torch.no_grad():
        long, short = (
            module(input_ids=ids, attention_mask=seen, decoder_input_ids=IDS).logits
            for ids, seen in ((padded, mask), (IDS, torch.ones_like(IDS)))
        )
    torch.testing.assert_close(long, short, **CLOSE)


@pytest.mark.parametrize(("architecture", "kind"), GENERATING)
def test_generation(architecture: str, kind: str) -> None:
    check_generation(Prefix(length=5), architecture, kind)


def test_a_static_cache_gives_the_same() -> None:
    from transformers import StaticCache

    module = fill(attach(Prefix(length=5), tiny_base("llama")))
    cache = StaticCache(config=module.config, max_cache_len=20)
    first = logits(module, IDS[:, :4], torch.ones(2, 4, dtype=torch.long), past_key_values=cache)
    rest = logits(module, IDS[:, 4:], torch.ones_like(IDS), past_key_values=cache)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), logits(module), **CLOSE)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_mask_that_is_never_written_out_is_the_same(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only CUDA uses by itself, here on any processor."""
    from pegbox.methods._tuners import prefix

    module = fill(attach(Prefix(length=5), tiny_base(architecture)))
    expected, gradient = logits(module), gradients(module)
    real, masks = prefix._lower_right, []

    def symbolic(query: Tensor, keys: int, **_: bool) -> Tensor:
        masks.append(real(query, keys, symbolic=True))
        return masks[-1]

    monkeypatch.setattr(prefix, "_lower_right", symbolic)
    torch.testing.assert_close(logits(module, mask=None), expected, **CLOSE)
    assert type(masks[0]).__name__ == "CausalBias"
    for name, found in gradients(module).items():
        torch.testing.assert_close(found, gradient[name], **CLOSE)


@families
def test_off_is_the_base(architecture: str, kind: str) -> None:
    check_off_is_the_base(Prefix(length=5), architecture, kind)


@families
def test_eager_and_sdpa_agree(architecture: str, kind: str) -> None:
    base = tiny_base(architecture, kind)
    one, other = (fill(attach(Prefix(length=5), each)) for each in (base, with_eager(base)))
    assert other.config._attn_implementation == "pegbox_eager"
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    torch.testing.assert_close(logits(one, IDS, mask)[0], logits(other, IDS, mask)[0], **CLOSE)
    keep = slice(0, 4) if kind != "encoder" else slice(None)
    torch.testing.assert_close(logits(one, IDS, mask)[1][keep], logits(other, IDS, mask)[1][keep], **CLOSE)


@pytest.mark.parametrize(("architecture", "kind"), [*FAMILIES[:6], FAMILIES[8]])
@pytest.mark.parametrize("reparametrise", [False, True])
def test_checkpointing_gives_the_same_gradients(architecture: str, kind: str, reparametrise: bool) -> None:
    check_checkpointing(Prefix(length=5, reparametrise=reparametrise, hidden=8), architecture, kind)


@pytest.mark.parametrize(("architecture", "kind"), [FAMILIES[0], FAMILIES[5], FAMILIES[8]])
def test_two_adapters(architecture: str, kind: str) -> None:
    check_two_adapters(Prefix(length=5), architecture, kind)


@families
@pytest.mark.parametrize("reparametrise", [False, True])
def test_saved_plain_and_loaded_by_plain_peft(
    architecture: str, kind: str, reparametrise: bool, tmp_path: Path
) -> None:
    from peft import PeftModel

    base = tiny_base(architecture, kind)
    module = fill(attach(Prefix(length=5, reparametrise=reparametrise, hidden=8), base), size=0.2)
    before = logits(module)
    save_adapter(module, tmp_path)
    # Folding adds the same numbers in the same order.
    assert torch.equal(logits(module), before)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    ends = {name.rpartition(".")[2] for name in saved if ".score." not in name}
    assert ends == {"prefix_keys", "prefix_values"}
    assert '"reparametrise": false' in (tmp_path / "adapter_config.json").read_text("utf-8")
    again = PeftModel.from_pretrained(base.module(2), tmp_path).eval()
    assert torch.equal(logits(again), before)
    assert not trained(again)
    low = PeftModel.from_pretrained(base.module(2), tmp_path, low_cpu_mem_usage=True).eval()
    assert torch.equal(logits(low), before)


def test_the_network_is_trained_in_place_of_what_it_makes() -> None:
    base = tiny_base("llama")
    plain, made = (attach(Prefix(length=5, reparametrise=flag, hidden=8), base) for flag in (False, True))
    assert torch.equal(logits(plain), logits(made))  # it starts where the words are
    assert {name.split(".")[-2] for name in trained(plain)} == {"prefix_keys", "prefix_values"}
    # These are what a checkpoint of the engine holds; the rest comes from the seed again.
    names = Objective(made, None, "float32").names  # type: ignore[arg-type]
    assert {name.rpartition(".")[2] for name in names} == {
        "codes",
        "inner",
        "inner_bias",
        "outer",
        "outer_bias",
    }
    made.disable_adapter_layers()
    made.enable_adapter_layers()
    assert Objective(made, None, "float32").names == names  # type: ignore[arg-type]
    for layer in layers_of(made).values():
        layer.fold()
        layer.fold()
    assert trained(made).keys() == trained(plain).keys()
    again, other = (attach(Prefix(reparametrise=True), base, seed=s) for s in (4, 5))
    assert not torch.equal(*(next(iter(trained(m).values())) for m in (again, other)))


def test_a_checkpoint_of_the_engine_holds_all_that_was_learnt() -> None:
    base = tiny_base("llama")
    method = Prefix(length=5, reparametrise=True, hidden=8)
    first, again = fill(attach(method, base)), attach(method, base)
    assert not torch.equal(logits(first), logits(again))
    kept = Objective(first, None, "float32").tensors()  # type: ignore[arg-type]
    Objective(again, None, "float32").load(kept)  # type: ignore[arg-type]
    assert torch.equal(logits(first), logits(again))


@pytest.mark.parametrize("reparametrise", [False, True])
def test_fitted_and_loaded_again(reparametrise: bool, tmp_path: Path) -> None:
    rows = rows_of(24, noise=0.0)
    method = Prefix(length=4, reparametrise=reparametrise, hidden=8)
    training = pegbox.Training(epochs=20, precision="float32", learning_rate=3e-2)
    tuned = fit(base_of("llama"), method, rows, training=training)
    losses = tuned.details["history"]["train_losses"]
    assert losses[-1][1] < 0.7 * losses[0][1]
    before = tuned.probabilities(rows)
    tuned.save(tmp_path / "out")
    again = pegbox.Tuned.load(tmp_path / "out", say=hush)
    assert np.array_equal(again.probabilities(rows), before)
    thrifty = pegbox.Training(epochs=1, precision="float32", gradient_checkpointing=True)
    plain = pegbox.Training(epochs=1, precision="float32")
    found = [fit(base_of("llama"), method, rows, training=t).probabilities(rows) for t in (thrifty, plain)]
    # Recomputed activations are the same numbers.
    np.testing.assert_allclose(*found, atol=1e-6)


@families
@pytest.mark.parametrize("options", [{}, {"length": 3}, {"reparametrise": True, "hidden": 7}])
def test_the_count_is_the_formula(architecture: str, kind: str, options: dict[str, Any]) -> None:
    base = tiny_base(architecture, kind)
    method = Prefix(**options)
    module = attach(method, base)
    assert sum(p.numel() for p in trained(module).values()) == method.parameters(
        base, base.prepare(task_of())
    )


def test_words_are_real_and_repeated() -> None:
    base = tiny_base("llama")
    prompt = base.prepare(task_of())
    before, words, after = Prefix()._tokens(base, prompt, 0)
    assert before == [0]
    assert after == []
    text = base.tokenizer.decode(words)
    assert text.startswith("terrible okay")
    assert "It was" in text
    long = Prefix(length=2 * len(words) + 1)
    layer = layers_of(attach(long, base))["model.layers.0.self_attn"]
    keys, values = layer.learned("default")
    expected = states(base.module(2), before + (words * 3)[: long.length], 1, 1 + long.length)
    assert torch.equal(keys, expected["model.layers.0.self_attn"][0])
    assert torch.equal(values, expected["model.layers.0.self_attn"][1])
    # In the lowest layer a value depends on its own token alone.
    torch.testing.assert_close(values[:, 0], values[:, len(words)])


def test_an_encoder_starts_from_the_names_of_its_labels() -> None:
    base = tiny_base("bert", "encoder")
    before, words, after = Prefix()._tokens(base, base.prepare(pegbox.Classify(("bad", "fine"))), 0)
    assert (before, after) == ([0], [2])
    assert base.tokenizer.decode(words) == "bad fine"


def test_vocabulary_words_follow_the_seed_and_are_ordinary() -> None:
    base = tiny_base("llama")
    prompt = base.prepare(task_of())
    method = Prefix(length=500, initialise="vocabulary")
    first, again, other = (method._tokens(base, prompt, seed)[1] for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == len(first)
    assert not set(first) & set(base.tokenizer.all_special_ids)
    # More than the context of 256 holds: the first ones are repeated.
    attach(method, base)
    small = [attach(Prefix(length=4, initialise="vocabulary"), base, seed=s) for s in (1, 2)]
    assert not torch.equal(logits(small[0]), logits(small[1]))


def test_bf16_base_with_a_float32_adapter() -> None:
    base = tiny_base("llama")
    exact, short = (fill(attach(Prefix(length=5), each)) for each in (base, in_bf16(base)))
    assert {p.dtype for p in trained(short).values()} == {torch.float32}
    found = logits(short)
    assert found.dtype == torch.bfloat16
    # Eight bits of mantissa through two layers, on logits of the order of three.
    assert (found.float() - logits(exact)).abs().max() < 0.1
    forward(short).float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trained(short).values())
    with torch.autocast("cpu", torch.bfloat16):
        assert (logits(exact).float() - logits(short).float()).abs().max() < 0.1


def test_families_without_the_interface_are_refused() -> None:
    base = tiny_base("bloom")
    with pytest.raises(CapabilityError, match="prefix cannot work on bloom models") as error:
        Prefix().check(base)
    assert "without Transformers' AttentionInterface" in str(error.value)
    with pytest.raises(CapabilityError, match="nothing can be put beside the attention of bloom models"):
        probe(base.module(2))


def test_merging_is_refused_and_unloading_gives_the_base() -> None:
    base = tiny_base("llama")
    module = fill(attach(Prefix(length=5), base))
    with pytest.raises(CapabilityError, match="cannot be merged"):
        module.merge_adapter()
    with pytest.raises(CapabilityError, match="cannot be merged"):
        module.merge_and_unload()
    plain = module.unload()
    assert torch.equal(logits(plain), logits(base.module(2)))
    assert plain.config._attn_implementation == "sdpa"
    assert plain.state_dict().keys() == base.model.state_dict().keys()


def test_wrong_options_are_told_together() -> None:
    with pytest.raises(UsageError, match=r"length is 0; initialise is 'wordz'; hidden is 1\.5") as error:
        Prefix(length=0, initialise="wordz", hidden=1.5)  # type: ignore[arg-type]
    assert "words or random or vocabulary" in str(error.value)


def test_a_plain_configuration_finds_its_modules() -> None:
    from peft import get_peft_model

    from pegbox.methods._tuners.prefix import PrefixConfig

    model = copy.deepcopy(tiny_base("gpt2").model)
    module: Any = get_peft_model(model, PrefixConfig(length=3))
    assert len(layers_of(module)) == 2
    assert module.peft_config["default"].shapes["transformer.h.1.attn"] == [4, 8, 8]


def test_the_public_name() -> None:
    assert pegbox.Prefix is Prefix
