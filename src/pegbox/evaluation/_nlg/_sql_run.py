import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import numpy as np

from pegbox.evaluation._nlg._measure import Measured, MissingError, Texts, mean, ratio
from pegbox.evaluation._nlg._sql_match import refuse_prose
from pegbox.evaluation._records import Cell, SqlTable

# What one query may do: instructions of SQLite's machine (some 0.2 s), result rows, bytes of one value and
# of a LIKE pattern.
_STEPS = 10_000_000
_STEP = 10_000
_MOST_ROWS = 100_000
_MOST_BYTES = 10_000
_MOST_PATTERN = 1_000
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
# fmt: off
_FUNCTIONS = frozenset({
    "abs", "avg", "ceil", "ceiling", "coalesce", "count", "date", "datetime", "floor", "glob",
    "group_concat", "ifnull", "iif", "instr", "julianday", "length", "like", "lower", "ltrim", "max", "min",
    "nullif", "replace", "round", "rtrim", "sign", "strftime", "string_agg", "substr", "substring", "sum",
    "time", "total", "trim", "typeof", "unicode", "upper",
})
# fmt: on
Result = Counter[tuple[Cell, ...]]


def sql_execution(texts: Texts) -> Measured:
    """Share of queries whose result on the row's table equals that of one of their references.

    Results are compared as multisets of rows: order does not count, repetitions do. A query that fails, or
    would write, or works too long, is wrong. Counted beside it are the rows without a table, which are left
    out; those whose references all fail, which nobody can get right; and those where a reference finds
    nothing, which any query that finds nothing gets right.
    The "execution" accuracy of Zhong, Xiong and Socher 2017, section 4.2.

    Raises:
        MissingError: no tables, or no reference is a query.
    """
    refuse_prose(texts)
    if texts.tables is None or not any(table is not None for table in texts.tables):
        raise MissingError("no row has a table (pass tables=)")
    right, known = np.zeros(len(texts.tables)), np.zeros(len(texts.tables))
    failed = empty = 0
    for table, rows in _by_table(texts.tables):
        with closing(_database(table)) as database:
            for row in rows:
                gold = [_run(database, text) for text in texts.references[row]]
                found = _run(database, texts.predictions[row])
                known[row], right[row] = 1, found is not None and found in gold
                failed += all(result is None for result in gold)
                empty += any(result is not None and not result for result in gold)
    counts = {
        "sql_without_table": int((known == 0).sum()),
        "sql_reference_fails": failed,
        "sql_reference_empty": empty,
    }
    if known.all():
        return Measured({"sql_execution": mean(right)}, counts)
    return Measured({"sql_execution": ratio(right, known, share=True)}, counts)


def _by_table(tables: tuple[SqlTable | None, ...]) -> Iterator[tuple[SqlTable, list[int]]]:
    """Each table once, with the rows that ask it."""
    rows: dict[int, list[int]] = {}
    for row, table in enumerate(tables):
        rows.setdefault(id(table), []).append(row)
    for own in rows.values():
        table = tables[own[0]]
        if table is not None:
            yield table, own


def _database(table: SqlTable) -> sqlite3.Connection:
    """The table alone in memory; whoever asks may read, and nothing else."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    columns = ", ".join(
        f"{_quoted(name)} {'NUMERIC' if _numeric(table, place) else 'TEXT'}"
        for place, name in enumerate(table.columns)
    )
    database.execute(f"CREATE TABLE {_quoted(table.name)} ({columns})")
    marks = ", ".join("?" * len(table.columns))
    database.executemany(f"INSERT INTO {_quoted(table.name)} VALUES ({marks})", table.rows)
    longest = max((len(str(cell).encode()) for row in table.rows for cell in row), default=0)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(_MOST_BYTES, 2 * longest))
    database.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _MOST_PATTERN)
    database.set_authorizer(_authorise)
    return database


def _authorise(action: int, _: str | None, name: str | None, *__: str | None) -> int:
    known = action in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and (name or "").lower() in _FUNCTIONS)
    return sqlite3.SQLITE_OK if known else sqlite3.SQLITE_DENY


def _run(database: sqlite3.Connection, query: str) -> Result | None:
    """Result of a query, or None where it fails or works too long."""
    calls = iter(range(_STEPS // _STEP))
    database.set_progress_handler(lambda: next(calls, None) is None, _STEP)
    try:
        cursor = database.execute(query)
        rows = cursor.fetchmany(_MOST_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return None
    finally:
        database.set_progress_handler(None, 0)
    # A text that is empty or a comment runs and has no columns.
    return Counter(rows) if cursor.description and len(rows) <= _MOST_ROWS else None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _numeric(table: SqlTable, place: int) -> bool:
    """Whether a column holds numbers, so that '16' in a query is compared as one."""
    cells = [row[place] for row in table.rows if row[place] is not None]
    return bool(cells) and all(isinstance(cell, int | float) for cell in cells)
