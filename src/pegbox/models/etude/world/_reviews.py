"""Reviews: opinions on aspects, their exact strengths, and a label drawn from the exact probability."""

from dataclasses import dataclass

from pegbox.models.etude.world._domains import Aspect, Domain, domains
from pegbox.models.etude.world._grammar import Rand, added, flip, sigmoid, tidy, words
from pegbox.models.etude.world._lexicon import DAY, FIRST, MONTH

LABELS = ("negative", "positive")

SHARPNESS = 2.0
"""Log-odds of a positive label per unit of score."""

AGREEMENT = 0.84
"""Probability that one opinion agrees with the reviewer's overall mood."""

GENERAL_SHARE = {"hotels": 0.3, "bicycles": 0.3}
"""Share of opinions said in words that all domains use, where it differs from 0.45."""

_GENERAL = {
    (1, 1.0): words(
        "good; nice; pleasant; decent; fine; likeable; enjoyable; pretty good; "
        "satisfying; worthwhile; agreeable; appealing; commendable"
    ),
    (1, 1.5): words(
        "great; excellent; wonderful; superb; fantastic; brilliant; lovely; outstanding; perfect; "
        "amazing; awesome; marvellous; delightful; impressive; first-rate; flawless; splendid; terrific"
    ),
    (-1, 1.0): words(
        "bad; poor; disappointing; mediocre; unpleasant; sub-par; unsatisfying; annoying; "
        "dull; boring; lousy; inferior; second-rate; frustrating; lacking"
    ),
    (-1, 1.5): words(
        "terrible; awful; dreadful; horrible; appalling; atrocious; hopeless; dire; miserable; "
        "dismal; abysmal; ghastly; worthless; pathetic; disastrous; shameful; unacceptable"
    ),
}
_ATTITUDES = {
    1: words(
        "I [loved|adored|really liked|liked|enjoyed] the {noun}; I was "
        "[delighted|pleased|happy|thrilled] with "
        "the {noun}; the {noun} [impressed me|won me over|exceeded my hopes]; I cannot praise the {noun} "
        "enough; "
        "the {noun} [alone made it worthwhile|deserved a prize|put a smile on my face]; hats off to "
        "whoever chose the {noun}; "
        "the {noun} did everything I had hoped for; I have recommended the {noun} to all my friends; "
        "full marks for the {noun}; I have nothing but praise for the {noun}"
    ),
    -1: words(
        "I [hated|disliked|could not stand|loathed] the {noun}; I was [disappointed|unhappy|fed "
        "up|annoyed] with "
        "the {noun}; the {noun} [let me down|put me off|fell short of my hopes]; "
        "the {noun} [alone spoiled it|deserved a warning|made me angry]; shame on whoever chose the {noun}; "
        "the {noun} did nothing that I had hoped for; I have warned all my friends about the {noun}; I "
        "have nothing good to say about "
        "the {noun}; no marks for the {noun}; I have only complaints about the {noun}"
    ),
}
_FRAMES = words(
    "the {noun} {be} {adj}; the {noun} {be} {adj}; the {noun} {be} {adj}; the {noun} {be} {adj} from the "
    "first day; I found the {noun} {adj}; "
    "the {noun} {seem} {adj}; everyone {agree} that the {noun} {be} {adj}; "
    "my [wife|husband|flatmate|daughter|father] called the {noun} {adj}; "
    "compared with others, the {noun} {be} {adj}; it is worth saying that the {noun} {be} {adj}; "
    "in daily life the {noun} {be} {adj}; I would describe the {noun} as {adj}; the {noun} struck me as "
    "{adj}; we {think} the {noun} {be} {adj}"
)
_PLAIN_FRAMES = words("{adj} is the word for the {noun}; {adj}, that is what the {noun} {be}")
_TERSE = words("{noun}: {adj}; {noun} {adj}; {adj} {noun}; a {adj} {noun}")
_INTENSE = words("very; really; extremely; absolutely; incredibly; truly; remarkably; thoroughly")
_FAINT = words("fairly; quite; rather; somewhat; a bit; more or less")
_NOT = words("not; not exactly; hardly; far from; by no means; anything but")
_UTTER = words("really; absolutely; truly; simply; utterly; just")
_STRONGER, _WEAKER, _NEGATED = 1.4, 0.6, -0.7
_HEDGES = words(
    "I suppose; maybe it was just me, but; if I am picky,; one could say that; I have a feeling that"
)
_ADJUNCTS = (
    ", at least on weekdays",
    ", for what we paid",
    ", as far as I can tell",
    ", and I have seen many",
    ", whatever others may write",
    ", to my surprise",
    ", as I had expected",
    ", and my friends say the same",
    ", from start to finish",
    ", even on the second try",
    ", I noticed",
    ", by any standard",
    ", as usual",
)
_ASIDES = words(
    "honestly,; in my view,; to be frank,; I must say that; for what it is worth,; this time; once again,"
)


@dataclass(frozen=True)
class Opinion:
    """One expressed opinion; ``strength`` is its signed contribution to the score."""

    aspect: str
    clause: str
    strength: float
    general: bool


