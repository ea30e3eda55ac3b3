import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from pegbox.data._table import Table, counted, rows_text
from pegbox.errors import InputError

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SAMPLE = 100
_LONGEST_CELL = 2**31 - 1
# What Excel reads, and some programs write, above the header.
_SEP_LINE = re.compile(r"sep=([,;\t|])\r?\n")

Records = list[tuple[int, list[str]]]


def parse_delimited(text: str, source: str, *, tabs: bool) -> Table:
    """Parse csv or tsv text into a table of strings (RFC 4180 quoting).

    A tsv whose lines all have the header's width only when quotes are taken as they stand is read that way.

    Raises:
        InputError: Broken quoting, ragged rows, repeated column names or no rows.
    """
    notes: list[str] = []
    told = None if tabs else _SEP_LINE.match(text)
    if told:
        text = text[told.end() :]
        notes.append(f"the first line, sep={told[1]}, is read as Excel reads it and not as column names")
    separator = "\t" if tabs else told[1] if told else _sniff(text)
    if not tabs and separator != ",":
        notes.append(f"cells are separated by {_SEPARATORS[separator]} ({separator!r}), not by comma")
    records = _plain_tabs(text) if tabs else None
    if records is None:
        records = _records(text, separator, source, 2 if told else 1)
    else:
        notes.append("quotes are part of the cells: the file does not quote its cells")
    header = _header(records, source, notes)
    # Of one column, "" and spaces are cells of a row, as pandas writes them.
    alone = len(header) == 1
    rows = [(line, cells) for line, cells in records[1:] if cells and (alone or not _blank(cells))]
    if blank := len(records) - 1 - len(rows):
        notes.append(f"{counted(blank, 'blank line')} skipped")
    if not rows:
        raise InputError(
            "This file has a header but no rows", where=source, expected="one row or more below the header",
            fix=f"the first line is taken as column names: {', '.join(header)}",
        )  # fmt: skip
    _check_widths(rows, header, source, separator)
    cells = zip(*(cells for _, cells in rows), strict=True)
    columns: dict[str, tuple[object, ...]] = {
        name: tuple(column) for name, column in zip(header, cells, strict=True)
    }
    return Table(source, columns, tuple(range(1, len(rows) + 1)), tuple(notes))


def _blank(cells: list[str]) -> bool:
    """Whether a line holds nothing, or spaces alone."""
    return len(cells) < 2 and not "".join(cells).strip()


@contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _records(text: str, separator: str, source: str, first: int = 1) -> Records:
    """Return (first line, cells) per record; strict: a lenient reader swallows rows after a stray quote."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    records: Records = []
    line = first
    try:
        with _long_cells():
            for cells in reader:
                records.append((line, cells))
                line = reader.line_num + first
    except csv.Error as error:
        row = sum(bool(cells) for _, cells in records)
        raise InputError(
            f"The quoting of this file is broken: {error}",
            where=f"{source}, row {row}, starting at line {line}",
            expected='a quoted cell starts and ends with " and doubles each " inside',
            fix='write " inside a quoted cell as "", or export the file again with quoting',
        ) from error  # fmt: skip
    while records and not records[-1][1]:
        records.pop()
    return records


def _plain_tabs(text: str) -> Records | None:
    """Return the records of a tsv without quoting, or None when the file quotes its cells.

    With quotes taken literally a quoted cell that holds a line break makes ragged lines. So a file that is
    rectangular this way, and that quoting would either break or melt into fewer rows, does not quote.
    """
    if '"' not in text:
        return None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    plain = [(number, line.split("\t") if line else []) for number, line in enumerate(lines, 1)]
    width = len(plain[0][1])
    if width < 2 or any(cells and len(cells) != width for _, cells in plain):
        return None
    try:
        quoted = _records(text, "\t", "")
    except InputError:
        return plain
    return plain if len(quoted) < len(plain) else None


def _sniff(text: str) -> str:
    """Return the separator: comma unless another alone splits the header, or alone fits the first rows."""
    fitting: dict[str, bool] = {}
    for separator in _SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        with _long_cells():
            widths = [len(cells) for cells in islice(reader, _SAMPLE) if not _blank(cells)]
        if widths and widths[0] > 1:
            fitting[separator] = len(set(widths)) == 1
    return next((item for item, even in fitting.items() if even), next(iter(fitting), ","))


def _header(records: Records, source: str, notes: list[str]) -> list[str]:
    """Return the column names, stripped of surrounding spaces."""
    if not records or _blank(records[0][1]):
        raise InputError(
            "The first line of this file is blank", where=f"{source}, line 1", expected="column names",
            fix="remove the blank lines above the header",
        )  # fmt: skip
    raw = records[0][1]
    header = [name.strip() for name in raw]
    if header != raw:
        notes.append("spaces around column names removed")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(
            f"Column names are repeated: {', '.join(map(repr, repeated))}", where=f"{source}, header",
            expected="each column name once", fix="rename or remove the repeated columns",
        )  # fmt: skip
    return header


def _check_widths(rows: Records, header: list[str], source: str, separator: str) -> None:
    odd = [(row, line, len(cells)) for row, (line, cells) in enumerate(rows, 1) if len(cells) != len(header)]
    if odd:
        row, line, width = odd[0]
        raise InputError(
            f"{counted(len(odd), 'row')} with more or fewer cells than the header",
            where=f"{source}, {rows_text(item[0] for item in odd)}; row {row} (line {line}) has {width}",
            expected=f"{counted(len(header), 'cell')}: {', '.join(header)}",
            fix=f'put cells that hold a {_SEPARATORS[separator]} or a line break in quotes: "like this"',
        )  # fmt: skip
