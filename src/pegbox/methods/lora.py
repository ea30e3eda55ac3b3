"""LoRA: a low-rank product beside frozen linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pegbox.methods._lora import LowRank
from pegbox.methods._method import Capability
from pegbox.methods._registry import register


@register
@dataclass(frozen=True)
class LoRA(LowRank):
    """W + (alpha / rank) B A with B starting at zero, on chosen linear layers; PEFT's implementation.

    Args:
        rank: Rank of each product.
        alpha: Scale numerator.
        dropout: Dropout on the product's input.
        targets: ``attention`` (queries and values, or the one layer that makes queries, keys and values),
            ``all-linear`` (all linear layers below the head), or names of linear layers, comma-separated.
        rank_stabilised: Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023).
        layers: Only this many layers from the top; all when left out. A decoder stands on its encoder.
    """

    name: ClassVar[str] = "lora"
    capability: ClassVar[Capability] = Capability(
        summary="low-rank products beside linear layers",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=True,
        mergeable=True,
        quantised=True,
        inference="two small matrix products per target until merged",
        parameters="sum over targets of r (inputs + outputs), plus K (d + 1) for an encoder's head",
        learning_rate=1e-3,
        token_rate=3e-3,
        source="Hu et al. 2021",
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta", "t5"),
    )
