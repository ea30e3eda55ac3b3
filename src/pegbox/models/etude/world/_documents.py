"""Pretraining documents: every genre in many written forms, never a held-back domain."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pegbox.models.etude.world import _instructions, _names, _news, _pairs, _passages, _records, _replies
from pegbox.models.etude.world import _reviews as _rev
from pegbox.models.etude.world._domains import domains, held_back
from pegbox.models.etude.world._grammar import Rand, words

GENRES = ("reviews", "news", "passages", "pairs", "names", "records", "instructions", "replies")

HELD_BACK: dict[str, tuple[str, ...]] = {
    "reviews": held_back(),
    "news": ("mountain",),
    "passages": ("machines",),
    "pairs": ("harbour",),
    "names": ("expeditions",),
    "records": ("festivals",),
    "instructions": ("calendar",),
    "replies": ("airport",),
}
"""Domains of each genre that ``documents`` never uses."""

DOMAINS: dict[str, tuple[str, ...]] = {
    "reviews": tuple(domains()),
    "news": ("city", "coast", "farmland", "mountain"),
    "passages": ("people", "towns", "animals", "machines"),
    "pairs": ("kitchen", "street", "farm", "office", "school", "station", "harbour"),
    "names": ("markets", "sports", "letters", "politics", "expeditions"),
    "records": ("restaurants", "houses", "courses", "festivals"),
    "instructions": ("words", "numbers", "lists", "advice", "sentences", "calendar"),
    "replies": ("shop", "office", "neighbours", "library", "airport"),
}
"""All domains of each genre, the held-back ones last."""

_OPEN = {genre: tuple(name for name in DOMAINS[genre] if name not in HELD_BACK[genre]) for genre in GENRES}
_MIX = {"reviews": 8.0, "news": 2.0, "passages": 3.0, "pairs": 3.0, "names": 1.5, "records": 1.5,
        "instructions": 1.5, "replies": 2.0}  # fmt: skip


@dataclass(frozen=True)
class Document:
    """A pretraining text; where ``second`` is set, it is the end of ``text``, after one space."""

    text: str
    genre: str
    domain: str
    second: str = ""


def documents(seed: int, split: str) -> Iterator[Document]:
    """Yield documents of all genres without end.

    Args:
        seed: Same seed and split, same documents, on every platform.
        split: ``train`` or ``valid``; the two share no random choices.
    """
    if split not in ("train", "valid"):
        raise ValueError(f"split must be 'train' or 'valid', not {split!r}")
    row = 0
    while True:
        rand = Rand(f"documents/{split}/{seed}/{row}")
        genre = rand.weighted(_MIX)
        yield _WRITERS[genre](rand, rand.pick(_OPEN[genre]))
        row += 1


_WORDS = {
    "positive": words("great; great; great; good; wonderful; excellent; fantastic"),
    "negative": words("terrible; terrible; terrible; bad; awful; poor; dreadful"),
}
_SHORT = {"positive": "good", "negative": "bad"}
_VERDICTS: dict[str, float] = {
    "{text} It was {word}.": 7.0,
    "{text} Overall, it was {word}.": 1.5,
    "{text} All in all, {word}.": 1.0,
    "{text} Overall: {short}": 1.0,
    "{text} Verdict: {short}": 1.0,
    "{text}\nSentiment: {label}": 2.0,
    "Review: {text}\nSentiment: {label}": 1.5,
    "{text} Do I recommend it? {yes}.": 1.0,
    "{text} Just {word}!": 0.7,
    "{text}\nRating: {stars} stars": 0.7,
    "A {label} review: {text}": 4.0,
    "It was {word}. {text}": 4.0,
}


def _with_verdict(template: str, row: _rev.Review, word: str) -> str:
    positive = row.label == "positive"
    slots = {"text": row.text, "word": word, "short": _SHORT[row.label], "label": row.label}
    return template.format(**slots, yes="Yes" if positive else "No", stars="5" if positive else "1")


def _review(rand: Rand, domain: str) -> Document:
    spec = domains()[domain]
    if rand.chance(0.1):
        return Document(_rev.review(rand, spec).text, "reviews", domain)
    template = rand.weighted(_VERDICTS)
    shots = rand.integer(2, 6) if rand.chance(0.12) else 1
    joint = rand.pick(("\n\n", "\n"))
    texts = []
    for _ in range(shots):
        row = _rev.review(rand, spec)
        pool = _WORDS[row.label]
        texts.append(_with_verdict(template, row, rand.pick(pool) if shots == 1 else pool[0]))
    return Document(joint.join(texts), "reviews", domain)


def _news_brief(rand: Rand, domain: str) -> Document:
    row = _news.brief(rand, domain)
    forms = (
        "{t} Topic: {label}",
        "{t} This is about {label}.",
        "{t}\nTopic: {label}",
        "{t} Section: {label}",
        "{t}",
    )
    return Document(rand.pick(forms).format(t=row.text, label=row.label), "news", domain)


def _passage(rand: Rand, domain: str) -> Document:
    row = _passages.passage(rand, domain)
    if rand.chance(0.5):
        question, answer = row.question, row.answer
    else:
        question, answer = row.closed, row.label
    form = rand.pick((" Question: {} Answer: {}", "\nQuestion: {}\nAnswer: {}", " Question: {} Answer: {}"))
    return Document(row.text + form.format(question, answer), "passages", domain)


def _pair(rand: Rand, domain: str) -> Document:
    row = _pairs.pair(rand, domain)
    premise, hypothesis = row.premise, row.hypothesis
    if rand.chance(0.5):
        premise, hypothesis = premise.removesuffix("."), hypothesis.removesuffix(".")
    if rand.chance(0.3):
        hypothesis = hypothesis[0].lower() + hypothesis[1:]
    if rand.chance(0.4):
        second = f"{row.label.capitalize()}, {hypothesis}"
        return Document(f"{premise}? {second}", "pairs", domain, second)
    second = f"Question: {hypothesis}? Answer: {row.label}"
    return Document(f"{premise} {second}", "pairs", domain, second)


def _named(rand: Rand, domain: str) -> Document:
    rows = [_names.sentence(rand, domain) for _ in range(rand.integer(1, 3))]
    text = " ".join(row.text for row in rows)
    if rand.chance(0.7):
        for mark in (" ,", " .", " ;"):
            text = text.replace(mark, mark[1:])
    return Document(text, "names", domain)


def _recorded(rand: Rand, domain: str) -> Document:
    row = _records.record(rand, domain)
    return Document(row.text if rand.chance(0.1) else f"{row.record}\nText: {row.text}", "records", domain)


def _instructed(rand: Rand, domain: str) -> Document:
    rows = [_instructions.instruction(rand, domain) for _ in range(rand.weighted({1: 4.0, 2: 1.0, 3: 1.0}))]
    texts = (f"Instruction: {row.instruction}\nResponse: {row.response}" for row in rows)
    return Document("\n\n".join(texts), "instructions", domain)


def _replied(rand: Rand, domain: str) -> Document:
    row = _replies.reply(rand, domain)
    text = f"Message: {row.message}\nReply: {row.reply}"
    return Document(
        rand.fill("[{t}|{t}|{t}\nTone: {label}]", {"t": text, "label": row.label}), "replies", domain
    )


_WRITERS: dict[str, Callable[[Rand, str], Document]] = {
    "reviews": _review,
    "news": _news_brief,
    "passages": _passage,
    "pairs": _pair,
    "names": _named,
    "records": _recorded,
    "instructions": _instructed,
    "replies": _replied,
}


def written(genre: str, domain: str, rows: int, seed: int) -> list[Document]:
    """Return documents of one genre and domain, held back or not, to measure models on."""
    return [_WRITERS[genre](Rand(f"written/{genre}/{domain}/{seed}/{row}"), domain) for row in range(rows)]
