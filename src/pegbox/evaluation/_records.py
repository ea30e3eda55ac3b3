"""Records, the slots a text should tell, and tables that a query is about."""

import re
from dataclasses import dataclass

from pegbox.errors import InputError

Cell = str | int | float | None

_SLOT = r"([^\[\],|:\n]+)\[([^\[\]\n]*)\]"
_BRACKETS = re.compile(rf"{_SLOT}(?:\s*,\s*{_SLOT})*")
_PAIR = re.compile(r"([^:|\n]{1,40}?)\s*:\s+(\S.*)")
_MOST_KEY_WORDS = 4


@dataclass(frozen=True)
class SqlTable:
    """A small table that queries can run on.

    Args:
        name: Its name in the queries.
        columns: Names of the columns.
        rows: Cells of each row, in the order of the columns: str, int, float or None.

    Raises:
        InputError: no columns, a column twice, a row of another length, or a cell of another type.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "rows", tuple(tuple(row) for row in self.rows))
        if not self.columns or len({column.lower() for column in self.columns}) < len(self.columns):
            raise InputError(
                f"the columns of table '{self.name}' are {list(self.columns)}",
                expected="at least one column, each name once (case does not tell names apart in SQL)",
            )
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise InputError(
                    f"a row has {len(row)} cells for {len(self.columns)} columns",
                    where=f"table '{self.name}', row {index}, counted from 0",
                    expected="one cell per column",
                )
            for cell in row:
                if not _fits(cell):
                    raise InputError(
                        f"a cell holds {cell!r} of type {type(cell).__name__}",
                        where=f"table '{self.name}', row {index}, counted from 0",
                        expected="str, int of 64 bits, float or None",
                    )


def _fits(cell: object) -> bool:
    if isinstance(cell, int):
        return -(2**63) <= cell < 2**63
    return cell is None or isinstance(cell, str | float)


def parse_record(text: str) -> dict[str, str] | None:
    """Slots of a record, in order, or None where the text is no record.

    Three ways of writing are known: ``name[Blue Spice], eatType[coffee shop]`` (the E2E data),
    ``name: Blue Spice | eatType: coffee shop``, and one ``key: value`` per line. The whole text must be a
    record. With colons it needs two slots at least and keys of at most four words, so that a sentence with
    a colon is none. A key that occurs twice makes it none too, since a slot has one value.
    """
    stripped = text.strip()
    pairs = _bracketed(stripped) if stripped.endswith("]") else _coloned(stripped)
    found = {key.strip(): value.strip() for key, value in pairs}
    if not found or len(found) < len(pairs) or not all(key and value for key, value in found.items()):
        return None
    return found


def _bracketed(text: str) -> list[tuple[str, str]]:
    return re.findall(_SLOT, text) if _BRACKETS.fullmatch(text) else []


def _coloned(text: str) -> list[tuple[str, str]]:
    parts = [part for part in re.split(r"[|\n]", text) if part.strip()]
    matches = [_PAIR.fullmatch(part.strip()) for part in parts]
    pairs = [(match[1], match[2]) for match in matches if match]
    short = all(len(key.split()) <= _MOST_KEY_WORDS for key, _ in pairs)
    return pairs if len(pairs) == len(parts) >= 2 and short else []
