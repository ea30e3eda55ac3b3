from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from pegbox.data._table import counted, rows_text

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing the doctor found.

    Args:
        kind: What it is, as a stable word such as ``exact-duplicates``.
        severity: ``error`` stops a fit, ``warning`` makes its scores doubtful, ``info`` is a fact.
        message: One line without row numbers.
        rows: All row numbers of the checked table that it concerns.
        details: The same in parts: groups of rows, partner rows in another split.
    """

    kind: str
    severity: Severity
    message: str
    rows: tuple[int, ...] = ()
    details: tuple[Mapping[str, object], ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the finding with every row number and detail."""
        return {
            "kind": self.kind, "severity": self.severity, "message": self.message,
            "rows": list(self.rows), "details": [dict(item) for item in self.details],
        }  # fmt: skip

    def line(self) -> str:
        """Return one line; a long list of rows is cut and its total said."""
        where = f" ({rows_text(self.rows)})" if self.rows else ""
        return f"{self.severity}: {self.message}{where}"


def by_severity(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then facts, each in the order they were found."""
    return tuple(sorted(found, key=lambda item: get_args(Severity).index(item.severity)))


@dataclass(frozen=True)
class Findings:
    """What the data doctor found in one table and its other splits.

    Args:
        source: The checked table.
        rows: Number of its rows.
        columns: The line that says which columns were taken.
        classes: Label to row numbers count, most frequent first; empty without labels.
        lengths: Unit (``characters``, ``words``, ``tokens``) to minimum, percentiles and maximum per row.
        findings: Errors first, then warnings, then facts.
        splits: Name to rows of the other splits.
    """

    source: str
    rows: int
    columns: str
    classes: Mapping[str, int]
    lengths: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]
    splits: Mapping[str, int] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a fit."""
        return tuple(item for item in self.findings if item.severity == "error")

    def to_json(self) -> dict[str, object]:
        """Return everything with full row lists, as plain JSON values."""
        return {
            "format": "pegbox.findings/1",
            "source": self.source, "rows": self.rows, "columns": self.columns, "classes": dict(self.classes),
            "lengths": {unit: dict(values) for unit, values in self.lengths.items()},
            "splits": dict(self.splits), "findings": [item.to_json() for item in self.findings],
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Return plain lines for a terminal; long lists of rows are cut, the JSON form has them all."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.source}: {counted(self.rows, 'row')}, {self.columns}"
        for name, rows in self.splits.items():
            yield f"split {name!r}: {counted(rows, 'row')}"
        if self.classes:
            yield "classes: " + _shares(self.classes)
        for unit, values in self.lengths.items():
            yield f"{unit} per row: " + ", ".join(f"{name} {value:,}" for name, value in values.items())
        for item in self.findings:
            yield item.line()
        if not self.findings:
            yield "nothing to report"


def _shares(classes: Mapping[str, int], limit: int = 20) -> str:
    total = sum(classes.values())
    parts = [f"{name} {count:,} ({count / total:.1%})" for name, count in list(classes.items())[:limit]]
    return ", ".join(parts) + (f", ... {len(classes)} in all" if len(classes) > limit else "")


def percentiles(values: Sequence[int]) -> dict[str, int]:
    """Return minimum, median, 90th, 95th and 99th percentile (nearest rank) and maximum of some counts."""
    ordered = sorted(values)
    ranks = {"min": 0, "median": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    return {name: ordered[max(-(-len(ordered) * rank // 100) - 1, 0)] for name, rank in ranks.items()}
