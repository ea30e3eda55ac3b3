from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pegbox.errors import CapabilityError, InputError
from pegbox.tasks._choose import Choose
from pegbox.tasks._choose_prompt import prepare_choose
from pegbox.tasks._classify import Classify
from pegbox.tasks._defaults import derive_wording, plain_template
from pegbox.tasks._generate import Generate
from pegbox.tasks._prefer import Prefer
from pegbox.tasks._prefer_prompt import prepare_prefer
from pegbox.tasks._prepare_generate import prepare_generate
from pegbox.tasks._prompt import Kind, Prompt
from pegbox.tasks._tag import Tag
from pegbox.tasks._template import Template
from pegbox.tasks._tokens import check_sayable, continuation, first_token, sentinel, vocabulary_words
from pegbox.tasks._windows import prepare_tag

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prepare(
    task: Classify | Tag | Choose | Generate | Prefer,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    context: int,
    *,
    start: Sequence[int] = (),
    forward: bool = False,
) -> Prompt:
    """Fill in template and label words and find the tokens of the answers.

    Args:
        task: The task.
        tokenizer: The model's tokenizer.
        kind: ``causal``, ``masked``, ``encoder`` (no output layer: plain texts, no words) or
            ``encoder-decoder``.
        context: Longest sequence in tokens.
        start: Token ids that the decoder of an encoder-decoder starts with.
        forward: Whether an encoder reads from left to right, as the trunk of a causal model does.

    Raises:
        InputError: For a label word that the tokenizer cannot say, or two that it says alike.
        CapabilityError: For a causal model, or an encoder-decoder whose tokenizer has no sentinel, when text
            slots follow the answer, and for a masked model whose tokenizer has no mask.
    """
    if isinstance(task, Tag):
        return prepare_tag(task, tokenizer, kind, context)
    if isinstance(task, Choose):
        return prepare_choose(task, tokenizer, kind, context)
    if isinstance(task, Generate):
        return prepare_generate(task, tokenizer, kind, context, start=start)
    if isinstance(task, Prefer):
        forward = forward or kind == "causal"
        return prepare_prefer(task, tokenizer, kind, context, forward=forward)
    if kind == "encoder":
        return Prompt(task, tokenizer, kind, context, notes=_unused(task))
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise CapabilityError(
            "the tokenizer has no mask token to stand for the answer",
            where=type(tokenizer).__name__,
            expected="a tokenizer with a mask token, as masked language models have",
            fix="save the model's own tokenizer beside it",
        )
    gap = sentinel(tokenizer) if kind == "encoder-decoder" else None
    opens = kind == "encoder-decoder" and gap is None
    template, words, notes = _wording(task, tokenizer, single=kind == "masked", opens=opens)
    parsed = Template(template, task.fields)
    if (kind == "causal" or opens) and not parsed.answer_last:
        raise _answer_not_last(template, kind)
    if not parsed.goes_on:
        gap, opens = None, kind == "encoder-decoder"
    hidden = [name for name in task.fields if name not in parsed.used()]
    notes += [f"the template does not show the column '{name}'" for name in hidden]
    answers = _answers(parsed, tokenizer, words, single=kind == "masked", opens=opens)
    task = replace(task, template=template, label_words=words)
    return Prompt(task, tokenizer, kind, context, answers, tuple(notes), tuple(start), gap)


def _answer_not_last(template: str, kind: Kind) -> CapabilityError:
    if kind == "causal":
        what, other = "a causal model reads from left to right", "a masked model"
    else:
        what, other = "this tokenizer has no token such as <extra_id_0> to stand for", "a masked or T5 model"
    return CapabilityError(
        f"the template goes on after the answer, which {what}",
        where=repr(template),
        expected="{answer} after all text slots",
        fix=f"move {{answer}} to the end, or use {other}",
    )


def _wording(
    task: Classify, tokenizer: PreTrainedTokenizerBase, *, single: bool, opens: bool
) -> tuple[str, tuple[str, ...], list[str]]:
    """Template and label words, derived where the task has none, and lines that say what was derived."""
    template, words = task.template, task.label_words
    notes: list[str] = []
    if words is None:
        first = first_token(tokenizer, single=single, opens=opens)
        derived = derive_wording(
            task.fields,
            task.labels,
            first,
            options=template is None,
            spare=vocabulary_words(tokenizer),
        )
        words, suggested = derived.label_words, derived.template
        if single:
            _check_enough(sum(first(word) is not None for word in words), task)
        pairs = ", ".join(f"{label}={word}" for label, word in zip(task.labels, words, strict=True))
        notes.append(f"label words {pairs} (derived; override with --label-words)")
    else:
        suggested = plain_template(task.fields)
    if template is None:
        template = suggested
        notes.insert(0, f"template {template!r} (derived; override with --template)")
    return template, words, notes


def _check_enough(found: int, task: Classify) -> None:
    if found < len(task.labels):
        raise CapabilityError(
            f"the tokenizer has one-token words for {found} of {len(task.labels)} labels only",
            where=f"labels {', '.join(task.labels[:5])}, ...",
            expected="a word of one token for each label, in place of one mask",
            fix="use a causal model, or an encoder without an output layer",
        )


def _unused(task: Classify) -> tuple[str, ...]:
    given = [name for name in ("template", "label_words", "demonstrations") if getattr(task, name)]
    if not given:
        return ()
    names = " and ".join(name.replace("_", " ") for name in given)
    reader = "a head" if task.readout == "head" else "an encoder without an output layer"
    return (f"{names} not used: {reader} reads the plain texts",)


def _answers(
    template: Template, tokenizer: PreTrainedTokenizerBase, words: Sequence[str], *, single: bool, opens: bool
) -> tuple[tuple[int, ...], ...]:
    """Token ids of the label words after the template, or at the beginning of a text (``opens``)."""
    before = "" if opens else template.before(dict.fromkeys(template.fields, "x"))
    gap = "" if opens else template.gap()
    found = [continuation(tokenizer, before, gap + word) for word in words]
    checked = check_sayable(tokenizer, words, found, single=single)
    for index, tokens in enumerate(checked):
        if tokens in checked[:index]:
            twin = words[checked.index(tokens)]
            raise InputError(
                f"the tokenizer says the label words '{twin}' and '{words[index]}' alike",
                where=f"label words {list(words)}",
                expected="words that differ in their tokens",
                fix="choose other words with --label-words",
            )
    return tuple(map(tuple, checked))
