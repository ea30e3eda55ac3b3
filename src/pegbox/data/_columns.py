import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pegbox.data._table import Table, kind_of
from pegbox.data._text import is_number
from pegbox.errors import InputError, UsageError, nearest

TEXT_NAMES = (
    "text", "texts", "sentence", "review", "reviews", "content", "body", "comment", "message", "sms",
    "tweet", "utterance", "question", "query", "document", "passage", "abstract", "description", "post",
    "article", "phrase", "premise", "input", "prompt", "instruction", "snippet", "claim", "title",
    "headline", "subject",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "gold_label", "class", "classes", "target", "sentiment", "category", "stars",
    "rating", "polarity", "topic", "intent", "emotion", "stance", "verdict", "gold", "y", "answer", "tag",
    "spam", "toxic", "score", "type", "output",
)  # fmt: skip
PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"),
    ("question", "passage"), ("question", "sentence"), ("question", "context"), ("query", "passage"),
    ("query", "document"), ("query", "text"), ("claim", "evidence"), ("headline", "body"),
    ("prompt", "response"),
)  # fmt: skip
_ID_FIRST = {"id", "idx", "index", "unnamed"}
_ID_LAST = {"id", "ids", "idx", "index", "uid", "guid", "uuid", "key", "no", "nr", "row"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\dA-Za-z_]+")
_SAMPLE = 10_000
# Words from which on the name of a column reads like a text.
_SENTENCE = 4


@dataclass(frozen=True)
class Columns:
    """Which columns mean what, and how that was decided.

    Args:
        texts: One text column, or two for sentence pairs, in order.
        label: The label column, None when there is none.
        guessed: Whether any of them was guessed.
        note: The line to print.
    """

    texts: tuple[str, ...]
    label: str | None
    guessed: bool
    note: str


