"""Sentences full of names, with gold BIO tags."""

from dataclasses import dataclass

from pegbox.models.etude.world._grammar import Rand, words
from pegbox.models.etude.world._lexicon import MONTH, organisation, person, place, surname

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
_TYPES = ("PER", "LOC", "ORG")
_MAKERS = {"PER": person, "LOC": place, "ORG": organisation, "SUR": surname}

_PATTERNS = {
    "markets": words(
        "shares in <ORG> [rose|fell|jumped] after <PER> [resigned|spoke|left for <ORG>]; <ORG> will "
        "[open|close] its "
        "office in <LOC> in {month}; <PER> , who [runs|founded|chairs] <ORG> , met investors in <LOC>; "
        "<ORG> bought "
        "<ORG> for {n} million; analysts at <ORG> expect [more|less] trade between <LOC> and <LOC>; the "
        "[bank|firm|"
        "regulator] said on Friday that <ORG> owed <ORG> {n} million; <PER> told <ORG> that prices in "
        "<LOC> would fall"
    ),
    "sports": words(
        "<ORG> beat <ORG> in <LOC> on Sunday; <PER> scored twice for <ORG>; <PER> of <LOC> won the race "
        "in {n} minutes; "
        "the coach of <ORG> , <PER> , praised <PER>; fans from <LOC> travelled to <LOC> to watch <ORG>; "
        "<PER> has signed "
        "with <ORG> until {month}; after {n} games <SUR> moved from <ORG> to <ORG>; <SUR> and <SUR> will "
        "meet in <LOC>"
    ),
    "letters": words(
        "dear <PER> , we met <PER> in <LOC>; my cousin <PER> now works for <ORG>; <PER> and <PER> are "
        "getting married in "
        "<LOC> in {month}; we drove from <LOC> to <LOC> with <PER>; Mrs <SUR> [moved|went] back to "
        "<LOC>; do you remember "
        "<PER> from <ORG> ?; <PER> sends her love from <LOC>; I will be in <LOC> until {month} with "
        "Doctor <SUR>"
    ),
    "politics": words(
        "the minister , <PER> , flew to <LOC>; voters in <LOC> rejected the plan of <PER>; <ORG> sued "
        "the government of "
        "<LOC>; Mayor <SUR> opened a bridge in <LOC>; <PER> accused <ORG> of spying on <PER>; talks "
        "between <LOC> and <LOC> "
        "[failed|ended|began] in {month}; a report by <ORG> blames <PER>; <PER> will stand for <LOC> "
        "[again|in {month}]"
    ),
    "expeditions": words(
        "<PER> crossed the glacier above <LOC> with <PER>; the sledges , paid for by <ORG> , left <LOC> "
        "in {month}; near "
        "<LOC> the climbers lost the tent that <ORG> had lent them; <SUR> reached the summit before "
        "<SUR>; a rescue team "
        "from <LOC> found <PER> in the snow; <ORG> named the ridge after <PER> of <LOC>"
    ),
}


@dataclass(frozen=True)
class Names:
    """A sentence with its entities.

    Attributes:
        text: The tokens joined by spaces.
        tokens: Words and punctuation marks.
        label: One BIO tag per token.
        probabilities: For each entity in order, the exact probability of each type (noise included).
    """

    text: str
    tokens: tuple[str, ...]
    label: tuple[str, ...]
    probabilities: tuple[dict[str, float], ...]
    domain: str
    genre: str = "names"


def names(domain: str, rows: int, seed: int, noise: float = 0.0) -> list[Names]:
    """Return tagged sentences; ``noise`` is the probability of a wrong entity type."""
    return [sentence(Rand(f"names/{domain}/{seed}/{row}"), domain, noise) for row in range(rows)]


def sentence(rand: Rand, domain: str, noise: float = 0.0) -> Names:
    """Return one tagged sentence, or two joined ones."""
    slots = {"month": MONTH, "n": [str(number) for number in range(3, 60)]}
    parts = [rand.fill(pattern, slots) for pattern in rand.sample(_PATTERNS[domain], rand.pick((1, 1, 2)))]
    joint = rand.pick((" , and ", " ; ", " , while "))
    tokens: list[str] = []
    tags: list[str] = []
    truth: list[dict[str, float]] = []
    for word in (joint.join(part.removesuffix(" ?") for part in parts) + " .").split():
        if not word.startswith("<"):
            tokens.append(word)
            tags.append("O")
            continue
        kind = word.strip("<>")
        right = "PER" if kind == "SUR" else kind
        given = right if not rand.chance(noise) else rand.pick([other for other in _TYPES if other != right])
        truth.append({name: round(1.0 - noise if name == right else noise / 2, 9) for name in _TYPES})
        pieces = _MAKERS[kind](rand).split()
        tokens.extend(pieces)
        tags.extend([f"B-{given}"] + [f"I-{given}"] * (len(pieces) - 1))
    tokens[0] = tokens[0][0].upper() + tokens[0][1:]
    return Names(" ".join(tokens), tuple(tokens), tuple(tags), tuple(truth), domain)
