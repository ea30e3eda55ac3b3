"""Instructions with right answers."""

from collections.abc import Callable
from dataclasses import dataclass

from pegbox.models.etude.world._grammar import Rand, tidy, words
from pegbox.models.etude.world._lexicon import COLOUR, DAY, FIRST, MONTH, NUMBER, person

_OPPOSITES = words(
    "hot=cold; big=small; early=late; full=empty; rich=poor; wet=dry; fast=slow; young=old; open=closed; "
    "loud=quiet; "
    "light=heavy; clean=dirty; near=far; cheap=expensive; brave=timid; "
    "warm=cool; narrow=wide; deep=shallow; sharp=blunt; simple=difficult; long=short; north=south; "
    "left=right; "
    "thick=thin; friend=enemy; begin=end; laugh=cry; push=pull; "
    " first=last; sweet=sour; strong=weak; up=down; day=night"
)
_PLURALS = words(
    "cat=cats; box=boxes; child=children; mouse=mice; city=cities; leaf=leaves; tooth=teeth; bus=buses; "
    "foot=feet"
)
_PAST = words(
    "go=went; sing=sang; write=wrote; eat=ate; swim=swam; buy=bought; walk=walked; see=saw; take=took; "
    "find=found"
)
_CATEGORIES = {
    "animal": words("horse; owl; otter; frog; camel; goose; bee; wolf; snail; parrot; lion; spider; trout"),
    "fruit": words("apple; pear; plum; cherry; lemon; grape; mango; peach; fig; melon"),
    "tool": words("hammer; saw; spade; drill; chisel; wrench"),
    "instrument": words("violin; flute; drum; trumpet; harp; cello"),
    "vehicle": words("bus; tram; lorry; bicycle; ferry; tractor; canoe; sledge; taxi"),
}
_TIPS = {
    "sleeping well": words(
        "go to bed at the same hour; keep the room dark; drink no coffee after lunch; put the phone in "
        "another room"
    ),
    "learning a language": words(
        "practise a little every day; read simple stories; talk to people; write down new words; listen "
        "to the radio"
    ),
    "saving money": words(
        "cook at home; write down what you spend; repair things; buy less and buy well; share a car"
    ),
    "writing a letter": words(
        "say first why you write; keep it short; read it aloud; end with a kind word; check the names"
    ),
    "growing tomatoes": words(
        "give them sun; water the roots, not the leaves; tie them to a stick; pick them often"
    ),
    "painting a room": words(
        "cover the floor; start at the window; use two thin coats; open the door; wait a day between coats"
    ),
    "keeping a dog": words(
        "walk it twice a day; feed it at the same time; praise it often; brush its coat; see a vet"
    ),
    "running a shop": words(
        "greet everyone by name; keep the window clean; count the till each evening; open on time"
    ),
    "giving a talk": words(
        "know your first sentence by heart; speak slowly; look at the people; finish on time; smile"
    ),
}
_SEASONS = words(
    "winter; winter; spring; spring; spring; summer; summer; summer; autumn; autumn; autumn; winter"
)


@dataclass(frozen=True)
class Instruction:
    """An instruction; ``label`` says whether ``response`` is right or was swapped for another's."""

    instruction: str
    response: str
    label: str
    probabilities: dict[str, float]
    domain: str
    genre: str = "instructions"


def instructions(domain: str, rows: int, seed: int, noise: float = 0.0) -> list[Instruction]:
    """Return instructions; ``noise`` is the probability of a response that belongs to another instruction."""
    return [instruction(Rand(f"instructions/{domain}/{seed}/{row}"), domain, noise) for row in range(rows)]


def instruction(rand: Rand, domain: str, noise: float = 0.0) -> Instruction:
    """Return one instruction with its response."""
    asked, response = _FAMILIES[domain](rand)
    swapped = rand.chance(noise)
    while swapped:
        other = _FAMILIES[domain](rand)[1]
        if other != response:
            response = other
            break
    truth = {"right": round(1.0 - noise, 9), "wrong": round(noise, 9)}
    return Instruction(tidy(asked), response, "wrong" if swapped else "right", truth, domain)


def _words(rand: Rand) -> tuple[str, str]:
    kind = rand.integer(0, 4)
    if kind == 0:
        word, other = rand.pick(_OPPOSITES).split("=")
        forms = (
            "[what is the opposite of {w}?|give the opposite of {w}.|name a word that is the reverse of {w}.]"
        )
        return rand.fill(forms, {"w": word}), other.capitalize() + "."
    if kind == 1:
        word, other = rand.pick(_PLURALS).split("=")
        return rand.fill(
            f"[write the plural of {word}.|what do we call more than one {word}?]"
        ), other.capitalize() + "."
    if kind == 2:
        word, other = rand.pick(_PAST).split("=")
        return rand.fill(
            f"[what is the past tense of {word}?|put {word} into the past.]"
        ), other.capitalize() + "."
    group = rand.pick(tuple(_CATEGORIES))
    member = rand.pick(_CATEGORIES[group])
    if kind == 3:
        return f"is a {member} a kind of {group}?", tidy(f"yes, a {member} is a {group}.")
    wrong = rand.pick([name for name in _CATEGORIES if name != group])
    return f"is a {member} a kind of {wrong}?", tidy(f"no, a {member} is a {group}.")


