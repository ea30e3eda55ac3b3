import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Wording:
    """A template and one label word per label."""

    template: str
    label_words: tuple[str, ...]


def derive_wording(
    fields: Sequence[str], labels: Sequence[str], first_token: Callable[[str], int | None]
) -> Wording:
    """Derive a template and label words from the names of columns and labels.

    Known label sets (sentiment, entailment, yes/no) get the words of the prompting literature (Schick &
    Schuetze 2021; Gao et al. 2021); other labels speak for themselves where their first tokens differ, and are
    listed as lettered options where they do not.

    Args:
        fields: One or two text column names.
        labels: The label names.
        first_token: First token id of a word after the template, ``None`` where the tokenizer cannot say it.
    """
    lowered = [label.lower().strip() for label in labels]
    aliases = ("text",) if len(fields) == 1 else ("text_a", "text_b")
    slots = [
        f"{{{field if field.isidentifier() else alias}}}"
        for field, alias in zip(fields, aliases, strict=True)
    ]
    for table, template in _candidates(slots):
        words = tuple(table[label] for label in lowered) if all(label in table for label in lowered) else ()
        if words and _distinct(words, first_token):
            return Wording(template, words)
    return _by_name(slots, labels, first_token)


def _candidates(slots: Sequence[str]) -> list[tuple[dict[str, str], str]]:
    if len(slots) == 2:
        question = f"{slots[0]} Question: {slots[1]} Answer: {{answer}}"
        return [(ENTAILMENT, question), (YES_NO, question)]
    return [(SENTIMENT, f"{slots[0]} It was {{answer}}."), (YES_NO, f"Question: {slots[0]}? Answer: {{answer}}")]


def _by_name(slots: Sequence[str], labels: Sequence[str], first_token: Callable[[str], int | None]) -> Wording:
    shown = "\n".join(slots)
    names = tuple(" ".join(re.split(r"[_\s]+", label.strip())) for label in labels)
    if _distinct(names, first_token):
        return Wording(f"{shown}\nLabel: {{answer}}", names)
    letters = LETTERS[: len(labels)]
    if len(labels) <= len(LETTERS) and _distinct(letters, first_token):
        options = ", ".join(f"{letter} = {name}" for letter, name in zip(letters, names, strict=True))
        return Wording(f"Options: {_literal(options)}.\n{shown}\nOption: {{answer}}", letters)
    return Wording(f"{shown}\nLabel: {{answer}}", _distinguishing_words(names, first_token))


def _distinguishing_words(
    names: Sequence[str], first_token: Callable[[str], int | None]
) -> tuple[str, ...]:
    """Give every label a word of its own name, else a number, so that all first tokens differ."""
    taken: set[int] = set()
    words: list[str] = []
    for name in names:
        candidates = [name, *name.split(), *map(str, range(10 * len(names)))]
        for word in candidates:
            token = first_token(word)
            if token is not None and token not in taken:
                taken.add(token)
                words.append(word)
                break
        else:
            words.append(name)
    return tuple(words)


def _distinct(words: Sequence[str], first_token: Callable[[str], int | None]) -> bool:
    tokens = [first_token(word) for word in words]
    return None not in tokens and len(set(tokens)) == len(tokens)


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
