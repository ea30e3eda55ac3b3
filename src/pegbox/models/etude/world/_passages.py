"""Short passages of facts, with an open and a yes/no question each."""

from dataclasses import dataclass

from pegbox.models.etude.world._grammar import Rand, flip, tidy, words
from pegbox.models.etude.world._lexicon import COLOUR, JOB, NUMBER, person, place, town

CERTAINTY = {"": 0.98, "probably ": 0.85, "perhaps ": 0.65}
"""Probability that a statement made with this hedge is true."""


@dataclass(frozen=True)
class _Fact:
    """What is said (``{x}``: the entity, ``{v}``: the value), asked openly, and asked to be confirmed."""

    statements: tuple[str, ...]
    question: str
    closed: str
    values: tuple[str, ...]


def _fact(statements: str, question: str, closed: str, values: str | tuple[str, ...]) -> _Fact:
    return _Fact(words(statements), question, closed, words(values) if isinstance(values, str) else values)


_YEARS = tuple(str(year) for year in range(1820, 2020, 3))
_FACTS: dict[str, tuple[_Fact, ...]] = {
    "people": (
        _fact(
            "{x} {h}works as a {v}; {x} {h}earns a living as a {v}", "What does {x} do", "Is {x} a {v}", JOB
        ),
        _fact(
            "{x} was {h}born in {v}; {x} {h}comes from {v}",
            "Where was {x} born",
            "Was {x} born in {v}",
            "<place>",
        ),
        _fact(
            "{x} {h}came into the world in {v}; the birth year of {x} is {h}{v}",
            "When was {x} born",
            "Was {x} born in {v}",
            _YEARS,
        ),
        _fact(
            "{x} {h}owns a {v}; {x} {h}walks every day with a {v}",
            "What does {x} own",
            "Does {x} own a {v}",
            "dog; parrot; bicycle; violin; telescope; canoe; piano; motorbike",
        ),
        _fact(
            "{x} {h}likes to eat {v}; the favourite dish of {x} is {h}{v}",
            "What does {x} like to eat",
            "Does {x} like {v}",
            "soup; fish; rice; apples; pancakes; cheese; mushrooms; noodles",
        ),
        _fact(
            "{x} {h}has {v} brothers; {x} {h}grew up with {v} brothers",
            "How many brothers does {x} have",
            "Does {x} have {v} brothers",
            NUMBER,
        ),
    ),
    "towns": (
        _fact(
            "{x} {h}lies on a {v}; visitors reach {x} {h}by way of a {v}",
            "What does {x} lie on",
            "Is {x} on a {v}",
            "river; hill; lake; canal; plain; cliff; bay",
        ),
        _fact(
            "{x} was {h}founded in {v}; the first houses of {x} were {h}built in {v}",
            "When was {x} founded",
            "Was {x} founded in {v}",
            _YEARS,
        ),
        _fact(
            "{x} is {h}known for its {v}; people {h}visit {x} for its {v}",
            "What is {x} known for",
            "Is {x} known for its {v}",
            "glass; lace; bells; cheese; pottery; clocks; theatre; honey",
        ),
        _fact(
            "the mayor of {x} is {h}{v}; {x} is {h}led by {v}",
            "Who is the mayor of {x}",
            "Is {v} the mayor of {x}",
            "<person>",
        ),
        _fact(
            "{x} {h}has {v} bridges; there are {h}{v} bridges in {x}",
            "How many bridges does {x} have",
            "Does {x} have {v} bridges",
            NUMBER,
        ),
    ),
    "animals": (
        _fact(
            "the {x} {h}eats {v}; a diet of {v} {h}keeps the {x} healthy",
            "What does the {x} eat",
            "Does the {x} eat {v}",
            "grass; insects; berries; fish; seeds; snails; leaves",
        ),
        _fact(
            "the {x} {h}lives in {v}; one {h}meets the {x} in {v}",
            "Where does the {x} live",
            "Does the {x} live in {v}",
            "caves; forests; marshes; deserts; hollow trees; rivers; gardens",
        ),
        _fact(
            "the fur of the {x} is {h}{v}; the {x} {h}wears a {v} coat",
            "What colour is the {x}",
            "Is the {x} {v}",
            COLOUR,
        ),
        _fact(
            "the {x} {h}sleeps for {v} hours; a nap of {v} hours is {h}enough for the {x}",
            "How many hours does the {x} sleep",
            "Does the {x} sleep for {v} hours",
            NUMBER,
        ),
        _fact(
            "the {x} {h}fears the {v}; the {v} {h}hunts the {x}",
            "What does the {x} fear",
            "Does the {x} fear the {v}",
            "wolf; hawk; snake; lynx; bear; weasel",
        ),
    ),
    "machines": (
        _fact(
            "the {x} was {h}invented by {v}; {v} {h}drew the plans for the {x}",
            "Who invented the {x}",
            "Did {v} invent the {x}",
            "<person>",
        ),
        _fact(
            "the {x} is {h}made of {v}; the body of the {x} is {h}{v}",
            "What is the {x} made of",
            "Is the {x} made of {v}",
            "steel; brass; oak; copper; glass; aluminium",
        ),
        _fact(
            "the {x} {h}needs {v} workers; it takes {h}{v} workers to run the {x}",
            "How many workers does the {x} need",
            "Does the {x} need {v} workers",
            NUMBER,
        ),
        _fact(
            "the {x} {h}runs on {v}; {v} {h}drives the {x}",
            "What does the {x} run on",
            "Does the {x} run on {v}",
            "steam; diesel; wind; water; gas; sunlight",
        ),
    ),
}
_ASIDES = words(
    "{p} wrote all this down; little else is sure; so says {p}, at any rate; an old book gives other "
    "details; "
    "there is more to tell; {p} disagreed on some points; the rest was lost in a fire; "
    "{p} once gave a talk on the matter; this is from a letter of {p}; nobody has written more about it "
    "than {p}"
)
_ANIMALS = words(
    "mottled shrew; river cat; horned vole; dwarf otter; snow hare; striped badger; marsh fox; "
    "tree rat; field hamster; bush pig; sand goat; barn bat"
)
_MACHINES = words("threshing engine; rotary press; beam pump; cable winch; spinning frame; drop hammer")


