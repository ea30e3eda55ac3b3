"""Memory at the peak of loading, fitting and answering, in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from pegbox.models import QUANTISE_BLOCK, Base, divided_layers

# What torch and the mathematical libraries take for themselves when they first compute, and when they first
# train: measured on models of 7, 10 and 59 million parameters on Linux, see docs/advise.md.
LIBRARIES = 20 * 2**20
TRAINING = 15 * 2**20
FLOAT = 4  # bytes of a trained parameter, whatever the base's format
MOMENTS = 2 * FLOAT
# Numbers of a block of the closed form's leave-one-out search, and how many such blocks exist at a time.
GRID_NUMBERS, GRID_COPIES, GRID_CELLS = 4_000_000, 5, 240


def weights_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers, shared ones once, with the scales of 4-bit blocks."""
    tensors = [*module.parameters(), *module.buffers()]
    states = (getattr(value, "quant_state", None) for value in module.parameters())
    tensors += [state.absmax for state in states if state is not None]
    return _unique(tensors)


def packed_bytes(base: Base) -> tuple[int, int]:
    """Bytes of a base once its linear layers are in 4 bits, and of those layers as they are now."""
    _, names = divided_layers(base.model)
    layers = [base.model.get_submodule(name) for name in names]
    weights: list[Any] = [layer.weight for layer in layers]
    plain = _unique(weights)
    numbers = sum(weight.numel() for weight in weights)
    # Two numbers in a byte; a scale of one byte for each block; the scales of scales are lost in rounding.
    return weights_bytes(base.model) - plain + numbers // 2 + numbers // QUANTISE_BLOCK, plain


def trained_bytes(base: Base, parameters: int, *, whole: bool) -> int:
    """Bytes of trained parameters and their moments; full fine-tuning trains a copy of all weights."""
    copied = base.parameters if whole else parameters
    return FLOAT * copied + MOMENTS * parameters


def solve_bytes(rows: int, width: int, labels: int) -> int:
    """Bytes of the closed form's features, their decomposition and the blocks of its search."""
    short = min(rows, width)
    features = rows * width * (FLOAT + 3 * 8)  # as read, and in float64 as they are, centred and decomposed
    factors = 8 * (width * short + 4 * short**2)
    grid = 8 * GRID_COPIES * min(GRID_NUMBERS, rows * labels * GRID_CELLS)
    return features + factors + grid


def stream_bytes(width: int, labels: int, block: int, sample: int) -> int:
    """The same when the equations are accumulated block by block."""
    return solve_bytes(sample, width, labels) + block * width * (FLOAT + 3 * 8) + 3 * 8 * width**2


def cache_bytes(base: Base, tokens: int) -> int:
    """Bytes of the keys and values of so many tokens, by the sizes that the model's configuration names."""
    settings: Any = base.model.config
    heads = settings.num_attention_heads
    keys = getattr(settings, "num_key_value_heads", None) or heads
    width = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    return 2 * settings.num_hidden_layers * keys * width * base.dtype.itemsize * tokens


def _unique(tensors: Iterable[Tensor]) -> int:
    found = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(found.values())
