"""LoRA: a low-rank product beside frozen linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from pegbox.errors import UsageError, nearest
from pegbox.methods._checks import boolean, check_options, number, positive_int
from pegbox.methods._method import Attached, Capability
from pegbox.methods._peft import wrap
from pegbox.methods._registry import register
from pegbox.models import Base, PooledClassifier
from pegbox.tasks import Prompt

FUSED = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "attn_qkv", "in_proj")
QUERY_VALUE = ("q_proj", "v_proj", "query", "value", "query_proj", "value_proj", "q_lin", "v_lin")


@register
@dataclass(frozen=True)
class LoRA(Attached):
    """W + (alpha / rank) B A with B starting at zero, on chosen linear layers; PEFT's implementation.

    Args:
        rank: Rank of each product.
        alpha: Scale numerator.
        dropout: Dropout on the product's input.
        targets: ``attention`` (queries and values, or the one layer that makes queries, keys and values),
            ``all-linear`` (all linear layers below the head), or names of linear layers, comma-separated.
        rank_stabilised: Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023).
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: str = "attention"
    rank_stabilised: bool = False

    name: ClassVar[str] = "lora"
    capability: ClassVar[Capability] = Capability(
        summary="low-rank products beside linear layers",
        kinds=("causal", "masked", "encoder"),
        trains=True,
        mergeable=True,
        quantised=True,
        inference="two small matrix products per target until merged",
        parameters="sum over targets of r (inputs + outputs), plus K (d + 1) for an encoder's head",
        learning_rate=1e-3,
        source="Hu et al. 2021",
    )

    def __post_init__(self) -> None:
        check_options(
            self.name,
            [
                ("rank", self.rank, positive_int, "a whole number of at least 1"),
                ("alpha", self.alpha, lambda v: number(v) and v > 0, "a number above 0"),
                ("dropout", self.dropout, lambda v: number(v) and 0 <= v < 1, "from 0 to below 1"),
                (
                    "targets",
                    self.targets,
                    lambda v: isinstance(v, str) and bool(v.strip()),
                    "attention, all-linear, or names of layers separated by commas",
                ),
                ("rank_stabilised", self.rank_stabilised, boolean, "true or false"),
            ],
        )

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Put LoRA on the base; an encoder also trains its score layer."""
        from peft import LoraConfig
        from transformers.pytorch_utils import Conv1D

        module = base.module(len(prompt.task.labels))
        names = target_names(module, self.targets)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=names,
            fan_in_fan_out=any(isinstance(module.get_submodule(name), Conv1D) for name in names),
            use_rslora=self.rank_stabilised,
            modules_to_save=["score"] if base.kind == "encoder" else None,
            task_type="CAUSAL_LM" if base.kind == "causal" else None,
        )
        return wrap(base, module, config, seed=seed)


def target_names(module: nn.Module, targets: str) -> list[str]:
    """Resolve targets to exact names of linear layers; those of the head never count.

    Args:
        module: What :meth:`pegbox.Base.module` made.
        targets: See :class:`LoRA`.

    Raises:
        UsageError: When a name matches no layer, listing the valid ones.
    """
    linear = _trunk_layers(module)
    kinds = sorted({name.rpartition(".")[2] for name in linear})
    if targets == "all-linear":
        return linear
    wanted = _attention(kinds) if targets == "attention" else _listed(targets)
    for wish in wanted:
        if not any(_matches(name, wish) for name in linear):
            raise UsageError(
                f"the target '{wish}' matches no linear layer",
                where=f"lora targets '{targets}'",
                expected=f"attention, all-linear, or names among {', '.join(kinds)}",
                fix=nearest(wish, kinds),
            )
    if not wanted:
        raise UsageError(
            "no attention projections are known for this architecture",
            where=f"lora targets '{targets}'",
            expected=f"all-linear, or names among {', '.join(kinds)}",
            fix="choose all-linear",
        )
    return [name for name in linear if any(_matches(name, wish) for wish in wanted)]


def _trunk_layers(module: nn.Module) -> list[str]:
    """Names of the linear layers that every answer passes through below the head."""
    from transformers.pytorch_utils import Conv1D

    trunk: Any = (
        module.encoder if isinstance(module, PooledClassifier) else getattr(module, "base_model", module)
    )
    inside = {id(part) for part in trunk.modules()}
    return [
        name
        for name, child in module.named_modules()
        if id(child) in inside and isinstance(child, nn.Linear | Conv1D) and "pooler" not in name.split(".")
    ]


def _listed(targets: str) -> list[str]:
    return [name.strip() for name in targets.split(",") if name.strip()]


def _attention(kinds: list[str]) -> list[str]:
    split = [kind for kind in kinds if kind in QUERY_VALUE]
    return split or [kind for kind in kinds if kind in FUSED]


def _matches(name: str, wish: str) -> bool:
    return name == wish or name.endswith("." + wish)
