"""What the tests of prefix and zero-init attention share."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adapters_toy import FAMILIES, IDS, trained
from pegbox.methods import Attached
from pegbox.models import Base
from tiny import tiny_base
from tuning_toy import task_of

GENERATING = [*FAMILIES[:5], FAMILIES[8]]


def attach(method: Attached, base: Base, seed: int = 0) -> Any:
    """The method on a base, in eval mode."""
    return method.attach(base, base.prepare(task_of()), seed=seed).eval()


def inputs_of(module: Any, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    mask = torch.ones_like(ids) if mask is None else mask
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(module.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids.flip(1)
    return inputs


def forward(module: Any, ids: Tensor = IDS, mask: Tensor | None = None, **options: Any) -> Tensor:
    """All logits."""
    output = module(**inputs_of(module, ids, mask), **options)
    return output if isinstance(output, Tensor) else output.logits


@torch.no_grad()
def logits(module: Any, ids: Tensor = IDS, mask: Tensor | None = None, **options: Any) -> Tensor:
    return forward(module, ids, mask, **options)


@torch.no_grad()
def fill(module: nn.Module, seed: int = 1, size: float = 0.5) -> Any:
    """Move all trained numbers, so that what they do shows."""
    dice = torch.Generator().manual_seed(seed)
    for tensor in trained(module).values():
        tensor += size * torch.randn(tensor.shape, generator=dice).to(tensor)
    return module


def with_eager(base: Base) -> Base:
    model: Any = copy.deepcopy(base.model)
    model.set_attn_implementation("eager")
    return replace(base, model=model)


def in_bf16(base: Base) -> Base:
    return replace(base, model=copy.deepcopy(base.model).to(torch.bfloat16))


def generate(module: Any, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """Twelve greedy tokens."""
    made = module.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids) if mask is None else mask,
        do_sample=False,
        min_new_tokens=12,
        max_new_tokens=12,
        pad_token_id=1,
        **options,
    )
    return made[:, -12:]


def check_generation(method: Attached, architecture: str, kind: str) -> None:
    """Greedy tokens are the same with a cache and without, and of a padded batch and its single rows."""
    module = fill(attach(method, tiny_base(architecture, kind)))
    short = IDS[1:, :4]
    single = [generate(module, row, use_cache=False) for row in (IDS[:1], short)]
    for row, expected in zip((IDS[:1], short), single, strict=True):
        assert torch.equal(generate(module, row), expected)
    padded = torch.cat([IDS[:1], torch.cat([torch.ones(1, 2, dtype=torch.long), short], dim=1)])
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    assert torch.equal(generate(module, padded, mask), torch.cat(single))


def check_off_is_the_base(method: Attached, architecture: str, kind: str) -> None:
    """Disabled, a tuned module is the base bit for bit, and the base stays on its own attention function."""
    base = tiny_base(architecture, kind)
    before = base.model.config._attn_implementation
    plain = logits(base.module(2))
    module = fill(attach(method, base))
    turned = logits(module)
    assert not torch.allclose(turned, plain, atol=1e-4)
    with module.disable_adapter():
        assert torch.equal(logits(module), plain)
    assert torch.equal(logits(module), turned)
    assert torch.equal(logits(base.module(2)), plain)
    configs = {part.config._attn_implementation for part in base.model.modules() if hasattr(part, "config")}
    assert configs == {before}
    assert module.config._attn_implementation == f"pegbox_{before}"


def gradients(module: Any, ids: Tensor = IDS) -> dict[str, Tensor]:
    module.zero_grad()
    forward(module, ids).float().log_softmax(-1)[..., 7].sum().backward()
    return {name: tensor.grad.clone() for name, tensor in trained(module).items()}  # type: ignore[union-attr]


def check_checkpointing(method: Attached, architecture: str, kind: str) -> None:
    """Recomputed activations give the same gradients, by either of PyTorch's ways."""
    from functools import partial

    from torch.utils.checkpoint import checkpoint

    module = fill(attach(method, tiny_base(architecture, kind)))
    plain = gradients(module)
    assert all(gradient.abs().sum() > 0 for gradient in plain.values())
    inner = module.get_base_model()
    module.enable_input_require_grads()
    for part in module.modules():  # or dropout would differ; checkpointing only acts in training mode
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.0
    module.train()
    for reentrant in (False, True):
        inner._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=reentrant))
        for name, gradient in gradients(module).items():
            # T5 shares a position bias among its layers, whose gradients are summed in another order.
            torch.testing.assert_close(gradient, plain[name], rtol=1e-5, atol=2e-6)


def check_two_adapters(method: Attached, architecture: str, kind: str) -> None:
    """A second adapter can be added, switched to, used together with the first one, and deleted."""
    module = fill(attach(method, tiny_base(architecture, kind)))
    first = logits(module)
    module.add_adapter("second", copy.deepcopy(module.peft_config["default"]))
    assert torch.equal(logits(module), first)
    assert not any("second" in name for name in trained(module))
    module.set_adapter("second")
    fill(module, seed=2)
    second = logits(module)
    assert not torch.allclose(first, second, atol=1e-4)
    assert trained(module)
    assert not any("default" in name for name in trained(module))
    module.base_model.set_adapter(["default", "second"])
    both = logits(module)
    assert not torch.allclose(both, first, atol=1e-4)
    assert not torch.allclose(both, second, atol=1e-4)
    module.set_adapter("default")
    assert torch.equal(logits(module), first)
    module.delete_adapter("second")
    assert torch.equal(logits(module), first)
    assert not any("second" in name for name in module.state_dict())
