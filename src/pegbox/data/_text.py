import re
import unicodedata
from collections.abc import Sequence

_ENDS = re.compile(r"\r+\n|\r")
_SPACES = re.compile(r"\s+")
_NOT_WORDS = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def normalised(text: str) -> str:
    """Return the text as it counts for duplicates: NFKC, case folded, runs of space made one."""
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def text_key(texts: Sequence[str]) -> str:
    """Return one string for a row's texts that exact duplicates share: see :func:`normalised`."""
    return "\x1f".join(map(normalised, texts))


def words_only(text: str) -> str:
    """Return the text as it counts for near duplicates: normalised, without punctuation."""
    return _NOT_WORDS.sub(" ", normalised(text)).strip() or normalised(text)


def is_number(text: str) -> bool:
    """Return whether a cell reads as a decimal number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def label_order(label: str) -> tuple[int, float, str, str]:
    """Return a sort key: numbers by value and first, then words without regard to case."""
    if is_number(label):
        return (0, float(label), "", label)
    return (1, 0.0, label.casefold(), label)


def with_newlines(text: str) -> str:
    """The text with a line feed at the end of each line, whichever system wrote it."""
    # Text that Windows translated twice has \r\r\n.
    return _ENDS.sub("\n", text)
