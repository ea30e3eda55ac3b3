from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from pegbox.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# As T5 and UMT5 write it, and as mT5 does, whose vocabulary gives it a space of its own.
SENTINELS = ("<extra_id_0>", "▁<extra_id_0>")
COMMON_WORDS = ("yes", "no", "good", "bad", "great", "true", "false", "A", "B", "C", "1", "2", "3")


def plain_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, special: bool = False
) -> list[list[int]]:
    """Token ids of texts without special tokens of the tokenizer's own.

    A special token spelt out by a user stays plain text, unless ``special`` says that it is meant.
    """
    if not texts:
        return []
    coded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=not special,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return coded["input_ids"]


def following_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """As :func:`plain_ids`, of texts in the middle of a line, so that none gets a space of its own.

    A text that would merge with what it follows is said on its own.
    """
    head, alone = plain_ids(tokenizer, ["x"])[0], plain_ids(tokenizer, texts)
    whole = plain_ids(tokenizer, ["x" + text for text in texts])
    return [
        ids[len(head) :] if ids[: len(head)] == head else plain
        for ids, plain in zip(whole, alone, strict=True)
    ]


def sentinel(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that span corruption (Raffel et al. 2020) puts where the first gap is, or ``None``."""
    vocabulary = tokenizer.get_vocab()
    return next((vocabulary[token] for token in SENTINELS if token in vocabulary), None)


def edges(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a single text."""
    probe = plain_ids(tokenizer, ["a"])[0]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(probe) + 1):
        if whole[start : start + len(probe)] == probe:
            return whole[:start], whole[start + len(probe) :]
    return [], []


def continuation(tokenizer: PreTrainedTokenizerBase, before: str, text: str) -> list[int] | None:
    """Tokens that ``text`` adds after ``before``, or ``None`` when the tokenizer cannot say it.

    Where the two would merge into one token (a template without a space before the answer), the prompt still
    ends where it ends, and ``text`` is said on its own.
    """
    head, whole, alone = plain_ids(tokenizer, [before, before + text, text])
    merges = whole[: len(head)] != head
    added = alone if merges else whole[len(head) :]
    unknown = tokenizer.unk_token_id
    return None if not added or (unknown is not None and unknown in added) else added


def first_token(
    tokenizer: PreTrainedTokenizerBase, *, single: bool, opens: bool = False
) -> Callable[[str], int | None]:
    """Tell the first token of a word in the middle of a text; ``None`` where it cannot be said.

    Args:
        tokenizer: The tokenizer.
        single: Whether the word must be one token, as one mask holds.
        opens: Whether the word stands at the beginning of a text instead, as a decoder's answer.
    """

    def first(word: str) -> int | None:
        tokens = continuation(tokenizer, "", word) if opens else continuation(tokenizer, "x", " " + word)
        return None if tokens is None or (single and len(tokens) != 1) else tokens[0]

    return first


def vocabulary_words(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Words of the vocabulary made of letters alone, the shortest ids (the commonest words) first."""
    for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        word = tokenizer.convert_tokens_to_string([token]).strip()
        if word.isalpha():
            yield word


def cut_longest(
    tokenizer: PreTrainedTokenizerBase, texts: dict[str, str], names: Sequence[str], excess: int
) -> None:
    """Cut at least ``excess`` tokens (never more than all) off the ends of texts, from the longest first.

    Each text keeps at most as many tokens as the others must keep too, so that a short one stays whole beside
    a long one.
    """
    lengths = dict(zip(names, map(len, plain_ids(tokenizer, [texts[name] for name in names])), strict=True))
    for name in sorted(names, key=lambda name: lengths[name]):
        others = sum(lengths[other] for other in names if lengths[other] >= lengths[name])
        count = sum(lengths[other] >= lengths[name] for other in names)
        cap = (others - excess) // count
        if cap < lengths[name]:
            for long in [other for other in names if lengths[other] >= lengths[name]]:
                texts[long] = shorten(tokenizer, texts[long], max(1, lengths[long] - max(cap, 0)))
            return


def shorten(tokenizer: PreTrainedTokenizerBase, text: str, drop: int) -> str:
    """Cut at least ``drop`` tokens (never more than all) off the end of a text.

    The cut lies before the first dropped token, so that a character of several tokens goes as a whole; spaces
    before it go too, since they would be a token of their own.
    """
    if drop < 1 or not text:
        return text
    if not tokenizer.is_fast:
        return _shorten_slowly(tokenizer, text, drop)
    places = _offsets(tokenizer, text)
    keep = len(places) - drop
    end = places[keep][0] if keep > 0 else 0
    return text[: min(end, len(text) - 1)].rstrip()


def _offsets(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    """Where each token of a text begins and ends in it."""
    coded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    found: list[tuple[int, int]] = coded["offset_mapping"]
    return found


def shorten_start(tokenizer: PreTrainedTokenizerBase, text: str, drop: int) -> str:
    """As :func:`shorten`, from the beginning of a text: its last character always stays."""
    if drop < 1 or not text:
        return text
    if tokenizer.is_fast:
        places = _offsets(tokenizer, text)
        start = places[drop - 1][1] if drop <= len(places) else len(text)
        return text[min(start, len(text) - 1) :].lstrip() or text[-1]
    keep = len(plain_ids(tokenizer, [text])[0]) - drop
    low, high = 0, len(text) - 1
    while low < high:
        middle = (low + high) // 2
        fits = len(plain_ids(tokenizer, [text[middle:]])[0]) <= keep
        low, high = (low, middle) if fits else (middle + 1, high)
    return text[low:].lstrip() or text[-1]


def _shorten_slowly(tokenizer: PreTrainedTokenizerBase, text: str, drop: int) -> str:
    keep = len(plain_ids(tokenizer, [text])[0]) - drop
    low, high = 0, len(text) - 1
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(plain_ids(tokenizer, [text[:middle]])[0]) <= keep
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip()


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
            first = first_token(tokenizer, single=True)
            short = [other for other in COMMON_WORDS if other not in words and first(other) is not None]
            raise InputError(
                f"the tokenizer {fault} the label word '{word}'",
                where=f"label words {list(words)}",
                expected="one token in place of one mask" if single else "known tokens after a space",
                fix="choose other words with --label-words"
                + (f", for example {', '.join(short[:6])}" if short else ""),
            )
        checked.append(tokens)
    return checked
