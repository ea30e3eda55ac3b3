from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from pegbox.data._columns import Columns, require_columns
from pegbox.data._examples import bad_rows, label_problem, label_text, label_warnings, text_fault
from pegbox.data._findings import Finding, Findings, by_severity, percentiles
from pegbox.data._table import Table, counted, rows_text
from pegbox.data._text import normalised
from pegbox.errors import nearest

RARE = 5
_PLACEHOLDERS = {
    "na",
    "n/a",
    "nan",
    "null",
    "none",
    "nil",
    "-",
    "--",
    "?",
    "#n/a",
    "tbd",
    "unknown",
    "missing",
}

TokenLengths = Callable[[list[str]], list[int]]


@dataclass(frozen=True)
class _Row:
    split: str
    number: int
    texts: tuple[str, ...]
    label: str | None


def check(
    table: Table,
    columns: Columns,
    *,
    others: Mapping[str, Table] | None = None,
    token_lengths: TokenLengths | None = None,
) -> Findings:
    """Examine a table, the one to train on, and what it shares with other splits.

    Args:
        table: The table as read.
        columns: Which columns mean what; the same names are looked for in the other splits.
        others: Name to table of further splits, for leakage and missing classes.
        token_lengths: Texts to their number of tokens, when a tokenizer is at hand; pairs are summed.

    Returns:
        Findings, errors first. Time is that of ``near_pairs``, linear in rows for texts of a given length.

    Raises:
        InputError: Another split lacks one of the columns.
    """
    others = others or {}
    rows = _rows(table, columns, "")
    found = _all_findings(table, columns, rows, {name: _rows(t, columns, name) for name, t in others.items()})
    return Findings(
        source=table.source,
        rows=len(table),
        columns=columns.note,
        classes=dict(Counter(row.label for row in rows if row.label is not None).most_common()),
        lengths=_lengths(rows, token_lengths),
        findings=by_severity(found),
        splits={name: len(other) for name, other in others.items()},
    )


def _all_findings(
    table: Table, columns: Columns, rows: list[_Row], partners: Mapping[str, list[_Row]]
) -> Iterator[Finding]:
    exact = _exact([*rows, *(row for part in partners.values() for row in part)])
    yield from _bad_cells(table, columns)
    yield from _label_findings(table, columns, rows)
    yield from _class_splits(rows, partners)
    yield from _duplicates(exact)
    yield from _conflicts(exact)
    yield from _leaks(
        [(group, group) for group in exact.values()], list(partners), "exact-leak", "the same text"
    )
    yield from _near(exact, list(partners))
    yield from _placeholders(table, columns)
    yield from (Finding("reading", "info", note) for note in table.notes)


def _rows(table: Table, columns: Columns, split: str) -> list[_Row]:
    """Return the rows whose texts can be used."""
    require_columns(table, columns.texts)
    labels = table.columns.get(columns.label) if columns.label is not None else None
    cells = zip(*(table.columns[name] for name in columns.texts), strict=True)
    return [
        _Row(
            split, table.numbers[i], tuple(map(str, texts)), None if labels is None else label_text(labels[i])
        )
        for i, texts in enumerate(cells)
        if not any(text_fault(text) for text in texts)
    ]


def _exact(rows: list[_Row]) -> dict[tuple[str, ...], list[_Row]]:
    found: dict[tuple[str, ...], list[_Row]] = {}
    for row in rows:
        found.setdefault(tuple(normalised(text) for text in row.texts), []).append(row)
    return found


def _bad_cells(table: Table, columns: Columns) -> Iterator[Finding]:
    reasons: dict[str, list[int]] = {}
    for item in bad_rows(table, columns.texts, columns.label):
        reasons.setdefault(item.reason, []).append(item.number)
    for reason, numbers in reasons.items():
        yield Finding("bad-cells", "error", f"{counted(len(numbers), 'row')}: {reason}", tuple(numbers))


def _label_findings(table: Table, columns: Columns, rows: list[_Row]) -> Iterator[Finding]:
    if columns.label is None:
        return
    by_label: dict[str, list[int]] = {}
    for row in rows:
        if row.label is not None:
            by_label.setdefault(row.label, []).append(row.number)
    labels = [label for label, numbers in by_label.items() for _ in numbers]
    if len(by_label) < 2:
        message = f"label column {columns.label!r} has {counted(len(by_label), 'class', 'classes')} only"
        yield Finding("one-class", "error", message)
    if problem := label_problem(labels):
        yield Finding("not-classes", "error", f"label column {columns.label!r} {problem}")
        return
    for line in label_warnings(labels, columns.label):
        yield Finding("many-classes", "warning", line)
    yield from _variants(by_label)
    for label, numbers in by_label.items():
        if len(numbers) < RARE and len(by_label) > 1:
            message = f"class {label!r} has {counted(len(numbers), 'row')} only"
            yield Finding("rare-class", "warning", message, tuple(numbers))
    cells = zip(table.numbers, table.columns[columns.label], strict=True)
    spaced = tuple(
        number for number, cell in cells if isinstance(cell, str) and cell.strip() not in ("", cell)
    )
    if spaced:
        message = f"{counted(len(spaced), 'label')} with surrounding spaces, which are removed"
        yield Finding("spaced-labels", "info", message, spaced)


