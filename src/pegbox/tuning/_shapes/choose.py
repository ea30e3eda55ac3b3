"""Which of a question's own options is right."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pegbox.data import Questions, Table, find_choice_columns, from_questions, questions, renamed
from pegbox.errors import CapabilityError, RunError
from pegbox.evaluation import Estimate, Scores, score
from pegbox.methods import FewShot, Method, Solved, Solver, ZeroShot
from pegbox.models import Base, option_logprobs
from pegbox.tasks import Choose, ChoosePrompt, Demonstration
from pegbox.training import Trainable
from pegbox.tuning._answers import softmax
from pegbox.tuning._columns import own_columns
from pegbox.tuning._seen import told_seen
from pegbox.tuning._shapes._option_rows import ChoiceRows
from pegbox.tuning._shapes._pair_rows import PairRows, pair_scores
from pegbox.tuning._shapes._shape import Work

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned


@dataclass(frozen=True)
class Choice:
    """The answer for one question.

    Args:
        index: The most probable option, counted from 0.
        text: Its text.
        probability: Its probability among the question's options.
        probabilities: All options' probabilities, in order.
        deviation: Standard deviation of ``probability`` under the posterior, where there is one.
        logit_deviations: Standard deviation of each option's score, less the question's mean score, where the
            probabilities are averaged over a posterior; in nats.
    """

    index: int
    text: str
    probability: float
    probabilities: tuple[float, ...]
    deviation: float | None = None
    logit_deviations: tuple[float, ...] | None = None


class ChooseShape:
    """See :class:`pegbox.Choose`."""

    def check(
        self,
        task: Choose,
        rows: Questions,
        valid: Questions | None,
        say: Callable[[str], None],  # noqa: ARG002
    ) -> None:
        """All rows must have an answer."""
        for part in (rows, valid):
            if part is not None:
                task.gold(part)

    def base(self, base: Base, method: Method) -> Base:
        """The base itself, or its trunk for methods that need a head; the closed form is refused."""
        if isinstance(method, Solver) and not isinstance(method, ZeroShot | FewShot):
            raise CapabilityError(
                f"{method.name} fits one output per label, and every question has options of its own",
                expected="zero-shot, few-shot, or a method that trains, such as lora",
                fix="use --method lora",
            )
        return base.headed() if method.capability.needs_head else base

    def solver(self, work: Work, method: Solver, rows: Questions) -> Callable[[], Solved]:
        """Zero-shot as it is; few-shot with questions drawn at random."""
        for note in _prompt(work.prompt).encode_options(rows, too_long=work.too_long).notes():
            work.say(note)
        if isinstance(method, FewShot):
            return partial(_few_shot, work, method, rows)
        return partial(Solved, work.prompt)

    def trainable(self, work: Work, parts: Sequence[Questions]) -> list[Trainable]:
        """Questions with their options, of each part."""
        found: list[Trainable] = []
        for part in parts:
            prompt, gold = _prompt(work.prompt), _prompt(work.prompt).task.gold(part)
            if work.base.kind == "encoder":
                pairs = prompt.encode_pairs(part, too_long=work.too_long)
                found.append(PairRows(work.base, pairs, gold))
                notes = pairs.notes()
            else:
                encoded = prompt.encode_options(part, too_long=work.too_long)
                found.append(ChoiceRows(work.base, encoded, gold))
                notes = encoded.notes()
            for note in notes:
                work.say(note)
        return found

    def rows(
        self,
        task: Choose,
        table: Table,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        labelled: bool = True,
        on_bad: str = "error",
    ) -> Questions:
        """Questions by the task's own columns, or by others that stand for them."""
        own_columns(task, table, texts, label, labelled)
        options = task.options if all(name in table.columns for name in task.options) else ()
        columns = find_choice_columns(
            table,
            texts=tuple(texts) or task.fields,
            options=options,
            answer=(label or task.answer_column) if labelled else None,
            need_answer=labelled,
        )
        own = label is None and columns.options == task.options
        columns = replace(columns, kind=task.answer_kind if own else None)
        rows, _ = questions(table, columns, need_answers=labelled, on_bad=on_bad)
        return renamed(rows, task.fields)

    def logits(self, tuned: Tuned, rows: Questions) -> Tensor:
        """Scores (rows, most options); minus infinity where a row has no such option."""
        most = max(map(len, rows.options), default=0)
        scores = torch.full((len(rows), most), -torch.inf)
        for line, own in enumerate(_scores(tuned, rows)):
            scores[line, : len(own)] = own
            if not torch.isfinite(own).all():
                raise RunError(
                    "the answers are not finite numbers",
                    where=f"{rows.source}, first in row {rows.numbers[line]}",
                    expected="finite log-probabilities",
                    fix=f"load {tuned.base.name} in another number format than {tuned.base.dtype}",
                )
        return scores

    def predict(self, tuned: Tuned, inputs: Sequence[Sequence[object]] | Questions) -> list[Choice]:
        """The most probable option of each question, given as (question, [option, ...]) or rows."""
        names = _prompt(tuned.prompt).task.fields
        rows = inputs if isinstance(inputs, Questions) else from_questions(inputs, names)
        if not len(rows):
            return []
        if tuned.averaged:
            return _averaged(tuned, rows)
        found = []
        for options, row in zip(rows.options, softmax(self.logits(tuned, rows)), strict=True):
            own = tuple(map(float, row[: len(options)]))
            index = int(np.argmax(own))
            found.append(Choice(index, options[index], own[index], own))
        return found

    def evaluate(self, tuned: Tuned, rows: Questions, *, resamples: int, seed: int) -> Scores:
        """Scores over the options' places, with chance, and flips against the base."""
        from pegbox.tuning._tuned import base_alone

        gold = np.array(_prompt(tuned.prompt).task.gold(rows))
        started = time.perf_counter()
        probabilities = tuned.probabilities(rows)
        seconds = time.perf_counter() - started
        same = tuned.module is None and not _prompt(tuned.prompt).task.demonstrations
        base = None if tuned.base.kind == "encoder" else probabilities
        if base is not None and not same:
            base = softmax(self.logits(base_alone(tuned), rows))
        seen = told_seen(tuned, rows)
        scores = score(
            probabilities,
            gold,
            option_names(probabilities.shape[1]),
            base=base,
            in_training=seen if base is not None else None,
            numbers=rows.numbers if base is not None else None,
            resamples=resamples,
            seed=seed,
        )
        chance = Estimate(rows.chance, float("nan"), float("nan"))
        metrics = {"accuracy": scores.metrics["accuracy"], "chance": chance, **scores.metrics}
        return replace(scores, metrics=metrics, seconds=seconds)


