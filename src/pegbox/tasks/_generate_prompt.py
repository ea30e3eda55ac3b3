from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from pegbox.data import Conversations, Examples, Message
from pegbox.errors import CapabilityError, InputError
from pegbox.tasks._chat import PLAIN, ChatWriter, Piece, special_pattern
from pegbox.tasks._classify import Demonstration
from pegbox.tasks._encoded import Encoded, listed
from pegbox.tasks._generate import Generate
from pegbox.tasks._prompt import Kind, Prompt, TooLong
from pegbox.tasks._tokens import cut_longest, edges

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CUTS = 8


@dataclass(frozen=True)
class Spoken:
    """Conversations as token ids, and which of them the model is to say.

    Args:
        ids: Token ids of each sequence; of an encoder-decoder what its decoder reads, its start included.
        said: For each sequence whether each token is to be said, as long as ``ids``.
        sources: Token ids that the encoder of an encoder-decoder reads, else ``None``.
        rows: The row (0-based) that each sequence is of.
        numbers: Row numbers of all rows that were asked for.
        shortened: Row numbers whose question was cut.
        left_out: Row numbers that do not fit and were left out.
        divided: Row numbers of plain texts that are read in several windows.
        source: Where the rows come from.
    """

    ids: tuple[tuple[int, ...], ...]
    said: tuple[tuple[bool, ...], ...]
    sources: tuple[tuple[int, ...], ...] | None
    rows: tuple[int, ...]
    numbers: tuple[int, ...]
    shortened: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    divided: tuple[int, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def notes(self) -> list[str]:
        """Lines for the user on what was cut, divided and left out."""
        where = f"{self.source}: " if self.source else ""
        count = len(self.numbers)
        told = (
            (self.shortened, "questions shortened to fit the context"),
            (self.divided, "texts read in several windows"),
            (self.left_out, "rows left out, since they do not fit into the context"),
        )
        return [f"{where}{len(rows)} of {count} {what} (rows {listed(rows)})" for rows, what in told if rows]


@dataclass(frozen=True)
class GeneratePrompt(Prompt):
    """A generation task made ready for one tokenizer and kind of model."""

    task: Generate  # type: ignore[assignment]

    @cached_property
    def chat(self) -> ChatWriter:
        """What writes messages as text."""
        template = self.task.chat_template
        return ChatWriter(self.tokenizer, template, ends=self.tokenizer.eos_token_id is not None)

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
        ids, _ = self._tokens([self._written_out(messages, asks=True) for messages in asked])
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
            return self._windows(rows, too_long)
        room = self.context
        cut: list[int] = []
        out: list[int] = []
        ids, said, sources, owners = [], [], [], []
        asked = [
            (index, part)
            for index, messages in enumerate(rows.messages)
            for part in (self._parts(messages) if self.kind == "encoder-decoder" else [messages])
        ]
        where = [f"{rows.source}, row {rows.numbers[index]}" for index, _ in asked]
        written = self._written([part for _, part in asked], where)
        for at, (index, part) in enumerate(asked):
            found = written[at]
            if max(found.lengths) > room and too_long == "shorten":
                shorter = self._cut(part, where[at], room)
                if shorter is not None:
                    found = shorter
                    cut.append(index)
            if max(found.lengths) > room:
                out.append(index)
                continue
            self._check_said(found, where[at])
            ids.append(found.ids)
            said.append(found.said)
            sources.append(found.source)
            owners.append(index)
        numbers = rows.numbers
        if out and too_long != "drop":
            raise self._unfit(rows, [numbers[index] for index in dict.fromkeys(out)], too_long)
        if not ids:
            raise InputError(
                "no row fits into the context",
                where=rows.source,
                expected=f"rows of at most {self.context} tokens",
                fix="raise --max-length",
            )
        return Spoken(
            ids=tuple(ids),
            said=tuple(said),
            sources=tuple(sources) if self.kind == "encoder-decoder" else None,
            rows=tuple(owners),
            numbers=numbers,
            shortened=tuple(numbers[index] for index in dict.fromkeys(cut)),
            left_out=tuple(numbers[index] for index in dict.fromkeys(out)),
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
        found = [tuple(ids) for ids in self._tokens(pieces)[0]]
        cut = []
        for index, ids in enumerate(found):
            if len(ids) <= room:
                continue
            shorter = self._shorter(rows.messages[index], where[index], room, asks=True)
            if shorter is None:
                raise self._unfit(rows, [rows.numbers[index]], "shorten")
            found[index] = tuple(self._tokens([self._written_out(shorter, asks=True)])[0][0])
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
        own = " ".join(self._special.sub(" ", piece.text) for piece in pieces if piece.own)
        return " ".join(own.split())

    @cached_property
    def _special(self) -> re.Pattern[str]:
        return special_pattern(self.tokenizer)

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
            ids, said = self._tokens(pieces)
            return [_said_last(tuple(own), tuple(marks)) for own, marks in zip(ids, said, strict=True)]
        asked = [
            self._written_out(messages[:-1], asks=True, where=place)
            for messages, place in zip(rows, where, strict=True)
        ]
        sources = self._tokens(asked)[0]
        answers = [[Piece(messages[-1].content, own=False, said=True, end=True)] for messages in rows]
        told = self._tokens(answers, edged=False)[0]
        return [
            _Written(tuple(source), (*self.start, *ids), (*[False] * len(self.start), *[True] * len(ids)))
            for source, ids in zip(sources, told, strict=True)
        ]

    def _tokens(
        self, rows: Sequence[Sequence[Piece]], *, edged: bool = True
    ) -> tuple[list[list[int]], list[list[bool]]]:
        """Token ids of written conversations and whether the model says each.

        What it says is tokenised on its own, since it begins there when it answers. Special tokens spelt out
        in a message stay plain text.
        """
        runs = [self._runs(pieces) for pieces in rows]
        jobs = list(dict.fromkeys(job for row in runs for run in row for job in run.jobs))
        known = dict(zip(jobs, self._coded(jobs), strict=True))
        start, end = edges(self.tokenizer) if edged else ([], [])
        stop = self.tokenizer.eos_token_id
        ids, said = [], []
        for row in runs:
            own: list[int] = []
            marks: list[bool] = []
            for run in row:
                added = [token for job in run.jobs for token in known[job]]
                if run.end and stop is not None:
                    added.append(stop)
                own += added
                marks += [run.said] * len(added)
            if edged:
                self._edge(own, marks, start, end)
            ids.append(own)
            said.append(marks)
        return ids, said

    def _runs(self, pieces: Sequence[Piece]) -> list[_Run]:
        """Stretches that the model says or does not say, each tokenised as one text where that is safe."""
        found: list[_Run] = []
        for said, group in groupby(pieces, key=lambda piece: piece.said):
            run = list(group)
            parts = [(piece.text, piece.own) for piece in run]
            if not any(not own and self._special.search(text) for text, own in parts):
                parts = [("".join(text for text, _ in parts), any(own for _, own in parts))]
            later = bool(found)
            jobs = tuple((text, later or at > 0, own) for at, (text, own) in enumerate(parts) if text)
            found.append(_Run(jobs, said, run[-1].end))
        return found

    def _edge(self, ids: list[int], said: list[bool], start: list[int], end: list[int]) -> None:
        """Put the tokenizer's own edges around a text, unless the template wrote them, and soft tokens."""
        if start and ids[: len(start)] != start:
            ids[:0] = start
            said[:0] = [False] * len(start)
        at = len(start) if start else int(bool(ids) and ids[0] == self.tokenizer.bos_token_id)
        if self.soft is not None:
            ids[at:at] = self.soft.leading
            said[at:at] = [False] * len(self.soft.leading)
        if self.kind == "encoder-decoder":
            ids += end
            said += [False] * len(end)

    def _coded(self, jobs: Sequence[_Job]) -> list[list[int]]:
        """Token ids of texts; those in the middle of a line get no space of their own."""
        found: dict[_Job, list[int]] = {}
        for meant in (False, True):
            own = [job for job in jobs if job[2] == meant]
            follows = [job for job in own if job[1]]
            head = self._plain(["x"], meant)[0] if follows else []
            whole = self._plain(["x" + text for text, _, _ in follows], meant)
            for job, ids in zip(follows, whole, strict=True):
                if ids[: len(head)] == head:
                    found[job] = ids[len(head) :]
            rest = [job for job in own if job not in found]
            found |= dict(zip(rest, self._plain([text for text, _, _ in rest], meant), strict=True))
        return [found[job] for job in jobs]

    def _plain(self, texts: list[str], meant: bool) -> list[list[int]]:
        if not texts:
            return []
        coded = self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=not meant,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        found: list[list[int]] = coded["input_ids"]
        return found

    def _cut(self, messages: tuple[Message, ...], where: str, room: int) -> _Written | None:
        """The row with its questions cut until it fits; ``None`` where they cannot be cut so far."""
        shorter = self._shorter(messages, where, room, asks=False)
        return None if shorter is None else self._written([shorter], [where])[0]

    def _shorter(
        self, messages: tuple[Message, ...], where: str, room: int, *, asks: bool
    ) -> tuple[Message, ...] | None:
        for _ in range(_CUTS):
            if asks:
                length = len(self._tokens([self._written_out(messages, asks=True, where=where)])[0][0])
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

    def _windows(self, rows: Conversations, too_long: TooLong) -> Spoken:
        """Plain texts with their ends, in windows as long as the context."""
        if self.kind != "causal":
            raise CapabilityError(
                f"plain texts are continued, and a {self.kind} model continues none",
                where=rows.source,
                expected="a causal model",
                fix="give prompts with answers, or use a causal model such as etude",
            )
        end = self.tokenizer.eos_token_id is not None
        pieces = [[Piece(messages[-1].content, own=False, said=True, end=end)] for messages in rows.messages]
        found = self._tokens(pieces, edged=False)[0]
        start = [*edges(self.tokenizer)[0], *(self.soft.leading if self.soft is not None else ())]
        room = self.context - len(start)
        long = [number for number, ids in zip(rows.numbers, found, strict=True) if len(ids) > room]
        if long and too_long == "error":
            raise self._unfit(rows, long, too_long)
        ids, said, owners = [], [], []
        for index, own in enumerate(found):
            if len(own) > room and too_long == "drop":
                continue
            for at in range(0, len(own), room):
                window = own[at : at + room]
                # Nothing stands before the first token of a sequence without a start of its own.
                first = [bool(start)] if window else []
                ids.append((*start, *window))
                said.append((*[False] * len(start), *first, *[True] * (len(window) - 1)))
                owners.append(index)
        told = {"left_out" if too_long == "drop" else "divided": tuple(long)}
        return Spoken(tuple(ids), tuple(said), None, tuple(owners), rows.numbers, source=rows.source, **told)

    def _check_said(self, found: _Written, where: str) -> None:
        if not any(found.said):
            raise InputError(
                "the answer leaves no token that the model could be trained to say",
                where=where,
                expected="an answer that the tokenizer can say",
                fix="mend the row, or leave it out",
            )

    def _unfit(self, rows: Conversations, numbers: Sequence[int], too_long: TooLong) -> InputError:
        what = "the answer and the template alone are" if too_long == "shorten" else "the row is"
        count = f"{len(numbers)} rows are" if len(numbers) > 1 else "a row is"
        return InputError(
            f"{count} longer than the context"
            + (f": {what} longer than it" if too_long == "shorten" else ""),
            where=f"{rows.source}, rows {listed(numbers)}",
            expected=f"at most {self.context} tokens",
            fix="raise --max-length, shorten them, or leave them out with --too-long drop",
        )


# A text, whether it follows another, and whether special tokens in it are meant.
_Job = tuple[str, bool, bool]


@dataclass(frozen=True)
class _Run:
    jobs: tuple[_Job, ...]
    said: bool
    end: bool


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
