"""Where an adapter's numbers lie: the linear layers whose weights a posterior is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import block_names, lies_in, linear_layers
from pegbox.models import output_layer, score_layer

PARTS = ("all", "lora", "head")
LAST = "last-"
MOST = 1 << 27


@dataclass(frozen=True, eq=False)
class Place:
    """One linear layer whose weight, and bias where it has one, are uncertain.

    Args:
        name: Its name within the model.
        layer: The layer.
        rows: Outputs that are read, where the others cannot change an answer; all when ``None``.
        prior: Values (outputs, inputs) around which the prior lies; zero when ``None``.
    """

    name: str
    layer: Any
    rows: tuple[int, ...] | None = None
    prior: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs; a bias is one more input."""
        outputs, inputs = self.layer.weight.shape
        return len(self.rows) if self.rows else outputs, inputs + (self.layer.bias is not None)

    @property
    def size(self) -> int:
        """Uncertain numbers."""
        return self.shape[0] * self.shape[1]

    def values(self) -> Tensor:
        """Weight and bias as they are, (outputs, inputs) float64 on the CPU."""
        parts = [self.layer.weight.detach()]
        if self.layer.bias is not None:
            parts.append(self.layer.bias.detach()[:, None])
        found = torch.cat([part.double().cpu() for part in parts], dim=1)
        return found[list(self.rows)] if self.rows else found

    def distance(self) -> float:
        """Squared distance of the values from the middle of the prior."""
        middle = 0.0 if self.prior is None else self.prior.double()
        return float((self.values() - middle).square().sum())


def check_part(part: str) -> None:
    """Raise UsageError for an unknown part."""
    number = part.removeprefix(LAST)
    if part not in PARTS and not (part.startswith(LAST) and number.isdigit() and int(number) > 0):
        raise UsageError(
            f"there is no part '{part}'",
            where="part",
            expected=f"{', '.join(PARTS)}, or {LAST}N for the weights of the top N layers",
            fix="leave it out for all that the adapter has",
        )


def places(module: nn.Module, part: str = "all", *, tokens: Sequence[int] = ()) -> list[Place]:
    """The linear layers that a LoRA adapter trained: its own factors, and a head that was saved whole.

    Args:
        module: A PEFT model with one active LoRA adapter, or any model for its top layers.
        part: ``all``, the factors alone (``lora``), the head alone (``head``), or ``last-N``: the whole
            weights of the linear layers in the top N blocks, and of a head of its own.
        tokens: Rows of the output layer that the answers are read from.

    Raises:
        CapabilityError: When the adapter holds what is not a product of linear layers, or the layers are too
            large.
        UsageError: For an unknown part, or one that the adapter lacks.
    """
    check_part(part)
    if part.startswith(LAST):
        return _last(module, int(part.removeprefix(LAST)))
    config = _config(module)
    name = _active(module)
    found = [] if part == "head" else _factors(module, name, tokens)
    if part != "lora":
        found += _saved(module, name, config, tokens)
    if not found:
        lacks = {"head": "head", "lora": "low-rank factors", "all": "weights"}[part]
        raise UsageError(
            f"the adapter has no {lacks}",
            where=f"part '{part}'",
            expected="a part that was tuned",
            fix="leave the part at all",
        )
    return found


