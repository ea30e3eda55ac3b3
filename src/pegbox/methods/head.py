"""Classical head: a linear layer on the frozen trunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from pegbox.methods._method import Attached, Capability
from pegbox.methods._peft import with_adapter
from pegbox.methods._peft_options import head_parameters
from pegbox.methods._registry import register
from pegbox.models import Base
from pegbox.tasks import Prompt


@register
@dataclass(frozen=True)
class Head(Attached):
    """A linear head on the frozen trunk's hidden states, trained by gradients; it starts at zero.

    Saved as a PEFT adapter without targets that carries the head as a module of its own.
    """

    name: ClassVar[str] = "head"
    capability: ClassVar[Capability] = Capability(
        summary="a linear head on the frozen trunk",
        kinds=("causal", "masked", "encoder"),
        trains=True,
        mergeable=True,
        quantised=True,
        inference="one product of K rows instead of the output layer",
        parameters="K (d + 1)",
        learning_rate=1e-2,
        output_only=True,
        source="Devlin et al. 2019",
        refusals={"encoder-decoder": "use lora or full, which answer by label words"},
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta"),
        holes={"t5": "its answer is read at the decoder, which has no trunk of plain texts"},
        needs_head=True,
    )

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Put the head on the base's trunk."""
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        headed = base.headed()
        # PEFT has no adapter that is a head alone; LoRA without a target is one, and PEFT alone loads it.
        config = LoraConfig(r=1, target_modules=DUMMY_TARGET_MODULES, modules_to_save=["score"])
        return with_adapter(headed, headed.module(len(prompt.task.labels)), config, seed=seed)

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """K (d + 1)."""
        return head_parameters(base.headed(), prompt)
