import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pegbox.data._bad import Dropped, by_reason, left_out
from pegbox.data._columns import Columns, require_columns
from pegbox.data._table import Table, counted, rows_text
from pegbox.data._text import is_number, label_order
from pegbox.errors import InputError, UsageError

MANY_LABELS = 20


@dataclass(frozen=True)
class Examples:
    """Cleaned rows for a task.

    Args:
        source: Where the rows come from.
        fields: Text column name to texts ``(rows,)``, unchanged; one column, or two for sentence pairs.
        labels: One string per row, or None when unlabelled.
        numbers: 1-based row numbers in the source.
        dropped: Rows left out, and why.
        remarks: What else was changed or noticed, one line each.
    """

    source: str
    fields: dict[str, tuple[str, ...]]
    labels: tuple[str, ...] | None
    numbers: tuple[int, ...]
    dropped: tuple[Dropped, ...] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The distinct labels: numbers by value first, then words in alphabetical order."""
        return tuple(sorted(set(self.labels or ()), key=label_order))

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The texts row by row ``(rows, columns)``."""
        return tuple(zip(*self.fields.values(), strict=True))

    def select(self, indices: Sequence[int]) -> "Examples":
        """Return the rows at these 0-based positions; what was dropped before belongs to the whole only."""
        fields = {name: tuple(texts[i] for i in indices) for name, texts in self.fields.items()}
        labels = None if self.labels is None else tuple(self.labels[i] for i in indices)
        return Examples(self.source, fields, labels, tuple(self.numbers[i] for i in indices))

    def digest(self) -> str:
        """Return the SHA-256 of column names, texts and labels in order, not of source and row numbers."""
        found = hashlib.sha256()
        for part in (*self.fields.items(), self.labels):
            found.update(json.dumps(part).encode() + b"\n")
        return found.hexdigest()

    def notes(self) -> list[str]:
        """Return lines for the user: rows left out by reason, and other changes."""
        return left_out(self.dropped) + list(self.remarks)


def examples(
    table: Table,
    columns: Columns,
    *,
    need_labels: bool = True,
    on_bad: Literal["error", "drop"] = "error",
    min_classes: int = 2,
) -> Examples:
    """Return the rows of a table that a task can use, labels as strings.

    Texts stay as they are. Labels: 1 and 1.0 become "1", booleans "true" and "false", strings lose
    surrounding spaces (counted in the notes).

    Args:
        table: The table as read.
        columns: Which columns mean what.
        need_labels: Whether each row must have a label; otherwise labels are None.
        on_bad: Whether rows with an empty or non-text cell or no label are an error or left out and named.
        min_classes: How many distinct labels there must be; 1 for a file that is only evaluated on.

    Raises:
        InputError: Bad rows (all of them named), no usable row, one class only, labels that are no classes.
    """
    if on_bad not in ("error", "drop"):
        raise UsageError(
            f"on_bad cannot be {on_bad!r}", expected="'error' or 'drop'", fix="choose one of them"
        )
    label = columns.label if need_labels else None
    if need_labels and label is None:
        raise InputError("There is no label column", where=table.source, fix="name it with --label")
    require_columns(table, [*columns.texts, *([label] if label is not None else [])])
    dropped = bad_rows(table, columns.texts, label)
    if dropped and (on_bad == "error" or len(dropped) == len(table)):
        raise _bad(table, dropped)
    out = {item.number for item in dropped}
    kept = table.select([i for i, number in enumerate(table.numbers) if number not in out])
    fields = {
        name: tuple(cell for cell in kept.columns[name] if isinstance(cell, str)) for name in columns.texts
    }
    if label is None:
        return Examples(table.source, fields, None, kept.numbers, dropped, table.notes)
    labels = tuple(label_text(cell) or "" for cell in kept.columns[label])
    _check_classes(table, label, labels, min_classes)
    remarks = (*table.notes, *_stripped(kept, label), *label_warnings(labels, label))
    return Examples(table.source, fields, labels, kept.numbers, dropped, remarks)


def from_texts(
    texts: Sequence[str] | Sequence[tuple[str, str]], names: Sequence[str] = ("text",)
) -> Examples:
    """Return unlabelled examples of texts in memory, numbered from 1.

    Args:
        texts: Strings, or pairs of strings.
        names: One column name, or two for pairs.

    Raises:
        InputError: An item that is not text, is empty, or has not as many parts as there are names.
    """
    # What is no sequence of texts, such as a missing value, is one cell, whose fault is told with its row.
    rows = [
        tuple(item) if isinstance(item, Iterable) and not isinstance(item, str | Mapping) else (item,)
        for item in texts
    ]
    for number, row in enumerate(rows, 1):
        faults = [fault for fault in (text_fault(part) for part in row) if fault]
        if len(row) != len(names) or faults:
            raise InputError(
                faults[0].capitalize() if faults else f"A row has {counted(len(row), 'text')}",
                where=f"texts given in memory, row {number}",
                expected=f"{counted(len(names), 'non-empty string')}: {', '.join(names)}",
                fix="name two columns for pairs" if len(row) == 2 else "leave the row out or fill it in",
            )  # fmt: skip
    fields = {name: tuple(row[i] for row in rows) for i, name in enumerate(names)}
    return Examples("texts given in memory", fields, None, tuple(range(1, len(rows) + 1)))


