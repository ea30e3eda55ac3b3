"""Which method to begin with: what fits, what a pilot shows, and what follows from both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pegbox.comparison._baselines import baselines
from pegbox.comparison._estimate import Estimator
from pegbox.comparison._offer import Offer
from pegbox.comparison._pilot import Pilot
from pegbox.comparison._pilot import pilot as measure
from pegbox.comparison._rules import Facts, recommended
from pegbox.comparison._said import doubts, reasons
from pegbox.data import Examples, Rows
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.evaluation import plain
from pegbox.methods import Method, build
from pegbox.methods import methods as all_methods
from pegbox.models import Base, FeatureCache, load
from pegbox.tasks import Choose, Classify, Generate, Prefer, Tag, Task
from pegbox.training import tell
from pegbox.tuning import Once, Training

FORMAT = "pegbox.advice/1"


@dataclass(frozen=True)
class Advice:
    """Which method to begin with, and why.

    Args:
        source: Where the rows come from.
        base: The base's name.
        rows: Labelled rows.
        labels: The task's labels; empty for multiple choice.
        memory: Bytes that may be used; ``None`` for no limit.
        seconds: Seconds that a fit may take; ``None`` for no limit.
        offers: All methods that were asked for, the quickest first, those left out last.
        pilot: What was measured; ``None`` where nothing was.
        method: The method to begin with; ``None`` where none fits.
        rule: Name of the rule that chose it.
        measured: Whether that rule rests on what was measured on these rows.
        reasons: Why, in plain words.
        doubts: What is not sure about it.
    """

    source: str
    base: str
    rows: int
    labels: tuple[str, ...]
    memory: int | None
    seconds: float | None
    offers: tuple[Offer, ...]
    pilot: Pilot | None
    method: str | None
    rule: str
    measured: bool
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]

    def lines(self) -> list[str]:
        """The recommendation in words: the method, why, and what is not sure."""
        first = f"begin with {self.method}" if self.method else "no method fits"
        found = [f"{first}: {self.reasons[0]}", *self.reasons[1:]]
        return [*found, *(f"not sure: {doubt}" for doubt in self.doubts)]

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values; NaN becomes None."""
        found: dict[str, Any] = {"format": FORMAT, **plain(self)}
        if self.pilot is not None and self.pilot.curve is not None:
            found["pilot"]["curve"] = self.pilot.curve.to_json()
        return found


def advise(
    base: Base | str | Path,
    task: Task,
    *,
    memory: int | None = None,
    seconds: float | None = None,
    methods: Sequence[Method | str] | None = None,
    pilot: bool = True,
    short_lora: bool = False,
    rows: Rows | None = None,
    training: Training | None = None,
    seed: int = 0,
    cache: FeatureCache | None = None,
    say: Callable[[str], None] = tell,
) -> Advice:
    """Say which method to begin with on these rows, what it would take and how sure that is.

    Nothing that cannot work on the base, or would not stay within the budgets, is ever recommended.

    Args:
        base: A loaded base, or a name for :func:`pegbox.load`.
        task: The task.
        memory: Bytes that loading, fitting and answering may take; ``None`` for no limit.
        seconds: Seconds that fitting may take; ``None`` for no limit.
        methods: Methods to choose from; by default all.
        pilot: Whether to measure majority, zero-shot, the closed form and its learning curve on the rows.
        short_lora: Whether to train LoRA for a few steps as well, where it stays within the budgets.
        rows: Labelled rows; by default those that the task was read from.
        training: How gradient methods would be trained.
        seed: Seed of samples, folds and the short LoRA.
        cache: Feature cache; none when ``None``.
        say: Receives lines for the user.

    Raises:
        InputError: Without labelled rows.
        CapabilityError: For a generation task.
        UsageError: For no such method, a baseline, and a short LoRA without a pilot.
    """
    say = Once.of(say)
    if short_lora and not pilot:
        raise _contradiction()
    wanted = _wanted(methods)
    rows = _labelled(task, rows if rows is not None else task.rows)
    base = base if isinstance(base, Base) else load(base)
    training = training or Training()
    say("estimating by a few measured steps")
    estimator = Estimator(base, task, rows, training=training)
    made = [Offer.within(estimator.costs(method), memory, seconds) for method in wanted]
    offers = tuple(sorted(made, key=lambda offer: offer.order))
    fits = [offer.costs.method for offer in offers if not offer.left_out]
    found: Pilot | None = None
    notes: tuple[str, ...] = ()
    if pilot:
        say("measuring what is cheap")
        short = short_lora and "lora" in fits
        found, notes = _measured(base, task, rows, short, training, seed, cache, say)
        if short_lora and not short:
            notes = (*notes, "the short LoRA was not tried: lora is not asked for, or does not fit")
    facts = Facts(
        task=_kind(task),
        words=base.kind != "encoder",
        rows=len(rows),
        fits=fits,
        heavy=[offer.costs.method for offer in offers if offer.by == "memory"],
        slow=[offer.costs.method for offer in offers if offer.by == "time"],
        pilot=found,
        short_lora=short_lora,
    )
    return _advice(task, base, rows, offers, facts, notes, memory, seconds)


