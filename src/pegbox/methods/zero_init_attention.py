"""Zero-init attention: learned prompts in the top layers, behind gates that start closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from pegbox.methods._checks import check_options, layers_rule, positive_int
from pegbox.methods._holes import WITHOUT_INTERFACE
from pegbox.methods._layers import block_names, lies_in, top
from pegbox.methods._method import Attached, Capability
from pegbox.methods._peft import with_adapter
from pegbox.methods._peft_options import common_options, head_parameters
from pegbox.methods._registry import register
from pegbox.models import Base
from pegbox.tasks import Prompt

if TYPE_CHECKING:
    from pegbox.methods._tuners._probe import Geometry

SMALL, LOWEST = 4, 2


@register
@dataclass(frozen=True)
class ZeroInitAttention(Attached):
    """out + tanh(gate) attention(query, K, V), where the frozen layer makes K and V of a learned prompt.

    The gates, one for each query head, start at zero, so that tuning starts at the base.

    Args:
        length: Prompt vectors P of each tuned layer.
        layers: Only this many layers from the top; when left out all but the lowest two, or all of a model
            of at most four. A decoder stands on its encoder.
    """

    length: int = 10
    layers: int | None = None

    name: ClassVar[str] = "zero-init-attention"
    capability: ClassVar[Capability] = Capability(
        summary="gated attention to learned prompts in the top layers (LLaMA-Adapter)",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=True,
        mergeable=False,
        quantised=True,
        inference="one attention over P keys per tuned layer",
        parameters="P d + heads per tuned layer, plus K (d + 1) for an encoder's head",
        learning_rate=1e-2,
        defaults={"epochs": 20},
        source="Zhang et al. 2023",
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta", "t5"),
        holes=WITHOUT_INTERFACE,
    )

    def __post_init__(self) -> None:
        check_options(
            self.name,
            [
                ("length", self.length, positive_int, "a whole number of at least 1"),
                layers_rule(self.layers),
            ],
        )

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Put the prompts on the base; an encoder also trains its score layer."""
        from pegbox.methods._tuners.zero_init import ZeroInitConfig, ZeroInitModel

        module = base.module(len(prompt.task.labels))
        found = self._targets(base, module)
        _try(module, found)
        config = ZeroInitConfig(
            length=self.length,
            shapes=ZeroInitModel.shapes(found),
            target_modules=list(found),
            **common_options(base),
        )
        return with_adapter(base, module, config, seed=seed)

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """P d + heads for each tuned layer, and the score layer of an encoder."""
        found = self._targets(base, base.module(len(prompt.task.labels))).values()
        return sum(self.length * g.width + g.heads for g in found) + head_parameters(base, prompt)

    def _targets(self, base: Base, module: nn.Module) -> dict[str, Geometry]:
        """The self-attention modules of the top layers."""
        from pegbox.methods._tuners._probe import probe

        found = {name: geometry for name, geometry in probe(module).items() if not geometry.cross}
        stack = [block for block in block_names(module) if any(lies_in(name, [block]) for name in found)]
        default = len(stack) if len(stack) <= SMALL else len(stack) - LOWEST
        chosen = top(stack, default if self.layers is None else self.layers, self.name, base)
        return {name: geometry for name, geometry in found.items() if lies_in(name, chosen)}


@torch.no_grad()
def _try(module: nn.Module, found: dict[str, Geometry]) -> None:
    """Let each layer project a prompt once, so that a family that cannot is refused before training."""
    from pegbox.methods._tuners._attention import switched
    from pegbox.methods._tuners._probe import project

    with switched(module):
        for name, geometry in found.items():
            attention = module.get_submodule(name)
            first = next(attention.parameters())
            prompt = torch.zeros(1, geometry.width, device=first.device)
            dtype = first.dtype if first.is_floating_point() else prompt.dtype
            project(attention, prompt.to(dtype), geometry.rotary)
