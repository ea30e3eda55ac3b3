"""The chunked cross-entropy of tokens, against the plain one over all logits at once."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional

import pegbox.models._cross_entropy as chunks
from pegbox.methods._peft import expected_warnings
from pegbox.models import IGNORED, blocks_of, chunked_cross_entropy, language_loss
from tiny import CAUSAL, MASKED, VOCABULARY, tiny_base

FAMILIES = [*((name, "causal") for name in CAUSAL), *((name, "masked") for name in MASKED)]
# In float64 sums in another order differ by some 1e-15 of the numbers, which are of the order of 1 to 10.
EXACT: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12}


def whole(architecture: str, kind: str) -> Any:
    """A copy of a tiny model in float64, all of it trained."""
    return copy.deepcopy(tiny_base(architecture, kind).model).double().requires_grad_(True).eval()


def batch(kind: str) -> tuple[dict[str, Tensor], Tensor]:
    """Three rows padded on the right, and what is asked of them."""
    dice = torch.Generator().manual_seed(0)
    ids = torch.randint(4, VOCABULARY, (3, 17), generator=dice)
    mask = torch.ones_like(ids)
    for row, length in enumerate((17, 5, 11)):
        ids[row, length:], mask[row, length:] = 1, 0
    targets = torch.full_like(ids, IGNORED)
    if kind == "causal":
        asked = mask[:, 1:].bool()
        targets[:, :-1][asked] = ids[:, 1:][asked]
    else:
        asked = (torch.rand(ids.shape, generator=dice) < 0.3) & mask.bool()
        targets[asked] = ids[asked]
        ids = ids.masked_fill(asked, 3)
    return {"input_ids": ids, "attention_mask": mask}, targets


def plain(model: nn.Module, inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    logits = model(**inputs).logits
    return functional.cross_entropy(logits[targets != IGNORED], targets[targets != IGNORED], reduction="none")


def gradients(model: nn.Module, losses: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    # Unequal weights, so that a loss in the wrong place shows.
    (losses * torch.linspace(0.5, 2, len(losses), dtype=losses.dtype)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("trained", ["all", "a block"])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_losses_and_gradients_are_the_plain_ones(
    architecture: str, kind: str, chunk: int, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", chunk * VOCABULARY)
    model = whole(architecture, kind)
    if trained == "a block":
        model.requires_grad_(False)
        blocks_of(model)[1].requires_grad_(True)
    inputs, targets = batch(kind)
    wanted, found = plain(model, inputs, targets), language_loss(model, inputs, targets)
    torch.testing.assert_close(found, wanted, **EXACT)
    left, right = gradients(model, wanted), gradients(model, language_loss(model, inputs, targets))
    # A layer below the output that nothing reads (a pooler) has no gradient by either way.
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, **EXACT, msg=name)


def test_a_lora_on_the_output_layer_is_trained_through_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 4 * VOCABULARY)
    config = LoraConfig(r=2, target_modules=["lm_head", "v_proj"], init_lora_weights=False)
    with expected_warnings():
        model = get_peft_model(copy.deepcopy(tiny_base("gemma3_text").model), config).double().eval()
    inputs, targets = batch("causal")
    left = gradients(model, plain(model, inputs, targets))
    right = gradients(model, language_loss(model, inputs, targets))
    assert any("lm_head" in name for name in left)
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, **EXACT, msg=name)


@pytest.mark.parametrize("trained", [False, True])
def test_logits_exist_for_one_chunk_at_a_time(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 7 * 11)
    sizes: list[int] = []
    kept: list[int] = []

    def logits(hidden: Tensor) -> Tensor:
        sizes.append(len(hidden))
        return hidden @ matrix

    def pack(value: Tensor) -> Tensor:
        kept.append(value.numel())
        return value

    matrix = torch.randn(4, 11, requires_grad=trained)
    hidden = torch.randn(40, 4, requires_grad=True)
    parameters = [matrix] if trained else []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        losses = chunked_cross_entropy(
            hidden, torch.arange(40) % 11, logits, outputs=11, parameters=parameters
        )
    once = [7, 7, 7, 7, 7, 5]
    assert sizes == once
    # Of all positions hidden states (or their gradient) and targets are kept, never logits (40 * 11).
    assert set(kept) <= {40 * 4, 40, 4 * 11, 7 * 4, 5 * 4}
    losses.sum().backward()
    assert sizes == (once * 2 if trained else once)


def test_without_a_gradient_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 7 * 11)
    calls: list[bool] = []

    def logits(hidden: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return hidden[:, :1].expand(-1, 11)

    with torch.no_grad():
        losses = chunked_cross_entropy(torch.zeros(15, 2), torch.zeros(15).long(), logits, outputs=11)
    assert calls == [False] * 3
    # All 11 outputs are alike: ln 11.
    torch.testing.assert_close(losses, torch.full((15,), 11.0).log())


def test_only_the_output_layer_may_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 7 * 11)
    matrix = torch.randn(4, 11, dtype=torch.float64, requires_grad=True)
    hidden, targets = torch.randn(40, 4, dtype=torch.float64), torch.arange(40) % 11
    found = chunked_cross_entropy(hidden, targets, lambda h: h @ matrix, outputs=11, parameters=[matrix])
    wanted = functional.cross_entropy(hidden @ matrix, targets, reduction="none")
    weights = torch.linspace(-1, 1, 40, dtype=torch.float64)
    left, right = (torch.autograd.grad((loss * weights).sum(), matrix)[0] for loss in (found, wanted))
    torch.testing.assert_close(left, right, **EXACT)


@pytest.mark.parametrize("trained", [False, True])
def test_autocast_holds_when_logits_are_computed_anew(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 7 * 11)
    matrix, hidden = torch.randn(11, 4, requires_grad=trained), torch.randn(40, 4, requires_grad=True)
    types: list[torch.dtype] = []

    def logits(states: Tensor) -> Tensor:
        found = functional.linear(states, matrix)
        types.append(found.dtype)
        return found

    with torch.autocast("cpu", torch.bfloat16):
        losses = chunked_cross_entropy(
            hidden, torch.arange(40) % 11, logits, outputs=11, parameters=[matrix] if trained else []
        )
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert set(types) == {torch.bfloat16}
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("architecture", "kind"), [("llama", "causal"), ("gpt2", "causal"), ("bert", "masked")]
)
def test_padding_on_either_side_changes_nothing(architecture: str, kind: str) -> None:
    model = whole(architecture, kind)
    inputs, targets = batch(kind)
    right = language_loss(model, inputs, targets)
    lengths = inputs["attention_mask"].sum(1).tolist()

    def rolled(values: Tensor) -> Tensor:
        return torch.stack([row.roll(len(row) - n) for row, n in zip(values, lengths, strict=True)])

    moved = {name: rolled(values) for name, values in inputs.items()}
    # Absolute positions count the real tokens, as whoever pads on the left must tell the model.
    positions = (moved["attention_mask"].cumsum(1) - 1).clamp(min=0)
    left = language_loss(model, moved, rolled(targets), position_ids=positions)
    torch.testing.assert_close(left, right, **EXACT)
    alone = torch.cat([
        language_loss(model, {k: v[row : row + 1, :n] for k, v in inputs.items()}, targets[row : row + 1, :n])
        for row, n in enumerate(lengths)
    ])  # fmt: skip
    torch.testing.assert_close(alone, right, **EXACT)


def test_dropout_in_the_output_path_is_the_same_when_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of a loss whose backward pass draws other random numbers would not be its own."""
    config = LoraConfig(r=2, target_modules=["lm_head"], lora_dropout=0.5, init_lora_weights=False)
    model = get_peft_model(copy.deepcopy(tiny_base("llama").model), config).double().train()
    inputs, targets = batch("causal")
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 4 * VOCABULARY)
    name, value = next((n, p) for n, p in model.named_parameters() if "lora_B" in n)

    def loss() -> Tensor:
        torch.manual_seed(3)
        return language_loss(model, inputs, targets).sum()

    loss().backward()
    assert value.grad is not None
    step = 1e-6
    with torch.no_grad():
        low = loss()
        value[5, 1] += step
        high = loss()
    # A finite difference of a smooth function in float64: error of the order of the step.
    torch.testing.assert_close(value.grad[5, 1], (high - low) / step, rtol=1e-4, atol=1e-5, msg=name)


