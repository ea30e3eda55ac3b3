"""The bottleneck adapter of Houlsby et al. (2019) as a kind of PEFT adapter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from pegbox.methods._tuners._register import AdapterConfig, peft_type, register_adapter
from pegbox.methods._tuners._wrapping import WrappingTuner, linear_shape, refuse_merge

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
UNMERGEABLE = "a bottleneck adapter cannot be merged: its non-linear function fits into no weight"


@dataclass
class BottleneckConfig(AdapterConfig):
    """Configuration of a bottleneck adapter.

    Args:
        size: Width m of the bottleneck.
        activation: ``relu``, ``gelu``, ``silu`` or ``tanh``.
        dropout: Dropout on the bottleneck's activations.
    """

    size: int = 16
    activation: str = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("PEGBOX_BOTTLENECK")


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A linear layer followed by y + up(activation(down(y))), with up starting at zero.

    Several active adapters read the same y, and their changes add up.

    Args:
        base_layer: The layer that ends a sublayer; its outputs are d wide.
        adapter_name: Name of the first adapter.
        config: Its configuration.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_activation", "bottleneck_dropout")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_activation = nn.ModuleDict()
        self.bottleneck_dropout = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters = []
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter, not yet active unless it has the active one's name."""
        width = linear_shape(self.get_base_layer(), "a bottleneck adapter follows")[1]
        down, up = nn.Linear(width, config.size), nn.Linear(config.size, width)
        if down.weight.device.type != "meta":
            nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
            for tensor in (down.bias, up.weight, up.bias):
                nn.init.zeros_(tensor)
        self.bottleneck_down[adapter_name] = down
        self.bottleneck_up[adapter_name] = up
        self.bottleneck_activation[adapter_name] = ACTIVATIONS[config.activation]()
        self.bottleneck_dropout[adapter_name] = nn.Dropout(config.dropout)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Outputs (batch, tokens, d) of the layer and its active adapters."""
        result = answer = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                result = result + self._change(answer, name)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Refuse: a non-linear function has no place in a weight."""
        refuse_merge(UNMERGEABLE)

    def unmerge(self) -> None:
        """Refuse, since nothing was merged."""
        refuse_merge(UNMERGEABLE)

    def _change(self, answer: Tensor, name: str) -> Tensor:
        down: Any = self.bottleneck_down[name]
        # (batch, tokens, d) -> (batch, tokens, m)
        inner = self.bottleneck_activation[name](down(self._cast_input_dtype(answer, down.weight.dtype)))
        return self.bottleneck_up[name](self.bottleneck_dropout[name](inner)).to(answer.dtype)


class BottleneckModel(WrappingTuner):
    """Puts bottleneck adapters after the target linear layers."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    needs = "a bottleneck adapter needs target_modules, the layers that end the sublayers"

    def _check_merge_allowed(self) -> None:
        refuse_merge(UNMERGEABLE)


register_adapter("pegbox_bottleneck", BottleneckConfig, BottleneckModel)
