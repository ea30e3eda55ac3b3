import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pegbox.data._bad import Dropped, check_on_bad, keep_usable, left_out
from pegbox.data._columns import require_columns
from pegbox.data._table import Table, counted, rows_text
from pegbox.errors import InputError, UsageError

TOKEN_NAMES = ("tokens", "words", "token", "word", "sentence", "text")
TAG_NAMES = ("tags", "ner_tags", "ner", "labels", "bio", "entities", "tag", "ner_labels", "label")
_TAG = re.compile(r"[BI]-\S+")
_EXPECTED = "a list of words and as many tags, each O, B-type or I-type, in each row"
_REPAIR = "make such tags B- with --on-bad-rows repair"
_FIX = "mend these rows, or leave them out with --on-bad-rows drop"


@dataclass(frozen=True)
class Sentences:
    """Sentences as words, each with its BIO tag.

    Args:
        source: Where the rows come from.
        tokens: Words of each sentence.
        tags: ``O``, ``B-type`` or ``I-type`` of each word, or ``None`` when untagged.
        numbers: 1-based row numbers in the source.
        dropped: Rows left out, and why.
        remarks: What else was changed or noticed, one line each.
    """

    source: str
    tokens: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[str, ...], ...] | None
    numbers: tuple[int, ...]
    dropped: tuple[Dropped, ...] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types that occur, in alphabetical order."""
        return tuple(sorted({tag[2:] for tags in self.tags or () for tag in tags if tag != "O"}))

    @property
    def labels(self) -> None:
        """Sentences have no class of their own, by which a split could be stratified."""

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """Each sentence as one text, by which duplicates are found."""
        return tuple((" ".join(words),) for words in self.tokens)

    def select(self, indices: Sequence[int]) -> "Sentences":
        """Return the rows at these 0-based positions; what was dropped before belongs to the whole only."""
        tags = None if self.tags is None else tuple(self.tags[i] for i in indices)
        tokens = tuple(self.tokens[i] for i in indices)
        return Sentences(self.source, tokens, tags, tuple(self.numbers[i] for i in indices))

    def digest(self) -> str:
        """Return the SHA-256 of words and tags in order, not of source and row numbers."""
        return hashlib.sha256(json.dumps([self.tokens, self.tags]).encode()).hexdigest()

    def notes(self) -> list[str]:
        """Return lines for the user: rows left out by reason, and other changes."""
        return left_out(self.dropped) + list(self.remarks)


@dataclass(frozen=True)
class TagColumns:
    """Which columns hold the words and their tags.

    Args:
        tokens: Column of lists of words.
        tags: Column of lists of tags; ``None`` when there is none.
        note: The line to print.
    """

    tokens: str
    tags: str | None
    note: str


def find_tag_columns(
    table: Table, *, tokens: str | None = None, tags: str | None = None, need_tags: bool = True
) -> TagColumns:
    """Decide which columns hold words and tags: as given, else guessed from names and contents.

    Raises:
        InputError: A named column is not there, or none holds lists of words or of tags.
    """
    require_columns(table, [name for name in (tokens, tags) if name is not None])
    guesses = [name for name, given in (("--text", tokens), ("--label", tags)) if given is None]
    lists = [name for name in table.names if _lists(table, name)]
    tagged = [name for name in lists if name != tokens and _tags_like(table, name)]
    if tags is None and need_tags:
        tags = _first(TAG_NAMES, tagged)
    if tokens is None:
        tokens = _first(TOKEN_NAMES, [name for name in lists if name != tags and name not in tagged])
    if tokens is None or (tags is None and need_tags):
        what, option = ("words", "--text") if tokens is None else ("BIO tags", "--label")
        numbered = [name for name in table.names if _numbers(table, name)] if what == "BIO tags" else []
        classes = f"; {numbered[0]!r} holds class numbers: write their names instead" if numbered else ""
        raise InputError(
            f"No column holds lists of {what}",
            where=table.source,
            expected=f"{_EXPECTED}; the columns are: {', '.join(table.names)}",
            fix=f"name it with {option}; csv holds no lists: use jsonl, parquet or a CoNLL file{classes}",
        )
    named = f"words in column {tokens!r}, " + (f"tags in column {tags!r}" if tags else "no tags")
    how = f"guessed; override with {', '.join(guesses)}" if guesses else "as given"
    return TagColumns(tokens, tags, f"{named} ({how})")


def sentences(
    table: Table, columns: TagColumns, *, need_tags: bool = True, on_bad: str = "error"
) -> Sentences:
    """Return the rows of a table as sentences with BIO tags.

    Args:
        table: The table as read.
        columns: Which columns mean what.
        need_tags: Whether each row must have tags; otherwise tags are None.
        on_bad: Whether rows that cannot be used are an error or left out (``drop``), each named. ``repair``
            makes an I- tag that continues no entity a B- tag, counts those, and refuses other faults.

    Raises:
        InputError: Bad rows (all of them named), or no usable row.
    """
    check_on_bad(on_bad, ("error", "drop", "repair"))
    name = columns.tags if need_tags else None
    if need_tags and name is None:
        raise InputError("There is no column of tags", where=table.source, fix="name it with --label")
    require_columns(table, [columns.tokens, *([name] if name else [])])
    repaired: Counter[int] = Counter()
    cells = zip(table.columns[columns.tokens], table.columns[name] if name else table.numbers, strict=True)
    faults = [
        _words_fault(words) or (_tags_fault(words, tags, on_bad == "repair") if name else "")
        for words, tags in cells
    ]
    pairs = zip(table.numbers, faults, strict=True)
    dropped = tuple(Dropped(number, fault) for number, fault in pairs if fault)
    repaired_by = _REPAIR if _only_starts(dropped) else ""
    fix = f"{_FIX}, or {repaired_by}" if repaired_by else _FIX
    kept = keep_usable(table, dropped, on_bad, expected=_EXPECTED, fix=fix, whole=repaired_by)
    tokens = tuple(map(_strings, kept.columns[columns.tokens]))
    if name is None:
        return Sentences(table.source, tokens, None, kept.numbers, dropped, table.notes)
    tags = []
    for number, row in zip(kept.numbers, map(_strings, kept.columns[name]), strict=True):
        mended, count = repair(row)
        tags.append(mended)
        repaired[number] += count
    return Sentences(
        table.source, tokens, tuple(tags), kept.numbers, dropped, (*table.notes, *_told(repaired))
    )


def from_words(inputs: Sequence[str] | Sequence[Sequence[str]]) -> Sentences:
    """Return untagged sentences in memory, numbered from 1; a string is divided at its spaces.

    Raises:
        InputError: For a sentence without words, or one that is no list of strings.
        UsageError: For one string instead of several.
    """
    if isinstance(inputs, str):
        raise UsageError("predict takes several sentences", expected="a list", fix="write predict([text])")
    rows = [tuple(item.split()) if isinstance(item, str) else item for item in inputs]
    for number, words in enumerate(rows, 1):
        if fault := _words_fault(words):
            raise InputError(
                fault.capitalize(),
                where=f"sentences given in memory, row {number}",
                expected="a text, or a list of words",
                fix="leave the row out or fill it in",
            )
    numbers = tuple(range(1, len(rows) + 1))
    return Sentences("sentences given in memory", tuple(map(tuple, rows)), None, numbers)


def repair(tags: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Make each I- tag that continues no entity of its type a B- tag; returns how many there were."""
    mended: list[str] = []
    for tag in tags:
        stray = tag[:2] == "I-" and (not mended or mended[-1][2:] != tag[2:])
        mended.append("B-" + tag[2:] if stray else tag)
    return tuple(mended), sum(old != new for old, new in zip(tags, mended, strict=True))


