"""Messages as one text: by a tokenizer's chat template, a plain one, or as they stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pegbox.data import Message
from pegbox.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Instruction: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Response: ' + message['content'] + eos_token + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Response:' }}{% endif %}"
)
"""The plain chat template: every answer ends with the end of sequence."""

# Characters of Unicode's private use area, which no template treats in a way of its own.
_MARK = "\ue000{}\ue001"
_MARKED = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class Piece:
    """A stretch of a written conversation.

    Args:
        text: Its text.
        own: Whether it is the template's own text, whose special tokens are meant, and not a message's.
        said: Whether the model is to say it.
        end: Whether the end of sequence, which has no text here, follows it.
    """

    text: str
    own: bool
    said: bool
    end: bool = False


@dataclass(frozen=True)
class _Slot:
    """As :class:`Piece`, of any messages with the same roles: ``message`` is the place of one."""

    text: str
    message: int | None
    said: bool
    end: bool = False


@dataclass(eq=False)
class ChatWriter:
    """Writes conversations as pieces of text.

    Args:
        tokenizer: The tokenizer.
        template: A Jinja chat template; ``None`` for prompt and answer as they stand.
        ends: Whether answers end with the end of sequence where the template writes no end of its own.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str | None
    ends: bool = True
    _known: dict[tuple[tuple[str, ...], bool], tuple[tuple[_Slot, ...], frozenset[int]]] = field(
        default_factory=dict, repr=False
    )

    def pieces(
        self, messages: Sequence[Message], *, asks: bool, shown: int = 0, where: str = ""
    ) -> list[Piece]:
        """The conversation in pieces; what the model says are the assistant's messages with their ends.

        Args:
            messages: The messages in order.
            asks: Whether the model is about to speak, so that a template's opening of its turn follows.
            shown: How many of the first messages (but a system message) are there to be read only.
            where: File and row, for messages of errors.

        Raises:
            InputError: When the template fails, or writes something else than the conversation.
        """
        if self.template is None:
            return self._bare(messages, shown, where)
        slots, stripped = self._slots(tuple(message.role for message in messages), asks, where)
        contents = [
            message.content.strip() if index in stripped else message.content
            for index, message in enumerate(messages)
        ]
        first = shown + sum(message.role == "system" for message in messages[:1])
        found = []
        for slot in slots:
            text = slot.text if slot.message is None else contents[slot.message]
            found.append(Piece(text, slot.message is None, slot.said, slot.end))
        if self.template != PLAIN:  # which is known to write what is there
            self._check_same(messages, found, asks, where)
        return _unsaid(found, slots, first) if shown else found

    def end_of_turn(self) -> str | None:
        """The special token by which the template ends an answer, where that is not the end of sequence."""
        if self.template is None:
            return None
        slots, _ = self._slots(("user", "assistant"), False, "")
        said = "".join(slot.text for slot in slots if slot.said)
        found = self._special.findall(said)
        return found[-1] if found and found[-1] != self.tokenizer.eos_token else None

    @cached_property
    def _special(self) -> re.Pattern[str]:
        return special_pattern(self.tokenizer)

    def _bare(self, messages: Sequence[Message], shown: int, where: str) -> list[Piece]:
        """Prompt, a space where neither has one, answer, end; solved rows before it with an empty line."""
        own = [message for message in messages if message.role != "system"]
        if len(own) - shown > 2:
            raise InputError(
                "a conversation of several turns needs a template that tells who speaks",
                where=where,
                expected="one question and one answer per row, or a chat template",
                fix="use --chat plain, or a model with a chat template of its own",
            )
        found = [
            Piece(text, own=False, said=False)
            for message in messages
            if message.role == "system" and message.content
            for text in (message.content, "\n\n")
        ]
        before = ""
        for index, message in enumerate(own):
            last = index >= shown
            said = message.role == "assistant" and last
            if message.role == "assistant":
                gap = "" if _joined(before, message.content) else " "
                end = said and self.ends
                found.append(Piece(gap + message.content, own=False, said=said, end=end))
                if not last:
                    found.append(Piece("\n\n", own=False, said=False))
            else:
                found.append(Piece(message.content, own=False, said=False))
            before = message.content
        return found

    def _slots(
        self, roles: tuple[str, ...], asks: bool, where: str
    ) -> tuple[tuple[_Slot, ...], frozenset[int]]:
        """How the template writes messages of these roles, and which of them it strips of outer spaces."""
        key = (roles, asks)
        if key not in self._known:
            self._known[key] = self._found(roles, asks, where)
        return self._known[key]

    def _found(
        self, roles: tuple[str, ...], asks: bool, where: str
    ) -> tuple[tuple[_Slot, ...], frozenset[int]]:
        marks = [_MARK.format(index) for index in range(len(roles))]
        spaced = self._render(
            [(role, f" {mark} ") for role, mark in zip(roles, marks, strict=True)], asks, where
        )
        stripped = frozenset(index for index, mark in enumerate(marks) if f" {mark} " not in spaced)
        messages = list(zip(roles, marks, strict=True))
        whole = self._render(messages, asks, where)
        if [int(index) for index in _MARKED.findall(whole)] != list(range(len(roles))):
            raise _changed(where, "leaves out or repeats a message")
        spans = [
            self._span(messages, index, whole, where)
            for index, role in enumerate(roles)
            if role == "assistant"
        ]
        if spans and not asks:
            spans = self._ended(spans, messages, whole)
        return tuple(_cut(whole, spans)), stripped

    def _span(
        self, messages: list[tuple[str, str]], index: int, whole: str, where: str
    ) -> tuple[int, int, bool]:
        """Where the message at ``index`` begins to be said and where its content ends."""
        before = self._render(messages[:index], True, where)
        if not whole.startswith(before):
            raise _changed(where, "opens a turn otherwise than it asks for one")
        mark = messages[index][1]
        return len(before), whole.index(mark) + len(mark), False

    def _ended(
        self, spans: list[tuple[int, int, bool]], messages: list[tuple[str, str]], whole: str
    ) -> list[tuple[int, int, bool]]:
        """The same spans with the special token that ends a turn, or the end of sequence where there is none.

        It is the first one after the last answer; what stands between the two is said too.
        """
        rest = whole[spans[-1][1] :] if messages[-1][0] == "assistant" else ""
        ended = self._special.search(rest)
        if ended is None:
            last = (*spans[-1][:2], self.ends and messages[-1][0] == "assistant")
            return [*spans[:-1], last]
        end = rest[: ended.end()]
        return [
            (start, stop + len(end) if whole.startswith(end, stop) else stop, False)
            for start, stop, _ in spans
        ]

    def _render(self, messages: Sequence[tuple[str, str]], asks: bool, where: str) -> str:
        named = [{"role": role, "content": content} for role, content in messages]
        try:
            found: Any = self.tokenizer.apply_chat_template(
                named, chat_template=self.template, tokenize=False, add_generation_prompt=asks
            )
        except Exception as error:  # a template is a program of its own, and may fail in any way
            raise InputError(
                f"the chat template fails: {' '.join(str(error).split()) or type(error).__name__}",
                where=where or "chat template",
                expected="a template that takes the roles " + ", ".join(role for role, _ in messages),
                fix="leave out what it does not take (often a system message), or use --chat plain",
            ) from None
        return str(found)

    def _check_same(
        self, messages: Sequence[Message], found: Sequence[Piece], asks: bool, where: str
    ) -> None:
        """Refuse a template that writes this conversation otherwise than others with the same roles."""
        real = self._render([(message.role, message.content) for message in messages], asks, where)
        if real != "".join(piece.text for piece in found):
            raise _changed(where, "does not write what a message says as it stands")


