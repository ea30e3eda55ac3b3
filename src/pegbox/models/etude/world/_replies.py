"""Polite and rude replies to messages, with an exact gold reward for any text."""

import re
from dataclasses import dataclass

from pegbox.models.etude.world._grammar import Rand, added, flip, sigmoid, tidy, words
from pegbox.models.etude.world._lexicon import DAY, FIRST

MARKERS = {
    "please": 0.6,
    "thank you": 1.0,
    "thanks": 0.7,
    "sorry": 0.8,
    "gladly": 0.9,
    "happy to": 0.9,
    "kind": 0.6,
    "of course": 0.6,
    "welcome": 0.6,
    "my pleasure": 1.0,
    "i appreciate": 0.9,
    "would you mind": 0.7,
    "i apologise": 1.0,
    "good question": 0.5,
    "patience": 0.5,
    "best wishes": 0.8,
    "whatever": -0.7,
    "stupid": -1.2,
    "shut up": -1.5,
    "not my problem": -1.1,
    "idiot": -1.4,
    "stop bothering": -1.1,
    "who cares": -1.0,
    "get lost": -1.4,
    "lazy": -0.9,
    "ridiculous": -0.9,
    "nobody asked": -1.0,
    "waste of time": -1.0,
    "hurry up": -0.7,
    "sick of": -0.9,
    "use your eyes": -0.9,
    "so what": -0.7,
}
"""Weight of each polite or rude expression in the gold reward."""

REWARD_LIMIT = 3.0
SHARPNESS = 2.0
"""Log-odds of the label ``polite`` per unit of reward."""

_FOUND = re.compile(r"\b(" + "|".join(sorted(map(re.escape, MARKERS), key=lambda m: (-len(m), m))) + r")\b")

_POLITE = words(
    "thank you [so much|very much|] for [your message|writing|asking|telling us|your note of {day}]; "
    "[many thanks|thanks|thanks a lot] for [letting us know|the reminder|being so clear|coming to us "
    "with this]; "
    "I am [so|very|truly|] sorry [about that|to hear that|for the delay|that this happened on {day}]; "
    "I would gladly [help|look into it|see to it on {day}|ask {name} for you]; "
    "I am happy to [help|check|explain it again|call you on {day}|do that]; "
    "that is [very|so|really|] kind of you; of course, [that can be done|I will look|you may|{name} will "
    "see to it]; "
    "you are [always|most|very|] welcome [here|to ask again|to come by on {day}|]; "
    "it is my pleasure[ to be of use| to help a neighbour|]; I appreciate [that you ask|your trust|the "
    "clear question]; "
    "I apologise for [the trouble|the wait|the mistake|what happened on {day}]; "
    "that is a [very|really|] good question; thank you for your patience[ since {day}|]; "
    "please [give me a moment|let me look|take a seat|call {name} if it happens again|write to me on {day}]; "
    "would you mind [waiting a minute|coming back on {day}|showing me|telling {name} as well]; "
    "best wishes to [your family|{name}|all of you]; have a lovely {day}, and thanks again"
)
_RUDE = words(
    "whatever[ you say|, {name} can deal with it|]; what a stupid [thing to ask|question|idea|way to "
    "start a {day}]; "
    "[just|oh,|] shut up[ for once| already|]; that is [so|really|] not my problem; "
    "only an idiot would [ask|write that|wait until {day}|miss it|need {name} for that]; "
    "stop bothering [me|us|{name}|people with this]; who cares [about that|what you want|if it is {day}]; "
    "get lost[ now|, and take {name} with you|]; you are [simply|just|far|] too lazy to [look|read|walk "
    "there|think]; "
    "that is [just|utterly|] ridiculous; nobody asked [you|for this|what you think]; "
    "you are a [complete|total|] waste of time; hurry up [and go|, it is nearly {day}|, I have better "
    "things to do]; "
    "I am [so|] sick of [your questions|this|people like you|hearing from {name}]; use your eyes[ for a "
    "change|]; "
    "so what[ if it is {day}|, it happens|]; do it yourself, you lazy thing"
)
_GREETINGS = (
    "{name}, ",
    "well, ",
    "look, ",
    "dear {name}, ",
    "hello {name}, ",
    "listen, ",
    "ah, ",
    "yes, ",
    "hm, ",
)
_TAILS = (
    ", as {name} knows",
    ", to be clear",
    ", and {name} agrees",
    " this {day}",
    ", as I wrote on {day}",
    ", you see",
)
_NEUTRAL = words(
    "I will tell {name}; {name} knows more about it; it has been like that since {day}; come back on {day}; "
    "we are open until {n} on {day}; I have written it down; there is a list on the wall; it takes about "
    "{n} hours; "
    "it depends on {name}; the form is at the counter; we heard about it on {day}; {name} is away until {day}"
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
    "day": DAY,
    "name": FIRST,
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
    return round(max(-REWARD_LIMIT, min(REWARD_LIMIT, added(MARKERS[marker] for marker in found))), 6)


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
    if not parts or rand.chance(0.75):
        parts.insert(rand.integer(0, len(parts)), rand.pick(facts))
    if rand.chance(0.3):
        parts.insert(rand.integer(0, len(parts)), rand.pick(_NEUTRAL))
    if rand.chance(0.3):
        parts[0] = rand.fill(rand.pick(_GREETINGS), _SLOTS) + parts[0]
    told = [part + (rand.pick(_TAILS) if rand.chance(0.25) else "") for part in parts]
    text = " ".join(tidy(rand.fill(part, _SLOTS)) + "." for part in told)
    reward = politeness(text)
    polite = sigmoid(SHARPNESS * reward)
    probabilities = flip({"rude": round(1.0 - polite, 9), "polite": polite}, noise)
    label = "polite" if rand.chance(probabilities["polite"]) else "rude"
    ended = tidy(message) if message.endswith("?") else tidy(message) + "."
    return Reply(ended, text, label, probabilities, reward, domain)
