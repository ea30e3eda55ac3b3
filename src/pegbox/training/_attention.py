"""Attention in float32 within bf16 training, on processors where that is faster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

# On a CPU with AVX512-BF16 torch's attention with its backward pass takes 5.2 times as long in bf16 as in
# float32 at 32 queries, 1.7 times at 128, as long at 256 and 512, 0.8 times at 1024
# (bench/claims.py --only attention).
LONGEST = 256


def quick_attention(device: torch.device, *, bf16: bool) -> AbstractContextManager[Any]:
    """Compute short attention that is trained in float32 while the context lasts, where that pays.

    It does not reach activations that are computed again in backward passes.

    Args:
        device: Where the model is trained.
        bf16: Whether it is under bf16 autocast.
    """
    pays = device.type == "cpu" and not torch.cpu._is_amx_tile_supported()
    return _Float32() if bf16 and pays else nullcontext()


class _Float32(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention or not _trained(*args[:3]):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_full, args), **{name: _full(value) for name, value in kwargs.items()})


def _full(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _trained(query: Tensor | None = None, *others: Tensor) -> bool:
    return (
        query is not None
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and query.shape[-2] <= LONGEST
        and any(value.requires_grad for value in (query, *others))
    )
