"""Seeded choices and a small text grammar: ``[a|b]`` picks one branch, ``{slot}`` inserts a slot."""

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

T = TypeVar("T")
Slots = Mapping[str, "str | Sequence[str]"]
Node = str | tuple[str, tuple[tuple["Node", ...], ...]]


class Rand:
    """Seeded choices built on ``random.Random.random`` alone, whose stream Python guarantees forever.

    Args:
        key: Any text; the same key gives the same choices on every platform.
    """

    def __init__(self, key: str) -> None:
        self._next = random.Random(key).random

    def unit(self) -> float:
        """Return a number in [0, 1)."""
        return self._next()

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._next() < probability

    def integer(self, low: int, high: int) -> int:
        """Return an integer between low and high, both included."""
        return low + int(self._next() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        """Return one item, all equally likely."""
        return items[int(self._next() * len(items))]

    def common(self, items: Sequence[T]) -> T:
        """Return one item, early ones more often: as in real text (Zipf 1949), rank r has weight 1/r."""
        left = self._next() * _harmonic(len(items))
        for rank, item in enumerate(items, start=1):
            left -= 1.0 / rank
            if left < 0:
                return item
        return items[-1]

    def weighted(self, items: Mapping[T, float]) -> T:
        """Return one key of ``items`` with probability proportional to its value."""
        left = self._next() * added(items.values())
        for item, weight in items.items():
            left -= weight
            if left < 0:
                return item
        return list(items)[-1]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Return ``count`` different items in random order."""
        pool = list(items)
        for at in range(min(count, len(pool))):
            other = self.integer(at, len(pool) - 1)
            pool[at], pool[other] = pool[other], pool[at]
        return pool[:count]

    def fill(self, template: str, slots: Slots | None = None) -> str:
        """Expand a template; slot values may hold templates of their own."""
        return "".join(self._pieces(_parse(template), slots or {}))

    def _pieces(self, nodes: tuple[Node, ...], slots: Slots) -> list[str]:
        pieces: list[str] = []
        for node in nodes:
            if isinstance(node, str):
                pieces.append(node)
            elif node[0]:
                value = slots[node[0]]
                text = value if isinstance(value, str) else self.pick(value)
                pieces.append(self.fill(text, slots))
            else:
                pieces.extend(self._pieces(self.pick(node[1]), slots))
        return pieces


def added(values: Iterable[float]) -> float:
    """The sum from left to right, rounded at each step.

    From Python 3.12 on, the built-in ``sum`` makes up for rounding, and the texts would be others there.
    """
    total = 0.0
    for value in values:
        total += value
    return total


@cache
def _harmonic(count: int) -> float:
    return added(1.0 / rank for rank in range(1, count + 1))


@cache
def _parse(template: str) -> tuple[Node, ...]:
    branches, end = _branches(template, 0)
    if len(branches) != 1 or end != len(template):
        raise ValueError(f"unbalanced template: {template!r}")
    return branches[0]


def _branches(text: str, at: int) -> tuple[tuple[tuple[Node, ...], ...], int]:
    branches: list[tuple[Node, ...]] = []
    nodes: list[Node] = []
    start = at
    while at < len(text) and text[at] != "]":
        mark = text[at]
        if mark not in "[|{":
            at += 1
            continue
        if at > start:
            nodes.append(text[start:at])
        if mark == "[":
            inner, at = _branches(text, at + 1)
            nodes.append(("", inner))
        elif mark == "{":
            close = text.index("}", at)
            nodes.append((text[at + 1 : close], ()))
            at = close
        else:
            branches.append(tuple(nodes))
            nodes = []
        at += 1
        start = at
    if at > start:
        nodes.append(text[start:at])
    branches.append(tuple(nodes))
    return tuple(branches), at


_ARTICLE = re.compile(
    r"\b([Aa])(?= (?:[aeioAEIO](?!ne\b|nce\b|uro)|u(?!ni|se|su|ti)|hour|honest|8\b|11\b|18\b))"
)
_SPACES = re.compile(r" {2,}")
_BEFORE = re.compile(r" +([,.;:!?])")
_START = re.compile(r"(^|[.!?] )([a-z])")


def tidy(text: str) -> str:
    """Mend spaces, choose a/an, and begin each sentence with a capital."""
    text = _BEFORE.sub(r"\1", _SPACES.sub(" ", text)).strip()
    text = _ARTICLE.sub(lambda found: found[1] + "n", text)
    return _START.sub(lambda found: found[1] + found[2].upper(), text)


def words(text: str) -> tuple[str, ...]:
    """Split a ``;``-separated lexicon line."""
    return tuple(word.strip() for word in text.split(";") if word.strip())


def sigmoid(value: float) -> float:
    """Return 1 / (1 + exp(-value)), rounded so that all platforms agree."""
    return round(1.0 / (1.0 + math.exp(-value)), 9)


def flip(probabilities: Mapping[str, float], noise: float) -> dict[str, float]:
    """Fold label noise in: with probability ``noise`` the label becomes one of the others, all alike."""
    if not 0.0 <= noise <= 1.0:
        raise ValueError(f"noise must lie between 0 and 1, not {noise}")
    others = len(probabilities) - 1
    return {
        label: round((1.0 - noise) * value + noise * (1.0 - value) / others, 9)
        for label, value in probabilities.items()
    }
