"""A PEFT tuner that attaches adapters to attention modules as their children."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from pegbox.methods._tuners._attention import UNMERGEABLE, AttentionAdapter, Switched, restore, switch
from pegbox.methods._tuners._probe import Geometry, probe
from pegbox.methods._tuners._register import AdapterConfig
from pegbox.methods._tuners._wrapping import refuse_merge


@dataclass
class AttentionConfig(AdapterConfig):
    """What the adapters on attention modules have in common.

    Args:
        shapes: For each attention module, the shapes that its adapter needs; found by a probe when left out,
            which also finds the modules.
    """

    shapes: dict[str, list[int]] = field(default_factory=dict)


class AttentionTuner(BaseTuner):
    """Attaches adapters, and lets its own module, and no other, run the attention functions that use them."""

    child: str
    tuner_layer_cls: type[AttentionAdapter]
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - as PEFT declares it

    @staticmethod
    def shape(geometry: Geometry) -> list[int] | None:
        """What a layer is built from; ``None`` for an attention module that gets none."""
        raise NotImplementedError

    @classmethod
    def shapes(cls, found: dict[str, Geometry]) -> dict[str, list[int]]:
        """What the layers are built from, by the attention module's name."""
        made = {name: cls.shape(geometry) for name, geometry in found.items()}
        return {name: shape for name, shape in made.items() if shape is not None}

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> PeftConfig:  # noqa: ARG002
        if not peft_config.shapes:
            peft_config.shapes = self.shapes(probe(self.model))
        if not peft_config.target_modules:
            peft_config.target_modules = list(peft_config.shapes)
        return peft_config

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:  # noqa: ARG002
        former: Switched = switch(model)
        if former:
            self.former = former

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,  # noqa: ARG002
        parent: nn.Module,  # noqa: ARG002
        current_key: str,
        parameter_name: str | None = None,  # noqa: ARG002
    ) -> None:
        if current_key not in peft_config.shapes:
            raise ValueError(f"{current_key} is not among the attention modules of the adapter")
        layer = getattr(target, self.child, None)
        if layer is None:
            layer = self.tuner_layer_cls(target)
            layer.set_adapter(self.active_adapters)
            target.add_module(self.child, layer)
        layer.add(adapter_name, peft_config.shapes[current_key], peft_config)
        device = next(target.parameters()).device
        if not any(tensor.is_meta for tensor in layer.parameters()):
            layer.to(device)
        if adapter_name not in self.active_adapters:
            layer.set_requires_grad(adapter_name, False)

    def _check_merge_allowed(self) -> None:
        refuse_merge(UNMERGEABLE)

    def _unload_and_optionally_merge(self, merge: bool = True, **options: Any) -> Any:  # type: ignore[override]
        if merge:
            refuse_merge(UNMERGEABLE)
        for part in list(self.model.modules()):
            if isinstance(part._modules.get(self.child), AttentionAdapter):
                delattr(part, self.child)
        restore(self.former)
        return super()._unload_and_optionally_merge(merge=False, **options)
