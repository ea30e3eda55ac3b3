"""Which of K labels fits a text or a pair of texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pegbox.data import Examples, Table, from_texts
from pegbox.evaluation import Scores, score
from pegbox.methods import Method, Problem, Solved, Solver
from pegbox.models import Base, encode
from pegbox.tasks import Classify, Encoded
from pegbox.training import Trainable
from pegbox.tuning._answers import Answers, Array, answer, nearest_distance, softmax
from pegbox.tuning._demonstrate import drawn_rows
from pegbox.tuning._deviation import deviations
from pegbox.tuning._label_rows import LabelRows
from pegbox.tuning._seen import told_seen
from pegbox.tuning._shapes._predictions import Prediction
from pegbox.tuning._shapes._shape import Work
from pegbox.tuning._task_rows import task_rows

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned


class ClassifyShape:
    """See :class:`pegbox.Classify`."""

    def check(
        self,
        task: Classify,
        rows: Examples,
        valid: Examples | None,
        say: Callable[[str], None],  # noqa: ARG002
    ) -> None:
        """All rows must be labelled, and every label among those to learn from."""
        for part in (rows, valid):
            if part is not None:
                task.gold(part)
        task.check_all_present(rows)

    def base(self, base: Base, method: Method) -> Base:  # noqa: ARG002
        """The base itself."""
        return base

    def solver(self, work: Work, method: Solver, rows: Examples) -> Callable[[], Solved]:
        """The method with its problem."""
        encoded, gold = _encode(work, rows), torch.tensor(work.prompt.task.gold(rows))
        _tell(work, encoded)
        problem = Problem(work.base, work.prompt, rows, gold, encoded, work.seed, work.cache, work.say)
        return partial(method.solve, problem)

    def trainable(self, work: Work, parts: Sequence[Examples]) -> list[Trainable]:
        """Label rows of each part."""
        if work.demonstrate is not None and work.demonstrate.selection == "random":
            return drawn_rows(work, parts)
        encoded = [_encode(work, part) for part in parts]
        _tell(work, *encoded)
        gold = map(work.prompt.task.gold, parts)
        return [LabelRows(work.base, work.prompt, *pair) for pair in zip(encoded, gold, strict=True)]

    def rows(self, task: Classify, table: Table, **options: Any) -> Examples:
        """See :func:`task_rows`."""
        return task_rows(task, table, **options)

    def logits(self, tuned: Tuned, rows: Examples) -> Tensor:
        """(rows, labels)."""
        return answer(tuned, rows).logits

    def predict(
        self, tuned: Tuned, inputs: Sequence[str] | Sequence[tuple[str, str]] | Examples
    ) -> list[Prediction]:
        """The most probable label of each text."""
        rows = inputs if isinstance(inputs, Examples) else from_texts(inputs, tuned.prompt.task.fields)
        if not len(rows):
            return []
        if tuned.averaged:
            return _averaged(tuned, rows)
        answers = answer(tuned, rows)
        probabilities = softmax(answers.logits)
        return [
            Prediction(
                label=tuned.labels[int(row.argmax())],
                probability=float(row.max()),
                probabilities=dict(zip(tuned.labels, map(float, row), strict=True)),
                deviation=deviation,
            )
            for row, deviation in zip(probabilities, _deviations(tuned, answers, probabilities), strict=True)
        ]

    def evaluate(self, tuned: Tuned, rows: Examples, *, resamples: int, seed: int) -> Scores:
        """Scores with flips against the base where the base can answer."""
        gold = np.array(tuned.prompt.task.gold(rows))
        started = time.perf_counter()
        # A Laplace posterior asks the model anew, with gradients; nothing else needs its answers then.
        answers = None if tuned.laplace is not None and tuned.averaged else answer(tuned, rows)
        probabilities = _probabilities(tuned, rows, answers)
        seconds = time.perf_counter() - started
        base = _base_probabilities(tuned, rows, answers)
        seen = told_seen(tuned, rows)
        scores = score(
            probabilities,
            gold,
            tuned.labels,
            base=base,
            in_training=seen if base is not None else None,
            distance=_distance(tuned, answers) if base is not None else None,
            numbers=rows.numbers if base is not None else None,
            resamples=resamples,
            seed=seed,
        )
        return replace(scores, seconds=seconds)


def _probabilities(tuned: Tuned, rows: Examples, answers: Answers | None) -> Array:
    from pegbox.tuning._laplace import sureness

    if answers is not None and not tuned.averaged:
        return softmax(answers.logits)
    return sureness(tuned, rows, answers)[1].numpy()


def _averaged(tuned: Tuned, rows: Examples) -> list[Prediction]:
    """The most probable label by the probabilities that are averaged over the posterior."""
    from pegbox.tuning._laplace import sureness

    found, mean, deviation = sureness(tuned, rows)
    probabilities, spread = mean.numpy(), deviation.numpy()
    return [
        Prediction(
            label=tuned.labels[int(row.argmax())],
            probability=float(row.max()),
            probabilities=dict(zip(tuned.labels, map(float, row), strict=True)),
            deviation=float(own[row.argmax()]),
            logit_deviations=dict(zip(tuned.labels, sure, strict=True)),
        )
        for row, own, sure in zip(probabilities, spread, found.deviations.tolist(), strict=True)
    ]


def _encode(work: Work, rows: Examples) -> Encoded:
    return encode(work.base, work.prompt, rows, too_long=work.too_long, cache=work.cache, say=work.say)


def _tell(work: Work, first: Encoded, second: Encoded | None = None) -> None:
    """One line on what was shortened in rows of one file, however they were divided."""
    if second is None or second.source != first.source:
        parts = [first] if second is None else [first, second]
    else:
        shortened = tuple(sorted(first.shortened + second.shortened))
        parts = [replace(first, ids=first.ids + second.ids, shortened=shortened)]
    for encoded in parts:
        for note in encoded.notes():
            work.say(note)


def _base_probabilities(tuned: Tuned, rows: Examples, answers: Answers | None) -> Array | None:
    """The zero-shot answer of the base, where it is at hand; an encoder without output layer has none."""
    from pegbox.tuning._tuned import base_alone

    if tuned.base.kind == "encoder" or tuned.origin is not None:
        return None
    known = None if answers is None else answers.base
    return softmax(known if known is not None else base_alone(tuned).logits(rows))


def _deviations(tuned: Tuned, answers: Answers, probabilities: Array) -> list[float | None]:
    if tuned.posterior is None:
        return [None] * len(probabilities)
    chosen = torch.from_numpy(probabilities.argmax(1))
    return list(deviations(tuned, tuned.posterior, answers.hidden, chosen).tolist())


def _distance(tuned: Tuned, answers: Answers | None) -> Array | None:
    """Euclidean distance of each row's base features to the nearest training row's."""
    if answers is None or tuned.features is None or not tuned.method.capability.output_only:
        return None
    return nearest_distance(answers.hidden, tuned.features)