def text_fault(cell: object) -> str:
    """Return why a cell is no usable text, or an empty string."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "missing text"
    if not isinstance(cell, str):
        return f"not text but {type(cell).__name__}"
    if not cell.strip():
        return "empty text"
    try:
        cell.encode()
    except UnicodeEncodeError:
        return "not valid Unicode text"
    return ""


def label_text(cell: object) -> str | None:
    """Return a label as a string, or None when the cell holds no label."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return None if math.isnan(cell) else str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, int):
        return str(cell)
    return cell.strip() or None if isinstance(cell, str) else None


def bad_rows(table: Table, texts: Sequence[str], label: str | None) -> tuple[Dropped, ...]:
    """Return the rows a task cannot use, in order, each with its first fault."""
    bad = []
    for i, number in enumerate(table.numbers):
        faults = ((fault, name) for name in texts if (fault := text_fault(table.columns[name][i])))
        fault = next((f"{fault} in column {name!r}" for fault, name in faults), "")
        if not fault and label is not None and label_text(table.columns[label][i]) is None:
            cell = table.columns[label][i]
            empty = cell is None or isinstance(cell, (str, float))
            fault = (
                f"no label in column {label!r}"
                if empty
                else f"label in column {label!r} is {type(cell).__name__}"
            )
        if fault:
            bad.append(Dropped(number, fault))
    return tuple(bad)


def label_problem(labels: Sequence[str]) -> str:
    """Return why labels look like scores or free text instead of classes, or an empty string.

    More than 20 distinct values, and either mostly fractions, or more than half of them distinct and numbers
    or long; short words that are mostly distinct may be a small test file of a task with many classes.
    """
    names = set(labels)
    if len(names) <= MANY_LABELS:
        return ""
    numbers = [name for name in names if is_number(name)]
    if len([name for name in numbers if "." in name]) > len(names) / 2:
        return "looks like a score (a regression target)"
    if len(names) <= len(labels) / 2:
        return ""
    if len(numbers) > len(names) / 2:
        return "looks like a number per row (a regression target or an id)"
    return "looks like free text" if sum(len(name.split()) for name in names) / len(names) > 3 else ""


def label_warnings(labels: Sequence[str], label: str) -> list[str]:
    """Return a line when most labels occur once, else nothing."""
    names = set(labels)
    if len(names) > MANY_LABELS and len(names) > len(labels) / 2:
        return [
            f"label column {label!r}: {len(names):,} distinct values in {len(labels):,} rows, is it a class?"
        ]
    return []


def _check_classes(table: Table, label: str, labels: Sequence[str], min_classes: int) -> None:
    counts = Counter(labels)
    shares = ", ".join(f"{name!r} ({counted(count, 'row')})" for name, count in counts.items())
    if len(counts) < min_classes:
        raise InputError(
            f"Label column {label!r} has {counted(len(counts), 'class', 'classes')} only: {shares}",
            where=table.source, expected=f"{min_classes} or more classes",
            fix="add rows of another class, or name another column with --label",
        )  # fmt: skip
    problem = label_problem(labels)
    if problem:
        raise InputError(
            f"Label column {label!r} {problem}: {len(counts):,} distinct values in {len(labels):,} rows, "
            f"such as {', '.join(repr(name[:40]) for name in sorted(counts, key=label_order)[:3])}",
            where=table.source, expected="a class per row, from a few that repeat",
            fix="name another column with --label, or put the values into classes first",
        )  # fmt: skip


def _stripped(table: Table, label: str) -> list[str]:
    cells = zip(table.numbers, table.columns[label], strict=True)
    rows = [number for number, cell in cells if isinstance(cell, str) and cell != cell.strip()]
    return (
        [f"{counted(len(rows), 'label')} had surrounding spaces removed ({rows_text(rows)})"] if rows else []
    )


def _bad(table: Table, dropped: Sequence[Dropped]) -> InputError:
    reasons = "; ".join(f"{reason} ({rows_text(rows)})" for reason, rows in by_reason(dropped).items())
    if len(dropped) == len(table):
        return InputError(
            f"No row can be used: {reasons}", where=table.source,
            expected="text, and a label where one is needed",
            fix="check the columns: name them with --text and --label",
        )  # fmt: skip
    return InputError(
        f"{counted(len(dropped), 'row')} cannot be used: {reasons}", where=table.source,
        expected="text, and a label where one is needed, in each row",
        fix="fill the cells in, or leave these rows out with --on-bad-rows drop",
    )  # fmt: skip
