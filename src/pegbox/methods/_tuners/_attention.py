"""Attention functions of our own: a model's own, with the adapter on the attention module.

They are registered under new names beside Transformers' own, each with its mask function, without which
padding would be dropped silently. Only the configurations of a tuner's own module name them, so that no other
model in the process ever runs them.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from pegbox.errors import CapabilityError
from pegbox.methods._tuners._wrapping import refuse_merge

UNMERGEABLE = "what is attended to beside the text cannot be merged: it fits into no weight of the base"
SDPA, EAGER = "pegbox_sdpa", "pegbox_eager"

Attend = Callable[..., tuple[Tensor, Tensor | None]]
Listener = Callable[[nn.Module, Tensor, Tensor, Tensor], None]
Switched = list[tuple[Any, Any]]

_LISTENER: ContextVar[Listener | None] = ContextVar("pegbox_attention_listener", default=None)


class AttentionAdapter(nn.Module, BaseTunerLayer):
    """What a tuner attaches to an attention module, as its child.

    Args:
        owner: The attention module.
    """

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self._owner = (owner,)  # as a tuple, or the module would become a part of its own part
        self._disable_adapters = False
        self.merged_adapters = []

    def get_base_layer(self) -> nn.Module:
        """The attention module."""
        return self._owner[0]

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[torch.device, None]:
        # Where PEFT moves a loaded adapter to; it keeps its own precision.
        return next(base_layer.parameters()).device, None

    @property
    def live(self) -> list[str]:
        """Names of the adapters that act now."""
        if self.disable_adapters:
            return []
        held = getattr(self, self.adapter_layer_names[0])
        return [name for name in self.active_adapters if name in held]

    @abstractmethod
    def attend(
        self,
        attend: Attend,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None]:
        """Do what the attention function ``attend`` does, with the live adapters.

        Args:
            attend: The attention function that the model would run.
            module: The attention module.
            query: (batch, query heads, tokens, key width).
            key: (batch, key heads, keys, key width).
            value: (batch, key heads, keys, value width).
            mask: (batch, 1, tokens, keys), true or additive, or ``None``.
            options: What else the model gives to its attention function.

        Returns:
            (batch, tokens, query heads, value width), and the weights where the function tells them.
        """

    @abstractmethod
    def add(self, name: str, shape: list[int], config: Any) -> None:
        """Add an adapter."""

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Refuse."""
        refuse_merge(UNMERGEABLE)

    def unmerge(self) -> None:
        """Refuse, since nothing was merged."""
        refuse_merge(UNMERGEABLE)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Show every call of our attention functions (module, query, key, value) to a listener."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def switch(model: nn.Module) -> Switched:
    """Let a module run our attention functions in place of its own.

    Every configuration that a part of it reads is switched, since models of several parts have several.

    Returns:
        The configurations that were switched, each with the name of its former function.
    """
    _register()
    configs = {id(c): c for part in model.modules() if (c := getattr(part, "config", None)) is not None}
    former: Switched = []
    for config in configs.values():
        name = getattr(config, "_attn_implementation", None)
        if hasattr(config, "_attn_implementation") and name not in (SDPA, EAGER):
            former.append((config, name))
            # As a mapping, which leaves configurations within this one alone.
            config._attn_implementation = {"": EAGER if name == "eager" else SDPA}
    return former


def restore(former: Switched) -> None:
    """Undo :func:`switch`."""
    for config, name in former:
        config._attn_implementation = {"": name}


@contextmanager
def switched(model: nn.Module) -> Iterator[None]:
    """Let a module run our attention functions for the time of the context."""
    former = switch(model)
    try:
        yield
    finally:
        restore(former)


def _register() -> None:
    from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(SDPA, _sdpa)
    AttentionInterface.register(EAGER, _eager)
    AttentionMaskInterface.register(SDPA, sdpa_mask)
    AttentionMaskInterface.register(EAGER, eager_mask)


def _sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return _run(sdpa_attention_forward, module, query, key, value, attention_mask, options)


def _eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    return _run(_own_eager(module), module, query, key, value, attention_mask, options)


def _own_eager(module: nn.Module) -> Attend:
    """The eager function of a module's family, which stands beside its class."""
    for parent in type(module).__mro__:
        found = getattr(sys.modules.get(parent.__module__), "eager_attention_forward", None)
        if found is not None:
            return found
    raise CapabilityError(
        f"{type(module).__name__} comes without an eager attention function",
        fix="load the model with its sdpa attention",
    )


def _run(
    attend: Attend,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    listener = _LISTENER.get()
    if listener is not None:
        listener(module, query, key, value)
    for child in module.children():
        if isinstance(child, AttentionAdapter) and child.live:
            return child.attend(attend, module, query, key, value, mask, options)
    return attend(module, query, key, value, mask, **options)
