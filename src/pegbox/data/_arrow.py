import io
import json
from typing import Any

from pegbox.data._table import Table
from pegbox.errors import InputError


def parse_parquet(raw: bytes, source: str) -> Table:
    """Parse parquet with pyarrow, the reader that ``datasets`` wraps, without its copy in the user's cache.

    Raises:
        InputError: No parquet file, repeated column names, or no rows.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(raw))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(
            f"This is no whole parquet file: {error}", where=source, expected="a parquet file",
            fix="export or download it again",
        ) from error  # fmt: skip
    return _from_arrow(table, source)


def read_hub(name: str, config: str | None, split: str | None, revision: str | None) -> Table:
    """Load one split of a hub data set through ``datasets``; its train split when none is named.

    Raises:
        InputError: Not found, not reachable, or an unknown config or split (with the valid ones).
    """
    import datasets

    notes = () if split else ("split 'train' (none was named)",)
    wanted = split or "train"
    source = f"{name}{':' + config if config else ''}[{wanted}]"
    try:
        data = datasets.load_dataset(name, config, split=wanted, revision=revision)
    except (datasets.exceptions.DatasetNotFoundError, ConnectionError, OSError) as error:
        raise InputError(
            f"There is no file and no reachable hub data set of this name: {_first_line(error)}",
            where=source, expected="a file, or a hub id such as owner/name",
            fix="check the name and the network; a private set needs a login; without a network give a file",
        ) from error  # fmt: skip
    except ValueError as error:
        raise InputError(
            f"The hub data set has no such split or config: {_first_line(error)}", where=source,
            expected="a split and config of the data set",
            fix="write hub-id:config[split], for example owner/name:default[test]",
        ) from error  # fmt: skip
    except RuntimeError as error:
        # What datasets raises for a set that comes as a script, which it no longer runs.
        raise InputError(
            f"The hub data set cannot be loaded: {_first_line(error)}", where=source,
            expected="a data set of csv, json or parquet files",
            fix="download it once, save it as a csv, jsonl or parquet file, and give that file",
        ) from error  # fmt: skip
    return _from_arrow(data.with_format("arrow")[:], source, notes)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _from_arrow(table: Any, source: str, notes: tuple[str, ...] = ()) -> Table:
    names = list(table.column_names)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"Column names are repeated: {', '.join(map(repr, repeated))}", where=source,
            expected="each column name once", fix="rename or remove the repeated columns",
        )  # fmt: skip
    if not names or not table.num_rows:
        raise InputError(
            "This table has no rows", where=source, expected="one row or more", fix="check its export"
        )
    columns = {name: tuple(table.column(name).to_pylist()) for name in names}
    for name, words in _class_labels(table.schema.metadata).items():
        if name in columns and all(type(cell) in (int, list) or cell is None for cell in columns[name]):
            columns[name] = tuple(_spelt(cell, words) for cell in columns[name])
            notes += (
                f"column {name!r}: class numbers read as the names stored with them ({', '.join(words[:5])})",
            )
    return Table(source, columns, tuple(range(1, table.num_rows + 1)), notes)


def _class_labels(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the class names that ``datasets`` stores in the Arrow schema, per column."""
    stored = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    features = stored.get("info", {}).get("features", {})
    # A list of classes, such as one tag per word, has them one level down.
    inner = {
        name: feature.get("feature") or feature
        for name, feature in features.items()
        if isinstance(feature, dict)
    }
    return {
        name: feature["names"]
        for name, feature in inner.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _spelt(cell: object, words: list[str]) -> object:
    """Return the class name, or those of a list; -1 is how ``datasets`` marks a row without a label."""
    if isinstance(cell, list):
        return [_spelt(part, words) for part in cell]
    return words[cell] if isinstance(cell, int) and 0 <= cell < len(words) else None
