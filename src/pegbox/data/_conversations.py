import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pegbox.data._bad import Dropped, check_on_bad, keep_usable, left_out
from pegbox.data._columns import require_columns
from pegbox.data._conversation_columns import LOOKS, ConversationColumns
from pegbox.data._conversation_reader import Row, cell_text, make_reader
from pegbox.data._messages import Message, RowFaultError, check_turns, message_list
from pegbox.data._table import Table, rows_text
from pegbox.errors import InputError, UsageError

_FIX = "mend these rows, or leave them out with --on-bad-rows drop"


@dataclass(frozen=True)
class Conversations:
    """Prompts and their answers, as messages.

    Args:
        source: Where the rows come from.
        messages: Messages of each row: perhaps one of the system, then user and assistant in turns. The last
            one is the answer; of rows without answers it is the user's.
        references: Right answers of each row, the last message first; ``None`` when unanswered.
        numbers: 1-based row numbers in the source.
        plain: Whether rows are plain texts: one message of the assistant each, and no prompt.
        cells: Cells of further columns as read, by column name ``(rows,)``.
        dropped: Rows left out, and why.
        remarks: What else was changed or noticed, one line each.
    """

    source: str
    messages: tuple[tuple[Message, ...], ...]
    references: tuple[tuple[str, ...], ...] | None
    numbers: tuple[int, ...]
    plain: bool = False
    cells: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def answered(self) -> bool:
        """Whether the rows have answers."""
        return self.references is not None

    @property
    def labels(self) -> None:
        """Conversations have no class of their own, by which a split could be stratified."""

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """Each row's prompt, by which duplicates are found and kept together; of plain texts the text."""
        if self.plain:
            return tuple((row[-1].content,) for row in self.messages)
        return tuple(("\n".join(message.content for message in row),) for row in self.prompts())

    def prompts(self) -> tuple[tuple[Message, ...], ...]:
        """The messages of each row without its answer; none for plain texts."""
        return tuple(row[:-1] for row in self.messages) if self.answered else self.messages

    def select(self, indices: Sequence[int]) -> "Conversations":
        """Return the rows at these 0-based positions; what was dropped before belongs to the whole only."""
        return Conversations(
            self.source,
            tuple(self.messages[i] for i in indices),
            None if self.references is None else tuple(self.references[i] for i in indices),
            tuple(self.numbers[i] for i in indices),
            self.plain,
            {name: tuple(cells[i] for i in indices) for name, cells in self.cells.items()},
        )

    def digest(self) -> str:
        """Return the SHA-256 of messages and references in order, not of source, row numbers and cells."""
        messages = [[(message.role, message.content) for message in row] for row in self.messages]
        content = json.dumps([messages, self.references, self.plain])
        return hashlib.sha256(content.encode()).hexdigest()

    def notes(self) -> list[str]:
        """Return lines for the user: rows left out by reason, and other changes."""
        return left_out(self.dropped) + list(self.remarks)


def conversations(
    table: Table,
    columns: ConversationColumns,
    *,
    need_answers: bool = True,
    on_bad: str = "error",
    extra: Sequence[str] = (),
) -> Conversations:
    """Return the rows of a table as conversations.

    Texts stay as they are. Lists that csv and tsv spell as JSON are read: messages, the columns of an input,
    and several right answers in a column with a plural name (``targets``, ``references``). Where the column
    of answers is not there but one of another usual name is, that is read, and remarked.

    Args:
        table: The table as read.
        columns: Which columns mean what.
        need_answers: Whether each row must have an answer; otherwise rows end with the user's message, and
            the last answer of conversations is left out.
        on_bad: Whether rows that cannot be used are an error or left out, each named.
        extra: Further columns whose cells are kept as they are.

    Raises:
        InputError: Bad rows (all of them named), or no usable row.
    """
    check_on_bad(on_bad, ("error", "drop"))
    reader, remarks = make_reader(table, columns, need_answers)
    require_columns(table, extra)
    if not len(table):
        raise InputError("There are no rows", where=table.source, expected="one row or more", fix="add some")
    found: list[Row] = []
    dropped: list[Dropped] = []
    cut: list[int] = []
    for index, number in enumerate(table.numbers):
        try:
            messages, references = reader.read(index)
        except RowFaultError as fault:
            dropped.append(Dropped(number, str(fault)))
            continue
        if not need_answers and not references and messages[-1].role == "assistant":
            messages = messages[:-1]
            cut.append(number)
        found.append((messages, references))
    kept = keep_usable(table, dropped, on_bad, expected=f"{LOOKS[columns.format]}, in each row", fix=_FIX)
    if cut:
        remarks = (*remarks, f"the last answer of each conversation is not read ({rows_text(cut)})")
    return Conversations(
        table.source,
        tuple(messages for messages, _ in found),
        tuple(references for _, references in found) if need_answers else None,
        kept.numbers,
        columns.format == "text",
        {name: kept.columns[name] for name in extra},
        tuple(dropped),
        (*table.notes, *remarks),
    )


def from_prompts(inputs: Sequence[str] | Sequence[Sequence[Message | Mapping[str, str]]]) -> Conversations:
    """Return prompts in memory without answers, numbered from 1.

    Args:
        inputs: For each row a text, or a list of messages that ends with the user's.

    Raises:
        InputError: For an empty prompt, or one that is no list of messages in order.
        UsageError: For one text instead of several.
    """
    if isinstance(inputs, str):
        raise UsageError("predict takes several prompts", expected="a list", fix="write predict([text])")
    rows: list[tuple[Message, ...]] = []
    for number, item in enumerate(inputs, 1):
        try:
            if isinstance(item, str):
                rows.append((Message("user", cell_text(item, "")),))
            else:
                rows.append(message_list(item, "the prompt"))
                check_turns(rows[-1], answered=False)
        except RowFaultError as fault:
            raise InputError(
                str(fault).capitalize() if isinstance(item, str) else str(fault),
                where=f"prompts given in memory, row {number}",
                expected='a text, or a list of messages such as {"role": "user", "content": "Hello"}',
                fix="leave the row out or fill it in",
            ) from None
    numbers = tuple(range(1, len(rows) + 1))
    return Conversations("prompts given in memory", tuple(rows), None, numbers)
