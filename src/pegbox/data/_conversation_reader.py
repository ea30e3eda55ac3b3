from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pegbox.data._columns import require_columns
from pegbox.data._conversation_columns import ANSWER_NAMES, MANY_NAMES, ConversationColumns
from pegbox.data._examples import text_fault
from pegbox.data._messages import Message, Role, RowFaultError, check_turns, message_list
from pegbox.data._table import Table
from pegbox.data._user_template import UserTemplate, is_delimited, json_list, user_message
from pegbox.errors import InputError

Row = tuple[tuple[Message, ...], tuple[str, ...]]


@dataclass(frozen=True)
class RowReader:
    """Reads one row: its messages, and its right answers where they are asked for.

    Args:
        table: The table.
        parts: Part to column name, as of :class:`ConversationColumns`.
        format: How the rows are written.
        template: How the message of an input is made of its columns, if not of their own texts.
        answered: Whether to read answers.
    """

    table: Table
    parts: dict[str, str]
    format: str
    template: UserTemplate | None
    answered: bool

    def read(self, index: int) -> Row:
        """The messages and references of a row; a RowFaultError says why there are none."""
        readers: dict[str, Callable[[int], Row]] = {
            "instruction": self._instruction,
            "prompt": self._prompt,
            "messages": self._chat,
            "sharegpt": self._chat,
            "input": self._input,
            "text": self._plain,
        }
        return readers[self.format](index)

    @property
    def _delimited(self) -> bool:
        return is_delimited(self.table.source)

    def _cell(self, part: str, index: int) -> object:
        return self.table.columns[self.parts[part]][index] if part in self.parts else None

    def _instruction(self, index: int) -> Row:
        user = cell_text(self._cell("instruction", index), self.parts["instruction"])
        context = _optional(self._cell("input", index), self.parts.get("input", ""))
        return self._answered(f"{user}\n\n{context}" if context else user, index)

    def _input(self, index: int) -> Row:
        inputs = [name for part, name in self.parts.items() if part.startswith("input")]
        row = {name: self.table.columns[name][index] for name in inputs}
        return self._answered(user_message(row, self.template, delimited=self._delimited), index)

    def _answered(self, user: str, index: int) -> Row:
        prompt = (*self._system(index), Message("user", user))
        if not self.answered:
            return prompt, ()
        references = self._references(index)
        return (*prompt, Message("assistant", references[0])), references

    def _references(self, index: int) -> tuple[str, ...]:
        name = self.parts["output"]
        cell = self._cell("output", index)
        if self._delimited and isinstance(cell, str) and name.lower() in MANY_NAMES:
            cell = json_list(cell) or cell
        if isinstance(cell, list | tuple):
            if not cell:
                raise RowFaultError(f"no text in column {name!r}")
            return tuple(cell_text(part, name) for part in cell)
        return (cell_text(cell, name),)

    def _prompt(self, index: int) -> Row:
        prompt = self._turns("prompt", "user", index)
        if prompt[0].role != "system":
            prompt = (*self._system(index), *prompt)
        if prompt[-1].role != "user":
            raise RowFaultError(f"the prompt in column {self.parts['prompt']!r} does not end with the user")
        if not self.answered:
            check_turns(prompt, answered=False)
            return prompt, ()
        messages = (*prompt, *self._turns("output", "assistant", index))
        listed = [self._listed(self._cell(part, index)) is not None for part in ("prompt", "output")]
        if listed[0] != listed[1]:
            one, other = ("prompt", "output") if listed[0] else ("output", "prompt")
            raise RowFaultError(
                f"column {self.parts[one]!r} holds messages and column {self.parts[other]!r} text"
            )
        check_turns(messages, answered=True)
        return messages, (messages[-1].content,)

    def _turns(self, part: str, role: Role, index: int) -> tuple[Message, ...]:
        cell, name = self._cell(part, index), self.parts[part]
        listed = self._listed(cell)
        if listed is None:
            return (Message(role, cell_text(cell, name)),)
        return message_list(listed, f"column {name!r}")

    def _listed(self, cell: object) -> object:
        """The messages of a cell that holds some; a text of csv holds some when it spells them in JSON."""
        if isinstance(cell, list | tuple):
            return cell
        found = json_list(cell) if self._delimited and isinstance(cell, str) else None
        spelt = found and all(isinstance(item, Mapping) and "role" in item for item in found)
        return found if spelt else None

    def _chat(self, index: int) -> Row:
        part = "conversations" if self.format == "sharegpt" else "messages"
        messages = message_list(self._cell(part, index), f"column {self.parts[part]!r}", self.format)
        system = self._system(index)
        if system and messages[0].role == "system":
            raise RowFaultError(f"column {self.parts['system']!r} holds a second system message")
        messages = (*system, *messages)
        ends = messages[-1].role == "assistant"
        check_turns(messages, answered=self.answered or ends)
        return messages, ((messages[-1].content,) if self.answered else ())

    def _system(self, index: int) -> tuple[Message, ...]:
        system = _optional(self._cell("system", index), self.parts.get("system", ""))
        return (Message("system", system),) if system else ()

    def _plain(self, index: int) -> Row:
        text = cell_text(self._cell("text", index), self.parts["text"])
        return (Message("assistant" if self.answered else "user", text),), ((text,) if self.answered else ())


def make_reader(
    table: Table, columns: ConversationColumns, need_answers: bool
) -> tuple[RowReader, tuple[str, ...]]:
    """The reader of a table's rows, and remarks for the user.

    Raises:
        InputError: When a column is not there.
    """
    parts = dict(columns.columns)
    remarks: tuple[str, ...] = ()
    output = parts.get("output")
    if not need_answers:
        parts.pop("output", None)
    elif columns.format in ("instruction", "prompt", "input"):
        if output is None:
            raise InputError("There is no column of answers", where=table.source, fix="name it with --label")
        parts["output"], remarks = _stand_in(table, output, tuple(parts.values()))
    require_columns(table, list(parts.values()))
    template = None if columns.template is None else UserTemplate(columns.template)
    if template is not None:
        template.check(table)
    return RowReader(table, parts, columns.format, template, need_answers), remarks


def _stand_in(table: Table, output: str, taken: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The column of answers; of a table without it one of another usual name."""
    if output in table.columns or output.lower() not in ANSWER_NAMES:
        return output, ()
    known = {name.lower(): name for name in table.names if name not in taken}
    other = next((known[name] for name in ANSWER_NAMES if name in known), None)
    if other is None:
        return output, ()
    return other, (f"{table.source}: answers from column {other!r}, there is no column {output!r}",)


def cell_text(cell: object, name: str) -> str:
    """A cell's text; a RowFaultError that names the column when it is none."""
    if fault := text_fault(cell):
        raise RowFaultError(f"{fault} in column {name!r}" if name else fault)
    return str(cell)


def _optional(cell: object, name: str) -> str:
    """The text of a cell that may be empty."""
    return "" if text_fault(cell) in ("missing text", "empty text") else cell_text(cell, name)
