import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from pegbox.data._bad import Dropped, check_on_bad, keep_usable, left_out
from pegbox.data._cells import style_of
from pegbox.data._columns import require_columns
from pegbox.data._conversation_reader import cell_text
from pegbox.data._conversations import Conversations
from pegbox.data._examples import text_fault
from pegbox.data._messages import Message, Role, RowFaultError, check_turns, message_list
from pegbox.data._preference_columns import (
    ASSISTANT,
    HUMAN,
    PREFERENCE_LOOKS,
    Dialogue,
    PreferenceColumns,
    looks_like_dialogues,
)
from pegbox.data._table import Table, rows_text
from pegbox.data._user_template import is_delimited, json_list
from pegbox.errors import InputError

_FIX = "mend these rows, or leave them out with --on-bad-rows drop"
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):[ \n]?")
_ONE_MESSAGE = (
    "prompts are dialogues of 'Human: ...' and 'Assistant: ...', each read as one message "
    "(--dialogue human-assistant reads them as turns)"
)
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}

_Pair = tuple[tuple[Message, ...], str, str]


@dataclass(frozen=True)
class Preferences:
    """Prompts with two answers each, of which the first is preferred.

    Args:
        source: Where the rows come from.
        prompts: Messages of each row's prompt: perhaps one of the system, then user and assistant in turns,
            the user's last.
        chosen: The better answer of each row.
        rejected: The other one.
        numbers: 1-based row numbers in the source.
        answered: Whether it is known that the chosen one is better; else both are merely compared.
        dropped: Rows left out, and why.
        remarks: What else was changed or noticed, one line each.
    """

    source: str
    prompts: tuple[tuple[Message, ...], ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    numbers: tuple[int, ...]
    answered: bool = True
    dropped: tuple[Dropped, ...] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def labels(self) -> None:
        """Preferences have no class of their own, by which a split could be stratified."""

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """Each row's prompt, by which all its pairs are kept together in a split."""
        return tuple(("\n".join(message.content for message in prompt),) for prompt in self.prompts)

    def select(self, indices: Sequence[int]) -> "Preferences":
        """Return the rows at these 0-based positions; what was dropped before belongs to the whole only."""
        return Preferences(
            self.source,
            tuple(self.prompts[i] for i in indices),
            tuple(self.chosen[i] for i in indices),
            tuple(self.rejected[i] for i in indices),
            tuple(self.numbers[i] for i in indices),
            self.answered,
        )

    def digest(self) -> str:
        """Return the SHA-256 of prompts and answers in order, not of source and row numbers."""
        prompts = [[(message.role, message.content) for message in prompt] for prompt in self.prompts]
        content = json.dumps([prompts, self.chosen, self.rejected, self.answered])
        return hashlib.sha256(content.encode()).hexdigest()

    def notes(self) -> list[str]:
        """Return lines for the user: rows left out by reason, and other changes."""
        return left_out(self.dropped) + list(self.remarks)


def preferences(
    table: Table, columns: PreferenceColumns, *, on_bad: str = "error", ranked: bool = True
) -> Preferences:
    """Return the rows of a table as preferences.

    Texts stay as they are, but for the marks of dialogues, spaces around their turns, and those around a
    prompt that is what two texts have in common at their beginning, in whole words.

    Args:
        table: The table as read.
        columns: Which columns mean what.
        on_bad: Whether rows that cannot be used are an error or left out, each named.
        ranked: Whether the first answer is the better one; two equal answers are then a fault.

    Raises:
        InputError: Bad rows (all of them named), or no usable row.
    """
    check_on_bad(on_bad, ("error", "drop"))
    require_columns(table, list(columns.columns.values()))
    if not len(table):
        raise InputError("There are no rows", where=table.source, expected="one row or more", fix="add some")
    reader = _Reader(table, columns)
    found: list[_Pair] = []
    dropped: list[Dropped] = []
    for index, number in enumerate(table.numbers):
        try:
            pair = reader.read(index)
            _check_pair(pair, ranked)
        except RowFaultError as fault:
            dropped.append(Dropped(number, str(fault)))
            continue
        found.append(pair)
    kept = keep_usable(
        table,
        dropped,
        on_bad,
        expected=f"{PREFERENCE_LOOKS[columns.format]}, in each row",
        fix=_FIX,
        named="--text",
    )
    return Preferences(
        table.source,
        tuple(prompt for prompt, _, _ in found),
        tuple(chosen for _, chosen, _ in found),
        tuple(rejected for _, _, rejected in found),
        kept.numbers,
        ranked,
        tuple(dropped),
        (*table.notes, *_remarks(table, columns)),
    )


def from_answers(inputs: Sequence[Sequence[Any]]) -> Preferences | Conversations:
    """Return prompts in memory with one answer each, or with two to compare, numbered from 1.

    Args:
        inputs: For each row (prompt, answer) or (prompt, first, second), the prompt a text, or a list of
            messages that ends with the user's. All rows have as many answers.

    Raises:
        InputError: For a row of another form.
    """
    rows: list[tuple[tuple[Message, ...], tuple[str, ...]]] = []
    where = "answers given in memory"
    for number, item in enumerate(inputs, 1):
        try:
            rows.append(_given(item))
            if len(rows[-1][1]) != len(rows[0][1]):
                raise RowFaultError("rows of one answer and rows of two are mixed")
        except RowFaultError as fault:
            raise InputError(
                str(fault),
                where=f"{where}, row {number}",
                expected="(prompt, answer), or (prompt, first, second) in every row",
                fix='write for example [("Is it open?", "Yes, until six.")]',
            ) from None
    numbers = tuple(range(1, len(rows) + 1))
    prompts = tuple(prompt for prompt, _ in rows)
    if rows and len(rows[0][1]) == 2:
        first, second = (tuple(answers[at] for _, answers in rows) for at in (0, 1))
        return Preferences(where, prompts, first, second, numbers, answered=False)
    messages = tuple((*prompt, Message("assistant", answers[0])) for prompt, answers in rows)
    return Conversations(where, messages, tuple(answers for _, answers in rows), numbers)


def in_turns(
    rows: Conversations, dialogue: Dialogue = "human-assistant", *, strict: bool = True
) -> Conversations:
    """The same conversations with prompts of one message that is a dialogue read as turns; see `turns_of`.

    Args:
        rows: The conversations, with or without answers.
        dialogue: ``none`` leaves each prompt one message, and remarks where they look like dialogues.
        strict: Whether a prompt that is no dialogue is an error, else it stays one message.

    Raises:
        InputError: For a prompt that is none.
    """
    if dialogue == "none":
        alone = [messages[-1].content for messages in rows.messages if messages[-1].role == "user"]
        remarks = (*rows.remarks, _ONE_MESSAGE) if looks_like_dialogues(alone) else rows.remarks
        return replace(rows, remarks=remarks)
    found, plain = [], []
    for number, messages in zip(rows.numbers, rows.messages, strict=True):
        start = 1 if messages[0].role == "system" else 0
        answer = messages[-1:] if messages[-1].role == "assistant" else ()
        if len(messages) != start + 1 + len(answer):
            found.append(messages)
            continue
        try:
            prompt = turns_of(messages[start].content)
            check_turns(prompt, answered=False)
        except RowFaultError as fault:
            if not strict:
                found.append(messages)
                plain.append(number)
                continue
            raise InputError(
                str(fault),
                where=f"{rows.source}, row {number}",
                expected="turns of 'Human: ...' and 'Assistant: ...', as the model was tuned on",
                fix="mend the row or leave it out",
            ) from None
        found.append((*messages[:start], *prompt, *answer))
    remarks = rows.remarks
    if plain and len(plain) < len(found):
        what = "prompts are no dialogues and are read as one message each"
        remarks = (*remarks, f"{len(plain)} of {len(found)} {what} ({rows_text(plain)})")
    return replace(rows, messages=tuple(found), remarks=remarks)


def turns_of(text: str, what: str = "the prompt") -> tuple[Message, ...]:
    """The messages of a dialogue written as ``Human: ...`` and ``Assistant: ...`` with empty lines between.

    An ``Assistant:`` at the very end, where the answer begins, says nothing.

    Raises:
        RowFaultError: When it does not begin with a mark, or a turn is empty.
    """
    text = re.sub(r"\n\nAssistant:\s*\Z", "", text.strip())
    if not HUMAN.search(text):
        raise RowFaultError(f"{what} does not begin with 'Human:'")
    parts = _TURN.split(text)[1:]
    messages = []
    for place, (speaker, said) in enumerate(zip(parts[::2], parts[1::2], strict=True), 1):
        if not said.strip():
            raise RowFaultError(f"turn {place} of {what}, of '{speaker}', is empty")
        messages.append(Message(_ROLES[speaker], said.strip()))
    return tuple(messages)


@dataclass(frozen=True)
class _Reader:
    """Reads one row: the messages of its prompt and both answers."""

    table: Table
    columns: PreferenceColumns

    def read(self, index: int) -> _Pair:
        """The row; a RowFaultError says why there is none."""
        readers: dict[str, Callable[[int], _Pair]] = {
            "prompt": self._prompted,
            "messages": self._listed,
            "dialogue": self._dialogues,
            "text": self._texts,
        }
        prompt, chosen, rejected = readers[self.columns.format](index)
        system = self._system(index)
        if system and prompt[0].role == "system":
            raise RowFaultError(f"column {self.columns.columns['system']!r} holds a second system message")
        prompt = (*system, *prompt)
        check_turns(prompt, answered=False)
        return prompt, chosen, rejected

    def _cell(self, part: str, index: int) -> object:
        name = self.columns.columns.get(part)
        return None if name is None else self.table.columns[name][index]

    def _text(self, part: str, index: int) -> str:
        return cell_text(self._cell(part, index), self.columns.columns[part])

    def _answers(self, index: int) -> tuple[str, str]:
        return self._text("chosen", index), self._text("rejected", index)

    def _prompted(self, index: int) -> _Pair:
        return (self._asked(index), *self._answers(index))

    def _asked(self, index: int) -> tuple[Message, ...]:
        """The prompt's messages: a list of them, or a text, as one message or as a dialogue."""
        listed = self._messages("prompt", index)
        if listed is not None:
            return listed
        return self._one(self._text("prompt", index))

    def _one(self, text: str) -> tuple[Message, ...]:
        if self.columns.dialogue == "none":
            return (Message("user", text),)
        return turns_of(text)

    def _listed(self, index: int) -> _Pair:
        parts = []
        for part in ("chosen", "rejected"):
            name, found = self.columns.columns[part], self._messages(part, index)
            if found is None:
                raise RowFaultError(
                    text_fault(self._cell(part, index)) or f"column {name!r} holds text, not messages"
                )
            if found[-1].role != "assistant":
                raise RowFaultError(f"the messages in column {name!r} do not end with the assistant")
            parts.append(found)
        chosen, rejected = parts
        _check_same_start(chosen[:-1], rejected[:-1])
        before = self._asked(index) if "prompt" in self.columns.columns else ()
        if not before and len(chosen) == 1:
            raise RowFaultError("there is no prompt before the assistant's message")
        return (*before, *chosen[:-1]), chosen[-1].content, rejected[-1].content

    def _messages(self, part: str, index: int) -> tuple[Message, ...] | None:
        """The messages of a cell that holds some, or one of them by itself."""
        cell, name = self._cell(part, index), self.columns.columns[part]
        if isinstance(cell, str):
            found = json_list(cell) if is_delimited(self.table.source) else None
            if found is None or not all(isinstance(item, Mapping) for item in found):
                return None
            cell = found
        if isinstance(cell, Mapping):
            cell = [cell]
        if not isinstance(cell, list | tuple):
            return None
        return message_list(cell, f"column {name!r}", style_of([cell]) or "messages")

    def _dialogues(self, index: int) -> _Pair:
        parts = []
        for part in ("chosen", "rejected"):
            text, name = self._text(part, index), self.columns.columns[part]
            marks = list(ASSISTANT.finditer(text))
            if not marks:
                raise RowFaultError(f"no turn of 'Assistant:' in column {name!r}")
            answer = text[marks[-1].end() :].strip()
            if not answer:
                raise RowFaultError(f"empty answer in column {name!r}")
            parts.append((text[: marks[-1].start()].strip(), answer))
        (prompt, chosen), (other, rejected) = parts
        if prompt != other:
            raise RowFaultError("the dialogues before the answers of chosen and rejected differ")
        if not prompt:
            raise RowFaultError("there is no prompt before the answers")
        return self._one(prompt), chosen, rejected

    def _texts(self, index: int) -> _Pair:
        chosen, rejected = self._answers(index)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
        shared = "".join(letter for letter, _ in same)
        # Back to where a word begins in both, and so that something is left of either.
        cuts = [found.end() for found in re.finditer(r"\s+", shared)]
        ends = [at for at in cuts if chosen[at:].strip() and rejected[at:].strip()]
        if not ends or not shared[: ends[-1]].strip():
            raise RowFaultError("chosen and rejected have no beginning in common, which would be the prompt")
        at = ends[-1]
        return (Message("user", shared[:at].strip()),), chosen[at:].strip(), rejected[at:].strip()

    def _system(self, index: int) -> tuple[Message, ...]:
        cell = self._cell("system", index)
        if text_fault(cell) in ("missing text", "empty text"):
            return ()
        return (Message("system", cell_text(cell, self.columns.columns["system"])),)


def _check_pair(pair: _Pair, ranked: bool) -> None:
    if ranked and pair[1].strip() == pair[2].strip():
        raise RowFaultError("chosen and rejected are the same")


def _check_same_start(chosen: Sequence[Message], rejected: Sequence[Message]) -> None:
    if tuple(chosen) == tuple(rejected):
        return
    pairs = zip(chosen, rejected, strict=False)
    place = next((at for at, (one, other) in enumerate(pairs, 1) if one != other), None)
    told = f"first in message {place}" if place else f"{len(chosen)} and {len(rejected)} messages"
    raise RowFaultError(f"the prompts of chosen and rejected differ ({told})")


def _given(item: Sequence[Any]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    if isinstance(item, str) or len(item) not in (2, 3):
        raise RowFaultError("a row is not a prompt with one answer or two")
    prompt, *answers = item
    if isinstance(prompt, str):
        messages: tuple[Message, ...] = (Message("user", cell_text(prompt, "")),)
    else:
        messages = message_list(prompt, "the prompt")
        check_turns(messages, answered=False)
    return messages, tuple(cell_text(answer, "") for answer in answers)


def _remarks(table: Table, columns: PreferenceColumns) -> list[str]:
    """What was read in a way that is not the only one."""
    if columns.format == "text":
        return ["the prompt is what chosen and rejected have in common at their beginning"]
    part = {"prompt": "prompt", "dialogue": "chosen"}.get(columns.format)
    if part is None or not looks_like_dialogues(table.columns[columns.columns[part]]):
        return []
    if columns.dialogue == "none":
        return [_ONE_MESSAGE]
    return ["prompts of 'Human: ...' and 'Assistant: ...' are read as turns"]