def _words_fault(words: object) -> str:
    if not isinstance(words, list | tuple):
        return "the words are no list"
    if not words:
        return "no words"
    if not all(isinstance(word, str) for word in words):
        return "a word is no string"
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        return "not valid Unicode text"
    return ""


def _tags_fault(words: object, tags: object, may_start: bool) -> str:
    assert isinstance(words, list | tuple)
    if not isinstance(tags, list | tuple):
        return "the tags are no list"
    if len(words) != len(tags):
        return f"{counted(len(words), 'word')} and {counted(len(tags), 'tag')}"
    wrong = [tag for tag in tags if not (tag == "O" or _bio(tag))]
    if wrong:
        return f"the tag {wrong[0]!r} is not O, B-type or I-type"
    strays = [tag for tag, mended in zip(tags, repair(tags)[0], strict=True) if tag != mended]
    return f"{strays[0]} {_STRAY}" if strays and not may_start else ""


_STRAY = "continues no entity of its type"


def _only_starts(dropped: Sequence[Dropped]) -> bool:
    return bool(dropped) and all(item.reason.endswith(_STRAY) for item in dropped)


def _bio(tag: object) -> bool:
    return isinstance(tag, str) and _TAG.fullmatch(tag) is not None


def _strings(cell: object) -> tuple[str, ...]:
    return tuple(map(str, cell)) if isinstance(cell, list | tuple) else ()


def _lists(table: Table, name: str) -> bool:
    filled = [cell for cell in table.columns[name][:1000] if cell is not None]
    good = [cell for cell in filled if isinstance(cell, list | tuple) and not _words_fault(cell or ["x"])]
    return bool(good) and len(good) > len(filled) / 2


def _numbers(table: Table, name: str) -> bool:
    cells = [cell for cell in table.columns[name][:1000] if isinstance(cell, list | tuple) and cell]
    return bool(cells) and all(type(part) is int for cell in cells for part in cell)


def _tags_like(table: Table, name: str) -> bool:
    seen = Counter(tag for cell in table.columns[name][:1000] for tag in _strings(cell))
    known = sum(count for tag, count in seen.items() if tag == "O" or _bio(tag))
    return known > sum(seen.values()) / 2


def _first(names: Sequence[str], found: Sequence[str]) -> str | None:
    by_name = {name.lower(): name for name in reversed(found)}
    return next((by_name[name] for name in names if name in by_name), found[0] if found else None)


def _told(repaired: Counter[int]) -> list[str]:
    rows = [number for number, count in repaired.items() if count]
    if not rows:
        return []
    total = counted(sum(repaired.values()), "I- tag")
    return [f"{total} that continued no entity made B- ({rows_text(rows)})"]
