"""What a model's attention modules look like and compute, seen by letting tokens run through them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.errors import CapabilityError
from pegbox.methods._holes import NO_INTERFACE
from pegbox.methods._tuners._attention import listening, switched
from pegbox.models import PooledClassifier

# Two tokens for a decoder above three for its encoder tell cross attention by its number of keys.
PROBE, ENCODED = (0, 0), (0, 0, 0)


@dataclass(frozen=True)
class Geometry:
    """Shapes of one attention module.

    Args:
        heads: Query heads.
        key_heads: Key and value heads.
        key_width: Width of a key.
        value_width: Width of a value.
        width: Width of the module's input.
        rotary: Width of its rotary position factors; 0 without such.
        cross: Whether its keys come from an encoder.
    """

    heads: int
    key_heads: int
    key_width: int
    value_width: int
    width: int
    rotary: int
    cross: bool

    @property
    def numbers(self) -> int:
        """Numbers in the keys and values of one token."""
        return self.key_heads * (self.key_width + self.value_width)


@torch.no_grad()
def probe(model: nn.Module) -> dict[str, Geometry]:
    """The attention modules of a model by name, in the order in which they run.

    No table of architectures is needed: two tokens run through the model with an attention function that
    writes down who called it.

    Raises:
        CapabilityError: When the family computes attention without Transformers' AttentionInterface.
    """
    names = {id(part): name for name, part in model.named_modules()}
    inputs: dict[int, dict[str, Any]] = {}
    found: dict[str, Geometry] = {}

    def entered(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        hidden = options.get("hidden_states", args[0] if args else None)
        inputs[id(module)] = {"hidden": hidden, "rotary": options.get("position_embeddings")}

    def called(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
        seen = inputs[id(module)]
        found[names[id(module)]] = Geometry(
            heads=query.shape[1],
            key_heads=key.shape[1],
            key_width=key.shape[3],
            value_width=value.shape[3],
            width=seen["hidden"].shape[-1],
            rotary=seen["rotary"][0].shape[-1] if isinstance(seen["rotary"], tuple) else 0,
            cross=key.shape[2] != query.shape[2],
        )

    with ExitStack() as stack:
        for part in model.modules():
            hook = part.register_forward_pre_hook(entered, with_kwargs=True)
            stack.callback(hook.remove)
        stack.enter_context(switched(model))
        stack.enter_context(listening(called))
        model(**_inputs(model, ENCODED if _decodes(model) else PROBE, PROBE))
    if not found:
        raise _unseen(model)
    return found


@torch.no_grad()
def states(
    model: nn.Module, tokens: Sequence[int], first: int, last: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """The keys and values that a frozen model gives tokens, as they would stand directly before a text.

    Where positions are rotary, the keys are turned to positions below zero, so that a text whose positions
    start at zero finds them where words before it would be.

    Args:
        model: The model, without adapters; an encoder-decoder reads the tokens with both parts.
        tokens: All tokens to run.
        first: Index of the first token whose keys and values are wanted.
        last: Index after the last one.

    Returns:
        Module name to keys (key heads, tokens, key width) and values (key heads, tokens, value width).
    """
    names = {id(part): name for name, part in model.named_modules()}
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def called(module: nn.Module, _query: Tensor, key: Tensor, value: Tensor) -> None:
        found[names[id(module)]] = (key[0, :, first:last].clone(), value[0, :, first:last].clone())

    inputs = _inputs(model, tokens, tokens)
    # What holds an encoder below a head hands on to it whatever it is given.
    reader = model.encoder if isinstance(model, PooledClassifier) else model
    rotary = any(_takes(part, "position_embeddings") for part in model.modules())
    if rotary and _takes(reader, "position_ids"):
        ids = inputs["input_ids"]
        inputs["position_ids"] = torch.arange(len(tokens), device=ids.device)[None] - last
    with switched(model), listening(called):
        model(**inputs)
    return found


def project(module: Any, prompt: Tensor, rotary: int) -> tuple[Tensor, Tensor]:
    """The keys and values that a self-attention module makes of its input, without positions.

    The module's own code runs up to its attention function, so that whatever it does to keys and values, such
    as normalising keys, is done; rotary factors of one and zero turn nothing.

    Args:
        module: The attention module, of a model that was switched to our attention functions.
        prompt: (tokens, width).
        rotary: See :class:`Geometry`.

    Returns:
        Keys (1, key heads, tokens, key width) and values (1, key heads, tokens, value width).
    """
    options: dict[str, Any] = {}
    if _takes(module, "position_embeddings"):
        turn = torch.ones(1, len(prompt), max(rotary, 1), device=prompt.device, dtype=prompt.dtype)
        options["position_embeddings"] = (turn, torch.zeros_like(turn)) if rotary else None
    for name in ("attention_mask", "past_key_values"):
        if _takes(module, name):
            options[name] = None
    try:
        with listening(_interrupt):
            module.forward(prompt[None], **options)
    except _Projected as seen:
        return seen.key, seen.value
    raise _unseen(module)


class _Projected(Exception):
    """Carries keys and values out of a module whose output nobody needs."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.key, self.value = key, value


def _interrupt(_module: nn.Module, _query: Tensor, key: Tensor, value: Tensor) -> None:
    raise _Projected(key, value)


def _inputs(model: nn.Module, tokens: Sequence[int], decoded: Sequence[int]) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    ids = torch.tensor([list(tokens)], device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if _decodes(model):
        inputs["decoder_input_ids"] = torch.tensor([list(decoded)], device=device)
    return inputs


def _decodes(model: nn.Module) -> bool:
    return _takes(model, "decoder_input_ids")


def _takes(module: nn.Module, name: str) -> bool:
    return name in inspect.signature(module.forward).parameters


def _unseen(model: nn.Module) -> CapabilityError:
    settings: Any = getattr(model, "config", None)
    return CapabilityError(
        f"nothing can be put beside the attention of {getattr(settings, 'model_type', 'these')} models: "
        + NO_INTERFACE,
        expected="a family that calls AttentionInterface, as Llama, Qwen, Gemma, Mistral, GPT-2, BERT and T5",
        fix="choose lora, bottleneck or ia3",
    )
