"""Rows of etude's world with the exact probabilities of their labels, as the benchmarks ask for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pegbox import Classify
    from pegbox.data import Examples

# What is asked, in words that etude was raised with.
GENRES: dict[str, dict[str, Any]] = {
    "reviews": {
        "labels": ("negative", "positive"),
        "template": "{text} It was {answer}.",
        "label_words": ("terrible", "great"),
    },
    "news": {
        "labels": ("sport", "business", "weather", "science"),
        "template": "{text} Topic: {answer}",
    },
    "pairs": {
        "labels": ("yes", "maybe", "no"),
        "fields": ("premise", "hypothesis"),
        "template": "{premise} Question: {hypothesis}? Answer: {answer}",
    },
    "replies": {
        "labels": ("rude", "polite"),
        "fields": ("message", "reply"),
        "template": "Message: {message}\nReply: {reply}\nTone: {answer}",
    },
}


@dataclass(frozen=True)
class World:
    """Labelled rows and their truth.

    Args:
        task: What is asked, in the words that etude was raised with.
        rows: The rows.
        truth: Exact probabilities of the labels, (rows, labels).
    """

    task: Classify
    rows: Examples
    truth: NDArray[np.float64]


def world_rows(genre: str, domain: str, count: int, seed: int) -> World:
    """Make rows of one domain; another seed makes others."""
    from pegbox import Classify
    from pegbox.data import Examples
    from pegbox.models.etude import world

    task = Classify(**{"label_words": GENRES[genre]["labels"], **GENRES[genre]})
    made: list[Any] = getattr(world, genre)(domain, rows=count, seed=seed)
    fields = {name: tuple(getattr(row, name) for row in made) for name in task.fields}
    labels = tuple(row.label for row in made)
    truth = np.array([[row.probabilities[label] for label in task.labels] for row in made])
    rows = Examples(f"{genre}: {domain}", fields, labels, tuple(range(1, count + 1)))
    return World(task, rows, truth / truth.sum(axis=1, keepdims=True))
