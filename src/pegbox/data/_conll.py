import re

from pegbox.data._table import Table, counted
from pegbox.data._text import with_newlines
from pegbox.errors import InputError

# What CoNLL-U writes above a sentence, such as "# sent_id = 7".
_COMMENT = re.compile(r"# +(?:[\w.:-]+ +=(?: |$)|newdoc\b|newpar\b)[^\t]*$")


def parse_conll(text: str, source: str) -> Table:
    """Parse a word and its tag per line, apart by a tab or spaces, with blank lines between sentences.

    Of more columns the first is the word and the last the tag, as in the CoNLL shared tasks; ``-DOCSTART-``
    lines and comments such as ``# sent_id = 7`` are passed over. Each is noted.

    Raises:
        InputError: A line with one column or more or fewer than the others, or no sentence.
    """
    rows: list[tuple[list[str], list[str]]] = []
    columns, skipped, comments, fresh = 0, 0, 0, True
    for number, line in enumerate(with_newlines(text).split("\n"), 1):
        if not line.strip():
            fresh = True
            continue
        if line.startswith("-DOCSTART-"):
            skipped, fresh = skipped + 1, True
            continue
        if _COMMENT.match(line):
            comments += 1
            continue
        word, tag, width = _parts(line, number, source)
        columns = columns or width
        if width != columns:
            raise _other_width(width, columns, f"{source}, line {number}")
        if fresh:
            rows.append(([], []))
            fresh = False
        rows[-1][0].append(word)
        rows[-1][1].append(tag)
    if not rows:
        raise InputError("This file has no sentence", where=source, expected="a word and its tag per line")
    notes = ["a word and its tag per line, blank lines between sentences"]
    if columns > 2:
        notes.append(f"of {columns} columns the first is read as the word, the last as its tag")
    if skipped:
        notes.append(f"{counted(skipped, '-DOCSTART- line')} passed over")
    if comments:
        notes.append(f"{counted(comments, 'comment')} passed over (lines such as # sent_id = 7)")
    found: dict[str, tuple[object, ...]] = {
        "tokens": tuple(words for words, _ in rows),
        "tags": tuple(tags for _, tags in rows),
    }
    return Table(source, found, tuple(range(1, len(rows) + 1)), tuple(notes))


def _parts(line: str, number: int, source: str) -> tuple[str, str, int]:
    """Word, tag and number of columns; a word may hold spaces where tabs divide."""
    # Other spaces, such as the one within the number 10 000, are part of a word.
    parts = line.split("\t") if "\t" in line else [part for part in line.split(" ") if part]
    parts = [part.strip(" ") for part in parts]
    if len(parts) < 2 or not parts[0] or not parts[-1]:
        raise InputError(
            "This line has no word and tag",
            where=f"{source}, line {number}",
            expected="a word, a tab or space, and its tag",
            fix="mend the line; sentences are divided by blank lines",
        )
    return parts[0], parts[-1], len(parts)


def _other_width(width: int, columns: int, where: str) -> InputError:
    return InputError(
        f"This line has {width} columns, and those before it have {columns}",
        where=where,
        expected="the same columns in each line: first the word, last its tag",
        fix="mend the line; where words hold spaces, divide the columns by tabs",
    )
