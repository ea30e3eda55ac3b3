"""The trunk cache: what is frozen runs once per row, and nothing else changes."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import pegbox
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import Attached, LoRA, build
from pegbox.models import Base, blocks_of, encode, frozen_trunk
from pegbox.training import Settings, train
from pegbox.tuning._label_rows import LabelRows
from pegbox.tuning._trunk_rows import TrunkRows, with_trunk_cached
from tiny import tiny_base
from tuning_toy import hush, rows_of, task_of

FAMILIES = [
    ("llama", "causal"),
    ("qwen3", "causal"),
    ("gemma3_text", "causal"),
    ("mistral", "causal"),
    ("bloom", "causal"),
]
WITH_DROPOUT = [("gpt2", "causal"), ("bert", "masked"), ("roberta", "masked"), ("bert", "encoder")]
# GPT-2 has dropout, and its answers too are read at the last token.
READ_AT_THE_LAST = [*FAMILIES, ("gpt2", "causal")]
# The upper of two layers, by its position in each family's names.
TOP = {
    "bloom": "h.1.self_attention.query_key_value",
    "gpt2": "h.1.attn.c_attn",
    "bert": "layer.1.attention.self.value",
    "roberta": "layer.1.attention.self.value",
}


def parts(
    architecture: str, kind: str, count: int = 12, method: Any = None
) -> tuple[Base, torch.nn.Module, LabelRows]:
    base = tiny_base(architecture, kind)
    prompt = base.prepare(task_of(2))
    rows = rows_of(count)
    method = method or LoRA(targets=TOP.get(architecture, "layers.1.self_attn.v_proj"))
    module = method.attach(base, prompt, seed=1)
    coded = encode(base, prompt, rows, say=hush)
    return base, module, LabelRows(base, prompt, coded, prompt.task.gold(rows))


def cached(module: torch.nn.Module, rows: LabelRows, wanted: str = "auto") -> Any:
    return with_trunk_cached(module, [rows], wanted=wanted, precision="float32", say=hush)[0]  # type: ignore[arg-type]


def moved(module: torch.nn.Module) -> None:
    dice = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.parameters():
            if value.requires_grad:
                value.add_(0.2 * torch.randn(value.shape, generator=dice))


def losses_and_gradients(module: torch.nn.Module, *found: Any) -> list[list[torch.Tensor]]:
    """Of the same rows by several ways: the loss, then the gradient of everything trained."""
    picked, seen = [3, 0, 7, 5], []
    for part in found:
        module.zero_grad()
        loss, _ = part.loss(module, part.collate(picked))
        loss.backward()
        seen.append([loss.detach()] + [p.grad.clone() for p in module.parameters() if p.grad is not None])
    return seen


@pytest.mark.parametrize(("architecture", "kind"), FAMILIES + WITH_DROPOUT)
def test_loss_and_gradients_are_those_of_the_whole_model(architecture: str, kind: str) -> None:
    _, module, rows = parts(architecture, kind)
    moved(module)
    module.eval()
    fast = cached(module, rows, "on")
    assert isinstance(fast, TrunkRows)
    found = losses_and_gradients(module, rows, fast)
    assert len(found[0]) > 1
    for slow, quick in zip(*found, strict=True):
        # Sums in float32 over batches of other lengths.
        torch.testing.assert_close(quick, slow, rtol=1e-4, atol=1e-5)


def widths(module: torch.nn.Module, rows: Any) -> set[int]:
    """How many tokens of a row the topmost block's feed-forward network sees."""
    seen: set[int] = set()
    inner = blocks_of(module)[-1].get_submodule("mlp")
    hook = inner.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].shape[1]))
    rows.loss(module, rows.collate([0, 3, 7]))
    hook.remove()
    return seen


