from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pegbox.comparison._fitted import FittedBaseline, Floats, Tags
from pegbox.data import Examples, Questions, Sentences
from pegbox.errors import CapabilityError, InputError
from pegbox.tasks import Choose, Classify, Tag, Task
from pegbox.training import tell


@dataclass(frozen=True)
class Majority:
    """The shares of the answers in the training rows, whatever the text.

    Classification: each label's share of the rows. Multiple choice: each place's share of the right answers,
    among the options that a row has. Tagging: each word's most frequent tag, ``O`` for words never seen.
    Shares have one row added to every label or place (Laplace 1814), so that none is impossible.
    """

    name: ClassVar[str] = "majority"
    summary: ClassVar[str] = "the most frequent answer of the training rows"

    def check(self, task: Task) -> None:
        """It answers every kind of task."""

    def fit(
        self,
        task: Task,
        rows: Any,
        *,
        seed: int = 0,  # noqa: ARG002  # every baseline takes one
        say: Callable[[str], None] = tell,  # noqa: ARG002
    ) -> FittedBaseline:
        """Count the answers; see :class:`Baseline`."""
        started = time.perf_counter()
        check_rows(rows)
        answer, parameters, details = _learnt(task, rows)
        return FittedBaseline(self.name, task, answer, parameters, time.perf_counter() - started, details)


@dataclass(frozen=True)
class LongestOption:
    """The longest option of a question, in characters, whatever they say.

    Its probability is how often that was right in the training rows, with one row added to right and wrong;
    the other options share the rest. Of equally long ones the first.
    """

    name: ClassVar[str] = "longest-option"
    summary: ClassVar[str] = "the longest option of a question"

    def check(self, task: Task) -> None:
        """Only questions have options."""
        if not isinstance(task, Choose):
            raise CapabilityError(
                "longest-option chooses among a question's options, and these rows have none",
                where=f"a {type(task).__name__.lower()} task",
                expected="a multiple-choice task",
                fix="use majority",
            )

    def fit(
        self,
        task: Task,
        rows: Questions,
        *,
        seed: int = 0,  # noqa: ARG002  # every baseline takes one
        say: Callable[[str], None] = tell,  # noqa: ARG002
    ) -> FittedBaseline:
        """Count how often the longest option is right; see :class:`Baseline`."""
        started = time.perf_counter()
        self.check(task)
        assert isinstance(task, Choose)
        check_rows(rows)
        hits = sum(gold == _longest(row) for gold, row in zip(task.gold(rows), rows.options, strict=True))
        share = (hits + 1) / (len(rows) + 2)

        def answer(asked: Questions) -> Floats:
            table = _table(asked)
            for line, options in zip(table, asked.options, strict=True):
                line[: len(options)] = (1 - share) / max(len(options) - 1, 1)
                line[_longest(options)] = share if len(options) > 1 else 1.0
            return table

        return FittedBaseline(
            self.name, task, answer, 1, time.perf_counter() - started, {"longest is right": share}
        )


def check_rows(rows: Any) -> None:
    """Raise InputError where there is nothing to learn from."""
    if not len(rows):
        raise InputError(
            "there are no rows to learn from", where=rows.source, expected="at least one labelled row"
        )


def _learnt(task: Task, rows: Any) -> tuple[Callable[[Any], Any], int, dict[str, Any]]:
    if isinstance(task, Tag):
        return _by_word(task, rows)
    if isinstance(task, Choose):
        return _by_place(task, rows)
    assert isinstance(task, Classify)  # free text has no ladder
    return _by_label(task, rows)


def _by_label(task: Classify, rows: Examples) -> tuple[Callable[[Examples], Floats], int, dict[str, Any]]:
    shares = _shares(task.gold(rows), len(task.labels))

    def answer(asked: Examples) -> Floats:
        return np.repeat(shares[None], len(asked), axis=0)

    return answer, len(shares), {"shares": dict(zip(task.labels, shares.tolist(), strict=True))}


def _by_place(task: Choose, rows: Questions) -> tuple[Callable[[Questions], Floats], int, dict[str, Any]]:
    places = max(map(len, rows.options))
    # Of a place that only some rows have, the share is that of the rows that have it.
    gold, had = Counter(task.gold(rows)), Counter(p for row in rows.options for p in range(len(row)))
    shares = np.array([(gold[place] + 1) / (had[place] + 2) for place in range(places)])

    def answer(asked: Questions) -> Floats:
        table = _table(asked)
        # Places that no training row had are as likely as one seen in no row: 1 in 2, as above.
        known = np.pad(shares, (0, max(table.shape[1] - places, 0)), constant_values=0.5)
        for line, options in zip(table, asked.options, strict=True):
            own = known[: len(options)]
            line[: len(options)] = own / own.sum()
        return table

    return answer, places, {"shares": shares.tolist()}


def _by_word(task: Tag, rows: Sentences) -> tuple[Callable[[Sentences], Tags], int, dict[str, Any]]:
    task.gold(rows)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for words, tags in zip(rows.tokens, rows.tags or (), strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    order = {tag: place for place, tag in enumerate(task.labels)}
    usual = {word: min(seen, key=lambda tag: (-seen[tag], order[tag])) for word, seen in counts.items()}

    def answer(asked: Sentences) -> Tags:
        return tuple(well_formed([usual.get(word, "O") for word in words]) for words in asked.tokens)

    return answer, len(usual), {"words": len(usual), "in entities": sum(t != "O" for t in usual.values())}


def well_formed(tags: Sequence[str]) -> tuple[str, ...]:
    """BIO tags in which each I- continues an entity of its type; one that does not begins an entity."""
    found: list[str] = []
    for tag in tags:
        before = found[-1] if found else "O"
        found.append(f"B{tag[1:]}" if tag[:2] == "I-" and before[2:] != tag[2:] else tag)
    return tuple(found)


def _shares(gold: Sequence[int], labels: int) -> Floats:
    counts = np.bincount(np.asarray(gold), minlength=labels) + 1.0
    shares: Floats = counts / counts.sum()
    return shares


def _table(rows: Questions) -> Floats:
    return np.zeros((len(rows), max(map(len, rows.options), default=0)))


def _longest(options: Sequence[str]) -> int:
    return max(range(len(options)), key=lambda place: (len(options[place]), -place))
