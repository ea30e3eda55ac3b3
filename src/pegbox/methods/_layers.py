from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pegbox.errors import CapabilityError, UsageError
from pegbox.models import Base, PooledClassifier

PROBE = (3, 4)


@dataclass(frozen=True)
class Block:
    """One transformer block of a module, as seen while two tokens ran through it.

    Args:
        name: Its name in the module.
        attention: For each attention sublayer, its linear layers in the order in which they ran; the last
            one ends the sublayer.
        feedforward: The linear layer that ends the feed-forward sublayer.
    """

    name: str
    attention: tuple[tuple[str, ...], ...]
    feedforward: str


def linear_layers(module: nn.Module) -> list[str]:
    """Names of the linear layers that every answer passes through below the head.

    Args:
        module: What :meth:`pegbox.Base.module` made.
    """
    model: Any = module
    trunk = model.encoder if isinstance(module, PooledClassifier) else getattr(model, "base_model", model)
    inside = {id(part) for part in trunk.modules()} - {id(_output(module))}
    return [
        name
        for name, child in module.named_modules()
        if id(child) in inside and is_linear(child) and "pooler" not in name.split(".")
    ]


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, those of GPT-2 and quantised ones included."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def in_out_features(layer: nn.Module) -> tuple[int, int]:
    """Numbers of inputs and outputs of a linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    weight: Any = layer.weight
    return int(weight.shape[0]), int(weight.shape[1])


def block_names(module: nn.Module) -> list[str]:
    """Names of the transformer blocks from the lowest to the top one; a decoder stands on its encoder."""
    linear = linear_layers(module)
    names: list[str] = []
    for name, child in module.named_modules():
        inner = [f"{name}.{index}" for index in range(len(child))] if isinstance(child, nn.ModuleList) else []
        if inner and not lies_in(name, names) and all(any(lies_in(x, [i]) for x in linear) for i in inner):
            names += inner
    return names


def lies_in(name: str, parents: Iterable[str]) -> bool:
    """Whether a module is one of some others or lies in one."""
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def top(blocks: list[str], layers: int | None, method: str, base: Base) -> list[str]:
    """The names of the top blocks.

    Args:
        blocks: All of them, the lowest first.
        layers: How many; all when ``None``.
        method: The method that asks.
        base: The base, for the message.

    Raises:
        UsageError: When the model has fewer.
    """
    if layers is None:
        return blocks
    if not 1 <= layers <= len(blocks):
        raise UsageError(
            f"{method}: layers is {layers}, and the model has {len(blocks)} layers",
            where=base.name,
            expected=f"a whole number from 1 to {len(blocks)}" if blocks else "a model of stacked layers",
            fix="leave layers out to tune all of them",
        )
    return blocks[-layers:]


def blocks(base: Base, module: nn.Module, method: str) -> list[Block]:
    """The transformer blocks of a module with the linear layers that end their sublayers.

    No table of architectures is needed: two tokens run through the frozen module, and the order in which its
    linear layers run tells which is the last one of each attention sublayer and of the feed-forward sublayer.

    Args:
        base: The base.
        module: What its :meth:`pegbox.Base.module` made.
        method: The method that asks, for the message.

    Raises:
        CapabilityError: When a block has no such layers, or routes its tokens between experts.
    """
    names = block_names(module)
    if not names:
        raise _unfit(base, method, "it has no stack of blocks with linear layers")
    order: dict[str, None] = {}
    widths: dict[str, int] = {}

    def ran(name: str) -> Callable[..., None]:
        return lambda *_: order.setdefault(name)

    def wide(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: widths.update({name: _first(output).shape[-1]})

    hooks = [module.get_submodule(name).register_forward_hook(ran(name)) for name in linear_layers(module)]
    hooks += [module.get_submodule(name).register_forward_hook(wide(name)) for name in names]
    with torch.no_grad():
        _probe(base, module, hooks)
    return [_block(base, module, method, name, list(order), widths.get(name, 0)) for name in names]


def key_value_units(base: Base, module: nn.Module, found: Iterable[Block]) -> dict[str, Tensor]:
    """Which outputs of which linear layers are keys or values.

    A unit is a key or a value exactly when its value at one token moves what the attention gives another
    token; a query moves only its own. So the outputs of the attention's linear layers are replaced by small
    random numbers, and the gradient of what the second token receives with respect to the first token's
    numbers is zero for queries and for nothing else, whatever the layers are called and however one layer
    packs queries, keys and values.

    Args:
        base: The base.
        module: What its :meth:`pegbox.Base.module` made.
        found: Blocks of it.

    Returns:
        Layer name to a mask of its outputs, (outputs,); layers without any key or value are left out.
    """
    sublayers = [sublayer for block in found for sublayer in block.attention]
    leaves: dict[str, Tensor] = {}
    ends: list[Tensor] = []
    with torch.enable_grad():
        _probe(base, module, _cut(module, sublayers, leaves, ends))
        gradients = torch.autograd.grad([end.sum() for end in ends], list(leaves.values()), allow_unused=True)
    masks = {
        name: gradient.reshape(-1, gradient.shape[-1])[0].cpu() != 0
        for name, gradient in zip(leaves, gradients, strict=True)
        if gradient is not None
    }
    return {name: mask for name, mask in masks.items() if mask.any()}


def _cut(
    module: nn.Module,
    sublayers: list[tuple[str, ...]],
    leaves: dict[str, Tensor],
    ends: list[Tensor],
) -> list[RemovableHandle]:
    """Hooks that put random leaves in place of queries, keys and values, and keep what token 2 receives."""
    dice = torch.Generator().manual_seed(0)

    def replace(name: str) -> Callable[..., Tensor]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            numbers = 0.1 * torch.randn(output.shape, generator=dice)
            leaf = numbers.to(output.device, output.dtype).requires_grad_()
            return leaves.setdefault(name, leaf)

        return hook

    def end(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        ends.append(inputs[0].reshape(-1, inputs[0].shape[-1])[1].float())

    hooks = [
        module.get_submodule(name).register_forward_hook(replace(name))
        for sublayer in sublayers
        for name in sublayer[:-1]
    ]
    last = [module.get_submodule(sublayer[-1]) for sublayer in sublayers]
    return hooks + [layer.register_forward_pre_hook(end) for layer in last]


def _probe(base: Base, module: nn.Module, hooks: list[RemovableHandle]) -> None:
    ids = torch.tensor([PROBE], device=base.device)
    settings: Any = module.config
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if getattr(settings, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    with ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        module(**inputs)


def _block(base: Base, module: nn.Module, method: str, name: str, order: list[str], width: int) -> Block:
    linear = [layer for layer in order if lies_in(layer, [name])]
    parts = _attention_parts(module, name)
    attention = [tuple(layer for layer in linear if lies_in(layer, [part])) for part in parts]
    attention = [sublayer for sublayer in attention if sublayer]
    rest = [layer for layer in linear if not lies_in(layer, parts)]
    if not attention:
        raise _unfit(base, method, f"no attention was found in {name}")
    if _experts(module, name):
        raise _unfit(base, method, f"the feed-forward part of {name} routes tokens between experts")
    if not rest:
        raise _unfit(base, method, f"no feed-forward linear layer was found in {name}")
    for last in (*(sublayer[-1] for sublayer in attention), rest[-1]):
        outputs = in_out_features(module.get_submodule(last))[1]
        if outputs != width:
            raise _unfit(base, method, f"{last} ends a sublayer with {outputs} outputs instead of {width}")
    return Block(name, tuple(attention), rest[-1])


def _attention_parts(module: nn.Module, block: str) -> list[str]:
    """The outermost modules of a block that are attention, its output projection included."""
    parts: list[str] = []
    for name, child in module.get_submodule(block).named_modules(prefix=block):
        words = (name.rpartition(".")[2] + " " + type(child).__name__).lower()
        if name != block and ("attn" in words or "attention" in words) and not lies_in(name, parts):
            parts.append(name)
    return parts


def _experts(module: nn.Module, block: str) -> bool:
    part = module.get_submodule(block)
    lists = [child for child in part.modules() if isinstance(child, nn.ModuleList)]
    twins = any(len(child) > 1 and len({type(one) for one in child}) == 1 for child in lists)
    return twins or any(tensor.dim() == 3 for tensor in part.parameters())


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _output(module: nn.Module) -> nn.Module | None:
    find: Any = getattr(module, "get_output_embeddings", None)
    return find() if find is not None else None


def _unfit(base: Base, method: str, why: str) -> CapabilityError:
    settings: Any = base.model.config
    return CapabilityError(
        f"{method} cannot work on {getattr(settings, 'model_type', 'these')} models: {why}",
        where=base.name,
        expected="blocks of attention and one feed-forward sublayer that each end in a linear layer",
        fix="choose lora with targets all-linear",
    )
