"""A whole trained method from outside the package: a gate on the outputs of every linear layer.

It imports public names alone, and `tests/test_toy_method.py` holds it to the conformance table.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from pegbox.methods import (
    AdapterConfig,
    Attached,
    Capability,
    WrappingTuner,
    check_options,
    common_options,
    head_parameters,
    in_out_features,
    linear_layers,
    number,
    peft_type,
    register,
    register_adapter,
    with_adapter,
)
from pegbox.models import Base
from pegbox.tasks import Prompt

# The adapter kind, which PEFT lacks: configuration, layer, model, and a call of `register_adapter`.


@dataclass
class OutputGateConfig(AdapterConfig):
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("OUTPUT_GATE")


class OutputGateLayer(nn.Module, BaseTunerLayer):
    """(1 + scale gate) y, one gate for each output of a linear layer, all starting at zero."""

    adapter_layer_names = ("output_gate",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: OutputGateConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.output_gate = nn.ParameterDict()
        self.scale: dict[str, float] = {}
        self._disable_adapters = False
        self.merged_adapters = []
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: OutputGateConfig) -> None:
        outputs = in_out_features(self.get_base_layer())[1]
        self.output_gate[adapter_name] = nn.Parameter(torch.zeros(outputs))
        self.scale[adapter_name] = config.scale
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return y
        for name in self.active_adapters:
            if name in self.output_gate:
                y = (y * self._factor(name)).to(y.dtype)
        return y

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        for name in check_adapters_to_merge(self, adapter_names):
            self._multiply(self._factor(name).detach())
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        while self.merged_adapters:
            self._multiply(1 / self._factor(self.merged_adapters.pop()).detach())

    def _factor(self, name: str) -> Tensor:
        return 1 + self.scale[name] * self.output_gate[name]

    def _multiply(self, factor: Tensor) -> None:
        layer: Any = self.get_base_layer()
        # (outputs, inputs), but for GPT-2's (inputs, outputs).
        layer.weight.data *= factor[:, None] if isinstance(layer, nn.Linear) else factor
        if layer.bias is not None:
            layer.bias.data *= factor


class OutputGateModel(WrappingTuner):
    prefix = "output_gate"
    tuner_layer_cls = OutputGateLayer
    needs = "gates need target_modules, the linear layers that they stand on"


register_adapter("output_gate", OutputGateConfig, OutputGateModel)

# The method: hyperparameters, capability row, how it attaches, and how many parameters that is.


@register
@dataclass(frozen=True)
class OutputGate(Attached):
    """Scale every output of every linear layer by a learned gate.

    Args:
        scale: What a gate is multiplied by.
    """

    scale: float = 1.0

    name: ClassVar[str] = "output-gate"
    capability: ClassVar[Capability] = Capability(
        summary="gates on the outputs of linear layers",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=True,
        mergeable=True,
        quantised=False,
        inference="one product per output until merged",
        parameters="outputs of all linear layers, plus K (d + 1) for an encoder's head",
        learning_rate=1e-2,
        source="this file",
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta", "t5"),
    )

    def __post_init__(self) -> None:
        check_options(self.name, [("scale", self.scale, lambda v: number(v) and v > 0, "a number above 0")])

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        module = base.module(len(prompt.task.labels))
        config = OutputGateConfig(
            scale=self.scale, target_modules=linear_layers(module), **common_options(base)
        )
        return with_adapter(base, module, config, seed=seed)

    def parameters(self, base: Base, prompt: Prompt) -> int:
        module = base.module(len(prompt.task.labels))
        outputs = [in_out_features(module.get_submodule(name))[1] for name in linear_layers(module)]
        return sum(outputs) + head_parameters(base, prompt)
