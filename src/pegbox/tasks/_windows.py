from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from pegbox.data import Sentences, rows_text
from pegbox.errors import CapabilityError, InputError
from pegbox.tasks._encoded import Encoded
from pegbox.tasks._prompt import Kind, Prompt, TooLong
from pegbox.tasks._tag import Tag

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Place = tuple[int, int, int]
# Share of a window that repeats the end of the one before, so that words at a border see their neighbours.
_OVERLAP = 4


@dataclass(frozen=True)
class Windows:
    """Sentences as token ids, those longer than the context in several windows.

    Args:
        encoded: The windows.
        places: For each window the answers read in it: (sentence, word, position in the window).
        lost: For each sentence the words that vanish in tokenisation.
        split: Row numbers of sentences in several windows.
        cut: Row numbers of sentences with a word longer than the context.
        numbers: Row numbers of the sentences.
    """

    encoded: Encoded
    places: tuple[tuple[Place, ...], ...]
    lost: tuple[tuple[int, ...], ...]
    split: tuple[int, ...] = ()
    cut: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.places)

    def notes(self) -> list[str]:
        """Lines for the user on what is answered otherwise than word by word."""
        where = f"{self.encoded.source}: " if self.encoded.source else ""
        lost = [number for number, words in zip(self.numbers, self.lost, strict=True) if words]
        count = sum(map(len, self.lost))
        found = [
            (self.split, f"{len(self.split)} of {len(self.numbers)} sentences read in several windows"),
            (lost, f"{count} words leave nothing for the tokenizer and are answered O"),
            (self.cut, f"{len(self.cut)} sentences with a word longer than the context, read by its start"),
        ]
        return [f"{where}{line} ({rows_text(rows)})" for rows, line in found if rows]


@dataclass(frozen=True)
class TagPrompt(Prompt):
    """A tagging task made ready for one tokenizer; its head scores every token."""

    task: Tag  # type: ignore[assignment]

    def without_soft(self) -> TagPrompt:
        """The same prompt without soft tokens, as the base alone reads it."""
        return replace(self, soft=None)

    def windows(self, rows: Sentences, *, too_long: TooLong = "shorten") -> Windows:
        """Turn sentences into token ids and find where each word is answered.

        A word is read with the space before it, as in running text, and answered at its first token. A
        sentence longer than the context is divided at words into windows that overlap by a quarter; a word in
        two of them is answered where it stands further from a border.

        Args:
            rows: The sentences.
            too_long: ``"error"`` refuses sentences longer than the context.

        Raises:
            InputError: For such sentences, or a context without room for a token.
        """
        start, end = self._edges
        room = self.context - len(start) - len(end)
        pieces = word_pieces(self.tokenizer, rows.tokens)
        long = [index for index, words in enumerate(pieces) if sum(map(len, words)) > room]
        self._check_room(rows, room, long if too_long == "error" else [])
        ids: list[tuple[int, ...]] = []
        places: list[tuple[Place, ...]] = []
        for index, words in enumerate(pieces):
            short = [piece[:room] for piece in words]
            for first, last, answered in spans(list(map(len, short)), room):
                inner = [token for piece in short[first:last] for token in piece]
                starts = list(accumulate(map(len, short[first:last]), initial=len(start)))
                ids.append((*start, *inner, *end))
                places.append(tuple((index, word, starts[word - first]) for word in answered))
        lost = tuple(tuple(at for at, piece in enumerate(words) if not piece) for words in pieces)
        cut = tuple(rows.numbers[i] for i, words in enumerate(pieces) if any(len(p) > room for p in words))
        encoded = Encoded(tuple(ids), (0,) * len(ids), source=rows.source)
        split = tuple(rows.numbers[index] for index in long)
        return Windows(encoded, tuple(places), lost, split, cut, rows.numbers)

    def _check_room(self, rows: Sentences, room: int, refused: Sequence[int]) -> None:
        if room < 1:
            raise InputError(
                "the context has no room for a word",
                where=f"context of {self.context} tokens",
                fix="raise --max-length",
            )
        if refused:
            raise InputError(
                f"{len(refused)} sentences are longer than the context",
                where=f"{rows.source}, {rows_text([rows.numbers[index] for index in refused])}",
                expected=f"at most {self.context} tokens",
                fix="divide them, or let them be read in windows with --too-long shorten",
            )


