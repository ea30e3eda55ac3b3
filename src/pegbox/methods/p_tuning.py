"""P-tuning: learned tokens between the fixed words of the template, made by an LSTM while training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from pegbox.errors import CapabilityError
from pegbox.methods._checks import boolean, check_options, positive_int
from pegbox.methods._method import Attached, Capability
from pegbox.methods._peft_options import head_parameters
from pegbox.methods._registry import register
from pegbox.methods._soft_prompts import attach_soft, embedding_shape, with_soft
from pegbox.models import Base
from pegbox.tasks import MARK, GeneratePrompt, Prompt, Soft


@register
@dataclass(frozen=True)
class PTuning(Attached):
    """Soft tokens where the template says ``[P]``, as in ``[P][P] capital [P] {text} [P] {answer}``.

    Their embeddings come out of a bidirectional LSTM and an MLP while training; what is saved are the plain
    embeddings that these make. A template without ``[P]`` gets the first half of ``length`` soft tokens
    before the text and the other half directly before the answer; an encoder, which reads no template, all of
    them before the text.

    Args:
        length: How many soft tokens, where the template marks none.
        reparametrise: Whether the LSTM and MLP make the embeddings.
        hidden: Width of the LSTM in each direction; half the embeddings' width when left out.
    """

    length: int = 8
    reparametrise: bool = True
    hidden: int | None = None

    name: ClassVar[str] = "p-tuning"
    capability: ClassVar[Capability] = Capability(
        summary="embeddings of tokens between the template's words",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=True,
        mergeable=False,
        quantised=True,
        inference="a prompt that is longer by the soft tokens",
        parameters="P d for P soft tokens, plus 8 h (d + 4 h + 4) + (2 h + 1) (2 h + d) for an LSTM of width "
        "h and its MLP (folded away on saving), plus K (d + 1) for an encoder's head",
        learning_rate=3e-3,
        defaults={"epochs": 20},
        source="Liu et al. 2021",
        starts_at_base=False,
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta", "t5"),
    )

    def __post_init__(self) -> None:
        check_options(
            self.name,
            [
                ("length", self.length, positive_int, "a whole number of at least 1"),
                ("reparametrise", self.reparametrise, boolean, "true or false"),
                (
                    "hidden",
                    self.hidden,
                    lambda v: v is None or (positive_int(v) and self.reparametrise is True),
                    "a whole number of at least 1 with reparametrise, or none",
                ),
            ],
        )

    def prompt(self, base: Base, prompt: Prompt) -> Prompt:
        """The prompt with the soft tokens that its template marks, or those of the default arrangement.

        Raises:
            CapabilityError: For a mark that the model does not read.
            UsageError: When they leave no room for a text.
        """
        rows = embedding_shape(base)[0]
        if prompt.kind == "encoder":
            _check_unmarked(prompt.task.template)
            return with_soft(self.name, base, prompt, Soft(rows, front=self.length))
        if isinstance(prompt, GeneratePrompt):
            _check_unmarked(prompt.task.template)
            return with_soft(self.name, base, prompt, Soft(rows, front=self.length))
        before, after = prompt.template.marks
        if before + after:
            _check_read(prompt, after)
            return with_soft(self.name, base, prompt, Soft(rows, marks=before + after))
        back = self.length // 2
        front = self.length - back
        note = f"the template marks no soft tokens: {front} stand before the text, {back} before the answer"
        prompt = replace(prompt, notes=(*prompt.notes, note))
        return with_soft(self.name, base, prompt, Soft(rows, front=front, back=back))

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Put the soft tokens on the base; an encoder also trains its score layer."""
        return attach_soft(
            base, prompt, tokens=self._count(base, prompt), hidden=self._hidden(base), seed=seed
        )[0]

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """P d, the LSTM and MLP, and the score layer of an encoder."""
        from pegbox.methods._tuners.soft_tokens import encoder_parameters

        width = embedding_shape(base)[1]
        hidden = self._hidden(base)
        encoder = encoder_parameters(width, hidden) if hidden else 0
        return self._count(base, prompt) * width + encoder + head_parameters(base, prompt)

    def _count(self, base: Base, prompt: Prompt) -> int:
        soft = prompt.soft or self.prompt(base, prompt).soft
        assert soft is not None
        return soft.count

    def _hidden(self, base: Base) -> int | None:
        if not self.reparametrise:
            return None
        return self.hidden or max(1, embedding_shape(base)[1] // 2)


def _check_unmarked(template: str | None) -> None:
    if template and MARK in template:
        raise CapabilityError(
            f"the template marks soft tokens with {MARK}, and here they stand before the whole text alone",
            where=repr(template),
            expected=f"no {MARK}: an encoder reads plain texts, and a conversation has several answers",
            fix=f"leave {MARK} out: the soft tokens then stand before the text",
        )


def _check_read(prompt: Prompt, after: int) -> None:
    if after and (prompt.kind == "causal" or (prompt.kind == "encoder-decoder" and prompt.sentinel is None)):
        raise CapabilityError(
            f"a soft token {MARK} stands after the answer, which the model never reads",
            where=repr(prompt.task.template),
            expected=f"every {MARK} before {{answer}}",
            fix="move it to the front",
        )
