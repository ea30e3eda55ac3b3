"""What can be measured in a minute: majority, zero-shot, the closed form, its curve, and a short LoRA."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pegbox.comparison._curve import LearningCurve, learning_curve
from pegbox.comparison._folds import folds, others
from pegbox.comparison._frozen import Frozen, fewer
from pegbox.data import Examples
from pegbox.errors import InputError, PegboxError
from pegbox.evaluation import Estimate, Paired, compare, score
from pegbox.methods import ClosedForm, Equations, LoRA
from pegbox.models import Base, FeatureCache
from pegbox.tasks import Classify
from pegbox.training import hush
from pegbox.tuning import Training, fit

Floats = NDArray[np.float64]

FOLDS = 5
# A seeded sample of more rows tells as much, and features are what takes time.
MOST_ROWS = 2048
SHORT_STEPS = 64


@dataclass(frozen=True)
class Trial:
    """One thing that was tried.

    Args:
        name: What.
        accuracy: On the rows that were answered, none of which it had learnt from.
        nll: Log-loss there, in nats.
        rows: How many these are.
        how: How they were kept apart.
        seconds: Wall time, without that of reading features.
    """

    name: str
    accuracy: Estimate
    nll: Estimate
    rows: int
    how: str
    seconds: float


@dataclass(frozen=True)
class Pilot:
    """What was measured before anything is recommended.

    Args:
        trials: What was tried, the cheapest first.
        gain: Accuracy of the closed form less that of the better of majority and zero-shot; ``None`` where it
            was not tried.
        tuned_gain: Accuracy of the short LoRA less that of the closed form on the same held-out rows.
        curve: Learning curve of the closed form, where there are rows enough for one.
        notes: What could not be measured, and why.
        seconds: Wall time of it all.
    """

    trials: tuple[Trial, ...]
    gain: Paired | None
    tuned_gain: Paired | None
    curve: LearningCurve | None
    notes: tuple[str, ...]
    seconds: float

    def trial(self, name: str) -> Trial | None:
        """The trial of a name."""
        return next((trial for trial in self.trials if trial.name == name), None)


def pilot(
    base: Base,
    task: Classify,
    rows: Examples,
    *,
    short_lora: bool,
    training: Training,
    seed: int,
    cache: FeatureCache | None,
    say: Callable[[str], None],
) -> Pilot:
    """Measure what is cheap on the user's own rows; every answer is to a row that was not learnt from.

    Args:
        base: The base.
        task: The task.
        rows: Its labelled rows.
        short_lora: Whether LoRA is trained for a few steps too.
        training: How it is.
        seed: Seed of samples, folds and LoRA.
        cache: Feature cache; features are read once either way.
        say: Receives lines for the user.
    """
    started = time.perf_counter()
    with _kept(cache) as kept:
        used = fewer(rows, MOST_ROWS, seed, "tried", say)
        found = _Pilot(base, task, used, seed, kept, say)
        tuned = found.short_lora(training) if short_lora else None
        return Pilot(
            trials=(*found.trials(), *([tuned] if tuned else [])),
            gain=found.gain(),
            tuned_gain=found.tuned_gain,
            curve=found.curve(rows),
            notes=tuple(found.notes),
            seconds=time.perf_counter() - started,
        )


class _Pilot:
    """Trials on one set of rows, with the features read once."""

    def __init__(
        self,
        base: Base,
        task: Classify,
        rows: Examples,
        seed: int,
        cache: FeatureCache,
        say: Callable[[str], None],
    ) -> None:
        self.base, self.task, self.rows, self.seed = base, task, rows, seed
        self.cache, self.say = cache, say
        self.notes: list[str] = []
        self.tuned_gain: Paired | None = None
        self.frozen = Frozen.of(base, task, cache, say)
        self.known = self.frozen.equations(rows)
        self.gold = np.array(task.gold(rows))
        self.parts = folds(rows, FOLDS, seed)
        self.apart: Floats | None = None
        self.seconds = 0.0
        if self.parts:
            started = time.perf_counter()
            self.apart = self._closed_form()
            self.seconds = time.perf_counter() - started
        else:
            self.notes.append("no label but one has two different texts, so that no answer can be tested")

    def trials(self) -> Iterator[Trial]:
        """Majority, zero-shot where the base has words, and the closed form."""
        if self.apart is None:
            return
        how = f"{len(self.parts)} folds"
        yield self._trial("majority", self._majority(), how, 0.0)
        if self._words:
            yield self._trial("zero-shot", self._zero_shot(), "learns from no row", 0.0)
        yield self._trial("closed-form", self.apart, how, self.seconds)

    def gain(self) -> Paired | None:
        """The closed form against the better of what learns nothing, on the same rows."""
        if self.apart is None:
            return None
        free = [self._majority(), *([self._zero_shot()] if self._words else [])]
        best = max(free, key=lambda answers: float((answers.argmax(1) == self.gold)[self._asked].mean()))
        return compare(self.apart[self._asked], best[self._asked], self.gold[self._asked], seed=self.seed)

    def curve(self, rows: Examples) -> LearningCurve | None:
        """The learning curve, or none with a note why."""
        try:
            return learning_curve(
                self.base, self.task, rows=rows, seed=self.seed, cache=self.cache, say=self.say
            )
        except InputError as error:
            self.notes.append(f"no learning curve: {error.what}")
            return None

    def short_lora(self, training: Training) -> Trial | None:
        """A LoRA of a few steps on all folds but one, asked about that one."""
        if self.apart is None:
            return None
        held = self.parts[0]
        short = Training(batch_size=training.batch_size, max_steps=SHORT_STEPS, patience=0)
        started = time.perf_counter()
        try:
            tuned = fit(
                self.base,
                self.task,
                LoRA(),
                rows=self.rows.select(others(len(self.rows), held)),
                training=short,
                seed=self.seed,
                say=hush,
            )
        except PegboxError as error:
            self.notes.append(f"no short LoRA: {error.what}")
            return None
        seconds = time.perf_counter() - started
        answers = tuned.probabilities(self.rows.select(held))
        self.tuned_gain = compare(answers, self.apart[held], self.gold[held], seed=self.seed)
        name = f"lora, {SHORT_STEPS} steps at the most"
        return _scored(self.task, name, answers, self.gold[held], "1 fold held out", seconds, self.seed)

    @property
    def _words(self) -> bool:
        """Whether the base itself has an answer."""
        return self.frozen.base.kind != "encoder"

    @property
    def _asked(self) -> list[int]:
        """Rows that lie in a fold."""
        return sorted(row for part in self.parts for row in part)

    def _trial(self, name: str, answers: Floats, how: str, seconds: float) -> Trial:
        rows = self._asked
        return _scored(self.task, name, answers[rows], self.gold[rows], how, seconds, self.seed)

    def _majority(self) -> Floats:
        """Each label's share of the other folds, with one row added to each (Laplace 1814)."""
        answers = np.full((len(self.rows), len(self.task.labels)), np.nan)
        for held in self.parts:
            learnt = self.gold[others(len(self.rows), held)]
            counts = np.bincount(learnt, minlength=len(self.task.labels)) + 1.0
            answers[held] = counts / counts.sum()
        return answers

    def _zero_shot(self) -> Floats:
        return self._answers(self.known.logits, self.known)

    def _closed_form(self) -> Floats:
        """Answers to each fold by the closed form on the others."""
        answers = np.full((len(self.rows), len(self.task.labels)), np.nan)
        for held in self.parts:
            solution = ClosedForm().solution(self.known.part(others(len(self.rows), held)))
            part = self.known.part(held)
            answers[held] = self._answers(solution.logits(part.features, part.logits), part)
        return answers

    def _answers(self, logits: Tensor, equations: Equations) -> Floats:
        found: Any = self.frozen.finished(logits, equations.scale).double().softmax(1).numpy()
        return found


def _scored(
    task: Classify, name: str, answers: Floats, gold: Any, how: str, seconds: float, seed: int
) -> Trial:
    metrics = score(answers, gold, task.labels, seed=seed).metrics
    return Trial(name, metrics["accuracy"], metrics["nll"], len(gold), how, seconds)


@contextmanager
def _kept(cache: FeatureCache | None) -> Iterator[FeatureCache]:
    """The cache, or one of its own that is thrown away."""
    if cache is not None:
        yield cache
        return
    with TemporaryDirectory(prefix="pegbox-") as folder:
        yield FeatureCache(Path(folder))