@pytest.mark.parametrize(("architecture", "kind"), READ_AT_THE_LAST)
def test_the_topmost_block_works_at_the_answers_alone(architecture: str, kind: str) -> None:
    _, module, rows = parts(architecture, kind)
    module.eval()
    fast = cached(module, rows, "on")
    assert widths(module, fast) == {1}
    assert widths(module, rows) == {max(rows.lengths[index] for index in (0, 3, 7))}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [("lora", {"layers": 1, "targets": "all-linear"}), ("bottleneck", {"layers": 1}),
     ("zero-init-attention", {"layers": 1, "length": 3})],
)  # fmt: skip
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_methods_on_the_topmost_block_alone_are_the_same(
    architecture: str, name: str, options: dict[str, Any], checkpointing: bool
) -> None:
    """With all that a method may put there, and with activations that are computed again backwards."""
    _, module, rows = parts(architecture, "causal", method=build(name, options))
    moved(module)
    module.eval()
    fast = cached(module, rows, "on")
    assert widths(module, fast) == {1}
    if checkpointing:  # at work in training mode alone; dropout is not wanted here
        module.train()
        for part in module.modules():
            for value in ("p", "attention_dropout", "dropout"):
                if isinstance(getattr(part, value, None), float):
                    setattr(part, value, 0.0)
    slow, quick = losses_and_gradients(module, rows, fast)
    if checkpointing:
        inner: Any = module
        inner.get_base_model()._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=False))
        again = losses_and_gradients(module, fast)[0]
        assert all(torch.equal(one, two) for one, two in zip(again, quick, strict=True))
    for one, two in zip(slow, quick, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def test_a_block_that_mixes_tokens_in_another_way_works_at_all_of_them() -> None:
    _, module, rows = parts("llama", "causal")
    module.eval()
    inner = blocks_of(module)[-1].get_submodule("mlp")
    hook = inner.register_forward_hook(lambda _, __, output: output.cumsum(1))
    try:
        fast = cached(module, rows)
        assert isinstance(fast, TrunkRows)
        assert min(widths(module, fast)) > 1
    finally:
        hook.remove()


def test_a_block_without_keys_and_values_works_at_all_tokens() -> None:
    _, module, rows = parts("llama", "causal")
    module.eval()
    top = blocks_of(module)[-1]
    own = top.forward
    # Another family's code, to which the keys and values are nothing.
    top.forward = lambda hidden_states, **given: own(hidden_states, **{**given, "past_key_values": None})  # type: ignore[assignment]
    fast = cached(module, rows)
    assert min(widths(module, fast)) > 1
    del top.__dict__["forward"]


def test_a_whole_training_ends_the_same(tmp_path: Path) -> None:
    ends = []
    settings = Settings(learning_rate=5e-3, epochs=4, batch_size=4, precision="float32", seed=3)
    for wanted in ("off", "on"):
        _, module, rows = parts("llama", "causal")
        train(module, cached(module, rows, wanted), settings=settings, folder=tmp_path / wanted, say=hush)
        ends.append({name: value for name, value in module.named_parameters() if "lora_" in name})
    for name, value in ends[0].items():
        # Twelve steps of AdamW carry rounding on; a step is about 5e-3.
        torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=2e-5)


def test_frozen_layers_do_not_run_again() -> None:
    _, module, rows = parts("llama", "causal")
    fast = cached(module, rows)
    trunk = frozen_trunk(module)
    assert trunk is not None
    assert len(trunk.blocks) == 1
    ran: list[str] = []
    inner = trunk.blocks[0].get_submodule("self_attn")
    hook = inner.register_forward_hook(lambda *_: ran.append("trunk"))
    fast.loss(module, fast.collate([0, 1]))
    assert not ran
    rows.loss(module, rows.collate([0, 1]))
    assert ran == ["trunk"]
    hook.remove()


def test_dropout_in_the_trunk_is_not_lost_silently() -> None:
    _, module, rows = parts("bert", "masked")
    told: list[str] = []
    kept = with_trunk_cached(module, [rows], wanted="auto", precision="float32", say=told.append)
    assert kept == [rows]
    assert "dropout (0.1)" in told[0]
    told.clear()
    with_trunk_cached(module, [rows], wanted="on", precision="float32", say=told.append)
    assert "without its dropout of 0.1" in told[0]


