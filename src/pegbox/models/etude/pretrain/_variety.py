"""How varied a set of texts is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]+(?:'\w+)?")


@dataclass(frozen=True)
class Variety:
    """Shares of distinct documents and sentences, and the number of word types (case folded)."""

    documents: float
    sentences: float
    types: int


def variety(texts: Iterable[str]) -> Variety:
    """Measure texts; a repeated sentence counts once among the distinct ones."""
    documents = list(texts)
    sentences = [part for text in documents for part in _SENTENCE.split(text) if part]
    types = {word.lower() for text in documents for word in _WORD.findall(text)}
    return Variety(len(set(documents)) / len(documents), len(set(sentences)) / len(sentences), len(types))