def special_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """A pattern of the tokenizer's special tokens, the longest first; one that never matches without any."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    found = {*map(str, tokenizer.all_special_tokens), *(str(token) for token in added if token.special)}
    ordered = sorted(filter(None, found), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")


def _joined(before: str, after: str) -> bool:
    return not before or before[-1].isspace() or after[:1].isspace()


def _cut(whole: str, spans: Sequence[tuple[int, int, bool]]) -> list[_Slot]:
    """The template's text cut at messages and at the ends of what is said."""
    said = [(start, stop) for start, stop, _ in spans]
    ends = {stop for _, stop, end in spans if end}
    places = [(found.start(), found.end(), int(found[1])) for found in _MARKED.finditer(whole)]
    borders = sorted(
        {0, len(whole), *(at for pair in said for at in pair), *(at for p in places for at in p[:2])}
    )
    messages = {start: index for start, _, index in places}
    slots = []
    for start, stop in pairwise(borders):
        inside = any(first <= start and stop <= last for first, last in said)
        message = messages.get(start)
        text = "" if message is not None else whole[start:stop]
        slots.append(_Slot(text, message, inside, stop in ends))
    return slots


def _unsaid(pieces: Sequence[Piece], slots: Sequence[_Slot], first: int) -> list[Piece]:
    """The same pieces, nothing said before the message at ``first``."""
    place = next((at for at, slot in enumerate(slots) if slot.message == first), len(slots))
    return [
        Piece(piece.text, piece.own, piece.said and at >= place, piece.end and at >= place)
        for at, piece in enumerate(pieces)
    ]


def _changed(where: str, how: str) -> InputError:
    return InputError(
        f"the chat template {how}, so that it cannot be told which tokens the model is to say",
        where=where or "chat template",
        expected="a template that writes every message as it stands, one after the other",
        fix="use --chat plain, or leave the row out",
    )
