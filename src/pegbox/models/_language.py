"""The language loss: what a model says of chosen tokens, through its own output layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pegbox.models._cross_entropy import chunked_cross_entropy
from pegbox.models._readout import output_layer, standing_in, tail, unwrapped

IGNORED = -100
_PROBE = (-60.0, -4.0, -0.5, 0.0, 1.0, 7.0, 60.0)
_BARE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def language_loss(
    model: nn.Module, inputs: Mapping[str, Tensor], targets: Tensor, *, alike: bool = False, **options: Any
) -> Tensor:
    """Cross-entropy of each marked token in nats, (marked,) in reading order; gradients flow.

    The model's own forward runs up to its output layer, which is given the marked positions alone and in
    chunks: see :func:`chunked_cross_entropy`. What the model does to logits afterwards (scale, soft-capping)
    is done by its own code.

    Args:
        model: A model with an output layer, with or without PEFT adapters.
        inputs: Its inputs, (batch, tokens) each.
        targets: (batch, tokens) the token that is to be said at each position, for a causal model the one
            after it; -100 where none is asked.
        alike: Whether a plain output layer and one with an adapter that is off must agree to the bit; slower.
        options: Further keyword arguments of the model's forward.
    """
    marked = targets != IGNORED
    hidden = _output_inputs(model, inputs, marked, **options)
    layer = output_layer(model)[1]
    read = _logits_of(model)
    return chunked_cross_entropy(
        hidden,
        targets[marked],
        (lambda states: read(states)) if alike else read,
        outputs=layer.weight.shape[0],  # type: ignore[union-attr, index, arg-type]
        parameters=[value for value in layer.parameters() if value.requires_grad],
    )


def _output_inputs(model: nn.Module, inputs: Mapping[str, Tensor], marked: Tensor, **options: Any) -> Tensor:
    """What enters the output layer at the marked (batch, tokens) positions, (marked, width)."""
    gather = _Gather(output_layer(model)[1], marked)
    with standing_in(model, gather):
        model(**inputs, **options)
    return gather.hidden


def _logits_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What maps the output layer's inputs (positions, width) to the model's logits (positions, outputs)."""
    layer = output_layer(model)[1]
    if _is_bare(model):
        return layer
    return lambda hidden: tail(model, layer(hidden))


def _is_bare(model: nn.Module) -> bool:
    """Whether the output layer's results are the logits: a model is asked for its tail once."""
    inner = unwrapped(model)
    if inner not in _BARE:
        raw = torch.tensor([_PROBE], device=next(model.parameters()).device)
        training = model.training
        model.eval()  # so that no random number is drawn
        with torch.no_grad():
            _BARE[inner] = torch.equal(tail(model, raw).float(), raw)
        model.train(training)
    return _BARE[inner]


class _Gather(nn.Module):
    """Stands in for an output layer: keeps what enters it at the marked positions, and multiplies nothing."""

    def __init__(self, layer: nn.Module, marked: Tensor) -> None:
        super().__init__()
        self._layer = (layer,)
        self._marked = marked
        self.hidden: Tensor = marked

    @property
    def weight(self) -> Tensor:
        """The weight of the real layer, since some families look at its dtype."""
        return self._layer[0].weight  # type: ignore[return-value]

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (batch, tokens, width) to (1, marked, 1)."""
        self.hidden = hidden[self._marked]
        return self.hidden[None, :, :1]
