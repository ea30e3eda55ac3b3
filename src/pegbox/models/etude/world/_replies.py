"""Polite and rude replies to messages, with an exact gold reward for any text."""

import re
from dataclasses import dataclass

from pegbox.models.etude.world._grammar import Rand, flip, sigmoid, tidy, words

MARKERS = {
    "please": 0.6, "thank you": 1.0, "thanks": 0.7, "sorry": 0.8, "gladly": 0.9, "happy to": 0.9, "kind": 0.6,
    "of course": 0.6, "welcome": 0.6, "my pleasure": 1.0, "i appreciate": 0.9, "would you mind": 0.7, "i apologise": 1.0,
    "good question": 0.5, "patience": 0.5, "best wishes": 0.8,
    "whatever": -0.7, "stupid": -1.2, "shut up": -1.5, "not my problem": -1.1, "idiot": -1.4, "stop bothering": -1.1,
    "who cares": -1.0, "get lost": -1.4, "lazy": -0.9, "ridiculous": -0.9, "nobody asked": -1.0, "waste of time": -1.0,
    "hurry up": -0.7, "sick of": -0.9, "use your eyes": -0.9, "so what": -0.7,
}  # fmt: skip
"""Weight of each polite or rude expression in the gold reward."""

REWARD_LIMIT = 3.0
SHARPNESS = 2.0
"""Log-odds of the label ``polite`` per unit of reward."""

_FOUND = re.compile(r"\b(" + "|".join(sorted(map(re.escape, MARKERS), key=lambda m: (-len(m), m))) + r")\b")

_POLITE = words(
    "thank you for your message; thanks for letting us know; I am so sorry about that; I would gladly "
    "help; I am happy to "
    "help; that is very kind of you; of course, that can be done; you are always welcome here; it is my "
    "pleasure; "
    "I appreciate that you ask; I apologise for the trouble; that is a good question; thank you for your "
    "patience; "
    "please give me a moment; please let me look; would you mind waiting a minute; best wishes to your family"
)
_RUDE = words(
    "whatever; what a stupid thing to ask; just shut up; that is not my problem; only an idiot would "
    "ask; stop bothering me; "
    "who cares about that; get lost; you are simply too lazy to look; that is ridiculous; nobody asked "
    "you; you are a waste "
    "of time; hurry up and go; I am sick of your questions; use your eyes; so what"
)
_DOMAINS: dict[str, tuple[str, str]] = {
    "shop": (
        "I would like to [return|exchange] this {thing}; is the {thing} still in stock?; my {thing} "
        "arrived broken; do you sell "
        "a {thing} [for children|in blue|with a lid]?; how long is the guarantee on the {thing}?; I was "
        "charged twice for a {thing}",
        "the {thing} is on the second shelf; we can replace the {thing} on Friday; the {thing} costs {n} "
        "pounds; the guarantee "
        "runs for {n} years; the till is over there; we have sold the last {thing}",
    ),
    "office": (
        "can you send me the {paper} by Friday?; who changed the {paper}?; the printer ate my {paper}; "
        "are you free for a meeting "
        "at {n}?; I cannot open the {paper}; have you read the {paper}?",
        "the {paper} is in the shared folder; I will send the {paper} at {n}; the meeting was moved to "
        "{n}; I changed page {n} "
        "of the {paper}; ask the office on floor {n}; the {paper} is not ready",
    ),
    "neighbours": (
        "your {pet} was in our garden again; could you turn the music down?; may I borrow your {tool}?; "
        "your car is in front of our "
        "gate; the {pet} barked all night; did you find my {tool}?",
        "the {pet} will stay inside; the {tool} is in the shed; we will move the car by {n}; the party "
        "ends at {n}; the {tool} "
        "is broken; we built the fence in {n} days",
    ),
    "library": (
        "where do I find books about {topic}?; may I keep this book for {n} more days?; I lost a book "
        "about {topic}; is there a "
        "quiet room?; how many books may I borrow?; when do you close?",
        "books about {topic} are on floor {n}; you can keep it for {n} more days; the fine is {n} "
        "pounds; the quiet room is next "
        "to the stairs; we close at {n}; you may borrow {n} books",
    ),
    "airport": (
        "where is gate {n}?; my suitcase is missing; did I miss the flight to the islands?; may I take "
        "this {bag} on board?; why is "
        "the flight late?; where can I leave this {bag}?",
        "gate {n} is past the fountain; the flight leaves at {n}; the {bag} must go on the belt; the "
        "desk opens at {n}; the pilot is "
        "waiting for fog to lift; your {bag} is in hall {n}",
    ),
}  # fmt: skip
_SLOTS = {
    "thing": words("lamp; radio; teapot; jacket; umbrella; clock; blender"),
    "paper": words("report; contract; invoice; plan; letter; chart"),
    "pet": words("dog; cat; rabbit; goose"),
    "tool": words("ladder; drill; spade; saw; wheelbarrow"),
    "topic": words("birds; ships; chess; Rome; cooking; stars"),
    "bag": words("rucksack; pushchair; cello; hat box"),
    "n": words("two; three; four; five; six; seven; eight; nine"),
}


@dataclass(frozen=True)
class Reply:
    """A message and a reply; ``reward`` is ``politeness(reply)``, the exact gold reward."""

    message: str
    reply: str
    label: str
    probabilities: dict[str, float]
    reward: float
    domain: str
    genre: str = "replies"


def politeness(text: str) -> float:
    """Return the gold reward of any text: the weights of its polite and rude expressions, each counted once.

    The sum is clipped to ``[-REWARD_LIMIT, REWARD_LIMIT]``; text without such expressions gets 0.
    """
    found = sorted(set(_FOUND.findall(text.lower())))
    return round(max(-REWARD_LIMIT, min(REWARD_LIMIT, sum((MARKERS[marker] for marker in found), 0.0))), 6)


def replies(domain: str, rows: int, seed: int, noise: float = 0.0) -> list[Reply]:
    """Return messages with replies; ``noise`` flips the label ``polite`` or ``rude``."""
    return [reply(Rand(f"replies/{domain}/{seed}/{row}"), domain, noise) for row in range(rows)]


def reply(rand: Rand, domain: str, noise: float = 0.0) -> Reply:
    """Return one message with its reply."""
    asks, facts = (words(text) for text in _DOMAINS[domain])
    message = rand.fill(rand.pick(asks), _SLOTS)
    manner = _POLITE if rand.chance(0.5) else _RUDE
    parts = rand.sample(manner, rand.weighted({0: 1.0, 1: 4.0, 2: 3.0}))
    if rand.chance(0.12):
        parts.append(rand.pick(_RUDE if manner is _POLITE else _POLITE))
    if not parts or rand.chance(0.8):
        parts.insert(rand.integer(0, len(parts)), rand.fill(rand.pick(facts), _SLOTS))
    text = " ".join(tidy(part) + "." for part in parts)
    reward = politeness(text)
    polite = sigmoid(SHARPNESS * reward)
    probabilities = flip({"rude": round(1.0 - polite, 9), "polite": polite}, noise)
    label = "polite" if rand.chance(probabilities["polite"]) else "rude"
    ended = tidy(message) if message.endswith("?") else tidy(message) + "."
    return Reply(ended, text, label, probabilities, reward, domain)