@pytest.mark.parametrize(("architecture", "kind"), WITH_DROPOUT)
def test_below_a_head_alone_no_dropout_is_at_work(architecture: str, kind: str) -> None:
    """The encoder stays in eval mode then, so that nothing is lost, and ``auto`` takes the cache."""
    base = tiny_base(architecture, kind).headed()
    prompt = base.prepare(task_of(2))
    module = build("head").attach(base, prompt, seed=1)  # type: ignore[attr-defined]
    data = rows_of(8)
    rows = LabelRows(base, prompt, encode(base, prompt, data, say=hush), prompt.task.gold(data))
    fast = cached(module, rows)
    assert isinstance(fast, TrunkRows)
    module.train()
    with torch.no_grad():
        losses = [float(part.loss(module, part.collate([2, 0, 5]))[0]) for part in (rows, fast)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # sums in float32 over batches of other lengths


@pytest.mark.parametrize(("encoder", "decoder"), [(6, 1), (1, 6)])
@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_an_encoder_decoder_of_unlike_halves_trains_without_it(
    architecture: str, encoder: int, decoder: int
) -> None:
    base = tiny_base(architecture, "encoder-decoder")
    settings: Any = copy.deepcopy(base.model.config)
    names = (
        ("num_layers", "num_decoder_layers") if architecture == "t5" else ("encoder_layers", "decoder_layers")
    )
    for name, layers in zip(names, (encoder, decoder), strict=True):
        setattr(settings, name, layers)
    base = replace(base, model=type(base.model)(settings).eval().requires_grad_(False))
    prompt, data = base.prepare(task_of(2)), rows_of(4)
    module = LoRA(layers=1).attach(base, prompt, seed=1)
    rows = LabelRows(base, prompt, encode(base, prompt, data, say=hush), prompt.task.gold(data))
    assert cached(module, rows) is rows
    with pytest.raises(CapabilityError, match="no single stack of layers"):
        cached(module, rows, "on")


def test_what_reaches_down_is_refused_with_its_reason() -> None:
    base = tiny_base("llama")
    prompt = base.prepare(task_of(2))
    module = LoRA().attach(base, prompt, seed=1)
    rows = parts("llama", "causal")[2]
    assert cached(module, rows) is rows
    with pytest.raises(CapabilityError, match="reaches down to the lowest layer"):
        cached(module, rows, "on")
    with pytest.raises(UsageError, match="auto, on or off"):
        cached(module, rows, "yes")


def test_a_trained_embedding_keeps_the_trunk_running() -> None:
    _, module, rows = parts("llama", "causal")
    module.get_submodule("base_model.model.model.embed_tokens").requires_grad_(True)
    try:
        with pytest.raises(CapabilityError, match="comes before its end, such as an embedding"):
            cached(module, rows, "on")
    finally:
        module.get_submodule("base_model.model.model.embed_tokens").requires_grad_(False)


def test_soft_tokens_at_the_embedding_are_seen() -> None:
    base = tiny_base("llama")
    method = build("soft-prompt", {"length": 3})
    assert isinstance(method, Attached)
    prompt = method.prompt(base, base.prepare(task_of(2)))
    module = method.attach(base, prompt, seed=1)
    rows = rows_of(6)
    coded = LabelRows(base, prompt, encode(base, prompt, rows, say=hush), prompt.task.gold(rows))
    told: list[str] = []
    assert with_trunk_cached(module, [coded], wanted="auto", precision="float32", say=told.append) == [coded]
    assert told == []


def test_too_large_states_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.tuning._trunk_rows.TRUNK_MEMORY_SHARE", 0.0)
    _, module, rows = parts("llama", "causal")
    told: list[str] = []
    assert with_trunk_cached(module, [rows], wanted="auto", precision="float32", say=told.append) == [rows]
    assert "MiB" in told[0]


def test_fit_uses_it_and_says_so() -> None:
    told: list[str] = []
    rows = rows_of(60)
    method = LoRA(targets="layers.1.self_attn.v_proj")
    training = pegbox.Training(epochs=2, precision="float32", trunk_cache="on")
    tuned = pegbox.fit(tiny_base("llama"), task_of(2), method, rows=rows, training=training, say=told.append)
    assert any("frozen layers below were run once for each of 60 rows" in line for line in told)
    plain = pegbox.fit(
        tiny_base("llama"),
        task_of(2),
        method,
        rows=rows,
        training=pegbox.Training(epochs=2, precision="float32", trunk_cache="off"),
        say=hush,
    )
    torch.testing.assert_close(tuned.logits(rows), plain.logits(rows), rtol=1e-3, atol=1e-4)
