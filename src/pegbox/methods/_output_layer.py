"""The output layer as equations to solve, and as the place where the solution goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.methods._method import Problem
from pegbox.methods._peft import with_adapter
from pegbox.models import Base, answer_tokens, output_layer, output_rows, output_scale


@dataclass(frozen=True, eq=False)
class Equations:
    """Features and base logits of rows, on the scale that the softmax sees.

    A soft-capping of the logits is left out: the correction is fitted to the logits before it.

    Args:
        features: Z, (rows, width) float64: hidden states times the logit scale.
        logits: L, (rows, labels) float64: the base's logits of the label words before any soft-capping.
        gold: (rows,) label indices.
        scale: Logit scale of the model.
    """

    features: Tensor
    logits: Tensor
    gold: Tensor
    scale: float

    @classmethod
    def of(cls, problem: Problem, scale: float | None = None) -> Equations:
        """The equations of a problem's rows; the model is asked for its scale when ``None``."""
        base, found = problem.base, problem.features
        if scale is None:
            scale = logit_scale(problem)
        if base.kind == "encoder":
            logits = found.logits.double()
        else:
            logits = output_rows(base, found.hidden, answer_tokens(problem.prompt)).double()
        return cls(found.hidden.double() * scale, logits * scale, problem.gold, scale)

    def part(self, indices: Sequence[int]) -> Equations:
        """The equations of the rows at these positions only."""
        kept = torch.tensor(indices, dtype=torch.long)
        return Equations(self.features[kept], self.logits[kept], self.gold[kept], self.scale)


def logit_scale(problem: Problem) -> float:
    """What the base multiplies its output layer's results by."""
    return output_scale(problem.base.module(len(problem.prompt.task.labels)))


def attach_rows(problem: Problem, weight: Tensor, intercept: Tensor) -> nn.Module:
    """Put W (width, labels) and b (labels,) on the label rows of the output layer: A = W', B one-hot rows."""
    tokens = answer_tokens(problem.prompt)
    one_hot = torch.eye(len(tokens), dtype=weight.dtype)
    return attach_factors(problem.base, len(tokens), weight.T, one_hot, intercept, tokens)


def attach_factors(
    base: Base, labels: int, down: Tensor, up: Tensor, intercept: Tensor, tokens: Sequence[int]
) -> nn.Module:
    """Put a correction of some output rows on the base as LoRA of the output layer with scaling 1.

    Args:
        base: The base.
        labels: Labels of the task.
        down: LoRA's A, (rank, width).
        up: Rows of LoRA's B at ``tokens``, (tokens, rank); all other rows are zero.
        intercept: What is added to the outputs at ``tokens``, (tokens,).
        tokens: Rows of the output matrix.
    """
    from peft import LoraConfig

    module = base.module(labels)
    name, _ = output_layer(module)
    config = LoraConfig(
        r=len(down),
        lora_alpha=len(down),
        target_modules=[name],
        lora_bias=bool(intercept.any()),
        init_lora_weights=False,
        task_type={"causal": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}.get(base.kind),
    )
    peft = with_adapter(base, module, config)
    adapted: Any = peft.get_submodule(f"base_model.model.{name}")
    inner, outer = adapted.lora_A["default"], adapted.lora_B["default"]
    index = torch.tensor(list(tokens), device=outer.weight.device)
    with torch.no_grad():
        inner.weight.copy_(down)
        outer.weight.zero_()
        outer.weight[index] = up.to(outer.weight)
        if outer.bias is not None:
            outer.bias.zero_()
            outer.bias[index] = intercept.to(outer.bias)
    return peft.requires_grad_(False).eval()