@dataclass(frozen=True)
class Review:
    """A review with its exact truth.

    Attributes:
        text: The review, without a verdict.
        label: ``positive`` or ``negative``, drawn from ``probabilities``.
        probabilities: Exact probability of each label given the opinions, label noise included.
        domain: What is reviewed.
        opinions: What the text says, in order.
        score: Sum of the strengths; the noise-free log-odds are ``SHARPNESS * score``.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    domain: str
    opinions: tuple[Opinion, ...]
    score: float
    genre: str = "reviews"


def reviews(domain: str, rows: int, seed: int, noise: float = 0.0) -> list[Review]:
    """Return reviews of one domain.

    Args:
        domain: One of ``DOMAINS["reviews"]``.
        rows: How many.
        seed: Same seed, same rows, on every platform.
        noise: Probability that the drawn label is flipped; folded into the stated probabilities.
    """
    spec = domains()[domain]
    return [review(Rand(f"reviews/{domain}/{seed}/{row}"), spec, noise) for row in range(rows)]


def review(rand: Rand, domain: Domain, noise: float = 0.0) -> Review:
    """Return one review."""
    mood = rand.pick((1, -1))
    share = GENERAL_SHARE.get(domain.name, 0.45)
    aspects = rand.sample(domain.aspects, rand.weighted({1: 1.0, 2: 3.0, 3: 4.0, 4: 2.0}))
    terse, casual = rand.chance(0.1), rand.chance(0.4)
    opinions = [_opinion(rand, domain, aspect, mood, share, terse) for aspect in aspects]
    if rand.chance(0.35 * share):
        opinions.append(_overall(rand, domain, mood))
    sentences, weighed = _sentences(rand, opinions, 0.0 if terse else 0.55)
    text = _compose(rand, domain, sentences, casual)
    score = round(added(opinion.strength for opinion in weighed), 6)
    positive = sigmoid(SHARPNESS * score)
    probabilities = flip({"negative": round(1.0 - positive, 9), "positive": positive}, noise)
    label = "positive" if rand.chance(probabilities["positive"]) else "negative"
    return Review(text, label, probabilities, domain.name, tuple(weighed), score)


def _opinion(rand: Rand, domain: Domain, aspect: Aspect, mood: int, share: float, terse: bool) -> Opinion:
    sign = mood if rand.chance(AGREEMENT) else -mood
    noun = rand.pick(aspect.nouns)
    general = rand.chance(share)
    if not general and rand.chance(0.4):
        return Opinion(noun, f"the {noun} {rand.fill(rand.pick(aspect.predicates[sign]))}", 1.2 * sign, False)
    if general and rand.chance(0.25):
        return Opinion(noun, rand.fill(rand.pick(_ATTITUDES[sign]), {"noun": noun}), 1.4 * sign, True)
    adjective, strength = _adjective(rand, aspect, sign, general)
    frames = _FRAMES if " " in adjective else _FRAMES + _PLAIN_FRAMES
    if terse:
        frames = _TERSE[: 2 if " " in adjective else 3 if aspect.plural else 4]
    slots = {"noun": noun, "adj": adjective}
    slots |= _verbs(domain.past, aspect.plural)
    return Opinion(noun, rand.fill(rand.pick(frames), slots), round(strength, 6), general)


def _adjective(rand: Rand, aspect: Aspect, sign: int, general: bool) -> tuple[str, float]:
    degree = rand.weighted({"plain": 5.0, "more": 2.0, "less": 1.0, "not": 2.0})
    said = -sign if degree == "not" else sign
    size = rand.pick((1.0, 1.5)) if general else 1.0
    adjective = rand.common(_GENERAL[said, size] if general else aspect.adjectives[said])
    if degree == "plain":
        return adjective, size * said
    adverbs, factor = {"more": (_INTENSE, _STRONGER), "less": (_FAINT, _WEAKER), "not": (_NOT, _NEGATED)}[
        degree
    ]
    if degree == "more" and size > 1.0:
        adverbs = _UTTER
    return f"{rand.pick(adverbs)} {adjective}", size * said * factor


def _verbs(past: bool, plural: bool) -> dict[str, str]:
    if past:
        return {"be": "were" if plural else "was", "seem": "seemed", "agree": "agreed", "think": "thought"}
    seem = "seem" if plural else "seems"
    return {"be": "are" if plural else "is", "seem": seem, "agree": "agrees", "think": "think"}


_OVERALL = words(
    "on the whole, this {be} a {adj} {item}; all things considered, a {adj} {item}; what a {adj} {item}; "
    "this {be} a {adj} {item}; in short, a {adj} {item}; I call that a {adj} {item}"
)


def _overall(rand: Rand, domain: Domain, mood: int) -> Opinion:
    sign = mood if rand.chance(AGREEMENT) else -mood
    size = rand.pick((1.0, 1.5))
    slots = {"item": domain.items, "adj": rand.common(_GENERAL[sign, size]), **_verbs(domain.past, False)}
    return Opinion("overall", rand.fill(rand.pick(_OVERALL), slots), size * sign, True)


def _sentences(rand: Rand, opinions: list[Opinion], joining: float) -> tuple[list[str], list[Opinion]]:
    sentences: list[str] = []
    weighed: list[Opinion] = []
    left = list(opinions)
    while left:
        if len(left) > 1 and left[1].aspect != "overall" and rand.chance(joining):
            first, second = left.pop(0), left.pop(0)
            text, weights = _joined(rand, first, second)
            text += rand.pick(_ADJUNCTS) if rand.chance(0.15) else ""
        else:
            first, second = left.pop(0), None
            text, weights = _single(rand, first, joining > 0)
        sentences.append(text)
        for opinion, weight in zip((first, second), weights, strict=False):
            if opinion is not None:
                strength = round(opinion.strength * weight, 6)
                weighed.append(Opinion(opinion.aspect, opinion.clause, strength, opinion.general))
    return sentences, weighed


def _single(rand: Rand, opinion: Opinion, asides: bool) -> tuple[str, tuple[float, ...]]:
    if not asides or opinion.aspect == "overall":
        return opinion.clause, (1.0,)
    kind = rand.weighted({"plain": 6.0, "aside": 2.5, "hedge": 1.5})
    clause = opinion.clause + (rand.pick(_ADJUNCTS) if rand.chance(0.3) else "")
    if kind == "hedge":
        return f"{rand.pick(_HEDGES)} {clause}", (_WEAKER,)
    if kind == "aside":
        return f"{rand.pick(_ASIDES)} {clause}", (1.0,)
    return clause, (1.0,)


def _joined(rand: Rand, first: Opinion, second: Opinion) -> tuple[str, tuple[float, ...]]:
    one, two = first.clause, second.clause
    if first.strength * second.strength > 0:
        joint = rand.pick((", and ", ", and on top of that ", "; also, ", ", while ", "; what is more, "))
        return one + joint + two, (1.0, 1.0)
    shape = rand.pick(("but", "but", "although", "still", "despite"))
    if shape == "although":
        return f"{rand.pick(('although', 'even though', 'while'))} {one}, {two}", (0.7, 1.3)
    if shape == "despite":
        return f"{one}, {rand.pick(('even though', 'although'))} {two}", (1.3, 0.7)
    if shape == "still":
        return f"{one}; {rand.pick(('still', 'even so', 'on the other hand'))}, {two}", (0.7, 1.3)
    return f"{one}, {rand.pick(('but', 'yet', 'but then'))} {two}", (0.7, 1.3)


_TOLD = words(
    "{name} told me about it in {month}; my friend {name} has the same opinion on most things; "
    "it was a [wet|warm|long] {day} in {month}; I wrote this down on {day} while it was fresh; "
    "{name} and I [argued|spoke] about it until {day}; {name} asked for my notes on this {item}; "
    "I came across this {item} in {month}; I still have the receipt from {month}; "
    "my [sister|neighbour|boss|cousin|uncle|best friend] [told me about it|had mentioned it|sent me the "
    "link]; "
    "this is the [first|second|third] {item} I have [tried|reviewed] [this year|so far]; "
    "I am writing this [a week|two days|a month] later; we were [two adults|four friends|a family of five]; "
    "I had read a few other reviews first; I have waited a while before writing; my [mother|partner|son] "
    "came along; "
    "we are not hard to please; somebody asked me for details; it is hard to find facts about any "
    "{item}; here are my notes on this {item}; I will keep this short; "
    "a word about the {item}; we talked about it on the way home; I chose this {item} [on a whim|after "
    "some thought]"
)
_CLOSINGS = words(
    "that is all from me; make of that what you will; I thought I would share this; ask me again next year; "
    "more next time; I hope this helps; photos will follow; so much for this {item}; your mileage may vary"
)
_CASUAL = {
    " was not ": " wasn't ",
    " were not ": " weren't ",
    " is not ": " isn't ",
    " cannot ": " can't ",
    "I would ": "I'd ",
    "I have ": "I've ",
    " it is ": " it's ",
    "could not": "couldn't",
    " did not ": " didn't ",
    "would not": "wouldn't",
    "I was not": "I wasn't",
    "I am ": "I'm ",
    "I will ": "I'll ",
}


def _compose(rand: Rand, domain: Domain, opinions: list[str], casual: bool) -> str:
    slots = {"item": domain.items, "name": FIRST, "month": MONTH, "day": DAY}
    fillers = [rand.fill(rand.pick(domain.openings)), rand.fill(rand.pick(domain.stories))]
    fillers.append(rand.fill(rand.pick(_TOLD), slots))
    chosen = rand.sample(fillers, rand.weighted({0: 3.0, 1: 4.0, 2: 2.0}))
    sentences = list(opinions)
    for filler in chosen:
        sentences.insert(rand.weighted({0: 3.0, rand.integer(0, len(sentences)): 1.0}), filler)
    if rand.chance(0.1):
        sentences.append(rand.fill(rand.pick(_CLOSINGS), slots))
    ends = {".": 9.0, "!": 1.0} if casual else {".": 1.0}
    text = " ".join(tidy(sentence) + rand.weighted(ends) for sentence in sentences)
    if casual:
        for plain, short in _CASUAL.items():
            text = text.replace(plain, short)
    return text
