"""Where a text tells a value, and whether it says yes or no to something."""

import re
import unicodedata
from collections.abc import Iterable

Span = tuple[int, int]

# fmt: off
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)
# fmt: on
_SAME = {word: str(number) for number, word in enumerate(_NUMBERS)} | {
    "center": "centre",
    "theater": "theatre",
    "harbor": "harbour",
}
_ARTICLES = {"the", "a", "an"}
# What the last word of a value may end in besides: moderate - moderately, coffee shop - coffee shops.
_ENDINGS = ("", "s", "ly")
# fmt: off
_NEGATIONS = {
    "not", "no", "non", "none", "never", "nor", "cannot", "without", "lacks", "lack", "lacking", "unsuitable",
}
# Words that may stand between a cue and its negation: children are not, family friendly no.
_BETWEEN = {
    "friendly", "is", "are", "was", "were", "be", "being", "do", "does", "should", "would", "could", "will",
    "may", "can", "s", "welcome", "allowed",
}
# fmt: on
_CUES = {
    "family": ("family", "families", "kid", "kids", "child", "children"),
    "camping": ("camping", "camp", "tent", "tents"),
    "garden": ("garden", "gardens"),
}
_AGAINST = {"family": ("adult", "adults", "unfriendly")}
_REACH = 8
YES = {"yes", "true"}
NO = {"no", "false"}


def words(text: str) -> list[str]:
    """Words without case, accents and punctuation; small numbers as digits, British spelling."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = re.sub(r"n['’]t\b", " not", plain)
    return [_SAME.get(word, word) for word in re.findall(r"[^\W_]+", plain)]


def clauses(text: str) -> list[list[str]]:
    """Words of each stretch between punctuation or words such as "but"."""
    parts = re.split(r"[.,;:!?()]|\bbut\b|\balthough\b|\bthough\b|\byet\b", text.casefold())
    return [found for part in parts if (found := words(part))]


def find(value: Iterable[str], text: list[str]) -> list[Span]:
    """Where the words of a value stand in a text; spaces inside do not count, nor does a first article."""
    own = list(value)
    if len(own) > 1 and own[0] in _ARTICLES:
        own = own[1:]
    wanted = {"".join(own) + ending for ending in _ENDINGS} if own else set()
    longest = max((len(word) for word in wanted), default=0)
    spans = []
    for start in range(len(text)):
        joined = ""
        for end in range(start, len(text)):
            joined += text[end]
            if joined in wanted:
                spans.append((start, end + 1))
            if len(joined) >= longest:
                break
    return spans


def polarity(key: str, text: str) -> set[str]:
    """What a text says about a key that is yes or no: a set of "yes" and "no", empty where it is silent.

    It speaks of the key where one of the key's words stands, or for the keys in `_CUES` one of those listed;
    it says no where a negation stands up to eight words before, or right after (children are not ..., child
    free), in the same clause.
    """
    parts = _key_words(key)
    cues = {cue for part in parts for cue in _CUES.get(part, ())} or set(parts)
    against = {word for part in parts for word in _AGAINST.get(part, ())}
    said: set[str] = set()
    for clause in clauses(text):
        places = [place for place, word in enumerate(clause) if word in cues]
        said.update("no" if _denied(clause, place) else "yes" for place in places)
        if not places and against & set(clause):
            said.add("no")
    return said


def _key_words(key: str) -> list[str]:
    return words(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key))


def _denied(clause: list[str], place: int) -> bool:
    if _NEGATIONS & set(clause[max(place - _REACH, 0) : place]):
        return True
    after = clause[place + 1 :]
    following = next((word for word in after if word not in _BETWEEN), "")
    return following in _NEGATIONS or after[:1] == ["free"]
