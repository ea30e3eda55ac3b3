"""Prefix tuning: learned keys and values before those of the text in every attention module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from pegbox.methods._checks import boolean, check_options, positive_int
from pegbox.methods._holes import WITHOUT_INTERFACE
from pegbox.methods._method import Attached, Capability
from pegbox.methods._peft import with_adapter
from pegbox.methods._peft_options import common_options, head_parameters
from pegbox.methods._registry import register
from pegbox.models import Base
from pegbox.tasks import GeneratePrompt, Prompt

Initialise = Literal["words", "random", "vocabulary"]


@register
@dataclass(frozen=True)
class Prefix(Attached):
    """Keys and values that every token attends to, as if they belonged to tokens before the text.

    Args:
        length: Learned keys and values P of each attention module.
        initialise: ``words`` (the keys and values that the frozen base gives the label words and the words of
            the template, or the labels' names where there are neither, over and over; those of the chat
            template where text is generated), ``vocabulary`` (the
            same of random tokens), or ``random`` (small random numbers).
        reparametrise: Whether a network with one hidden layer makes the keys and values while they are
            trained (section 4.3 of the paper); saving folds it away.
        hidden: Width of that network.
    """

    length: int = 16
    initialise: Initialise = "words"
    reparametrise: bool = False
    hidden: int = 128

    name: ClassVar[str] = "prefix"
    capability: ClassVar[Capability] = Capability(
        summary="learned keys and values before the text in every attention layer",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=True,
        mergeable=False,
        quantised=True,
        inference="P more keys and values per attention layer",
        parameters="P times the widths of all keys and values of a token (2 d per attention without grouped "
        "heads), plus K (d + 1) for an encoder's head",
        learning_rate=3e-2,
        defaults={"epochs": 20},
        source="Li & Liang 2021",
        starts_at_base=False,
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta", "t5"),
        holes=WITHOUT_INTERFACE,
    )

    def __post_init__(self) -> None:
        check_options(
            self.name,
            [
                ("length", self.length, positive_int, "a whole number of at least 1"),
                (
                    "initialise",
                    self.initialise,
                    lambda v: v in get_args(Initialise),
                    " or ".join(get_args(Initialise)),
                ),
                ("reparametrise", self.reparametrise, boolean, "true or false"),
                ("hidden", self.hidden, positive_int, "a whole number of at least 1"),
            ],
        )

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Put the prefixes on the base; an encoder also trains its score layer."""
        from pegbox.methods._tuners._probe import probe
        from pegbox.methods._tuners.prefix import PrefixConfig, PrefixModel

        module = base.module(len(prompt.task.labels))
        shapes = PrefixModel.shapes(probe(module))
        start = None if self.initialise == "random" else self._start(base, prompt, module, seed)
        config = PrefixConfig(
            length=self.length,
            reparametrise=self.reparametrise,
            hidden=self.hidden,
            shapes=shapes,
            target_modules=list(shapes),
            **common_options(base),
        )
        peft: Any = with_adapter(base, module, config, seed=seed)
        for name, (keys, values) in (start or {}).items():
            peft.get_base_model().get_submodule(name).learned_prefix.start("default", keys, values)
        return peft

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """P times the numbers in a token's keys and values, or what makes them, over all attentions."""
        from pegbox.methods._tuners._probe import probe

        module = base.module(len(prompt.task.labels))
        numbers = [geometry.numbers for geometry in probe(module).values()]
        own = self.length * sum(numbers)
        if self.reparametrise:
            first = self.length * self.hidden + self.hidden**2 + self.hidden
            own = sum(first + self.hidden * n + n for n in numbers)
        return own + head_parameters(base, prompt)

    def _start(
        self, base: Base, prompt: Prompt, module: nn.Module, seed: int
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The real keys and values of words, repeated where the words do not fill the prefix."""
        from pegbox.methods._tuners._probe import states

        before, words, after = self._tokens(base, prompt, seed)
        room = base.context - len(before) - len(after)
        chosen = [words[index % len(words)] for index in range(min(self.length, room))]
        tokens = [*before, *chosen, *after]
        found = states(module, tokens, len(before), len(before) + len(chosen))
        at = torch.arange(self.length, device=base.device) % len(chosen)
        return {name: (keys[:, at], values[:, at]) for name, (keys, values) in found.items()}

    def _tokens(self, base: Base, prompt: Prompt, seed: int) -> tuple[list[int], list[int], list[int]]:
        """The tokens to start from, between the special tokens that the tokenizer puts around a text."""
        text = " ".join(_words(prompt)).strip()
        if not text:  # a prompt without words of its own starts from those of the vocabulary
            text = str(base.tokenizer.decode(_sample(base, self.length, seed)))
        coded = base.tokenizer(
            text,
            split_special_tokens=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        ids, marks = coded["input_ids"], coded["special_tokens_mask"]
        first, last = marks.index(0), len(marks) - marks[::-1].index(0)
        words = ids[first:last]
        if self.initialise == "vocabulary":
            words = _sample(base, self.length, seed)
        return ids[:first], words, ids[last:]


def _words(prompt: Prompt) -> Iterator[str]:
    """Label words and the template's own words; the labels' names where a prompt has neither."""
    task: Any = prompt.task
    if isinstance(prompt, GeneratePrompt):
        yield prompt.wording
        return
    yield from getattr(task, "label_words", None) or task.labels
    if getattr(task, "template", None):
        empty = dict.fromkeys(prompt.template.fields, "")
        yield (prompt.template.before(empty) + prompt.template.after(empty)).strip()


def _sample(base: Base, count: int, seed: int) -> list[int]:
    """Random tokens of the vocabulary that are not special, each at most once where there are enough."""
    model: Any = base.model
    rows = min(len(base.tokenizer), model.get_input_embeddings().weight.shape[0])
    special = set(base.tokenizer.all_special_ids)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()
    return [token for token in order if token not in special][:count]
