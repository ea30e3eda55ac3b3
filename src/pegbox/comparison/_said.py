"""Why a method is recommended, and what is not sure about it, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pegbox.comparison._estimate import Costs
from pegbox.comparison._offer import Offer, amount
from pegbox.comparison._pilot import Pilot, Trial
from pegbox.comparison._rules import Facts, Rule
from pegbox.evaluation import SIGNIFICANT, Paired
from pegbox.training import clock

# How far estimates may be off; see docs/advise.md.
TIMES, SHARE = 2.0, 0.25
# Half the width of an accuracy's interval, beyond which a pilot says little.
WIDE = 0.05


def reasons(facts: Facts, rule: Rule | None, offers: Sequence[Offer]) -> tuple[str, ...]:
    """What speaks for the recommendation, the rule first."""
    if rule is None:
        return (_nothing(offers),)
    found = [_why(facts, rule, offers)]
    if facts.pilot is not None:
        found += _shown(facts.pilot)
    found += _without(offers)
    return tuple(found)


def _why(facts: Facts, rule: Rule, offers: Sequence[Offer]) -> str:
    """The rule's reason; where its first method cannot be had, why, and that the next one takes its place."""
    first, method = rule.methods[0], rule.chosen(facts)
    if method in (None, first):
        return f"{rule.reason} ({rule.source})"
    passed: dict[str, list[str]] = {}
    for name in rule.methods[: rule.methods.index(str(method))]:
        passed.setdefault(_passed(name, offers), []).append(name)
    why = ", ".join(f"{' and '.join(names)} {reason}" for reason, names in passed.items())
    return (
        f"its rule names {why} before it, and {method} is the next that can be had; the rule's reason: "
        f"{rule.reason} ({rule.source})"
    )


def _passed(name: str, offers: Sequence[Offer]) -> str:
    """Why a method of the rule is not the one."""
    offer = next((one for one in offers if one.costs.method == name), None)
    if offer is None:
        return "(not among the methods asked for)"
    kinds = {"memory": "(more memory than is allowed)", "time": "(more time than is allowed)"}
    return kinds.get(offer.by, "(cannot work on this base and task)")


def doubts(
    facts: Facts, rule: Rule | None, costs: Costs | None, memory: int | None, seconds: float | None
) -> tuple[str, ...]:
    """What is not sure, each in a sentence."""
    if rule is None:
        return ()
    return tuple(_doubts(facts, rule, costs, memory, seconds))


def _doubts(
    facts: Facts, rule: Rule, costs: Costs | None, memory: int | None, seconds: float | None
) -> Iterator[str]:
    if not rule.measured:
        tries = ", and --short-lora tries LoRA for a few steps" if _may_try(facts) else ""
        yield f"the rule was not measured on these rows; pegbox compare measures it{tries}"
    pilot = facts.pilot
    if pilot is not None:
        yield from _wide(pilot)
        if pilot.gain is not None and pilot.gain.p >= SIGNIFICANT:
            yield "on these rows the closed form cannot be told from what learns nothing"
        if pilot.tuned_gain is not None and not facts.tuned:
            yield (
                f"the short LoRA was not shown to be better than the closed form ({pilot.tuned_gain}); "
                "trained to its end it may be"
            )
    if costs is not None:
        yield from _near(costs, memory, seconds)


def _may_try(facts: Facts) -> bool:
    """Whether a short LoRA could still be tried."""
    return facts.pilot is not None and not facts.short_lora and "lora" in facts.fits


def _wide(pilot: Pilot) -> Iterator[str]:
    trial = pilot.trial("closed-form")
    if trial is not None and (trial.accuracy.high - trial.accuracy.low) / 2 > WIDE:
        half = 50 * (trial.accuracy.high - trial.accuracy.low)
        yield f"{trial.rows} rows tell the pilot's accuracies to about ± {half:.0f} points only"


def _near(costs: Costs, memory: int | None, seconds: float | None) -> Iterator[str]:
    if memory is not None and costs.memory is not None and costs.memory * (1 + SHARE) > memory:
        yield f"it may need more than is allowed: memory is estimated to within {SHARE:.0%} or so"
    if seconds is not None and costs.seconds is not None and costs.seconds * TIMES > seconds:
        yield f"it may take longer than is allowed: time is estimated to within a factor of {TIMES:.0f} or so"


def _shown(pilot: Pilot) -> Iterator[str]:
    """What the pilot measured, in the order in which it speaks."""
    closed, free = pilot.trial("closed-form"), _best_free(pilot)
    if closed is not None and free is not None and pilot.gain is not None:
        yield (
            f"closed form: accuracy {closed.accuracy} on {closed.rows} rows it had not learnt from; "
            f"{free.name} {free.accuracy.value:.3f} ({_gap(pilot.gain)})"
        )
    if pilot.tuned_gain is not None:
        yield f"short LoRA against the closed form on {pilot.tuned_gain.rows} rows: {_gap(pilot.tuned_gain)}"
    if pilot.curve is not None:
        yield pilot.curve.sentence()


def _best_free(pilot: Pilot) -> Trial | None:
    trials = [trial for trial in pilot.trials if trial.name in ("majority", "zero-shot")]
    return max(trials, key=lambda trial: trial.accuracy.value, default=None)


def _without(offers: Sequence[Offer]) -> Iterator[str]:
    """Which methods a budget left out."""
    for by, budget in (("memory", "memory"), ("time", "time")):
        names = [offer.costs.method for offer in offers if offer.by == by]
        if names:
            yield f"left out for the {budget} that is allowed: {', '.join(names)}"


def _nothing(offers: Sequence[Offer]) -> str:
    needed = [offer.costs for offer in offers if offer.by]
    if not needed:
        return "none of these methods can work on this base and task"
    memory = min((costs.memory for costs in needed if costs.memory is not None), default=0)
    seconds = min((costs.seconds for costs in needed if costs.seconds is not None), default=0.0)
    return (
        f"no method stays within the budgets: the least memory that one needs is {amount(memory)}, the least "
        f"time {clock(seconds)}"
    )


def _gap(found: Paired) -> str:
    return f"difference {found}"
