"""Review domains and how their lexicons are written.

A domain starts with ``# name | tense``. ``item``, ``open`` and ``story`` are neutral. Each aspect starts
with ``@ s`` (singular) or ``@ p`` (plural) and its nouns; ``+`` and ``-`` are adjectives, ``>`` and ``<``
predicates that speak for and against it. A line that starts with two spaces goes on from the one before.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from pegbox.models.etude.world._grammar import words
from pegbox.models.etude.world._held import HELD
from pegbox.models.etude.world._places import PLACES
from pegbox.models.etude.world._things import THINGS


@dataclass(frozen=True)
class Aspect:
    """One side of the thing reviewed, with the words that praise and blame it."""

    nouns: tuple[str, ...]
    plural: bool
    adjectives: dict[int, tuple[str, ...]]
    predicates: dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class Domain:
    """One kind of thing that is reviewed."""

    name: str
    past: bool
    items: tuple[str, ...]
    openings: tuple[str, ...]
    stories: tuple[str, ...]
    aspects: tuple[Aspect, ...]


@cache
def domains() -> dict[str, Domain]:
    """Return all review domains by name, in a fixed order."""
    blocks = [block for text in (THINGS, PLACES, HELD) for block in text.split("\n# ")[1:]]
    return {domain.name: domain for domain in map(_domain, blocks)}


def held_back() -> tuple[str, ...]:
    """Return the review domains that pretraining never sees."""
    return tuple(block.split(" | ")[0] for block in HELD.split("\n# ")[1:])


def _domain(block: str) -> Domain:
    lines = block.strip().replace("\n  ", " ").split("\n")
    name, tense = lines[0].split(" | ")
    plain = {line.split(": ")[0]: words(line.split(": ", 1)[1]) for line in lines[1:4]}
    starts = [at for at, line in enumerate(lines) if line.startswith("@")] + [len(lines)]
    aspects = tuple(_aspect(lines[a:b]) for a, b in pairwise(starts))
    return Domain(name, tense == "past", plain["item"], plain["open"], plain["story"], aspects)


def _aspect(lines: list[str]) -> Aspect:
    kinds = {line[0]: words(line[2:]) for line in lines[1:]}
    return Aspect(
        nouns=words(lines[0][4:]),
        plural=lines[0][2] == "p",
        adjectives={1: kinds["+"], -1: kinds["-"]},
        predicates={1: kinds[">"], -1: kinds["<"]},
    )
