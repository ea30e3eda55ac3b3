"""The loop over rungs: measured one after another until patience or time is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from pegbox.comparison._cell import Terms
from pegbox.comparison._contest import Answers
from pegbox.comparison._engines import Engine, engine_of
from pegbox.comparison._ladder import Contender, refusal
from pegbox.comparison._pace import Pace
from pegbox.comparison._result import Cell, Rung, Skipped
from pegbox.comparison._store import Store
from pegbox.comparison._summary import summed
from pegbox.comparison._verdict import Rule, judged
from pegbox.errors import CapabilityError, RunError
from pegbox.evaluation import Sample

BASE_RUNG = "zero-shot"
EngineName = Literal["local", "ray"]


@dataclass(frozen=True, eq=False)
class Climb:
    """What the loop over rungs knows.

    Args:
        terms: What all cells share.
        store: Where they are kept.
        rule: When a rung is worth its cost.
        seeds: The seeds.
        engine: Where cells are measured.
        pace: The budget of time.
        rungs: What was climbed so far, in that order, each judged by those before it.
        skipped: What was not.
        samples: Answers of each rung, ready to be resampled.
        answers: Answers of each rung by seed.
        trained: Names of rungs that were trained by gradients.
    """

    terms: Terms
    store: Store
    rule: Rule
    seeds: tuple[int, ...]
    engine: EngineName
    pace: Pace
    rungs: list[Rung] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    answers: dict[str, dict[int, Answers]] = field(default_factory=dict)
    trained: set[str] = field(default_factory=set)


def climb_all(climb: Climb, named: Sequence[Contender], done: Callable[[Rung], None] | None) -> None:
    """Measure rung by rung until patience is over.

    Args:
        climb: Receives what is measured.
        named: The rungs, in order.
        done: Called with each rung as it is finished.
    """
    terms = climb.terms
    wanted = [(one, climb.seeds if one.seeded else climb.seeds[:1]) for one in named]
    idle = 0
    with closing(engine_of(climb.engine, terms, climb.store, wanted)) as engine:
        for contender, seeds in wanted:
            if climb.rule.patience and idle >= climb.rule.patience and contender.trained:
                reason = f"the {idle} trained rungs before it were not worth their cost"
                climb.skipped.append(Skipped(contender.name, reason))
                continue
            cells = _measured(climb, contender, seeds, engine)
            if cells is None:
                continue
            rung = _entered(climb, contender, cells)
            # The first rung has nothing cheaper to be judged by.
            idle = idle + contender.trained if rung.worth is False else 0
            if done is not None:
                done(rung)


def _measured(
    climb: Climb, contender: Contender, seeds: Sequence[int], engine: Engine
) -> list[tuple[Cell, Answers]] | None:
    """The cells of a rung, or none where it cannot be climbed or time is too short."""
    kept = [climb.store.find(contender, seed) for seed in seeds]
    if all(kept):
        return [found for found in kept if found is not None]
    reason = climb.pace.too_long(climb.terms, contender, sum(found is None for found in kept))
    if reason is not None:
        climb.skipped.append(Skipped(contender.name, reason))
        climb.terms.say(f"{contender.name} is not climbed: {reason}")
        return None
    try:
        return [engine.cell(contender, seed, _base_answers(climb)) for seed in seeds]
    except (CapabilityError, RunError) as error:
        reason = refusal(error)
        climb.skipped.append(Skipped(contender.name, reason))
        climb.terms.say(f"{contender.name} is not climbed: {reason}")
        return None


def _base_answers(climb: Climb) -> Answers | None:
    found = climb.answers.get(BASE_RUNG)
    return None if not found else next(iter(found.values()))


def _entered(climb: Climb, contender: Contender, cells: Sequence[tuple[Cell, Answers]]) -> Rung:
    """The rung of its cells, judged by those before it until all that is cheaper is known."""
    terms, contest = climb.terms, climb.terms.contest
    climb.answers[contender.name] = {cell.seed: answers for cell, answers in cells}
    samples = [contest.sample(answers, terms.task, terms.test) for _, answers in cells]
    climb.samples[contender.name] = samples
    if contender.trained:
        climb.trained.add(contender.name)
    climb.pace.note([cell for cell, _ in cells])
    rung = summed(contender, [cell for cell, _ in cells], samples, climb.rule.metric)
    rung = judged(rung, climb.rungs, climb.samples, climb.rule)
    climb.rungs.append(rung)
    return rung