def test_the_model_is_as_before_afterwards() -> None:
    model = tiny_base("cohere").model
    inputs, targets = batch("causal")
    layer = model.get_output_embeddings()  # type: ignore[operator]
    state = torch.get_rng_state()
    model.train()
    language_loss(model, inputs, targets)
    assert model.training
    assert model.get_output_embeddings() is layer  # type: ignore[operator]
    model.eval()
    assert torch.equal(state, torch.get_rng_state())


def test_half_precision_is_summed_in_float32() -> None:
    model = copy.deepcopy(tiny_base("llama").model).bfloat16()
    inputs, targets = batch("causal")
    losses = language_loss(model, inputs, targets)
    assert losses.dtype == torch.float32
    logits = model(**inputs).logits.float()
    wanted = functional.cross_entropy(
        logits[targets != IGNORED], targets[targets != IGNORED], reduction="none"
    )
    torch.testing.assert_close(losses, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_frozen_layer_gives_what_any_other_map_does(
    dtype: torch.dtype, bias: bool, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 300 * 7)
    dice = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(16, 300, bias=bias).to(dtype).requires_grad_(False)
    hidden = torch.randn(50, 16, generator=dice).to(dtype).requires_grad_(True)
    targets = torch.randint(0, 300, (50,), generator=dice)
    weights = torch.rand(50, generator=dice)
    found = []
    for read in (layer, lambda states: layer(states)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and dtype != torch.float64):
            losses = chunks.chunked_cross_entropy(hidden, targets, read, outputs=300)
        (gradient,) = torch.autograd.grad((losses * weights).sum(), hidden)
        found.append((losses.detach(), gradient))
    (ours, own), (theirs, other) = found
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(own, other, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


def test_a_watched_layer_is_called() -> None:
    layer, seen = torch.nn.Linear(4, 9).requires_grad_(False), []
    layer.register_forward_hook(lambda *_: seen.append(1))
    chunks.chunked_cross_entropy(torch.randn(3, 4), torch.tensor([0, 1, 2]), layer, outputs=9)
    assert seen == [1]
