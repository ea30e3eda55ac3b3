"""Full fine-tuning: all weights, on a copy of their own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from pegbox.methods._method import Attached, Capability
from pegbox.methods._peft_options import head_parameters
from pegbox.methods._registry import register
from pegbox.models import Base, PooledClassifier
from pegbox.tasks import Prompt


@register
@dataclass(frozen=True)
class Full(Attached):
    """All weights trained, embeddings and output layer included, by label words or by a head.

    With label words (readout ``words``) no parameter is new; with a head (readout ``head``, and on encoders)
    a linear layer on the trunk is. The base stays as it is: a copy in float32 is trained, which with its
    gradients and AdamW's two moments takes 16 bytes per parameter beside the base.
    """

    name: ClassVar[str] = "full"
    capability: ClassVar[Capability] = Capability(
        summary="all weights",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=True,
        mergeable=False,
        quantised=False,
        inference="nothing: it is a whole model of its own",
        parameters="all, plus K (d + 1) for a head",
        learning_rate=1e-4,
        token_rate=3e-3,
        source="Devlin et al. 2019; Schick & Schütze 2021 (label words)",
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta", "t5"),
    )
    whole: ClassVar[bool] = True

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:  # noqa: ARG002
        """A copy of all weights, trainable in float32; tied weights stay tied."""
        module = copy.deepcopy(base.module(len(prompt.task.labels)))
        for value in module.parameters():
            value.data = value.data.float()
        for value in _answering(module):
            value.requires_grad_(True)
        return module

    def trained(self, base: Base, module: nn.Module) -> nn.Module:
        """The module in the base's number format, as it is saved, so that it answers the same when loaded."""
        trunk = module.encoder if isinstance(module, PooledClassifier) else module
        for own, value in zip(base.model.parameters(), trunk.parameters(), strict=True):
            value.data = value.data.to(own.dtype)
        return module

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """All, and the head where there is one."""
        return sum(value.numel() for value in _answering(base.model)) + head_parameters(base, prompt)


def _answering(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters that an answer passes through: all but those of a pooler, which no readout uses."""
    return (value for name, value in module.named_parameters() if "pooler" not in name.split("."))