@dataclass(frozen=True)
class _Profile:
    """What the first rows of a column look like: shares are of its non-empty cells."""

    name: str
    filled: int
    distinct: int
    text_share: float
    mean_length: float
    plain: bool

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word.lower() for word in _WORD.findall(self.name))

    @property
    def is_id(self) -> bool:
        first, last = "".join(self.words[:1]), "".join(self.words[-1:])
        return not self.name or first in _ID_FIRST or last in _ID_LAST

    @property
    def texty(self) -> bool:
        return self.filled > 0 and self.text_share >= 0.5 and not self.is_id

    @property
    def labelly(self) -> bool:
        few = self.distinct <= max(20, self.filled // 2)
        short_words = self.text_share > 0.5 and self.mean_length <= 30
        return self.filled > 0 and self.plain and (few or short_words) and not self.is_id


def find_columns(
    table: Table, *, texts: Sequence[str] = (), label: str | None = None, need_label: bool = True
) -> Columns:
    """Decide which columns hold the texts and the label: as given, else guessed from names and contents.

    Args:
        table: The table as read.
        texts: One text column, or two for sentence pairs; guessed when empty.
        label: The label column; guessed when None.
        need_label: Whether a table without a label column is an error.

    Raises:
        InputError: A named column is not there or is text and label at once, or nothing can be guessed.
    """
    if isinstance(texts, str):
        texts = (texts,)
    _check_given(table, texts, label)
    profiles = [_profile(table, name) for name in table.names]
    taken = label
    if label is None:
        taken = _guess_label([item for item in profiles if item.name not in texts], table, texts, need_label)
    chosen = tuple(texts) or _guess_texts([item for item in profiles if item.name != taken], table)
    if not texts and label is None and taken is not None:
        _check_header(table, chosen, taken)
    if label is None and taken is None and need_label:
        raise _no_label(table, [name for name in table.names if name not in chosen])
    return Columns(
        chosen, taken, not texts or (label is None and taken is not None), _note(chosen, taken, texts, label)
    )


def require_columns(table: Table, names: Sequence[str]) -> None:
    """Raise an InputError that suggests the nearest name when the table lacks one of these columns."""
    for name in names:
        if name not in table.columns:
            commas = [known for known in table.names if "," in known]
            quoted = f"a name that holds a comma goes in double quotes: '\"{commas[0]}\"'" if commas else ""
            raise InputError(
                f"There is no column {name!r}", where=table.source,
                expected=f"one of: {', '.join(map(repr, table.names) if commas else table.names)}",
                fix=nearest(name, table.names) or quoted or "name one of these columns",
            )  # fmt: skip


def _check_header(table: Table, texts: Sequence[str], label: str) -> None:
    """Refuse a first row that was taken for the names of the columns; only a file of cells can lack them."""
    written = kind_of(Path(table.source)) in (".csv", ".tsv")
    sentence = any(len(name.split()) >= _SENTENCE and not name.endswith("?") for name in texts)
    if written and sentence and label in {str(cell) for cell in table.columns[label]}:
        raise InputError(
            "The column names read like a row: this file seems to have no header line", where=table.source,
            expected=f"column names in the first line, not {texts[0]!r} and the label {label!r}",
            fix="if these are names, say so by --text and --label; else write text,label in a line above",
        )  # fmt: skip


def _check_given(table: Table, texts: Sequence[str], label: str | None) -> None:
    require_columns(table, [*texts, *([] if label is None else [label])])
    if len(texts) > 2 or len(set(texts)) < len(texts):
        raise UsageError(
            f"Text columns cannot be {', '.join(map(repr, texts))}", where=table.source,
            expected="one text column, or two different ones for sentence pairs",
            fix="name one or two with --text",
        )  # fmt: skip
    if label in texts:
        raise InputError(
            f"Column {label!r} is given as text and as label", where=table.source,
            expected=f"two different columns of: {', '.join(table.names)}", fix="change --text or --label",
        )  # fmt: skip


def _profile(table: Table, name: str) -> _Profile:
    cells = list(islice((cell for cell in table.columns[name] if cell not in (None, "")), _SAMPLE))
    strings = [cell for cell in cells if isinstance(cell, str) and not is_number(cell)]
    plain = all(isinstance(cell, (str, int, float)) for cell in cells)
    return _Profile(
        name,
        filled=len(cells),
        distinct=len(set(map(str, cells))),
        text_share=len(strings) / len(cells) if cells else 0.0,
        mean_length=sum(map(len, strings)) / len(strings) if strings else 0.0,
        plain=plain,
    )


def _named(profiles: Sequence[_Profile], names: Sequence[str]) -> str | None:
    """Return the column whose whole name comes first in ``names``, else whose last or any word does."""
    ways = (
        lambda item: "_".join(item.words),
        lambda item: item.words[-1] if item.words else "",
        lambda item: next((word for word in item.words if word in names), ""),
    )
    for way in ways:
        found = [(names.index(way(item)), item.name) for item in profiles if way(item) in names]
        if found:
            return min(found, key=lambda pair: pair[0])[1]
    return None


def _guess_label(
    profiles: Sequence[_Profile], table: Table, texts: Sequence[str], need_label: bool
) -> str | None:
    usable = [item for item in profiles if item.labelly]
    yes_no = (item.name for item in usable if "".join(item.words[:1]) in ("is", "has"))
    named = _named(usable, LABEL_NAMES) or next(yes_no, None)
    if named or not need_label:
        return named
    texty = [item for item in profiles if item.texty and not texts]
    longest = max(texty, key=lambda item: item.mean_length, default=None)
    repeated = [item for item in usable if item is not longest and 2 <= item.distinct <= item.filled / 2]
    repeated = [item for item in repeated if _named([item], TEXT_NAMES) is None]
    if len(repeated) > 1:
        names = ", ".join(item.name for item in repeated)
        raise InputError(
            f"Several columns could be the label: {names}", where=table.source, expected="one label column",
            fix="name it with --label",
        )  # fmt: skip
    return repeated[0].name if repeated else None


def _guess_texts(profiles: Sequence[_Profile], table: Table) -> tuple[str, ...]:
    usable = [item for item in profiles if item.texty]
    keys = {re.sub(r"[^a-z0-9]", "", item.name.lower()): item.name for item in usable}
    for first, second in PAIRS:
        if first in keys and second in keys:
            return keys[first], keys[second]
    for key, name in keys.items():
        twin = {"1": "2", "a": "b"}.get(key[-1:])
        if twin and len(key) > 3 and key[:-1] + twin in keys:
            return name, keys[key[:-1] + twin]
    named = _named(usable, TEXT_NAMES)
    if named is None and usable:
        named = max(usable, key=lambda item: item.mean_length).name
    if named is None:
        raise InputError(
            "No column looks like text", where=table.source,
            expected=f"a column of strings; the columns are: {', '.join(table.names)}",
            fix="name the text column with --text; is the header line there?",
        )  # fmt: skip
    return (named,)


def _no_label(table: Table, others: Sequence[str]) -> InputError:
    others = [name for name in others if name]
    named = f"name it with --label: {', '.join(others)}; is the header line there?"
    return InputError(
        "No column looks like a label", where=table.source,
        expected=f"a column with a few repeated values, named for example {', '.join(LABEL_NAMES[:4])}",
        fix=named if others else "add a column with the label of each row",
    )  # fmt: skip


def _note(chosen: Sequence[str], taken: str | None, texts: Sequence[str], label: str | None) -> str:
    parts = [f"text column{'s' if len(chosen) > 1 else ''} {', '.join(map(repr, chosen))}"]
    parts.append(f"label column {taken!r}" if taken else "no label column")
    guesses = [] if texts else [("text", "--text")]
    guesses += [("label", "--label")] if label is None and taken else []
    if not guesses:
        return f"{', '.join(parts)} (as given)"
    what = "guessed" if not texts and label is None else f"{guesses[0][0]} guessed"
    return f"{', '.join(parts)} ({what}; override with {', '.join(flag for _, flag in guesses)})"