def _averaged(tuned: Tuned, rows: Questions) -> list[Choice]:
    """The most probable options by the probabilities that are averaged over the posterior."""
    from pegbox.tuning._laplace import sureness

    found, probabilities, spread = sureness(tuned, rows)
    choices = []
    for line, options in enumerate(rows.options):
        own = tuple(probabilities[line, : len(options)].tolist())
        index = int(np.argmax(own))
        sure = tuple(found.deviations[line, : len(options)].tolist())
        choices.append(Choice(index, options[index], own[index], own, float(spread[line, index]), sure))
    return choices


def _scores(tuned: Tuned, rows: Questions) -> list[Tensor]:
    """Scores (options,) of each row: log-probabilities by their divisors, or those of a head."""
    prompt = _prompt(tuned.prompt)
    if tuned.base.kind == "encoder":
        assert tuned.module is not None
        pairs = prompt.encode_pairs(rows, too_long=tuned.too_long)
        for note in pairs.notes():
            tuned.say(note)
        return pair_scores(tuned.module, tuned.base, pairs)
    encoded = prompt.encode_options(rows, too_long=tuned.too_long)
    for note in encoded.notes():
        tuned.say(note)
    module = tuned.module if tuned.module is not None else tuned.base.model
    found = option_logprobs(module, tuned.base, encoded)
    return [own / torch.tensor(divisors) for own, divisors in zip(found, encoded.divisors, strict=True)]


def option_names(count: int) -> tuple[str, ...]:
    """A, B, C and so on; numbers beyond 26."""
    return tuple(chr(ord("A") + place) if place < 26 else str(place + 1) for place in range(count))


def _few_shot(work: Work, method: FewShot, rows: Questions) -> Solved:
    """Show questions drawn at random with their right answers, fewer where the context does not hold them."""
    if method.selection != "random":
        raise CapabilityError(
            "similar demonstrations are chosen per label, and questions have none",
            where="few-shot selection similar",
            expected="random",
            fix="leave selection at random",
        )
    prompt, gold = _prompt(work.prompt), _prompt(work.prompt).task.gold(rows)
    longest = max(prompt.encode_options(rows, too_long=work.too_long).prompts.lengths)
    drawn = random.Random(work.seed).sample(range(len(rows)), min(method.per_class, len(rows)))
    shown = [
        Demonstration(
            {name: texts[i] for name, texts in rows.fields.items()}, rows.options[i][gold[i]].strip()
        )
        for i in drawn
    ]
    while shown:
        asked = prompt.with_demonstrations(shown)
        if prompt.context - len(asked.demonstration_ids()) >= min(longest, prompt.context // 2):
            break
        shown.pop()
    if len(shown) < method.per_class:
        work.say(f"{len(shown)} instead of {method.per_class} demonstrations")
    return Solved(prompt.with_demonstrations(shown), details={"demonstrations": len(shown)})


def _prompt(prompt: object) -> ChoosePrompt:
    assert isinstance(prompt, ChoosePrompt)
    return prompt
