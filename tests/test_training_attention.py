"""Attention that is trained under bf16 autocast on a CPU: in float32 where that is faster."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pegbox.training import Settings, train
from pegbox.training._attention import LONGEST, quick_attention
from training_toy import Rows, quiet, tiny_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


def heads(tokens: int = 7, grad: bool = True) -> list[Tensor]:
    dice = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, tokens, 8, generator=dice).requires_grad_(grad) for _ in range(3)]


def attended(parts: list[Tensor], bf16: bool = True, **options: object) -> Tensor:
    with quick_attention(CPU, bf16=bf16), torch.autocast("cpu", torch.bfloat16):
        return scaled_dot_product_attention(*parts, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("mask", ["none", "causal", "bool", "additive", "bf16"])
def test_values_and_gradients_are_those_of_float32(mask: str) -> None:
    seen = torch.ones(7, 7, dtype=torch.bool).tril()
    added = torch.zeros(7, 7).masked_fill(~seen, -1e9)
    options = {
        "none": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": seen},
        "additive": {"attn_mask": added},
        "bf16": {"attn_mask": added.bfloat16()},
    }[mask]
    parts, plain = heads(), heads()
    found = attended(parts, **options)
    exact = {"attn_mask": added.bfloat16().float()} if mask == "bf16" else options
    wanted = scaled_dot_product_attention(*plain, **exact)  # type: ignore[arg-type]
    assert torch.equal(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    assert all(torch.equal(one.grad, two.grad) for one, two in zip(parts, plain, strict=True))  # type: ignore[arg-type]


def test_it_is_left_alone_where_it_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attended(heads()).dtype == torch.float32
    assert attended(heads(), bf16=False).dtype == torch.bfloat16
    assert attended(heads(LONGEST)).dtype == torch.float32
    assert attended(heads(LONGEST + 1)).dtype == torch.bfloat16
    assert attended(heads(grad=False)).dtype == torch.bfloat16
    with torch.no_grad():
        assert attended(heads()).dtype == torch.bfloat16
    with quick_attention(CPU, bf16=True):  # without autocast all stays as it is
        assert scaled_dot_product_attention(*(part.bfloat16() for part in heads())).dtype == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert attended(heads()).dtype == torch.bfloat16


def test_other_functions_stay_in_bf16() -> None:
    left, right = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2)
    with quick_attention(CPU, bf16=True), torch.autocast("cpu", torch.bfloat16):
        assert (left @ right).dtype == torch.bfloat16


@pytest.mark.parametrize("recompute", [False, True])
def test_training_in_bf16_uses_it_unless_activations_are_computed_again(
    tmp_path: Path, recompute: bool
) -> None:
    seen: list[torch.dtype] = []
    model = tiny_model()
    inner = model.get_base_model().model.layers[0].self_attn.o_proj
    inner.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    settings = Settings(
        learning_rate=1e-3, batch_size=8, max_steps=1, precision="bf16", gradient_checkpointing=recompute
    )
    train(model, Rows(8), settings=settings, folder=tmp_path, valid=Rows(8, seed=1), say=quiet)
    assert seen[0] == (torch.bfloat16 if recompute else torch.float32)
    assert seen[-1] == torch.bfloat16, "validation, which needs no gradient, stays in bf16"
