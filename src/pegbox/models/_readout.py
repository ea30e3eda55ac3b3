from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pegbox.errors import CapabilityError
from pegbox.models._decoder import any_width

Watcher = Callable[[nn.Module, Tensor, Tensor], None]
_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)

POSITIONS = "answer_positions"
"""Key of the answers' positions, (batch,), in a batch of model inputs."""


@dataclass(frozen=True)
class Answers:
    """What a model says at the answer positions.

    Args:
        logits: (batch, labels), or (batch, vocabulary) when no tokens were chosen.
        hidden: (batch, width), the input of the output layer.
    """

    logits: Tensor
    hidden: Tensor


def read(
    model: nn.Module, batch: Mapping[str, Tensor], tokens: Tensor | None = None, **options: Any
) -> Answers:
    """Run a model and read only the answer positions and only the output rows that matter.

    The model's own forward runs with its output layer replaced for the time of the call, so that whatever a
    family does around that layer (transforms, biases, logit scale, soft-capping) is done by its own code.

    Args:
        model: Any model with an output layer, with or without PEFT adapters.
        batch: Model inputs (batch, tokens) and ``answer_positions`` (batch,), which count the tokens of the
            decoder of an encoder-decoder.
        tokens: Rows of the output matrix, (labels,); all when ``None``.
        options: Further keyword arguments of the model's forward.

    Returns:
        The answers; gradients flow through both tensors.
    """
    inputs = {key: value for key, value in batch.items() if key != POSITIONS}
    with narrowed(model, batch[POSITIONS], tokens) as narrow:
        output = model(**inputs, **options)
    logits = output if isinstance(output, Tensor) else output.logits
    return Answers(logits.flatten(1), narrow.hidden)


@contextmanager
def narrowed(model: nn.Module, positions: Tensor, tokens: Tensor | None) -> Iterator[Narrow]:
    """Replace the output layer of ``model`` by one that answers at ``positions`` for ``tokens`` only."""
    narrow = Narrow(output_layer(model)[1], positions, tokens)
    with standing_in(model, narrow):
        yield narrow


@contextmanager
def standing_in(model: nn.Module, other: nn.Module) -> Iterator[None]:
    """Let another module stand in for the output layer of ``model``, with results of any width."""
    name, layer = output_layer(model)
    parent = model.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], other)
    try:
        with any_width(unwrapped(model)):
            yield
    finally:
        setattr(parent, name.rpartition(".")[2], layer)


class Narrow(nn.Module):
    """Stands in for an output layer: gathers positions, multiplies chosen rows, remembers its input."""

    def __init__(self, layer: nn.Module, positions: Tensor, tokens: Tensor | None) -> None:
        super().__init__()
        self._layer = (layer,)
        self._positions = positions
        self._tokens = tokens
        self.hidden: Tensor = positions

    @property
    def weight(self) -> Tensor:
        """The weight of the real layer, since some families look at its dtype."""
        return self._layer[0].weight  # type: ignore[return-value]

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (batch, tokens, width) or (batch, width) to (batch, 1, labels) or (batch, labels).

        Positions that are a mask (batch, tokens) give (1, marked, labels), in reading order.
        """
        if hidden.dim() == 2:
            self.hidden = hidden
            return rows_of(self._layer[0], hidden, self._tokens)
        if self._positions.dtype == torch.bool:
            self.hidden = hidden[self._positions]
            return rows_of(self._layer[0], self.hidden, self._tokens).unsqueeze(0)
        self.hidden = hidden[torch.arange(len(hidden), device=hidden.device), self._positions]
        return rows_of(self._layer[0], self.hidden, self._tokens).unsqueeze(1)


def rows_of(layer: nn.Module, hidden: Tensor, tokens: Tensor | None) -> Tensor:
    """Outputs ``tokens`` of a linear layer, with the PEFT LoRA that may be wrapped around it."""
    if tokens is None:
        return layer(hidden)
    if type(layer) is nn.Linear:
        return _chosen(layer, hidden, tokens)
    if _plain_lora(layer):
        return _lora_rows(layer, hidden, tokens)
    return layer(hidden)[..., tokens]


def _plain_lora(layer: nn.Module) -> bool:
    from peft.tuners.lora import Linear

    return type(layer) is Linear and not layer.lora_variant


def _lora_rows(layer: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    if layer.disable_adapters and layer.merged:
        layer.unmerge()  # as PEFT's own forward does
    answer = rows_of(layer.base_layer, hidden, tokens)
    if layer.disable_adapters or layer.merged:
        return answer
    dtype = answer.dtype
    for name in layer.active_adapters:
        if name in layer.lora_A:
            down, up = layer.lora_A[name], layer.lora_B[name]
            inner = down(layer.lora_dropout[name](hidden.to(down.weight.dtype)))
            answer = answer + _chosen(up, inner, tokens) * layer.scaling[name]
    return answer.to(dtype)


def _chosen(layer: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Outputs ``tokens`` of a linear layer; whoever watches is told, as a forward hook would be."""
    bias = layer.bias[tokens] if layer.bias is not None else None
    found = functional.linear(hidden, layer.weight[tokens], bias)
    watcher = _WATCHER.get()
    if watcher:
        watcher(layer, hidden, found)
    return found


@contextmanager
def watched(seen: Watcher) -> Iterator[None]:
    """While the context lasts, tell ``seen`` of each linear layer of which only some outputs are computed.

    Forward hooks do not fire there, since the layer itself is not called.
    """
    token = _WATCHER.set(seen)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def unwrapped(model: Any) -> Any:
    """The Transformers model inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def output_layer(model: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the output layer.

    Raises:
        CapabilityError: For a model without one.
    """
    inner: Any = unwrapped(model)
    find = getattr(inner, "get_output_embeddings", None)
    layer = find() if find is not None else None
    for name, module in model.named_modules():
        if layer is not None and module is layer:
            return name, module
    raise CapabilityError(
        "this model has no output layer to read answers from",
        where=type(inner).__name__,
        expected="a causal or masked language model, or a task head",
        fix="use a method for encoders, such as closed-form or lora",
    )


@torch.no_grad()
def output_tail(model: nn.Module, raw: Tensor) -> Tensor:
    """What a model makes of its output layer's results ``raw`` (rows, outputs): logit scale, soft-capping."""
    return tail(model, raw)


def tail(model: nn.Module, raw: Tensor) -> Tensor:
    """As :func:`output_tail`; gradients flow through ``raw``."""

    class Constant(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor:  # noqa: ARG002
            return raw.unsqueeze(0)

    ids = torch.zeros(1, 2, dtype=torch.long, device=next(model.parameters()).device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if getattr(getattr(unwrapped(model), "config", None), "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    with standing_in(model, Constant()):
        output = model(**inputs)
    logits = output if isinstance(output, Tensor) else output.logits
    return logits.reshape(raw.shape)


def output_tail_slope(model: nn.Module, raw: Tensor) -> Tensor:
    """Slope of :func:`output_tail` at each of its inputs (rows, outputs), which it treats one by one."""
    with torch.enable_grad():
        given = raw.detach().clone().requires_grad_(True)
        (found,) = torch.autograd.grad(tail(model, given).sum(), given)
    return found


def output_scale(model: nn.Module) -> float:
    """Slope at zero of :func:`output_tail`: the logit scale, and 1 for soft-capping."""
    probe = 2.0**-9
    device = next(model.parameters()).device
    return float(output_tail(model, torch.full((1, 1), probe, device=device))) / probe
