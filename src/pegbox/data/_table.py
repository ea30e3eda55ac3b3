from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".conll")
_ALIASES = {
    ".ndjson": ".jsonl",
    ".tab": ".tsv",
    ".pq": ".parquet",
    ".bio": ".conll",
    ".iob": ".conll",
    ".iob2": ".conll",
}


@dataclass(frozen=True)
class Table:
    """One split of one source as read: no cell is converted, dropped or filled in.

    Args:
        source: The path as given, or ``hub-id[split]``.
        columns: Column name to its cells, all of the same length.
        numbers: 1-based numbers of the data rows in the source; header and blank lines do not count.
        notes: What was noticed while reading (a sniffed separator, blank lines), one line each.
    """

    source: str
    columns: dict[str, tuple[object, ...]]
    numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def names(self) -> tuple[str, ...]:
        """The column names in file order."""
        return tuple(self.columns)

    def select(self, indices: Sequence[int]) -> "Table":
        """Return the rows at these 0-based positions, with their row numbers."""
        columns = {name: tuple(cells[i] for i in indices) for name, cells in self.columns.items()}
        return Table(self.source, columns, tuple(self.numbers[i] for i in indices), self.notes)


def kind_of(path: Path) -> str:
    """Return which of ``FORMATS`` a file has by its name, compressed or not; an empty string for none."""
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    suffix = _ALIASES.get(name.suffix.lower(), name.suffix.lower())
    return suffix if suffix in FORMATS else ""


def rows_text(numbers: Iterable[int], limit: int = 10) -> str:
    """Return ``row 7`` or ``rows 3, 17``; a list above ``limit`` is cut and ends with the total."""
    found = sorted(set(numbers))
    shown = ", ".join(map(str, found[:limit]))
    if len(found) > limit:
        shown += f", ... {len(found)} in all"
    return f"row{'' if len(found) == 1 else 's'} {shown}"


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return ``1 row`` or ``12,000 rows``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
