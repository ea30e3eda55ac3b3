import json
from collections.abc import Iterable

from pegbox.data._table import Table, counted
from pegbox.data._text import with_newlines
from pegbox.errors import InputError

_SHAPES = 'a list of objects [{"text": ..., "label": ...}, ...] or an object of columns {"text": [...], ...}'


class _RepeatedKeyError(ValueError):
    pass


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return found


def parse_json(text: str, source: str) -> Table:
    """Parse a JSON list of objects or object of columns; one object per line is read too, and noted.

    Raises:
        InputError: Invalid JSON (line and column), another shape, repeated keys or no rows.
    """
    try:
        value = _loads(text, source)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            table = parse_jsonl(text, source)
            return Table(source, table.columns, table.numbers, ("one JSON object per line", *table.notes))
        raise InputError(
            f"This is not valid JSON: {error.msg}",
            where=f"{source}, line {error.lineno}, column {error.colno}",
            expected=_SHAPES, fix="mend that line; a file with one object per line may be named .jsonl",
        ) from error  # fmt: skip
    if isinstance(value, list):
        return _from_rows([(f"row {i}", row) for i, row in enumerate(value, 1)], source)
    return _from_columns(value, source)


def parse_jsonl(text: str, source: str) -> Table:
    """Parse one JSON object per line.

    Raises:
        InputError: A line that is no JSON object (line number), repeated keys or no rows.
    """
    rows: list[tuple[str, object]] = []
    lines = with_newlines(text).rstrip().split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append((f"line {number}", _loads(line, f"{source}, line {number}")))
        except json.JSONDecodeError as error:
            raise InputError(
                f"This line is not valid JSON: {error.msg}",
                where=f"{source}, line {number}, column {error.colno}",
                expected='one JSON object per line: {"text": ..., "label": ...}',
                fix="mend that line; a file that is one JSON list must be named .json",
            ) from error  # fmt: skip
    blank = len(lines) - len(rows)
    return _from_rows(rows, source, (f"{counted(blank, 'blank line')} skipped",) if blank else ())


def _loads(text: str, where: str) -> object:
    """The value of a JSON text; only what is no JSON at all is left to the caller.

    Raises:
        InputError: For repeated keys, and for what Python does not read.
        JSONDecodeError: For text that is no JSON.
    """
    try:
        value: object = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError:
        raise
    except _RepeatedKeyError as error:
        raise _repeated(error, where) from error
    except (RecursionError, ValueError) as error:
        raise _beyond(error, where) from error
    return value


def _beyond(error: Exception, where: str) -> InputError:
    """What is valid JSON and yet cannot be read: Python's limits on digits and on depth."""
    what = "lists or objects nested too deeply" if isinstance(error, RecursionError) else "a number too long"
    return InputError(
        f"This JSON holds {what} to be read", where=where, expected="texts, numbers and labels of usual size",
        fix="write long numbers as strings, and leave out columns that are no data of the task",
    )  # fmt: skip


def _repeated(error: ValueError, where: str) -> InputError:
    return InputError(
        f"A key is repeated in one object: {str(error)!r}", where=where, expected="each key once",
        fix="rename or remove one of them",
    )  # fmt: skip


def _from_rows(rows: list[tuple[str, object]], source: str, notes: tuple[str, ...] = ()) -> Table:
    objects: list[dict[str, object]] = []
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError(
                f"A row is {_named(row)}, not an object", where=f"{source}, {where}",
                expected='{"text": ..., "label": ...}',
                fix="write each row as one object; a JSON list of objects must be named .json",
            )  # fmt: skip
        objects.append(row)
    names = list(dict.fromkeys(name for row in objects for name in row))
    if not names:
        raise InputError(
            "This file has no rows", where=source, expected=_SHAPES, fix="check how it was exported"
        )
    lacking = [name for name in names if any(name not in row for row in objects)]
    if lacking:
        notes += (f"keys that some rows lack, read as missing: {', '.join(lacking)}",)
    columns = {name: tuple(row.get(name) for row in objects) for name in names}
    return Table(source, columns, tuple(range(1, len(objects) + 1)), notes)


def _from_columns(value: object, source: str) -> Table:
    if not isinstance(value, dict) or not all(isinstance(cells, list) for cells in value.values()):
        odd = (
            next((k for k, v in value.items() if not isinstance(v, list)), "")
            if isinstance(value, dict)
            else ""
        )
        found = (
            f"the value of {odd!r} is {_named(value[odd])}"
            if isinstance(value, dict)
            else f"it is {_named(value)}"
        )
        raise InputError(
            f"This JSON is no table: {found}", where=source, expected=_SHAPES,
            fix="bring it into one of these shapes; one object per line may be named .jsonl",
        )  # fmt: skip
    lengths = {name: len(cells) for name, cells in value.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"The columns differ in length: {', '.join(f'{k} {v}' for k, v in lengths.items())}",
            where=source, expected="as many cells in each column", fix="write missing cells as null",
        )  # fmt: skip
    if not any(lengths.values()):
        raise InputError(
            "This file has no rows", where=source, expected=_SHAPES, fix="check how it was exported"
        )
    columns = {name: tuple(cells) for name, cells in value.items()}
    return Table(source, columns, tuple(range(1, max(lengths.values()) + 1)))


def _named(value: object) -> str:
    names: Iterable[tuple[type, str]] = (
        (dict, "an object"), (list, "a list"), (str, "a string"), (bool, "a boolean"), (int, "a number"),
        (float, "a number"),
    )  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), "null")
