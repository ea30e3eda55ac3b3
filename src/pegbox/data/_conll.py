from pegbox.data._table import Table, counted
from pegbox.errors import InputError


def parse_conll(text: str, source: str) -> Table:
    """Parse a word and its tag per line, apart by a tab or spaces, with blank lines between sentences.

    Of more columns the first is the word and the last the tag, as in the CoNLL shared tasks; ``-DOCSTART-``
    lines are passed over. Both are noted.

    Raises:
        InputError: A line with one column, or no sentence.
    """
    rows: list[tuple[list[str], list[str]]] = []
    widths: set[int] = set()
    skipped, fresh = 0, True
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip():
            fresh = True
            continue
        if line.startswith("-DOCSTART-"):
            skipped, fresh = skipped + 1, True
            continue
        word, tag, columns = _parts(line, number, source)
        widths.add(columns)
        if fresh:
            rows.append(([], []))
            fresh = False
        rows[-1][0].append(word)
        rows[-1][1].append(tag)
    if not rows:
        raise InputError("This file has no sentence", where=source, expected="a word and its tag per line")
    notes = ["a word and its tag per line, blank lines between sentences"]
    if max(widths) > 2:
        notes.append(f"of {max(widths)} columns the first is read as the word, the last as its tag")
    if skipped:
        notes.append(f"{counted(skipped, '-DOCSTART- line')} passed over")
    columns_found: dict[str, tuple[object, ...]] = {
        "tokens": tuple(words for words, _ in rows),
        "tags": tuple(tags for _, tags in rows),
    }
    return Table(source, columns_found, tuple(range(1, len(rows) + 1)), tuple(notes))


def _parts(line: str, number: int, source: str) -> tuple[str, str, int]:
    """Word, tag and number of columns; a word may hold spaces where tabs divide."""
    parts = line.split("\t") if "\t" in line else line.split()
    parts = [part.strip() for part in parts]
    if len(parts) < 2 or not parts[0] or not parts[-1]:
        raise InputError(
            "This line has no word and tag",
            where=f"{source}, line {number}",
            expected="a word, a tab or space, and its tag",
            fix="mend the line; sentences are divided by blank lines",
        )
    return parts[0], parts[-1], len(parts)