def _numbers(rand: Rand) -> tuple[str, str]:
    kind = rand.integer(0, 3)
    first, second = rand.integer(0, len(NUMBER) - 1), rand.integer(0, len(NUMBER) - 1)
    one, two = NUMBER[first], NUMBER[second]
    if kind == 0 and first != second:
        return rand.fill(f"[which is larger, {one} or {two}?|name the bigger number: {one} or {two}.]"), (
            NUMBER[max(first, second)].capitalize() + "."
        )
    if kind == 1 and first + 1 < len(NUMBER):
        return f"which number comes after {one}?", NUMBER[first + 1].capitalize() + "."
    if kind == 2:
        a, b = rand.integer(1, 20), rand.integer(1, 9)
        return rand.fill(f"[what is {a} plus {b}?|add {a} and {b}.|how much is {a} + {b}?]"), f"{a + b}."
    return f"write {one} in figures.", f"{first + 2}."


def _lists(rand: Rand) -> tuple[str, str]:
    items = rand.sample(COLOUR + _CATEGORIES["animal"] + _CATEGORIES["fruit"], rand.integer(2, 4))
    listed = ", ".join(items)
    kind = rand.integer(0, 3)
    if kind == 0:
        return rand.fill(f"[repeat this list: {listed}.|copy these words: {listed}.]"), tidy(f"{listed}.")
    if kind == 1:
        return rand.fill(f"[what is the first word of: {listed}?|name the first of these: {listed}.]"), tidy(
            f"{items[0]}."
        )
    if kind == 2:
        return rand.fill(f"[what is the last word of: {listed}?|name the last of these: {listed}.]"), tidy(
            f"{items[-1]}."
        )
    return f"how many words are in this list: {listed}?", tidy(f"{NUMBER[len(items) - 2]}.")


def _advice(rand: Rand) -> tuple[str, str]:
    topic = rand.pick(tuple(_TIPS))
    count = rand.integer(2, 3)
    tips = rand.sample(_TIPS[topic], count)
    forms = (
        "[give me {n} tips for {topic}.|how do I get better at {topic}?|"
        "what helps with {topic}? [{who} would like to know.|]|I need help with {topic}.]"
    )
    asked = rand.fill(forms, {"n": NUMBER[count - 2], "topic": topic, "who": person(rand)})
    opening = rand.pick(("first, ", "you could ", "it helps to ", "try to "))
    joint = rand.pick((". Then, ", ". Also, ", ". After that, ", " and "))
    return asked, tidy(opening + joint.join(tips)) + "."


_DOES = words(
    "sat [on|under|beside] {a} {colour} {thing}; looked for {a} {colour} {thing} all {day}; carried {a} "
    "{thing} to {name}; "
    "dreamed of {a} {colour} {thing}; waited for {name} near {a} {thing}; found {a} {thing} in the grass; "
    "swapped {a} {colour} {thing} for a song; met {name} on {day}; told {name} about {a} {colour} {thing}"
)
_THEN = words(
    "and everybody laughed; but nobody noticed; because it was {day}; until the sun went down; and then "
    "it rained; "
    "so {name} took a picture; while {name} played the violin; before the others came; as it did every "
    "{month}"
)
_LOOK = words("small; clever; tired; hungry; brave; quiet; young; lonely; curious; stubborn")

_FATES = (
    "never seen again|very happy|{colour} all over|late|still there on {day}|a gift from {name}|in the news"
)


def _sentences(rand: Rand) -> tuple[str, str]:
    group = rand.pick(("tool", "fruit", "instrument", "vehicle"))
    hero, thing = rand.pick(_CATEGORIES["animal"]), rand.pick(_CATEGORIES[group])
    slots = {"colour": COLOUR, "thing": thing, "day": DAY, "month": MONTH, "name": FIRST, "a": ("a", "the")}
    slots |= {"hero": hero, "look": _LOOK, "does": _DOES, "then": _THEN}
    asked = rand.fill(
        "[write|make up|give me|tell me] a [sentence|short story|line] about a {hero} and a {thing}.", slots
    )
    text = rand.fill(
        "[the|a|one {day}, a|last {month}, the] [{look}|] {hero} {does}[ {then}|, {then}|]", slots
    )
    if rand.chance(0.5):
        text += rand.fill(f". [it|the {hero}|the {thing}] was [{_FATES}]", slots)
    return asked, tidy(text) + "."


def _calendar(rand: Rand) -> tuple[str, str]:
    day, month = rand.integer(0, 6), rand.integer(0, 11)
    kind = rand.integer(0, 3)
    if kind == 0:
        return f"which day comes after {DAY[day]}?", DAY[(day + 1) % 7] + "."
    if kind == 1:
        return f"which day comes before {DAY[day]}?", DAY[(day - 1) % 7] + "."
    if kind == 2:
        return f"which month follows {MONTH[month]}?", MONTH[(month + 1) % 12] + "."
    return f"in which season is {MONTH[month]} in Europe?", tidy(f"{_SEASONS[month]}.")


_FAMILIES: dict[str, Callable[[Rand], tuple[str, str]]] = {
    "words": _words,
    "numbers": _numbers,
    "lists": _lists,
    "advice": _advice,
    "sentences": _sentences,
    "calendar": _calendar,
}
