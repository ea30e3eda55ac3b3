"""Prefix tuning (Li & Liang 2021) as a kind of PEFT adapter, by attention functions instead of a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from pegbox.methods._tuners._attention import Attend, AttentionAdapter
from pegbox.methods._tuners._probe import Geometry
from pegbox.methods._tuners._register import peft_type, register_adapter
from pegbox.methods._tuners._tuner import AttentionConfig, AttentionTuner

RANDOM = 0.02


@dataclass
class PrefixConfig(AttentionConfig):
    """Configuration of a prefix.

    Args:
        length: Keys and values P that are learned for each attention module.
        reparametrise: Whether a network makes the keys and values while they are trained.
        hidden: Width of that network's input and of its hidden layer.
    """

    length: int = 16
    reparametrise: bool = False
    hidden: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("PEGBOX_PREFIX")


class PrefixEncoder(nn.Module):
    """tanh(codes W + a) V + b: what is added to the keys and values; V and b start at zero.

    Args:
        length: Learned keys P.
        hidden: Width of codes and hidden layer.
        outputs: Numbers in all keys and values of one place.
    """

    def __init__(self, length: int, hidden: int, outputs: int) -> None:
        super().__init__()
        # Parameters of its own, since PEFT finds an adapter's name at the end of a parameter's or before it.
        self.codes = nn.Parameter(torch.randn(length, hidden))
        self.inner = nn.Parameter(torch.randn(hidden, hidden) * hidden**-0.5)
        self.inner_bias = nn.Parameter(torch.zeros(hidden))
        self.outer = nn.Parameter(torch.zeros(hidden, outputs))
        self.outer_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self) -> Tensor:
        """The numbers of all places, (P, outputs), always in the parameters' own precision."""
        with torch.autocast(self.codes.device.type, enabled=False):
            middle = torch.tanh(self.codes @ self.inner + self.inner_bias)
            return middle @ self.outer + self.outer_bias


class PrefixLayer(AttentionAdapter):
    """Learned keys and values before those of the text, of all live adapters one after another.

    They are seen from everywhere, across causal masks, sliding windows and padding, and are never cached, so
    that a key-value cache holds the text alone.
    """

    adapter_layer_names = ("prefix_keys", "prefix_values", "prefix_encoder")

    def __init__(self, owner: nn.Module) -> None:
        super().__init__(owner)
        self.prefix_keys = nn.ParameterDict()
        self.prefix_values = nn.ParameterDict()
        self.prefix_encoder = nn.ModuleDict()
        self.frozen_peft_weight_names: dict[str, tuple[str, ...]] = {}
        self.configs: dict[str, PrefixConfig] = {}

    def add(self, name: str, shape: list[int], config: PrefixConfig) -> None:
        """Add an adapter with small random keys and values.

        Args:
            name: Its name.
            shape: Key heads, key width and value width.
            config: Its configuration.
        """
        heads, key_width, value_width = shape
        self.configs[name] = config
        self.prefix_keys[name] = nn.Parameter(torch.randn(heads, config.length, key_width) * RANDOM)
        self.prefix_values[name] = nn.Parameter(torch.randn(heads, config.length, value_width) * RANDOM)
        if config.reparametrise:
            numbers = heads * (key_width + value_width)
            self.prefix_encoder[name] = PrefixEncoder(config.length, config.hidden, numbers)
            # The network moves them; trained themselves, they would make it superfluous.
            self.frozen_peft_weight_names[name] = ("prefix_keys", "prefix_values")
            self._freeze_non_trainable_peft_weights(name)

    @torch.no_grad()
    def start(self, name: str, keys: Tensor, values: Tensor) -> None:
        """Set the keys (key heads, P, key width) and values (key heads, P, value width) of an adapter."""
        self.prefix_keys[name].copy_(keys)
        self.prefix_values[name].copy_(values)

    def learned(self, name: str) -> tuple[Tensor, Tensor]:
        """The keys (key heads, P, key width) and values (key heads, P, value width) of an adapter."""
        keys, values = self.prefix_keys[name], self.prefix_values[name]
        if name not in self.prefix_encoder:
            return keys, values
        # (P, heads * (key width + value width)) -> (heads, P, key width + value width)
        change = self.prefix_encoder[name]().unflatten(1, (len(keys), -1)).transpose(0, 1)
        widths = [keys.shape[2], values.shape[2]]
        more_keys, more_values = change.split(widths, dim=2)
        return keys + more_keys, values + more_values

    @torch.no_grad()
    def fold(self) -> None:
        """Replace the networks by the keys and values that they make; what the layer computes stays.

        The configurations then ask for no network either, so that both are saved plain.
        """
        for name in list(self.prefix_encoder):
            trained = next(self.prefix_encoder[name].parameters()).requires_grad
            self.start(name, *self.learned(name))
            del self.prefix_encoder[name]
            del self.frozen_peft_weight_names[name]
            self.configs[name].reparametrise = False
            for held in (self.prefix_keys, self.prefix_values):
                held[name].requires_grad_(trained)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter."""
        self.configs.pop(adapter_name, None)
        super().delete_adapter(adapter_name)

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
        """Attend to the prefixes and the text together, in one softmax."""
        if _implied_causal(attend, module, query, mask, options):
            key, value, options = _cut(query.shape[2], key, value, options)
        learned = zip(*(self.learned(name) for name in self.live), strict=True)
        # (key heads, P, width) -> (batch, key heads, P, width)
        keys, values = (
            torch.cat(parts, dim=1).to(key.dtype).expand(len(key), -1, -1, -1) for parts in learned
        )
        mask, options = _widened(attend, module, query, key, keys.shape[2], mask, options)
        key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        return attend(module, query, key, value, mask, **options)


def _implied_causal(
    attend: Attend, module: nn.Module, query: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> bool:
    """Whether the call means a causal mask without giving one, as only the sdpa function takes it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    given = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if given is None else given
    return attend is sdpa_attention_forward and mask is None and query.shape[2] > 1 and bool(causal)