@dataclass(frozen=True)
class Passage:
    """A passage, an open question with its answer, and a yes/no question.

    Attributes:
        answer: Gold answer to ``question``, a span of ``text``.
        label: ``yes`` or ``no``, the answer drawn for ``closed``.
        probabilities: Exact probabilities of ``yes`` and ``no``, given the hedge, noise included.
    """

    text: str
    question: str
    answer: str
    closed: str
    label: str
    probabilities: dict[str, float]
    domain: str
    genre: str = "passages"


def passages(domain: str, rows: int, seed: int, noise: float = 0.0) -> list[Passage]:
    """Return passages; ``noise`` flips the answer to the yes/no question."""
    return [passage(Rand(f"passages/{domain}/{seed}/{row}"), domain, noise) for row in range(rows)]


def passage(rand: Rand, domain: str, noise: float = 0.0) -> Passage:
    """Return one passage."""
    entity = _entity(rand, domain)
    facts = rand.sample(_FACTS[domain], rand.integer(2, 4))
    values = [_value(rand, fact) for fact in facts]
    hedges = [rand.weighted({"": 6.0, "probably ": 1.0, "perhaps ": 1.0}) for _ in facts]
    sentences = []
    for at, (fact, value, hedge) in enumerate(zip(facts, values, hedges, strict=True)):
        named = entity if at == 0 or domain != "people" or rand.chance(0.6) else entity.split()[0]
        sentences.append(rand.fill(rand.pick(fact.statements), {"x": named, "v": value, "h": hedge}))
    if rand.chance(0.4):
        sentences.insert(rand.integer(1, len(sentences)), rand.fill(rand.pick(_ASIDES), {"p": person(rand)}))
    asked = rand.integer(0, len(facts) - 1)
    fact, value = facts[asked], values[asked]
    truthful = rand.chance(0.5)
    claimed = value if truthful else _other(rand, fact, value)
    true = CERTAINTY[hedges[asked]]
    yes = true if truthful else round((1.0 - true) / 4, 9)
    probabilities = flip({"yes": yes, "no": round(1.0 - yes, 9)}, noise)
    return Passage(
        text=" ".join(tidy(sentence) + "." for sentence in sentences),
        question=tidy(rand.fill(fact.question, {"x": entity})) + "?",
        answer=value,
        closed=tidy(rand.fill(fact.closed, {"x": entity, "v": claimed})) + "?",
        label="yes" if rand.chance(probabilities["yes"]) else "no",
        probabilities=probabilities,
        domain=domain,
    )


def _entity(rand: Rand, domain: str) -> str:
    if domain == "people":
        return person(rand)
    if domain == "towns":
        return town(rand)
    return rand.pick(_ANIMALS if domain == "animals" else _MACHINES)


def _value(rand: Rand, fact: _Fact) -> str:
    value = rand.pick(fact.values)
    return {"<place>": place, "<person>": person}[value](rand) if value.startswith("<") else value


def _other(rand: Rand, fact: _Fact, value: str) -> str:
    while True:
        if (other := _value(rand, fact)) != value:
            return other
