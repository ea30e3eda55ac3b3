"""What 4-bit layers cost beyond the layers that they stand for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pegbox.comparison._flops import Batch
from pegbox.comparison._speed import Clock, Line
from pegbox.methods import in_out_features
from pegbox.models import Base, check_quantise, divided_layers, quantised_loading

TOKENS = (64, 512)
# A layer this large tells the price per weight.
MOST_WEIGHTS = 1 << 22


@dataclass(frozen=True)
class Packed:
    """Seconds that unpacking adds to each pass, as lines in the tokens of the pass.

    Args:
        weights: Numbers that would be kept in 4 bits.
        forward: Seconds per weight of a forward pass.
        backward: The same of a backward pass.
    """

    weights: int
    forward: Line
    backward: Line

    @classmethod
    def measured(cls, base: Base, *, bf16: bool, clock: Clock = time.perf_counter) -> Packed:
        """Time a layer of the base in 4 bits against the same layer as it is.

        Raises:
            CapabilityError: When no layer can be packed, or nothing installed does it.
        """
        check_quantise("nf4", base.name)
        quantised_loading(base.model, base.dtype, base.device, base.name)  # refuses what loading would
        layers = packable(base)
        sizes = {name: layer.weight.numel() for name, layer in layers.items()}
        fit = [name for name, size in sizes.items() if size <= MOST_WEIGHTS]
        name = max(fit, key=sizes.__getitem__) if fit else min(sizes, key=sizes.__getitem__)
        plain, packed = _pair(layers[name], base)
        times = [[_times(layer, count, base, bf16, clock) for count in TOKENS] for layer in (plain, packed)]
        lines = []
        for part in (0, 1):
            added = [max(slow[part] - quick[part], 0.0) for quick, slow in zip(*times, strict=True)]
            points = [(float(count), value / sizes[name]) for count, value in zip(TOKENS, added, strict=True)]
            lines.append(Line.through(points))
        return cls(sum(sizes.values()), lines[0], lines[1])

    def seconds(self, batch: Batch, *, backward: bool) -> float:
        """Seconds added to a pass over a batch of rows and tokens."""
        tokens = batch[0] * batch[1]
        return self.weights * (self.forward(tokens) + (self.backward(tokens) if backward else 0.0))


def packable(base: Base) -> dict[str, Any]:
    """The linear layers that would be kept in 4 bits, by name."""
    return {name: base.model.get_submodule(name) for name in divided_layers(base.model)[1]}


def _pair(layer: Any, base: Base) -> tuple[nn.Module, nn.Module]:
    """A frozen linear layer of a layer's shape, and one in 4 bits, both of random numbers."""
    from bitsandbytes import nn as packing

    kind: Any = packing.Linear4bit  # type: ignore[attr-defined]
    sizes = in_out_features(layer)
    dice = torch.Generator().manual_seed(0)
    plain = nn.utils.skip_init(nn.Linear, *sizes, bias=False, dtype=base.dtype)
    with torch.no_grad():
        plain.weight.copy_(torch.randn(plain.weight.shape, generator=dice))
    packed: Any = kind(*sizes, bias=False, compute_dtype=base.dtype, quant_type="nf4")
    packed.load_state_dict({"weight": plain.weight.detach().clone()})
    packed.support_avx512bf16_for_cpu = False  # as every 4-bit layer that can be trained through
    return plain.requires_grad_(False).to(base.device), packed.requires_grad_(False).to(base.device)


def _times(layer: nn.Module, tokens: int, base: Base, bf16: bool, clock: Clock) -> tuple[float, float]:
    """Seconds of a forward and of a backward pass, each the fastest of three."""
    inputs = torch.zeros(
        tokens, in_out_features(layer)[0], dtype=base.dtype, device=base.device, requires_grad=True
    )
    found = []
    for _ in range(3):
        started = clock()
        with torch.autocast(base.device.type, torch.bfloat16, enabled=bf16):
            result = layer(inputs)
        middle = clock()
        result.sum().backward()
        found.append((middle - started, clock() - middle))
    forward, backward = zip(*found, strict=True)
    return min(forward), min(backward)
