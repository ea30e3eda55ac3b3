from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pegbox.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMMON_WORDS = ("yes", "no", "good", "bad", "great", "true", "false", "A", "B", "C", "1", "2", "3")


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts without special tokens; a special token spelt out by a user stays plain text."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]


def edges(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a single text."""
    probe = plain_ids(tokenizer, ["a"])[0]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(probe) + 1):
        if whole[start : start + len(probe)] == probe:
            return whole[:start], whole[start + len(probe) :]
    return [], []


def continuation(tokenizer: PreTrainedTokenizerBase, before: str, text: str) -> list[int] | None:
    """Tokens that ``text`` adds after ``before``, or ``None`` when the two cannot be told apart or said."""
    head, whole = plain_ids(tokenizer, [before, before + text])
    if whole[: len(head)] != head or len(whole) == len(head):
        return None
    added = whole[len(head) :]
    unknown = tokenizer.unk_token_id
    return None if unknown is not None and unknown in added else added


def shorten(tokenizer: PreTrainedTokenizerBase, text: str, drop: int) -> str:
    """Cut at least ``drop`` tokens (never more than all) off the end of a text, at a token boundary."""
    coded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=tokenizer.is_fast
    )
    keep = len(coded["input_ids"]) - drop
    if keep <= 0:
        return ""
    if tokenizer.is_fast:
        return text[: coded["offset_mapping"][keep - 1][1]]
    return tokenizer.decode(coded["input_ids"][:keep])


def check_sayable(
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[str],
    ids: Sequence[list[int] | None],
    *,
    single: bool,
) -> list[list[int]]:
    """Return the ids of the label words, each checked.

    Args:
        tokenizer: The model's tokenizer.
        words: Label words.
        ids: Their tokens after the template, ``None`` where that failed.
        single: Whether each must be one token, as one mask holds.

    Raises:
        InputError: For a word that the tokenizer cannot say, naming words that it can.
    """
    checked: list[list[int]] = []
    for word, tokens in zip(words, ids, strict=True):
        if tokens is None or (single and len(tokens) != 1):
            fault = "cannot say" if tokens is None else f"needs {len(tokens)} tokens for"
            short = [
                other
                for other in COMMON_WORDS
                if len(plain_ids(tokenizer, [" " + other])[0]) == 1 and other not in words
            ]
            raise InputError(
                f"the tokenizer {fault} the label word '{word}'",
                where=f"label words {list(words)}",
                expected="one token in place of one mask" if single else "known tokens after a space",
                fix="choose other words with --label-words"
                + (f", for example {', '.join(short[:6])}" if short else ""),
            )
        checked.append(tokens)
    return checked