def prepare_tag(task: Tag, tokenizer: PreTrainedTokenizerBase, kind: Kind, context: int) -> TagPrompt:
    """Check that words can be told apart in what a tokenizer makes.

    Raises:
        CapabilityError: For a model without a head on every token, and for a slow tokenizer.
    """
    if kind != "encoder":
        raise CapabilityError(
            f"a {kind} model scores words of its vocabulary, not the tokens that it reads",
            expected="an encoder, or the same weights as one",
            fix="pass base.headed('none'), as pegbox.fit does",
        )
    if not tokenizer.is_fast:
        raise CapabilityError(
            "a slow tokenizer does not tell which word a token belongs to",
            where=type(tokenizer).__name__,
            expected="a fast tokenizer (tokenizer.json)",
            fix="save the model's fast tokenizer beside it",
        )
    return TagPrompt(task, tokenizer, kind, context)  # type: ignore[arg-type]


def word_pieces(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]]
) -> list[list[list[int]]]:
    """Token ids of each word of each sentence, read in running text; empty where a word vanishes."""
    if not sentences:
        return []
    lead = " " if _space_is_part_of_words(tokenizer) else ""
    # A word of spaces alone would take the space of the next one.
    shown = [[word for word in words if word.strip()] for words in sentences]
    coded = tokenizer(
        [lead + " ".join(words) for words in shown],
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    rows = zip(shown, coded["input_ids"], coded["offset_mapping"], strict=True)
    found = [iter(_by_word(words, ids, offsets, len(lead))) for words, ids, offsets in rows]
    return [
        [next(pieces) if word.strip() else [] for word in words]
        for words, pieces in zip(sentences, found, strict=True)
    ]


def _by_word(
    words: Sequence[str], ids: Sequence[int], offsets: Sequence[tuple[int, int]], lead: int
) -> list[list[int]]:
    """Give each token to the word that it begins in, or to the one after the space that it begins in."""
    if not words:
        return []
    starts, at = [], lead
    for word in words:
        starts.append(at)
        at += len(word) + 1
    found: list[list[int]] = [[] for _ in words]
    for token, (begin, _) in zip(ids, offsets, strict=True):
        index = max(bisect_right(starts, begin) - 1, 0)
        while index + 1 < len(words) and begin >= starts[index] + len(words[index]):
            index += 1
        found[index].append(token)
    return found


def _space_is_part_of_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a word at the start differs from one in running text, as in byte-level vocabularies."""
    bare, spaced = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", " a"))
    return bare != spaced and len(bare) == len(spaced)


def spans(lengths: Sequence[int], room: int) -> list[tuple[int, int, list[int]]]:
    """Windows over words: first word, last word (exclusive), and the words that are answered there.

    Args:
        lengths: Tokens of each word, none above ``room``; a word without tokens is answered nowhere.
        room: Tokens that a window holds.
    """
    windows = []
    first = 0
    while True:
        last, used = first, 0
        while last < len(lengths) and used + lengths[last] <= room:
            used += lengths[last]
            last += 1
        windows.append((first, last))
        if last == len(lengths):
            break
        back, shared = last, 0
        while back - 1 > first and shared + lengths[back - 1] <= room // _OVERLAP:
            back -= 1
            shared += lengths[back]
        # A long next word may leave no room for what is repeated before it.
        while back < last and shared + lengths[last] > room:
            shared -= lengths[back]
            back += 1
        first = back
    owners = [_owner(word, windows, len(lengths)) for word in range(len(lengths))]
    return [
        (a, b, [word for word in range(a, b) if owners[word] == index and lengths[word]])
        for index, (a, b) in enumerate(windows)
    ]


def _owner(word: int, windows: Sequence[tuple[int, int]], words: int) -> int:
    """The window in which a word stands furthest from a border that is none of the sentence."""

    def margin(index: int) -> int:
        first, last = windows[index]
        left = word - first if first else words
        right = last - 1 - word if last < words else words
        return min(left, right)

    return max((i for i, (a, b) in enumerate(windows) if a <= word < b), key=margin)