def _variants(by_label: Mapping[str, list[int]]) -> Iterator[Finding]:
    """Find labels that differ only in case, inner spacing or a trailing ``.0``; they stay apart."""
    folded: dict[str, list[str]] = {}
    for label in by_label:
        folded.setdefault(normalised(label).removesuffix(".0"), []).append(label)
    for names in folded.values():
        if len(names) > 1:
            shown = ", ".join(f"{name!r} ({len(by_label[name]):,})" for name in names)
            rare = sorted(names, key=lambda name: len(by_label[name]))[:-1]
            numbers = sorted(number for name in rare for number in by_label[name])
            details = tuple({"label": name, "rows": by_label[name]} for name in names)
            yield Finding(
                "label-variants",
                "warning",
                f"one label in several spellings? {shown}",
                tuple(numbers),
                details,
            )


def _class_splits(rows: list[_Row], partners: Mapping[str, list[_Row]]) -> Iterator[Finding]:
    known = {row.label for row in rows if row.label is not None}
    for name, part in partners.items():
        there: dict[str, list[int]] = {}
        for row in part:
            if row.label is not None:
                there.setdefault(row.label, []).append(row.number)
        if not there or not known:
            continue
        for label in sorted(known - set(there)):
            numbers = tuple(row.number for row in rows if row.label == label)
            yield Finding("class-missing", "warning", f"class {label!r} does not occur in {name!r}", numbers)
        for label in sorted(set(there) - known):
            message = f"class {label!r} of {name!r} ({counted(len(there[label]), 'row')}) does not occur here"
            hint = f"; {found}" if (found := nearest(label, known)) else ""
            details = ({"split": name, "label": label, "other_rows": there[label]},)
            yield Finding("class-unknown", "error", message + hint, (), details)


def _duplicates(exact: Mapping[tuple[str, ...], list[_Row]]) -> Iterator[Finding]:
    found = [[row.number for row in group if not row.split] for group in exact.values()]
    found = [numbers for numbers in found if len(numbers) > 1]
    if found:
        extra = sum(len(numbers) - 1 for numbers in found)
        message = f"{counted(extra, 'row')} repeat{'s' if extra == 1 else ''} the text of another row exactly"
        rows = tuple(sorted(number for numbers in found for number in numbers))
        yield Finding(
            "exact-duplicates", "warning", message, rows, tuple({"rows": numbers} for numbers in found)
        )


def _conflicts(exact: Mapping[tuple[str, ...], list[_Row]]) -> Iterator[Finding]:
    details: list[dict[str, object]] = []
    rows: list[int] = []
    for group in exact.values():
        labels = {row.number: row.label for row in group if not row.split and row.label is not None}
        if len(set(labels.values())) > 1:
            details.append({"rows": list(labels), "labels": list(labels.values())})
            rows.extend(labels)
    if details:
        message = f"{counted(len(details), 'text')} with different labels"
        yield Finding("conflicting-labels", "warning", message, tuple(sorted(rows)), tuple(details))


def _near(exact: Mapping[tuple[str, ...], list[_Row]], splits: list[str]) -> Iterator[Finding]:
    """Find near duplicates within the table and between splits, in one pass over the distinct texts."""
    from pegbox.data._near import groups, near_pairs

    members = list(exact.values())
    pairs = near_pairs(list(exact))
    here = [[row.number for row in group if not row.split] for group in members]
    inside = groups([(i, j) for i, j in pairs if here[i] and here[j]])
    if inside:
        numbers = [sorted(number for i in group for number in here[i]) for group in inside]
        rows = tuple(sorted(number for group in numbers for number in group))
        message = f"{counted(len(inside), 'group')} of near-duplicate texts"
        yield Finding(
            "near-duplicates", "warning", message, rows, tuple({"rows": group} for group in numbers)
        )
    sides = [(members[one], members[two]) for pair in pairs for one, two in (pair, pair[::-1])]
    yield from _leaks(sides, splits, "near-leak", "nearly the same text")


def _leaks(
    sides: list[tuple[list[_Row], list[_Row]]], splits: list[str], kind: str, phrase: str
) -> Iterator[Finding]:
    """Report rows of one split whose partners are in another; the checked table's own split is ``""``."""
    for split, other in combinations(["", *splits], 2):
        details: list[dict[str, object]] = []
        rows: set[int] = set()
        partners: set[int] = set()
        for left, right in sides:
            ours = [row.number for row in left if row.split == split]
            theirs = [row.number for row in right if row.split == other]
            if ours and theirs:
                details.append({"split": split, "rows": ours, "other_split": other, "other_rows": theirs})
                rows.update(ours)
                partners.update(theirs)
        if details:
            whose = f" of {split!r} ({rows_text(rows)})" if split else ""
            message = (
                f"{counted(len(rows), 'row')}{whose} with {phrase} in {other!r}, {rows_text(partners)} there"
            )
            yield Finding(kind, "warning", message, () if split else tuple(sorted(rows)), tuple(details))


def _placeholders(table: Table, columns: Columns) -> Iterator[Finding]:
    for name in (*columns.texts, *([columns.label] if columns.label else [])):
        cells = zip(table.numbers, table.columns[name], strict=True)
        rows = tuple(
            n for n, cell in cells if isinstance(cell, str) and cell.strip().casefold() in _PLACEHOLDERS
        )
        if rows:
            message = f"{counted(len(rows), 'cell')} of column {name!r} like a missing value, kept as text"
            yield Finding("placeholders", "info", message, rows)


def _lengths(rows: list[_Row], token_lengths: TokenLengths | None) -> dict[str, dict[str, int]]:
    if not rows:
        return {}
    found = {
        "characters": percentiles([sum(map(len, row.texts)) for row in rows]),
        "words": percentiles([sum(len(text.split()) for text in row.texts) for row in rows]),
    }
    if token_lengths is not None:
        parts = [token_lengths([row.texts[i] for row in rows]) for i in range(len(rows[0].texts))]
        found["tokens"] = percentiles([sum(counts) for counts in zip(*parts, strict=True)])
    return found
