"""IA3 (Liu et al. 2022) as a kind of PEFT adapter that can learn the scales of some of a layer's units only.

PEFT's own IA3 has one learned scale per output. Where one layer packs queries, keys and values, that would
also scale the queries; here only the listed units have a number at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from pegbox.errors import CapabilityError
from pegbox.methods._tuners._register import AdapterConfig, peft_type, register_adapter
from pegbox.methods._tuners._wrapping import WrappingTuner, linear_shape


@dataclass
class UnitIA3Config(AdapterConfig):
    """Configuration of IA3 on chosen units.

    Args:
        outputs: Layer name to half-open ranges of the outputs that are scaled, ``[[start, end], ...]``.
        inputs: Names of the layers whose inputs are scaled, all of them.
    """

    outputs: dict[str, list[list[int]]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("PEGBOX_IA3")


class UnitIA3Layer(nn.Module, BaseTunerLayer):
    """A linear layer whose chosen outputs, or all of whose inputs, are multiplied by learned numbers.

    Args:
        base_layer: A linear layer.
        adapter_name: Name of the first adapter.
        ranges: Half-open ranges of the outputs to scale; ``None`` to scale the inputs.
        inference: Whether the adapter is made for prediction only.
    """

    adapter_layer_names = ("unit_ia3_scale",)

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, ranges: list[list[int]] | None, inference: bool
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.unit_ia3_scale = nn.ParameterDict()
        self.scales_inputs = ranges is None
        self._units: dict[str, Tensor] = {}
        self._snapshot: tuple[Tensor, Tensor | None] | None = None
        self._disable_adapters = False
        self.merged_adapters = []
        self.update_layer(adapter_name, ranges, inference)

    def update_layer(self, adapter_name: str, ranges: list[list[int]] | None, inference: bool) -> None:
        """Add an adapter whose scales are all one."""
        if (ranges is None) != self.scales_inputs:
            raise ValueError("two adapters of one layer must both scale its inputs or both its outputs")
        width = linear_shape(self.get_base_layer(), "ia3 scales")[0 if ranges is None else 1]
        units = [unit for start, end in ranges or [[0, width]] for unit in range(start, end)]
        if not units or max(units) >= width or min(units) < 0:
            raise ValueError(f"the scaled units {ranges} lie outside a layer {width} wide")
        self._units[adapter_name] = torch.tensor(units, device="cpu")
        self.unit_ia3_scale[adapter_name] = nn.Parameter(torch.ones(len(units)))
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Outputs (batch, tokens, outputs) of the scaled layer."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = [name for name in self.active_adapters if name in self.unit_ia3_scale]
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(x, *args, **kwargs)
        scale = self._scale(names)
        if self.scales_inputs:
            return self.base_layer((x * scale).to(x.dtype), *args, **kwargs)
        answer = self.base_layer(x, *args, **kwargs)
        return (answer * scale).to(answer.dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Fold the scales into the weight; a copy of the weight is kept for :meth:`unmerge`."""
        names = [
            name for name in check_adapters_to_merge(self, adapter_names) or [] if name in self.unit_ia3_scale
        ]
        if not names:
            return
        layer: Any = self.get_base_layer()
        if not layer.weight.is_floating_point():
            raise CapabilityError(
                "ia3 cannot be merged into a quantised layer",
                fix="load the base without quantisation, then merge",
            )
        scale = self._scale(names).detach()
        # (outputs, inputs), but for GPT-2's (inputs, outputs): scales of outputs are rows, of inputs columns.
        rows = self.scales_inputs != isinstance(layer, nn.Linear)
        weight = layer.weight.data * (scale[:, None] if rows else scale)
        bias = None if layer.bias is None or self.scales_inputs else layer.bias.data * scale
        if safe_merge and not (weight.isfinite().all() and (bias is None or bias.isfinite().all())):
            raise ValueError(f"the adapter {', '.join(names)} gives weights that are not finite")
        if self._snapshot is None:
            self._snapshot = (layer.weight.data, None if layer.bias is None else layer.bias.data)
        layer.weight.data = weight.to(layer.weight.dtype)
        if bias is not None:
            layer.bias.data = bias.to(layer.bias.dtype)
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Put the copy of the weight back, to the bit."""
        if self._snapshot is None:
            return
        layer: Any = self.get_base_layer()
        layer.weight.data = self._snapshot[0]
        if self._snapshot[1] is not None:
            layer.bias.data = self._snapshot[1]
        self._snapshot = None
        self.merged_adapters.clear()

    def _scale(self, names: list[str]) -> Tensor:
        width = linear_shape(self.get_base_layer(), "ia3 scales")[0 if self.scales_inputs else 1]
        whole = None
        for name in names:
            learned = self.unit_ia3_scale[name]
            if len(learned) < width:
                units = self._units[name] = self._units[name].to(learned.device)
                learned = learned.new_ones(width).index_copy(0, units, learned)
            whole = learned if whole is None else whole * learned
        assert whole is not None
        return whole


class UnitIA3Model(WrappingTuner):
    """Puts the scales on the layers that the configuration names."""

    prefix = "unit_ia3_"
    tuner_layer_cls = UnitIA3Layer

    def layer_options(self, peft_config: Any, key: str) -> tuple[Any, ...]:
        """Ranges of outputs, ``None`` where inputs are scaled."""
        ranges = None if key in peft_config.inputs else peft_config.outputs[key]
        return ranges, peft_config.inference_mode

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict) -> PeftConfig:  # noqa: ARG002
        config: Any = peft_config
        config.target_modules = sorted({*config.outputs, *config.inputs})
        if not config.target_modules:
            raise ValueError("an adapter of the kind PEGBOX_IA3 needs outputs or inputs to scale")
        return peft_config


register_adapter("pegbox_ia3", UnitIA3Config, UnitIA3Model)
