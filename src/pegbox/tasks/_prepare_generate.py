"""How conversations are written for a tokenizer: by which chat template, and what ends an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pegbox.errors import CapabilityError, InputError
from pegbox.tasks._chat import PLAIN
from pegbox.tasks._generate import Generate
from pegbox.tasks._generate_prompt import GeneratePrompt
from pegbox.tasks._prompt import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prepare_generate(
    task: Generate,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    context: int,
    *,
    start: Sequence[int] = (),
) -> GeneratePrompt:
    """Choose how conversations are written for a tokenizer.

    Raises:
        CapabilityError: For a model that writes no text, or a tokenizer without an end of sequence where
            nothing else ends an answer.
        InputError: When the tokenizer's chat template is asked for and there is none.
    """
    if kind not in ("causal", "encoder-decoder"):
        raise CapabilityError(
            "a masked model fills gaps, an encoder has no output layer, and neither writes text",
            expected="a causal or encoder-decoder model",
            fix="choose another --model, such as etude",
        )
    template, notes = _template(task, tokenizer, kind)
    prompt = GeneratePrompt(
        replace(task, chat_template=template),  # type: ignore[arg-type]
        tokenizer,
        kind,
        context,
        notes=tuple(notes),
        start=tuple(start),
    )
    _check_end(prompt)
    return prompt


def _template(task: Generate, tokenizer: PreTrainedTokenizerBase, kind: Kind) -> tuple[str | None, list[str]]:
    """The chat template in use, ``None`` for none, and lines that say which."""
    if task.chat_template is not None or task.plain:
        return task.chat_template, []
    own = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else _named(tokenizer)
    verbatim = task.format == "prompt" or task.template is not None
    if kind == "encoder-decoder":
        if task.chat == "model" and own is None:
            raise _no_template(tokenizer)
        if task.chat in ("auto", "none"):
            return None, ["questions are read as they stand, without a chat template"]
        return (own if task.chat == "model" else PLAIN), []
    if task.chat == "model" or (task.chat == "auto" and own is not None and task.format != "prompt"):
        if own is None:
            raise _no_template(tokenizer)
        return own, ["conversations are written by the model's own chat template (override with --chat)"]
    if task.chat == "none" or (task.chat == "auto" and verbatim):
        return None, ["prompt and answer are read as they stand (override with --chat)"]
    why = "" if task.chat == "plain" else ", since the tokenizer has no chat template"
    return PLAIN, [f"conversations are written as 'Instruction: ... Response: ...'{why}"]


def _named(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The default one of several named templates."""
    several = tokenizer.chat_template
    return several.get("default") if isinstance(several, dict) else None


def _no_template(tokenizer: PreTrainedTokenizerBase) -> InputError:
    return InputError(
        "the tokenizer has no chat template",
        where=tokenizer.name_or_path or type(tokenizer).__name__,
        expected="a tokenizer with a chat template, for --chat model",
        fix="use --chat plain",
    )


def _check_end(prompt: GeneratePrompt) -> None:
    """Something must end an answer, or the model would never learn to stop."""
    ended = prompt.tokenizer.eos_token_id is not None
    if not ended and prompt.task.chat_template is not None and prompt.task.chat_template != PLAIN:
        ended = prompt.chat.end_of_turn() is not None
    if not ended:
        raise CapabilityError(
            "the tokenizer has no token for the end of a text, so a model cannot learn to stop",
            where=type(prompt.tokenizer).__name__,
            expected="an eos_token, or a chat template that ends a turn with a special token",
            fix="name it in tokenizer_config.json",
        )
