from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pegbox.data._bad import Dropped, by_reason
from pegbox.data._doctor import TokenLengths, _conflicts, _duplicates, _exact, _leaks, _lengths, _near, _Row
from pegbox.data._findings import Finding, Findings, by_severity
from pegbox.data._questions import ChoiceColumns, Questions, questions
from pegbox.data._sentences import Sentences, TagColumns, sentences
from pegbox.data._table import Table, counted

RARE = 5


def check_sentences(
    table: Table,
    columns: TagColumns,
    *,
    others: Mapping[str, Table] | None = None,
    token_lengths: TokenLengths | None = None,
) -> Findings:
    """Examine tagged sentences: bad rows, entity counts, lengths, duplicates, conflicts, leakage.

    Args and returns as for :func:`pegbox.data.check`; the classes are entity types with their entities.
    """
    found = sentences(table, columns, on_bad="drop")
    parts = {name: sentences(other, columns, on_bad="drop") for name, other in (others or {}).items()}
    counts = _entities(found)
    notes = [*_bad(found.dropped), *_rare(counts), *_unknown(counts, parts)]
    if not counts:
        notes.append(Finding("no-entities", "error", "no word of any sentence has a B- tag"))
    rows = [_sentence_rows(found, ""), *(_sentence_rows(part, name) for name, part in parts.items())]
    return _findings(table, columns.note, dict(counts.most_common()), rows, list(parts), notes, token_lengths)


def check_questions(
    table: Table,
    columns: ChoiceColumns,
    *,
    others: Mapping[str, Table] | None = None,
    token_lengths: TokenLengths | None = None,
) -> Findings:
    """Examine multiple-choice questions: bad rows, places of the answers, lengths, duplicates, leakage.

    Args and returns as for :func:`pegbox.data.check`; the classes are the right options' places.
    """
    found, _ = questions(table, columns, on_bad="drop")
    parts = {name: questions(other, columns, on_bad="drop")[0] for name, other in (others or {}).items()}
    places = Counter(f"option {answer + 1}" for answer in found.answers or ())
    notes = [*_bad(found.dropped), *_equal_options(found), *_option_counts(found)]
    notes += [Finding("reading", "info", line) for line in found.remarks if line not in table.notes]
    rows = [_question_rows(found, ""), *(_question_rows(part, name) for name, part in parts.items())]
    classes = dict(sorted(places.items()))
    return _findings(table, columns.note, classes, rows, list(parts), notes, token_lengths)


def _findings(
    table: Table,
    note: str,
    classes: Mapping[str, int],
    rows: Sequence[list[_Row]],
    splits: list[str],
    notes: list[Finding],
    token_lengths: TokenLengths | None,
) -> Findings:
    exact = _exact([row for part in rows for row in part])
    same = [(group, group) for group in exact.values()]
    found = [
        *notes,
        *_duplicates(exact),
        *_conflicts(exact),
        *_leaks(same, splits, "exact-leak", "the same text"),
        *_near(exact, splits),
        *(Finding("reading", "info", line) for line in table.notes),
    ]
    return Findings(
        source=table.source,
        rows=len(table),
        columns=note,
        classes=classes,
        lengths=_lengths(rows[0], token_lengths),
        findings=by_severity(found),
        splits={name: len(part) for name, part in zip(splits, rows[1:], strict=True)},
    )


def _sentence_rows(rows: Sentences, split: str) -> list[_Row]:
    tags = [" ".join(own) for own in rows.tags or ()]
    return [_Row(split, *row) for row in zip(rows.numbers, rows.texts, tags, strict=True)]


def _question_rows(rows: Questions, split: str) -> list[_Row]:
    """Rows whose text is the question with its options, and whose label is the right one's text."""
    answers = [options[at].strip() for options, at in zip(rows.options, rows.answers or (), strict=True)]
    texts = [("\n".join(parts),) for parts in rows.texts]
    return [_Row(split, *row) for row in zip(rows.numbers, texts, answers, strict=True)]


def _bad(dropped: Sequence[Dropped]) -> Iterator[Finding]:
    for reason, numbers in by_reason(dropped).items():
        yield Finding("bad-rows", "error", f"{counted(len(numbers), 'row')}: {reason}", tuple(numbers))


def _entities(rows: Sentences) -> Counter[str]:
    return Counter(tag[2:] for tags in rows.tags or () for tag in tags if tag.startswith("B-"))


def _rare(counts: Mapping[str, int]) -> Iterator[Finding]:
    for name, count in counts.items():
        if count < RARE:
            yield Finding("rare-type", "warning", f"type {name!r} has {counted(count, 'entity', 'entities')}")


def _unknown(counts: Mapping[str, int], parts: Mapping[str, Sentences]) -> Iterator[Finding]:
    for split, part in parts.items():
        for name in part.types:
            if name not in counts:
                yield Finding("type-unknown", "error", f"type {name!r} of {split!r} does not occur here")


def _equal_options(rows: Questions) -> Iterator[Finding]:
    pairs = zip(rows.numbers, rows.options, strict=True)
    same = tuple(number for number, options in pairs if len({o.strip() for o in options}) < len(options))
    if same:
        yield Finding("equal-options", "warning", f"{counted(len(same), 'row')} with two equal options", same)


def _option_counts(rows: Questions) -> Iterator[Finding]:
    counts = Counter(map(len, rows.options))
    if len(counts) > 1:
        shown = ", ".join(f"{count:,} with {options}" for options, count in sorted(counts.items()))
        yield Finding("option-counts", "info", f"rows differ in their number of options: {shown}")
