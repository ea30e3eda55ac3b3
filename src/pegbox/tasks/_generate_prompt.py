from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from pegbox.data import Conversations, Examples, Message
from pegbox.errors import CapabilityError, InputError
from pegbox.tasks._chat import PLAIN, ChatWriter, Piece
from pegbox.tasks._chat_tokens import ChatTokens
from pegbox.tasks._classify import Demonstration
from pegbox.tasks._encoded import Encoded
from pegbox.tasks._generate import Generate
from pegbox.tasks._prompt import Prompt, TooLong
from pegbox.tasks._spoken import Spoken, too_long_error
from pegbox.tasks._text_windows import text_windows
from pegbox.tasks._tokens import cut_longest

_CUTS = 8


@dataclass(frozen=True)
class GeneratePrompt(Prompt):
    """A generation task made ready for one tokenizer and kind of model."""

    task: Generate  # type: ignore[assignment]

    @cached_property
    def chat(self) -> ChatWriter:
        """What writes messages as text."""
        template = self.task.chat_template
        return ChatWriter(self.tokenizer, template, ends=self.tokenizer.eos_token_id is not None)

    @cached_property
    def chat_tokens(self) -> ChatTokens:
        """What makes token ids of written messages."""
        return ChatTokens(self.tokenizer, self.kind, self.soft)

    @property
    def stops(self) -> tuple[int, ...]:
        """Token ids that end an answer: the end of sequence, and what the template ends a turn with."""
        end = self.chat.end_of_turn() if self.kind == "causal" else None
        found = [self.tokenizer.eos_token_id]
        if end is not None:
            found.append(self.tokenizer.convert_tokens_to_ids(end))
        return tuple(dict.fromkeys(token for token in found if token is not None))

    def without_soft(self) -> GeneratePrompt:
        """The same prompt without soft tokens, as the base alone reads it."""
        return replace(self, soft=None)

    def with_demonstrations(self, demonstrations: Sequence[Demonstration]) -> GeneratePrompt:
        """The same prompt with other solved rows before each question."""
        return replace(self, task=replace(self.task, demonstrations=tuple(demonstrations)))

    def encode(self, rows: Examples, *, too_long: object = "shorten") -> Encoded:  # noqa: ARG002
        """Questions alone, each row's texts with spaces between them, as token ids."""
        columns = list(rows.fields.values())
        texts = [" ".join(parts) for parts in zip(*columns, strict=True)] if columns else ["x"] * len(rows)
        asked = [(Message("user", text),) for text in texts]
        ids, _ = self.chat_tokens.code([self._written_out(messages, asks=True) for messages in asked])
        return Encoded(tuple(map(tuple, ids)), tuple(len(row) - 1 for row in ids), source=rows.source)

    def speak(self, rows: Conversations, *, too_long: TooLong = "shorten") -> Spoken:
        """Turn conversations into token ids and mark what the model is to say: its answers and their ends.

        Args:
            rows: Rows with answers.
            too_long: What to do with rows longer than the context: ``shorten`` cuts the questions at their
                ends, the longest first, never an answer or the template; ``drop`` leaves them out;
                ``error`` refuses. Plain texts are read in windows.

        Raises:
            InputError: For rows that do not fit and must, or whose template fails.
        """
        if rows.plain:
            return text_windows(self.chat_tokens, rows, self.context, too_long)
        asked = [
            (index, part)
            for index, messages in enumerate(rows.messages)
            for part in (self._parts(messages) if self.kind == "encoder-decoder" else [messages])
        ]
        where = [f"{rows.source}, row {rows.numbers[index]}" for index, _ in asked]
        written = self._written([part for _, part in asked], where)
        cut: list[int] = []
        out: list[int] = []
        kept: list[tuple[int, _Written]] = []
        for (index, part), found, place in zip(asked, written, where, strict=True):
            if max(found.lengths) > self.context and too_long == "shorten":
                shorter = self._cut(part, place, self.context)
                if shorter is not None:
                    found = shorter
                    cut.append(index)
            if max(found.lengths) > self.context:
                out.append(index)
                continue
            _check_said(found, place)
            kept.append((index, found))
        numbers = rows.numbers
        cut, out = ([numbers[index] for index in dict.fromkeys(part)] for part in (cut, out))
        if out and too_long != "drop":
            raise too_long_error(rows, out, self.context, too_long)
        return self._spoken(rows, kept, cut, out)

    def _spoken(
        self, rows: Conversations, kept: list[tuple[int, _Written]], cut: list[int], out: list[int]
    ) -> Spoken:
        """What fits: written rows by their places, and the numbers of the rows cut and left out."""
        if not kept:
            raise InputError(
                "no row fits into the context",
                where=rows.source,
                expected=f"rows of at most {self.context} tokens",
                fix="raise --max-length",
            )
        written = [found for _, found in kept]
        return Spoken(
            ids=tuple(found.ids for found in written),
            said=tuple(found.said for found in written),
            sources=tuple(found.source for found in written) if self.kind == "encoder-decoder" else None,
            rows=tuple(index for index, _ in kept),
            numbers=rows.numbers,
            shortened=tuple(cut),
            left_out=tuple(out),
            source=rows.source,
        )

    def whole(
        self, rows: Sequence[Sequence[Message]], where: Sequence[str] | None = None
    ) -> list[tuple[int, ...]]:
        """Token ids of conversations up to their last answers' ends, as :meth:`speak` has them, none cut.

        Args:
            rows: The messages of each; of a model that reads from left to right.
            where: What each is called in errors.

        Raises:
            InputError: When the template fails.
        """
        return [found.ids for found in self._written(rows, where or [""] * len(rows))]

    def answer_sizes(self, rows: Sequence[Sequence[Message]]) -> list[int]:
        """Tokens of each conversation's last answer, its end included; however much of a prompt is cut."""
        found = []
        for written in self._written(rows, [""] * len(rows)):
            start = len(written.said)
            while start and written.said[start - 1]:
                start -= 1
            found.append(len(written.said) - start)
        return found

    def ask(self, rows: Conversations, *, room: int) -> tuple[list[tuple[int, ...]], list[int]]:
        """Token ids of the questions alone, up to where the answer begins.

        Args:
            rows: Conversations that end with the user.
            room: Most tokens of a question, soft tokens included; longer ones are cut at their ends.

        Returns:
            The ids, and the row numbers of those cut.

        Raises:
            InputError: When the template alone does not fit.
        """
        if rows.plain and not all(rows.messages):
            raise CapabilityError(
                "plain texts have no question that could be answered",
                where=rows.source,
                expected="prompts",
                fix="pass beginnings of texts, or score whole texts with evaluate",
            )
        where = [f"{rows.source}, row {number}" for number in rows.numbers]
        pieces = [
            self._written_out(messages, asks=True, where=place)
            for messages, place in zip(rows.messages, where, strict=True)
        ]
        found = [tuple(ids) for ids in self.chat_tokens.code(pieces)[0]]
        cut = []
        for index, ids in enumerate(found):
            if len(ids) <= room:
                continue
            shorter = self._shorter(rows.messages[index], where[index], room, asks=True)
            if shorter is None:
                raise too_long_error(rows, [rows.numbers[index]], self.context, "shorten")
            found[index] = tuple(self.chat_tokens.code([self._written_out(shorter, asks=True)])[0][0])
            cut.append(rows.numbers[index])
        return found, cut

    def example(self, spoken: Spoken, index: int = 0) -> list[tuple[str, bool]]:
        """A sequence as texts, in order, and whether the model is trained to say each."""
        found = []
        source = [] if spoken.sources is None else [*spoken.sources[index]]
        ids = spoken.ids[index][len(self.start) :] if source else spoken.ids[index]
        said = spoken.said[index][len(self.start) :] if source else spoken.said[index]
        tokens = [*((token, False) for token in source), *zip(ids, said, strict=True)]
        known = len(self.tokenizer)
        for speaks, run in groupby(tokens, key=lambda pair: pair[1]):
            text = self.tokenizer.decode([token for token, _ in run if token < known])
            found.append((str(text), speaks))
        return found

    @property
    def wording(self) -> str:
        """The words that a question's template writes itself, without special tokens."""
        pieces = self._written_out([Message("user", "x")], asks=True)
        own = " ".join(self.chat_tokens.special.sub(" ", piece.text) for piece in pieces if piece.own)
        return " ".join(own.split())

    def _messages(self, messages: Sequence[Message]) -> tuple[list[Message], int]:
        """The messages with the task's system message and solved rows before them, and how many are shown."""
        system = [message for message in messages[:1] if message.role == "system"]
        own = list(messages[len(system) :])
        if not system and self.task.system:
            system = [Message("system", self.task.system)]
        shown = [
            message
            for solved in self.task.demonstrations
            for message in (Message("user", solved.fields["prompt"]), Message("assistant", solved.label))
        ]
        return [*system, *shown, *own], len(shown)

    def _written_out(self, messages: Sequence[Message], *, asks: bool, where: str = "") -> list[Piece]:
        whole, shown = self._messages(messages)
        return self._writer(whole).pieces(whole, asks=asks, shown=shown, where=where)

    def _writer(self, messages: Sequence[Message]) -> ChatWriter:
        """An encoder reads the bare question, but a conversation of several turns by the plain template."""
        several = sum(message.role != "system" for message in messages) > 2
        if self.kind == "encoder-decoder" and several and not self.task.demonstrations:
            return ChatWriter(self.tokenizer, PLAIN)
        return self.chat

    def _parts(self, messages: tuple[Message, ...]) -> list[tuple[Message, ...]]:
        """The conversation up to each of its answers, of which an encoder-decoder says one at a time."""
        return [
            messages[: index + 1] for index, message in enumerate(messages) if message.role == "assistant"
        ]

    def _written(self, rows: Sequence[Sequence[Message]], where: Sequence[str]) -> list[_Written]:
        if self.kind != "encoder-decoder":
            pieces = [
                self._written_out(messages, asks=False, where=place)
                for messages, place in zip(rows, where, strict=True)
            ]
            ids, said = self.chat_tokens.code(pieces)
            return [_said_last(tuple(own), tuple(marks)) for own, marks in zip(ids, said, strict=True)]
        asked = [
            self._written_out(messages[:-1], asks=True, where=place)
            for messages, place in zip(rows, where, strict=True)
        ]
        sources = self.chat_tokens.code(asked)[0]
        answers = [[Piece(messages[-1].content, own=False, said=True, end=True)] for messages in rows]
        told = self.chat_tokens.code(answers, edged=False)[0]
        return [
            _Written(tuple(source), (*self.start, *ids), (*[False] * len(self.start), *[True] * len(ids)))
            for source, ids in zip(sources, told, strict=True)
        ]

    def _cut(self, messages: tuple[Message, ...], where: str, room: int) -> _Written | None:
        """The row with its questions cut until it fits; ``None`` where they cannot be cut so far."""
        shorter = self._shorter(messages, where, room, asks=False)
        return None if shorter is None else self._written([shorter], [where])[0]

    def _shorter(
        self, messages: tuple[Message, ...], where: str, room: int, *, asks: bool
    ) -> tuple[Message, ...] | None:
        for _ in range(_CUTS):
            if asks:
                length = len(
                    self.chat_tokens.code([self._written_out(messages, asks=True, where=where)])[0][0]
                )
            else:
                found = self._written([messages], [where])[0]
                if self.kind == "encoder-decoder" and len(found.ids) > room:
                    return None
                length = max(found.lengths)
            if length <= room:
                return messages
            texts = {
                str(index): message.content
                for index, message in enumerate(messages)
                if message.role == "user"
            }
            before = dict(texts)
            cut_longest(self.tokenizer, texts, list(texts), length - room)
            if texts == before or not any(text.strip() for text in texts.values()):
                return None
            messages = tuple(
                replace(message, content=texts.get(str(index), message.content))
                for index, message in enumerate(messages)
            )
        return None


@dataclass(frozen=True)
class _Written:
    source: tuple[int, ...]
    ids: tuple[int, ...]
    said: tuple[bool, ...]

    @property
    def lengths(self) -> tuple[int, int]:
        return len(self.source), len(self.ids)


def _said_last(ids: tuple[int, ...], said: tuple[bool, ...]) -> _Written:
    """Without the tokens after the last that the model says: nothing is read from them."""
    end = max((place for place, speaks in enumerate(said) if speaks), default=len(ids) - 1) + 1
    return _Written((), ids[:end], said[:end])


def _check_said(found: _Written, where: str) -> None:
    if not any(found.said):
        raise InputError(
            "the answer leaves no token that the model could be trained to say",
            where=where,
            expected="an answer that the tokenizer can say",
            fix="mend the row, or leave it out",
        )
