"""Tuners that stand around their targets, and the one error of all that cannot be merged."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from pegbox.errors import CapabilityError


class WrappingTuner(BaseTuner):
    """Puts a ``tuner_layer_cls``, made from target, name and configuration, around each target."""

    needs: ClassVar[str]
    """What it needs its ``target_modules`` for, for an error."""

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,  # noqa: ARG002
        parameter_name: str | None = None,  # noqa: ARG002
    ) -> None:
        kind: Any = self.tuner_layer_cls
        if isinstance(target, kind):
            target.update_layer(adapter_name, peft_config)
            return
        layer = kind(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict) -> PeftConfig:  # noqa: ARG002
        if not getattr(peft_config, "target_modules", None):
            raise ValueError(self.needs)
        return peft_config


def refuse_merge(reason: str) -> NoReturn:
    """Raise the one error about merging what fits into no weight."""
    raise CapabilityError(
        reason,
        expected="a method whose row in pegbox methods says mergeable",
        fix="keep the adapter beside the base, or tune with lora or ia3",
    )
