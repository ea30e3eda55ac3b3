"""IA3: learned scales on keys, values and the feed-forward sublayer's inner activations."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from torch import Tensor, nn

from pegbox.errors import CapabilityError
from pegbox.methods._checks import check_options, layers_rule
from pegbox.methods._layers import blocks, in_out_features, key_value_units, top
from pegbox.methods._method import Attached, Capability
from pegbox.methods._peft import with_adapter
from pegbox.methods._peft_options import common_options, head_parameters
from pegbox.methods._registry import register
from pegbox.models import Base
from pegbox.tasks import Prompt


@register
@dataclass(frozen=True)
class IA3(Attached):
    """Learned scales, starting at one, on all keys, all values and the inputs of the last feed-forward layer.

    Which units are keys and values is measured, not looked up. Where keys and values have layers of their
    own this is PEFT's IA3; where one layer also makes the queries (GPT-2), and on a quantised base, it is
    our own kind of adapter, in which the queries have no scales that could move.

    Args:
        layers: Only this many layers from the top; all when left out. A decoder stands on its encoder.
    """

    layers: int | None = None

    name: ClassVar[str] = "ia3"
    capability: ClassVar[Capability] = Capability(
        summary="scales of keys, values and inner feed-forward activations",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=True,
        mergeable=True,
        quantised=True,
        inference="one product per scaled number until merged",
        parameters="keys + values + inner feed-forward width per layer (keys and values again for cross "
        "attention), plus K (d + 1) for an encoder's head",
        learning_rate=1e-2,
        source="Liu et al. 2022",
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta", "t5"),
    )

    def __post_init__(self) -> None:
        check_options(self.name, [layers_rule(self.layers)])

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Put the scales on the base; an encoder also trains its score layer."""
        module = base.module(len(prompt.task.labels))
        units, inputs = self._places(base, module)
        whole = all(mask.all() for mask in units.values())
        # On quantised layers PEFT's hands on float32 keys beside bf16 queries, which attention refuses.
        if whole and _floating(module, [*units, *inputs]):
            return with_adapter(base, module, _peft_config(module, list(units), inputs, base), seed=seed)
        return with_adapter(base, module, _own(units, inputs, base), seed=seed)

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """The keys, values and inner activations of the chosen layers, and the score layer of an encoder."""
        module = base.module(len(prompt.task.labels))
        units, inputs = self._places(base, module)
        inner = sum(in_out_features(module.get_submodule(name))[0] for name in inputs)
        return sum(int(mask.sum()) for mask in units.values()) + inner + head_parameters(base, prompt)

    def _places(self, base: Base, module: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
        """Layer names with masks of their keys and values, and the last feed-forward layers."""
        found = blocks(base, module, self.name)
        chosen = top([block.name for block in found], self.layers, self.name, base)
        found = [block for block in found if block.name in chosen]
        units = key_value_units(base, module, found)
        for block in found:
            for sublayer in block.attention:
                if not any(name in units for name in sublayer):
                    raise CapabilityError(
                        f"ia3 found no keys and values in {block.name}",
                        where=base.name,
                        expected="attention whose keys and values come from linear layers",
                        fix="choose lora with targets all-linear",
                    )
        return units, [block.feedforward for block in found]


def _peft_config(module: nn.Module, outputs: list[str], inputs: list[str], base: Base) -> Any:
    from peft import IA3Config

    return IA3Config(
        target_modules=[*outputs, *inputs],
        feedforward_modules=inputs,
        fan_in_fan_out=not isinstance(module.get_submodule(inputs[0]), nn.Linear),
        **common_options(base),
    )


def _floating(module: nn.Module, names: list[str]) -> bool:
    layers: list[Any] = [module.get_submodule(name) for name in names]
    return all(layer.weight.is_floating_point() for layer in layers)


def _own(units: dict[str, Tensor], inputs: list[str], base: Base) -> Any:
    from pegbox.methods._tuners.ia3 import UnitIA3Config

    outputs = {name: _ranges(mask) for name, mask in units.items()}
    return UnitIA3Config(outputs=outputs, inputs=inputs, **common_options(base))


def _ranges(mask: Tensor) -> list[list[int]]:
    """Half-open ranges of the true places of a mask."""
    runs = groupby(enumerate(mask.tolist()), key=lambda item: item[1])
    spans = [[index for index, _ in run] for true, run in runs if true]
    return [[span[0], span[-1] + 1] for span in spans]
