import json
import string
from collections.abc import Mapping, Sequence
from functools import cached_property

from pegbox.data._examples import label_text, text_fault
from pegbox.data._messages import RowFaultError
from pegbox.data._table import Table
from pegbox.errors import InputError, UsageError, nearest

_HELP = "text with column names as slots, such as 'Question: {question}'"
_DELIMITED = (".csv", ".tsv", ".tab")


class UserTemplate:
    """How a user's message is made of a row's columns: text with slots, such as ``Question: {question}``.

    Args:
        text: The template; a literal brace is written ``{{`` or ``}}``.

    Raises:
        InputError: When it cannot be read, or names no column.
        UsageError: When it has an ``{answer}`` slot.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if "answer" in self.slots:
            raise UsageError(
                "this template renders the user's message alone and has no {answer} slot",
                where=repr(text),
                expected=_HELP,
                fix="end it where the answer begins; the answer comes from the column named with --label",
            )
        if not self.slots:
            raise InputError(
                "the template shows no column of the row", where=repr(text), expected=_HELP, fix="add a slot"
            )

    @cached_property
    def _parts(self) -> list[tuple[str, str | None]]:
        try:
            parsed = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise InputError(
                f"the template cannot be read: {error}", where=repr(self.text), expected=_HELP,
                fix="write a literal brace as {{ or }}",
            ) from None  # fmt: skip
        for _, name, layout, conversion in parsed:
            if layout or conversion:
                raise InputError(
                    f"the slot {{{name}}} asks for a format or conversion",
                    where=repr(self.text), expected=_HELP, fix=f"write {{{name}}}",
                )  # fmt: skip
        return [(literal, name) for literal, name, _, _ in parsed]

    @property
    def slots(self) -> tuple[str, ...]:
        """The columns that it shows, in order."""
        return tuple(dict.fromkeys(name for _, name in self._parts if name is not None))

    def check(self, table: Table) -> None:
        """Raise an InputError that names the nearest column for a slot that is no column."""
        for name in self.slots:
            if name not in table.columns:
                raise InputError(
                    f"the template names the unknown slot {{{name}}}", where=f"{table.source}, {self.text!r}",
                    expected=f"one of {', '.join('{' + slot + '}' for slot in table.names)}",
                    fix=nearest(name, table.names) or "name a column of the data",
                )  # fmt: skip

    def render(self, values: Mapping[str, str]) -> str:
        """The user's message, given the text of each slot."""
        return "".join(literal + ("" if name is None else values[name]) for literal, name in self._parts)


def user_message(row: Mapping[str, object], template: UserTemplate | None, *, delimited: bool) -> str:
    """One message of several cells: by the template, else ``name: value`` lines, else the one cell.

    Lists are joined by ``", "``; an empty cell is no text, and has no line.

    Args:
        row: Column name to cell.
        template: The template, if there is one.
        delimited: Whether lists are written as JSON text, as in csv.

    Raises:
        RowFaultError: For cells that are no text, or when all of them are empty.
    """
    values = {name: _cell_text(cell, name, delimited) for name, cell in row.items()}
    if not any(value.strip() for value in values.values()):
        if len(row) > 1:
            raise RowFaultError(f"empty text in columns {', '.join(map(repr, row))}")
        ((name, cell),) = row.items()
        raise RowFaultError(f"{text_fault(cell) or 'empty text'} in column {name!r}")
    if template is not None:
        return template.render(values)
    if len(values) == 1:
        return next(iter(values.values()))
    return "\n".join(f"{name}: {value}" for name, value in values.items() if value.strip())


def is_delimited(source: str) -> bool:
    """Whether the cells of a source are text only: csv and tsv."""
    return source.lower().removesuffix(".gz").endswith(_DELIMITED)


def json_list(text: str) -> list[object] | None:
    """The list that a cell of csv spells in JSON; ``None`` where it is other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _cell_text(cell: object, name: str, delimited: bool) -> str:
    if delimited and isinstance(cell, str):
        listed = json_list(cell)
        cell = listed if listed is not None and not _nested(listed) else cell
    if isinstance(cell, str):
        if text_fault(cell) not in ("", "empty text"):
            raise RowFaultError(f"{text_fault(cell)} in column {name!r}")
        return cell
    if isinstance(cell, list | tuple) and not _nested(cell):
        return ", ".join(_cell_text(part, name, False) for part in cell)
    if cell is None or isinstance(cell, bool | int | float):
        return label_text(cell) or ""
    raise RowFaultError(f"not text but {type(cell).__name__} in column {name!r}")


def _nested(cells: Sequence[object]) -> bool:
    return any(isinstance(part, list | tuple | Mapping) for part in cells)
