"""Bottleneck adapters: a small two-layer network after the sublayers of each block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import nn

from pegbox.errors import UsageError
from pegbox.methods._checks import check_options, dropout_rule, layers_rule, optional_int, positive_int
from pegbox.methods._layers import Block, blocks, in_out_features, top
from pegbox.methods._method import Attached, Capability
from pegbox.methods._peft import with_adapter
from pegbox.methods._peft_options import common_options, head_parameters
from pegbox.methods._registry import register
from pegbox.models import Base
from pegbox.tasks import Prompt

Placement = Literal["pfeiffer", "houlsby"]
Activation = Literal["relu", "gelu", "silu", "tanh"]


@register
@dataclass(frozen=True)
class Bottleneck(Attached):
    """y + up(activation(down(y))) after the linear layer that ends a sublayer, before its residual sum.

    The up-projection starts at zero, so that tuning starts at the base.

    Args:
        size: Width m of the bottleneck.
        reduction: The model's width over the bottleneck's; when given, it takes the place of ``size``.
        placement: ``pfeiffer`` (after the feed-forward sublayer) or ``houlsby`` (after attention and after
            feed-forward; in a decoder with an encoder also after its cross attention).
        activation: ``relu``, ``gelu``, ``silu`` or ``tanh``.
        dropout: Dropout on the bottleneck's activations.
        layers: Only this many layers from the top; all when left out. A decoder stands on its encoder.
    """

    size: int = 16
    reduction: int | None = None
    placement: Placement = "pfeiffer"
    activation: Activation = "relu"
    dropout: float = 0.0
    layers: int | None = None

    name: ClassVar[str] = "bottleneck"
    capability: ClassVar[Capability] = Capability(
        summary="small networks with one hidden layer after the sublayers",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=True,
        mergeable=False,
        quantised=True,
        inference="two small matrix products per adapter",
        parameters="2 d m + m + d per adapter of width m, plus K (d + 1) for an encoder's head",
        learning_rate=3e-3,
        source="Houlsby et al. 2019; Pfeiffer et al. 2021",
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta", "t5"),
    )

    def __post_init__(self) -> None:
        check_options(
            self.name,
            [
                ("size", self.size, positive_int, "a whole number of at least 1"),
                ("reduction", self.reduction, optional_int, "a whole number of at least 1, or none"),
                (
                    "placement",
                    self.placement,
                    lambda v: v in get_args(Placement),
                    " or ".join(get_args(Placement)),
                ),
                (
                    "activation",
                    self.activation,
                    lambda v: v in get_args(Activation),
                    ", ".join(get_args(Activation)),
                ),
                dropout_rule(self.dropout),
                layers_rule(self.layers),
            ],
        )

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Put the adapters on the base; an encoder also trains its score layer."""
        from pegbox.methods._tuners.bottleneck import BottleneckConfig

        module = base.module(len(prompt.task.labels))
        config = BottleneckConfig(
            size=self._size(base),
            activation=self.activation,
            dropout=self.dropout,
            target_modules=self._targets(base, module),
            **common_options(base),
        )
        return with_adapter(base, module, config, seed=seed)

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """2 d m + m + d for each adapter, and the score layer of an encoder."""
        module = base.module(len(prompt.task.labels))
        m = self._size(base)
        widths = [in_out_features(module.get_submodule(name))[1] for name in self._targets(base, module)]
        return sum(2 * d * m + m + d for d in widths) + head_parameters(base, prompt)

    def _targets(self, base: Base, module: nn.Module) -> list[str]:
        found = blocks(base, module, self.name)
        chosen = top([block.name for block in found], self.layers, self.name, base)
        return [name for block in found if block.name in chosen for name in self._ends(block)]

    def _ends(self, block: Block) -> list[str]:
        attention = [sublayer[-1] for sublayer in block.attention] if self.placement == "houlsby" else []
        return [*attention, block.feedforward]

    def _size(self, base: Base) -> int:
        settings: Any = base.model.config
        width: int = settings.hidden_size
        if self.reduction is None:
            return self.size
        if self.reduction > width:
            raise UsageError(
                f"bottleneck: reduction is {self.reduction}, and the model is {width} wide",
                where=base.name,
                expected=f"a whole number from 1 to {width}",
                fix="choose a smaller reduction, or give size",
            )
        return width // self.reduction