def _last(module: nn.Module, count: int) -> list[Place]:
    """Weights of the linear layers in the top blocks, and of a score layer."""
    if hasattr(module, "peft_config"):
        raise CapabilityError(
            "the whole weights of layers that carry an adapter cannot be uncertain",
            where=f"part '{LAST}{count}'",
            expected="a fully tuned or merged model",
            fix="take the adapter's own weights (part all), or merge it first",
        )
    blocks = block_names(module)
    if count > len(blocks):
        raise UsageError(
            f"the model has {len(blocks)} layers",
            where=f"part '{LAST}{count}'",
            expected=f"{LAST}1 to {LAST}{len(blocks)}",
            fix=f"write {LAST}1",
        )
    names = [name for name in linear_layers(module) if lies_in(name, blocks[-count:])]
    layers = [(name, module.get_submodule(name)) for name in names]
    score = score_layer(module)
    layers += [] if score is None else [("score", score)]
    for name, layer in layers:
        if type(layer) is not nn.Linear:
            raise CapabilityError(
                f"{name} is a {type(layer).__name__}, whose weights cannot be uncertain here",
                where=f"part '{LAST}{count}'",
                expected="plain linear layers, in float32 or bfloat16 and without an adapter on them",
                fix="take the adapter's own weights (part all), or merge it first",
            )
    found = [Place(name, layer) for name, layer in layers]
    numbers = sum(place.size for place in found)
    if numbers > MOST:
        raise CapabilityError(
            f"the linear layers of the top {count} blocks hold {numbers:,} numbers, and one row's gradients "
            f"would take {4 * numbers / 2**30:.1f} GiB",
            where=f"part '{LAST}{count}'",
            expected=f"at most {MOST:,} numbers",
            fix=f"take fewer layers, such as {LAST}1, or LoRA's own weights",
        )
    return found


def _config(module: Any) -> Any:
    kinds = (
        {getattr(one.peft_type, "value", one.peft_type) for one in module.peft_config.values()}
        if (hasattr(module, "peft_config"))
        else {"none"}
    )
    if kinds != {"LORA"}:
        raise CapabilityError(
            "a posterior needs a LoRA adapter, and this is "
            + (
                "a model without an adapter"
                if kinds == {"none"}
                else f"of the type {', '.join(sorted(kinds))}"
            ),
            expected="an adapter by lora, qlora or head, or a LoRA adapter from elsewhere",
            fix="tune with --method lora",
        )
    return module.peft_config[_active(module)]


def _active(module: Any) -> str:
    names = module.active_adapters
    if len(names) != 1:
        raise CapabilityError(
            f"{len(names)} adapters are active at once",
            expected="one active adapter",
            fix="load the adapter by itself",
        )
    return str(names[0])


def _factors(module: nn.Module, adapter: str, tokens: Sequence[int]) -> list[Place]:
    from peft.tuners.lora import LoraLayer

    head: Any = _output(module)
    found: list[Place] = []
    for name, layer in module.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        down, up = (dict(side.items()).get(adapter) for side in (layer.lora_A, layer.lora_B))
        plain = adapter not in layer.lora_variant and not hasattr(layer, "parameter_name")
        if layer.merged:
            raise CapabilityError(
                "the adapter is merged into its base at present",
                where=name,
                expected="an adapter of its own",
                fix="unmerge it first",
            )
        if not (plain and isinstance(down, nn.Linear) and isinstance(up, nn.Linear)):
            raise CapabilityError(
                f"the adapter changes {name} by more than a product of two matrices",
                where=type(layer).__name__,
                expected="LoRA on linear layers, without DoRA and the like",
                fix="tune with --method lora",
            )
        read = tuple(tokens) if layer is head and tokens else None
        found += [Place(f"{name}.lora_A", down), Place(f"{name}.lora_B", up, read)]
    return found


def _output(module: nn.Module) -> nn.Module | None:
    try:
        return output_layer(module)[1]
    except CapabilityError:
        return None


def _saved(module: nn.Module, adapter: str, config: Any, tokens: Sequence[int]) -> list[Place]:
    from peft.utils.other import ModulesToSaveWrapper

    if config.trainable_token_indices:
        raise CapabilityError(
            "the adapter trained embeddings of tokens, which are no linear layer",
            where="trainable_token_indices",
            expected="LoRA and a linear head",
            fix="take the part lora, which leaves them as they are",
        )
    head: Any = _output(module)
    found = []
    for name, layer in module.named_modules():
        if isinstance(layer, ModulesToSaveWrapper) and adapter in layer.modules_to_save:
            own = layer.modules_to_save[adapter]
            if not isinstance(own, nn.Linear):
                raise CapabilityError(
                    f"the adapter trained {name} as a whole, which is no linear layer",
                    where=type(own).__name__,
                    expected=f"a linear head beside LoRA, not {', '.join(config.modules_to_save or ())}",
                    fix="take the part lora, which leaves it as it is",
                )
            read = tuple(tokens) if layer is head and tokens else None
            found.append(Place(name, own, read))
    return found
