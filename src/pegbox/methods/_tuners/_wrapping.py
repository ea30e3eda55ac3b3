"""Tuners that stand around their targets, and the one error of all that cannot be merged."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from pegbox.errors import CapabilityError


class WrappingTuner(BaseTuner):
    """Puts a ``tuner_layer_cls``, made from target, name and :meth:`layer_options`, around each target."""

    needs: ClassVar[str]
    """What it needs its ``target_modules`` for, for an error."""

    def layer_options(self, peft_config: Any, key: str) -> tuple[Any, ...]:  # noqa: ARG002
        """What a layer is made by, beside its target and the adapter's name: the configuration."""
        return (peft_config,)

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,  # noqa: ARG002
    ) -> None:
        kind: Any = self.tuner_layer_cls
        options = self.layer_options(peft_config, current_key)
        if isinstance(target, kind):
            target.update_layer(adapter_name, *options)
            return
        layer = kind(target, adapter_name, *options)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict) -> PeftConfig:  # noqa: ARG002
        if not getattr(peft_config, "target_modules", None):
            raise ValueError(self.needs)
        return peft_config


def linear_shape(layer: Any, what: str) -> tuple[int, int]:
    """Numbers of inputs and outputs of a linear layer.

    Args:
        layer: The layer.
        what: Who asks, for the error: ``ia3 scales``.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if getattr(layer, "weight", torch.empty(0)).dim() != 2:
        raise ValueError(f"{what} a linear layer, not a {type(layer).__name__}")
    return int(layer.weight.shape[0]), int(layer.weight.shape[1])  # GPT-2's Conv1D keeps (inputs, outputs)


def refuse_merge(reason: str) -> NoReturn:
    """Raise the one error about merging what fits into no weight."""
    raise CapabilityError(
        reason,
        expected="a method whose row in pegbox methods says mergeable",
        fix="keep the adapter beside the base, or tune with lora or ia3",
    )
