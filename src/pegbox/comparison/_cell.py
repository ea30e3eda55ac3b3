"""One rung under one seed: fitted, asked, scored, and what it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pegbox.comparison._contest import Answers, Contest
from pegbox.comparison._flops import fit_flops, predict_flops
from pegbox.comparison._ladder import Contender
from pegbox.comparison._lengths import row_lengths
from pegbox.comparison._peak import peak_memory
from pegbox.comparison._result import Cell, RungCost
from pegbox.data import GeneralText, Rows
from pegbox.errors import CapabilityError
from pegbox.evaluation import Forgetting
from pegbox.methods import Method
from pegbox.models import Base, load
from pegbox.tasks import Task, TooLong
from pegbox.training import is_progress, resumed_by, tell
from pegbox.tuning import OtherTask, Training, Tuned, adapter_bytes, fit, forgetting


@dataclass(frozen=True, eq=False)
class Terms:
    """What all cells of one comparison share.

    Args:
        base: The base.
        task: The task, without rows.
        train: Rows to tune on.
        test: Rows to be scored on, which no choice of a fit ever sees.
        contest: What is compared.
        training: How gradient methods train.
        too_long: What to do with texts that do not fit.
        text: General text to tell forgetting by.
        also: Other tasks to tell it by.
        notes: What was told of the prompt for all rungs.
        first_seed: Weights of whole models are kept for this seed alone.
        say: Receives lines for the user.
    """

    base: Base
    task: Task
    train: Rows
    test: Rows
    contest: Contest
    training: Training
    too_long: TooLong = "shorten"
    text: GeneralText | None = None
    also: tuple[OtherTask, ...] = ()
    notes: tuple[str, ...] = ()
    first_seed: int = 0
    say: Callable[[str], None] = field(default=tell, repr=False)


def measure(
    terms: Terms,
    contender: Contender,
    seed: int,
    place: Path,
    *,
    work: Path | None = None,
    base_answers: Answers | None = None,
) -> tuple[Cell, Answers]:
    """Fit, ask and score one rung under one seed.

    Args:
        terms: What all cells share.
        contender: The rung.
        seed: The seed.
        place: Folder in which the tuned model is kept, as ``tuned``.
        work: Where checkpoints go; those that lie there are continued from.
        base_answers: What the base answers to the test rows, to tell flips by.

    Raises:
        CapabilityError: When the rung cannot work on this base or task.
        RunError: When its training fails.
    """
    if isinstance(contender.method, Method):
        return _Tuning(terms, contender, contender.method, seed).measure(place, work, base_answers)
    return _baseline(terms, contender, seed, base_answers)


def _baseline(
    terms: Terms, contender: Contender, seed: int, base_answers: Answers | None
) -> tuple[Cell, Answers]:
    baseline: Any = contender.method
    notes: list[str] = []
    with peak_memory(torch.device("cpu")) as peak:
        fitted = baseline.fit(terms.task, terms.train, seed=seed, say=notes.append)
        started = time.perf_counter()
        answers = terms.contest.ask_baseline(fitted, terms.test)
        seconds = time.perf_counter() - started
    cost = RungCost(fitted.seconds, seconds, fitted.parameters, 0, peak.bytes)
    scores = terms.contest.scores(answers, terms.task, terms.test, base_answers)
    return Cell(contender.name, seed, scores, cost, notes=tuple(notes)), answers


@dataclass(frozen=True, eq=False)
class _Tuning:
    """A method on one rung under one seed."""

    terms: Terms
    contender: Contender
    method: Method
    seed: int
    notes: list[str] = field(default_factory=list)

    def measure(self, place: Path, work: Path | None, base_answers: Answers | None) -> tuple[Cell, Answers]:
        terms, base = self.terms, self._base()
        with peak_memory(base.device) as peak:
            started = time.perf_counter()
            tuned = self._fit(base, work)
            seconds = max(time.perf_counter() - started, tuned.cost.seconds)
            started = time.perf_counter()
            answers = terms.contest.ask(tuned, terms.test)
            asked = time.perf_counter() - started
        memory = None if peak.bytes is None else peak.bytes + _bytes(base.model)
        scores = terms.contest.scores(answers, terms.task, terms.test, base_answers)
        cost = self._cost(tuned, seconds, asked, memory, self._keep(tuned, scores, place))
        found = Cell(self.contender.name, self.seed, scores, cost, self._forgotten(tuned))
        return replace(found, notes=tuple(dict.fromkeys(self.notes))), answers

    def _say(self, line: str) -> None:
        """Tell a line unless it was told for all rungs, and keep it unless it is mere progress."""
        if not is_progress(line):
            self.notes.append(line)
        if line not in self.terms.notes:
            self.terms.say(f"  {self.contender.name}: {line}")

    def _base(self) -> Base:
        """The base, loaded anew where the method wants it in another number of bits."""
        base, bits = self.terms.base, self.method.quantise
        if not bits or base.quantise == bits:
            return base
        self._say(f"{base.name} is loaded in 4 bits ({bits})")
        kind: Any = str(base.dtype).removeprefix("torch.")
        how: dict[str, Any] = {"device": str(base.device), "dtype": kind, "quantise": bits}
        return load(base.name, revision=base.revision, max_length=base.context, **how)

    def _fit(self, base: Base, work: Path | None) -> Tuned:
        terms = self.terms
        # How to go on is said by the comparison: it has no such option.
        with resumed_by(""):
            return fit(
                base,
                terms.task,
                self.method,
                rows=terms.train,
                training=terms.training,
                folder=work,
                resume=work is not None and work.exists(),
                seed=self.seed,
                too_long=terms.too_long,
                say=self._say,
            )

    def _keep(self, tuned: Tuned, scores: Any, place: Path) -> int:
        """Save what was tuned, whole models of the first seed alone, and return its size in bytes."""
        if tuned.weights and self.seed != self.terms.first_seed:
            assert tuned.module is not None
            return _bytes(tuned.module)
        return adapter_bytes(tuned.save(place / "tuned", scores=scores))

    def _forgotten(self, tuned: Tuned) -> Forgetting | None:
        terms = self.terms
        if terms.text is None and not terms.also:
            return None
        try:
            return forgetting(tuned, terms.text, terms.also, say=self._say)
        except CapabilityError as error:
            self._say(f"forgetting is not measured: {error.what}")
            return None

    def _cost(self, tuned: Tuned, seconds: float, asked: float, memory: int | None, size: int) -> RungCost:
        terms, base = self.terms, tuned.base
        prompt = base.prepare(terms.task)
        train, test = (
            row_lengths(base, prompt, part, too_long=terms.too_long) for part in (terms.train, terms.test)
        )
        history = dict(tuned.details).get("history") or {}
        # Rows held out to stop by are among the lengths, but were not trained on.
        share = tuned.cost.rows / len(terms.train)
        flops = fit_flops(
            base,
            prompt,
            self.method,
            train,
            epochs=history.get("epochs", 1) * share,
            valid_lengths=train[: round((1 - share) * len(train))],
            evaluations=len(history.get("valid_losses", ())),
            batch_size=terms.training.batch_size,
        )
        each = predict_flops(base, prompt, self.method, test) / len(terms.test)
        return RungCost(seconds, asked, tuned.cost.parameters, size, memory, flops, each)


def _bytes(module: nn.Module) -> int:
    seen = {value.data_ptr(): value.numel() * value.element_size() for value in module.parameters()}
    return sum(seen.values())
