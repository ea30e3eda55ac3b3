import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from pegbox.tasks._template import slot_names

SENTIMENT = {
    "positive": "great", "pos": "great", "negative": "terrible", "neg": "terrible", "neutral": "okay",
    "very positive": "excellent", "very negative": "awful", "mixed": "mixed",
}  # fmt: skip
ENTAILMENT = {
    "entailment": "yes", "entails": "yes", "entailed": "yes", "neutral": "maybe", "contradiction": "no",
    "not_entailment": "no", "not entailment": "no", "contradicts": "no",
}  # fmt: skip
YES_NO = {"yes": "yes", "no": "no", "true": "yes", "false": "no", "maybe": "maybe"}
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

First = Callable[[str], int | None]


@dataclass(frozen=True)
class Wording:
    """A template and one label word per label."""

    template: str
    label_words: tuple[str, ...]


def plain_template(fields: Sequence[str]) -> str:
    """The texts, and a line that asks for the label."""
    return "\n".join(slot_names(fields)) + "\nLabel: {answer}"


def derive_wording(
    fields: Sequence[str],
    labels: Sequence[str],
    first_token: First,
    *,
    options: bool = True,
    spare: Iterable[str] = (),
) -> Wording:
    """Derive a template and label words from the names of columns and labels.

    Known label sets (sentiment, entailment, yes/no) get the words of the prompting literature (Schick &
    Schuetze 2021; Gao et al. 2021); other labels speak for themselves where their first tokens differ, and
    are listed as lettered options where they do not. Beyond 26 labels each gets a word of its own name, a
    letter, a number or a word of the vocabulary, in this order of preference.

    Args:
        fields: One or two text column names.
        labels: The label names.
        first_token: First token id of a word after the template, ``None`` where the tokenizer cannot say it.
        options: Whether the template may list lettered options (not when the user wrote the template).
        spare: Words of the vocabulary, asked for only when everything else is taken.
    """
    first = cache(first_token)
    lowered = [label.lower().strip() for label in labels]
    for table, template in _known(slot_names(fields)):
        words = tuple(table[label] for label in lowered if label in table)
        if len(words) == len(labels) and _distinct(words, first):
            return Wording(template, words)
    names = tuple(" ".join(re.split(r"[_\s]+", label.strip())).strip() or label for label in labels)
    if _distinct(names, first):
        return Wording(plain_template(fields), names)
    letters = LETTERS[: len(labels)]
    if options and len(labels) <= len(LETTERS) and _distinct(letters, first):
        return Wording(_lettered(fields, letters, names), letters)
    return Wording(plain_template(fields), _distinguishing(names, first, spare))


def _known(slots: Sequence[str]) -> list[tuple[dict[str, str], str]]:
    if len(slots) == 2:
        question = f"{slots[0]} Question: {slots[1]} Answer: {{answer}}"
        return [(ENTAILMENT, question), (YES_NO, question)]
    return [
        (SENTIMENT, f"{slots[0]} It was {{answer}}."),
        (YES_NO, f"Question: {slots[0]}? Answer: {{answer}}"),
    ]


def _lettered(fields: Sequence[str], letters: Sequence[str], names: Sequence[str]) -> str:
    listed = ", ".join(f"{letter} = {name}" for letter, name in zip(letters, names, strict=True))
    listed = listed.replace("{", "{{").replace("}", "}}")
    return f"Options: {listed}.\n" + "\n".join(slot_names(fields)) + "\nOption: {answer}"


def _distinguishing(names: Sequence[str], first: First, spare: Iterable[str]) -> tuple[str, ...]:
    """Give every label a word of its own name, else a stand-in, so that all first tokens differ."""
    count = Counter(first(name) for name in names)
    words = {name: name for name in names if first(name) is not None and count[first(name)] == 1}
    taken = {first(word) for word in words.values()} | {None}
    chosen = [words.get(name) for name in names]
    rest = iter((*LETTERS, *map(str, range(10 * len(names)))))
    more = iter(spare)
    for index in sorted(range(len(names)), key=lambda index: len(names[index].split())):
        if chosen[index] is not None:
            continue
        own = [names[index], *names[index].split()]
        word = next((word for word in own if first(word) not in taken), None)
        word = word or next((word for word in rest if first(word) not in taken), None)
        chosen[index] = word or next((word for word in more if first(word) not in taken), names[index])
        taken.add(first(chosen[index] or ""))
    return tuple(word or name for word, name in zip(chosen, names, strict=True))


def _distinct(words: Sequence[str], first: First) -> bool:
    tokens = [first(word) for word in words]
    return None not in tokens and len(set(tokens)) == len(tokens)
