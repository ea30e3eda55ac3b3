"""Soft prompt: learned embeddings of tokens that stand before the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from pegbox.errors import UsageError
from pegbox.methods._checks import check_options, positive_int
from pegbox.methods._method import Attached, Capability
from pegbox.methods._peft_options import head_parameters
from pegbox.methods._registry import register
from pegbox.methods._soft_prompts import attach_soft, embedding_shape, with_soft
from pegbox.models import Base
from pegbox.tasks import Prompt, Soft

Initialise = Literal["labels", "random", "vocabulary", "text"]
COMMON = 5000


@register
@dataclass(frozen=True)
class SoftPrompt(Attached):
    """Soft tokens at the front, after the tokenizer's own leading special tokens; the model stays frozen.

    Starting from the class labels is the default because it is the best published (Lester et al. 2021).

    Args:
        length: How many soft tokens.
        initialise: ``labels`` (each label word's mean embedding, then as for ``vocabulary``), ``vocabulary``
            (different words drawn from the first 5,000 of the tokenizer, the commonest), ``random`` (normal,
            as spread as the model's own embeddings) or ``text``.
        text: For ``text``: its tokens, from the first again when there are fewer.
    """

    length: int = 20
    initialise: Initialise = "labels"
    text: str | None = None

    name: ClassVar[str] = "soft-prompt"
    capability: ClassVar[Capability] = Capability(
        summary="embeddings of tokens before the text",
        kinds=("causal", "masked", "encoder", "encoder-decoder"),
        trains=True,
        mergeable=False,
        quantised=True,
        inference="a prompt that is longer by the soft tokens",
        parameters="P d for P soft tokens, plus K (d + 1) for an encoder's head",
        learning_rate=1e-2,
        defaults={"epochs": 20},
        source="Lester et al. 2021",
        starts_at_base=False,
        architectures=("llama", "qwen3", "gemma3_text", "mistral", "gpt2", "bert", "roberta", "t5"),
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
                    ", ".join(get_args(Initialise)),
                ),
                (
                    "text",
                    self.text,
                    self._valid_text,
                    "words to start from with initialise text, none without",
                ),
            ],
        )

    def prompt(self, base: Base, prompt: Prompt) -> Prompt:
        """The prompt with the soft tokens at its front.

        Raises:
            UsageError: When they leave no room for a text.
        """
        return with_soft(self.name, base, prompt, Soft(embedding_shape(base)[0], front=self.length))

    def attach(self, base: Base, prompt: Prompt, *, seed: int) -> nn.Module:
        """Put the soft tokens on the base; an encoder also trains its score layer."""
        module, layer = attach_soft(base, prompt, tokens=self.length, hidden=None, seed=seed)
        if self.initialise != "random":
            layer.start("default", _means(layer.base_layer, self._words(base, prompt, seed)))
        return module

    def parameters(self, base: Base, prompt: Prompt) -> int:
        """P d, and the score layer of an encoder."""
        return self.length * embedding_shape(base)[1] + head_parameters(base, prompt)

    def _valid_text(self, text: object) -> bool:
        if self.initialise != "text":
            return text is None
        return isinstance(text, str) and bool(text.strip())

    def _words(self, base: Base, prompt: Prompt, seed: int) -> list[list[int]]:
        """For each soft token, the ids whose mean embedding it starts from."""
        if self.initialise == "text":
            ids = _ids(base, self.text or "")
            if not ids:
                raise UsageError(
                    f"{self.name}: the tokenizer has no tokens for the text {self.text!r}",
                    expected="text that the tokenizer can say",
                )
            return [[ids[index % len(ids)]] for index in range(self.length)]
        labels = _labels(base, prompt)[: self.length] if self.initialise == "labels" else []
        return [*labels, *_drawn(base, self.length - len(labels), seed)]


def _labels(base: Base, prompt: Prompt) -> list[list[int]]:
    """Ids of each label word, or of each label's name where there are no words."""
    words = [list(ids) for ids in prompt.answers] or [_ids(base, label) for label in prompt.task.labels]
    return [ids for ids in words if ids]


def _drawn(base: Base, count: int, seed: int) -> list[list[int]]:
    special = set(base.tokenizer.all_special_ids)
    known = min(len(base.tokenizer), embedding_shape(base)[0])
    common = [token for token in range(known) if token not in special][:COMMON]
    order = torch.randperm(len(common), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[common[order[index % len(order)]]] for index in range(count)]


def _ids(base: Base, text: str) -> list[int]:
    ids: list[int] = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    unknown = base.tokenizer.unk_token_id
    return [token for token in ids if token != unknown]


@torch.no_grad()
def _means(embedding: nn.Module, words: list[list[int]]) -> Tensor:
    """Mean embedding of each entry's ids, (entries, d)."""
    weight: Tensor = embedding.weight  # type: ignore[assignment]
    return torch.stack([embedding(torch.tensor(ids, device=weight.device)).float().mean(0) for ids in words])