def _cut(
    length: int, key: Tensor, value: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Drop the keys of a static cache that nothing was written to yet."""
    bias = options.get("position_bias")
    if bias is not None:
        options = {**options, "position_bias": bias[..., :length]}
    return key[:, :, :length], value[:, :, :length], options


def _widened(
    attend: Attend,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    length: int,
    mask: Tensor | None,
    options: dict[str, Any],
) -> tuple[Tensor | None, dict[str, Any]]:
    """Mask and position bias of a call with so many visible keys before its own."""
    bias = options.get("position_bias")
    if bias is not None:
        options = {**options, "position_bias": functional.pad(bias, (length, 0))}
    if mask is not None:
        visible = True if mask.dtype == torch.bool else 0.0
        return functional.pad(mask, (length, 0), value=visible), options
    if not _implied_causal(attend, module, query, mask, options):
        return None, options
    # On CUDA a flash kernel runs with a mask that is never written out.
    return _lower_right(query, key.shape[2] + length, symbolic=query.is_cuda and bias is None), options


def _lower_right(query: Tensor, keys: int, *, symbolic: bool) -> Tensor:
    """A mask by which the last token sees all keys and each one before it one less: (1, 1, tokens, keys)."""
    tokens = query.shape[2]
    if symbolic:
        return causal_lower_right(tokens, keys)
    whole = torch.ones(tokens, keys, dtype=torch.bool, device=query.device)
    return whole.tril(keys - tokens)[None, None]


class PrefixModel(AttentionTuner):
    """Puts prefixes on attention modules: those of encoders, of decoders, and across."""

    prefix = "prefix_"
    child = "learned_prefix"
    tuner_layer_cls = PrefixLayer

    @staticmethod
    def shape(geometry: Geometry) -> list[int]:
        """Key heads, key width and value width."""
        return [geometry.key_heads, geometry.key_width, geometry.value_width]


register_adapter("pegbox_prefix", PrefixConfig, PrefixModel)
