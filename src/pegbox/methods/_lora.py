"""What LoRA and QLoRA share: options, where the products sit, and their number."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import nn

from pegbox.errors import UsageError, nearest
from pegbox.methods._checks import boolean, check_options, dropout_rule, layers_rule, number, positive_int
from pegbox.methods._layers import block_names, in_out_features, lies_in, linear_layers, top
from pegbox.methods._method import Attached
from pegbox.methods._peft import with_adapter
from pegbox.methods._peft_options import common_options, head_parameters
from pegbox.models import Base
from pegbox.tasks import Prompt

FUSED = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "attn_qkv", "in_proj")
QUERY_VALUE = (
    *("q_proj", "v_proj", "query", "value", "query_proj", "value_proj", "q_lin", "v_lin"),
    *("q", "v"),
)


@dataclass(frozen=True)
class LowRank(Attached):
    """W + (alpha / rank) B A with B starting at zero, on chosen linear layers; PEFT's implementation.

    Options as of :class:`pegbox.methods.LoRA`.
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: str = "attention"
    rank_stabilised: bool = False
    layers: int | None = None

    def __post_init__(self) -> None:
        check_options(
            self.name,
            [
                ("rank", self.rank, positive_int, "a whole number of at least 1"),
                ("alpha", self.alpha, lambda v: number(v) and v > 0, "a number above 0"),
                dropout_rule(self.dropout),
                (
                    "targets",
                    self.targets,
                    lambda v: isinstance(v, str) and bool(v.strip()),
                    "attention, all-linear, or names of layers separated by commas",
                ),
                ("rank_stabilised", self.rank_stabilised, boolean, "true or false"),
                layers_rule(self.layers),
            ],
        )

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Put LoRA on the base; an encoder also trains its score layer."""
        from peft import LoraConfig

        module = base.module(len(prompt.task.labels))
        names = self._names(base, module)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=names,
            fan_in_fan_out=not isinstance(module.get_submodule(names[0]), nn.Linear),
            use_rslora=self.rank_stabilised,
            **common_options(base),
        )
        with warnings.catch_warnings():
            # PEFT mends this setting layer by layer where GPT-2's layers and others are both targets.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            return with_adapter(base, module, config, seed=seed)

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """r (inputs + outputs) for each target, and the score layer of an encoder."""
        module = base.module(len(prompt.task.labels))
        sizes = [sum(in_out_features(module.get_submodule(name))) for name in self._names(base, module)]
        return self.rank * sum(sizes) + head_parameters(base, prompt)

    def _names(self, base: Base, module: nn.Module) -> list[str]:
        names = target_names(module, self.targets, self.name)
        if self.layers is None:
            return names
        chosen = top(block_names(module), self.layers, self.name, base)
        kept = [name for name in names if lies_in(name, chosen)]
        if not kept:
            raise UsageError(
                f"{self.name}: none of the targets '{self.targets}' lies in the top {self.layers} layers",
                where=base.name,
                expected="targets within the chosen layers",
                fix="raise layers or leave it out",
            )
        return kept


def target_names(module: nn.Module, targets: str, method: str = "lora") -> list[str]:
    """Resolve targets to exact names of linear layers; those of the head never count.

    Args:
        module: What :meth:`pegbox.Base.module` made.
        targets: See :class:`LowRank`.
        method: Whose targets they are, for the error.

    Raises:
        UsageError: When a name matches no layer, listing the valid ones.
    """
    linear = linear_layers(module)
    kinds = sorted({name.rpartition(".")[2] for name in linear})
    if targets == "all-linear":
        return linear
    wanted = _attention(kinds) if targets == "attention" else _listed(targets)
    for wish in wanted:
        if not any(_matches(name, wish) for name in linear):
            raise UsageError(
                f"the target '{wish}' matches no linear layer",
                where=f"{method} targets '{targets}'",
                expected=f"attention, all-linear, or names among {', '.join(kinds)}",
                fix=nearest(wish, kinds),
            )
    if not wanted:
        raise UsageError(
            "no attention projections are known for this architecture",
            where=f"{method} targets '{targets}'",
            expected=f"all-linear, or names among {', '.join(kinds)}",
            fix="choose all-linear",
        )
    return [name for name in linear if any(_matches(name, wish) for wish in wanted)]


def _listed(targets: str) -> list[str]:
    return [name.strip() for name in targets.split(",") if name.strip()]


def _attention(kinds: list[str]) -> list[str]:
    split = [kind for kind in kinds if kind in QUERY_VALUE]
    return split or [kind for kind in kinds if kind in FUSED]


def _matches(name: str, wish: str) -> bool:
    return name == wish or name.endswith("." + wish)