def _advice(
    task: Task,
    base: Base,
    rows: Rows,
    offers: tuple[Offer, ...],
    facts: Facts,
    notes: tuple[str, ...],
    memory: int | None,
    seconds: float | None,
) -> Advice:
    """What follows from the facts by the rules."""
    chosen = recommended(facts)
    method, rule = chosen if chosen else (None, None)
    costs = next((offer.costs for offer in offers if offer.costs.method == method), None)
    return Advice(
        source=rows.source,
        base=base.name,
        rows=len(rows),
        labels=tuple(getattr(task, "labels", ())),
        memory=memory,
        seconds=seconds,
        offers=offers,
        pilot=facts.pilot,
        method=method,
        rule=rule.name if rule else "nothing fits",
        measured=rule.measured if rule else False,
        reasons=reasons(facts, rule, offers),
        doubts=(*doubts(facts, rule, costs, memory, seconds), *notes),
    )


def _labelled(task: Task, rows: Rows | None) -> Rows:
    """The rows, once it is clear that their labels can be right or wrong."""
    if rows is None or not len(rows):
        raise InputError("there are no rows to advise on", expected="labelled rows", fix="pass rows=")
    if isinstance(task, Prefer):
        raise CapabilityError(
            "the advice weighs answers that are right or wrong, and a reward is a number",
            where=rows.source,
            expected="a Classify, Choose or Tag task",
            fix="begin with lora: pegbox reward, whose scores have the baselines beside them",
        )
    if isinstance(task, Generate):
        raise CapabilityError(
            "the advice weighs answers that are right or wrong, and free text has none such",
            where=rows.source,
            expected="a Classify, Choose or Tag task",
            fix="begin with lora: pegbox sft, whose scores have the base's beside them",
        )
    task.gold(rows)  # type: ignore[arg-type]  # each task reads rows of its own kind
    return rows


def _wanted(asked: Sequence[Method | str] | None) -> list[Method]:
    """The methods to choose from; all when none are named."""
    names: Sequence[Method | str] = list(all_methods()) if asked is None else asked
    if not names:
        raise UsageError(
            "there is no method to choose from",
            where="methods",
            expected=", ".join(all_methods()),
            fix="name at least one, or leave methods out for all",
        )
    for name in names:
        if isinstance(name, str) and name in baselines():
            raise UsageError(
                f"{name} is a baseline: it costs next to nothing, so that it needs no advice",
                where="methods",
                expected=", ".join(all_methods()),
                fix=f"leave {name} out; pegbox compare climbs the baselines too",
            )
    return [build(one) if isinstance(one, str) else one for one in names]


def _contradiction() -> UsageError:
    return UsageError(
        "the short LoRA is a part of the pilot, and the pilot is left out",
        where="short_lora without pilot",
        expected="a pilot with the short LoRA, or neither",
        fix="leave one of the two options out",
    )


def _measured(
    base: Base,
    task: Task,
    rows: Rows,
    short_lora: bool,
    training: Training,
    seed: int,
    cache: FeatureCache | None,
    say: Callable[[str], None],
) -> tuple[Pilot | None, tuple[str, ...]]:
    """The pilot where there can be one, and what could not be measured."""
    if not isinstance(task, Classify) or not isinstance(rows, Examples):
        return None, ("nothing was measured: the pilot is that of classification",)
    try:
        found = measure(
            base, task, rows, short_lora=short_lora, training=training, seed=seed, cache=cache, say=say
        )
    except CapabilityError as error:
        return None, (f"nothing was measured: {error.what}",)
    return found, found.notes


def _kind(task: Task) -> Literal["classify", "choose", "tag"]:
    return "tag" if isinstance(task, Tag) else "choose" if isinstance(task, Choose) else "classify"
