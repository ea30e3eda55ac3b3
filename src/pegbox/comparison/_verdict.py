"""Which rung is worth its cost, and how that is said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pegbox.comparison._result import ANSWERS, Rung
from pegbox.errors import UsageError
from pegbox.evaluation import SIGNIFICANT, Paired, Sample, compare_several, holm
from pegbox.training import clock

NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "nll": "log-loss",
    "brier": "Brier score",
    "f1": "entity F1",
}
POINTS = ("accuracy", "macro_f1", "f1")


@dataclass(frozen=True)
class Rule:
    """When a rung is worth its cost, and when the climb ends.

    Args:
        metric: The decisive metric.
        lower: Whether less of it is better.
        worth: Gain that a rung must show for each tenfold of the time that the best cheaper rung took, and at
            least once; 0.01 is one point of accuracy.
        patience: Trained rungs in a row that are not worth their cost, after which the climb ends; 0 = climb
            all.
    """

    metric: str
    lower: bool
    worth: float = 0.01
    patience: int = 3

    def __post_init__(self) -> None:
        if not (math.isfinite(self.worth) and self.worth >= 0):
            raise UsageError(
                "the gain that is worth its cost is no such number",
                where=f"worth {self.worth:g}",
                expected="0 or more, such as 0.01 for one point of accuracy",
                fix=f"leave it out for {Rule.worth:g}",
            )
        if self.patience < 0:
            raise UsageError(
                "the number is too small",
                where=f"patience {self.patience}",
                expected="0 to climb all, or more",
                fix=f"leave it out for {Rule.patience}",
            )

    def gain(self, difference: Paired) -> float:
        """How much better the first of two systems is."""
        return -difference.difference.value if self.lower else difference.difference.value

    def needed(self, seconds: float, cheaper: float) -> float:
        """The gain that a rung of so many seconds needs over one of fewer."""
        times = max(seconds, 1e-3) / max(cheaper, 1e-3)
        return self.worth * max(1.0, math.log10(times)) if times > 0 else self.worth

    def __str__(self) -> str:
        ends = (
            f"The climb ends after {self.patience} trained rungs in a row that have not."
            if self.patience
            else "All rungs are climbed."
        )
        return (
            f"A rung is worth its cost when it has shown (p < {SIGNIFICANT}) a gain over the best cheaper "
            f"rung of {self._gain()} for each tenfold of its time, and at least once. Time is that to fit "
            f"and to answer {ANSWERS:,} rows. {ends}"
        )

    def _gain(self) -> str:
        name = NAMES[self.metric]
        if self.metric not in POINTS:
            return f"{self.worth:g} of {name}"
        return f"{100 * self.worth:g} point{'' if self.worth == 0.01 else 's'} of {name}"


def judged(rung: Rung, cheaper: Sequence[Rung], samples: Mapping[str, Sequence[Sample]], rule: Rule) -> Rung:
    """The rung with its difference to the best cheaper one."""
    if not cheaper:
        return rung
    best = _best(cheaper, rule)
    difference = compare_several(samples[rung.name], samples[best.name], metric=rule.metric)
    needed = rule.needed(rung.seconds, best.seconds)
    worth = difference.p < SIGNIFICANT and rule.gain(difference) >= needed
    return replace(rung, against=best.name, difference=difference, needed=needed, worth=worth)


def ranked(rungs: Sequence[Rung], samples: Mapping[str, Sequence[Sample]], rule: Rule) -> list[Rung]:
    """The rungs with the cheapest first, each judged by those that are cheaper."""
    found: list[Rung] = []
    for rung in sorted(rungs, key=lambda one: one.seconds):
        bare = replace(rung, against=None, difference=None, needed=None, worth=None)
        found.append(judged(bare, found, samples, rule))
    return found


def _best(rungs: Sequence[Rung], rule: Rule) -> Rung:
    """The best by the decisive metric; of equals the cheapest."""
    sign = 1 if rule.lower else -1
    return min(rungs, key=lambda rung: _last(sign * rung.metrics[rule.metric].value))


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


@dataclass(frozen=True)
class Verdict:
    """The recommended rung.

    Args:
        rung: The cheapest rung that no costlier one beats and no cheaper one equals.
        sentences: Why, in two sentences.
    """

    rung: Rung
    sentences: tuple[str, str]


def verdict(rungs: Sequence[Rung], samples: Mapping[str, Sequence[Sample]], rule: Rule, rows: int) -> Verdict:
    """Find the cheapest rung that no costlier rung has shown to beat by what its cost needs.

    A costlier rung beats it with a Holm-adjusted p below 0.05, over all costlier rungs, and the gain that
    their times need. A rung that measured no better than a cheaper one is passed over: where its seeds
    differ much nothing may be shown to beat it, although the cheaper one was beaten.

    Args:
        rungs: In the order of cost, at least one.
        samples: Answers of each rung, by name.
        rule: What a gain must be.
        rows: Test rows.
    """
    for place, rung in enumerate(rungs):
        if _best(rungs[: place + 1], rule) is not rung:
            continue
        above = [_against(other, rung, samples, rule) for other in rungs[place + 1 :]]
        adjusted = holm([found.p for found in above])
        beaten = [
            p < SIGNIFICANT and rule.gain(found) >= rule.needed(other.seconds, rung.seconds)
            for p, found, other in zip(adjusted, above, rungs[place + 1 :], strict=True)
        ]
        if not any(beaten):
            below = [_against(rung, other, samples, rule) for other in rungs[:place]]
            first = _why(rung, rungs[:place], below, rule, rows)
            return Verdict(rung, (first, _above(rungs[place + 1 :], above, adjusted, rule, rows)))
    raise AssertionError("nothing can beat the rung that measured best")


def _against(a: Rung, b: Rung, samples: Mapping[str, Sequence[Sample]], rule: Rule) -> Paired:
    return compare_several(samples[a.name], samples[b.name], metric=rule.metric)


def _why(rung: Rung, cheaper: Sequence[Rung], differences: Sequence[Paired], rule: Rule, rows: int) -> str:
    """The recommended rung against what is cheaper."""
    name = NAMES[rule.metric]
    score = f"{name} {rung.metrics[rule.metric]} on {rows:,} test rows"
    if not cheaper:
        return f"{rung.name} is recommended: {score}, and nothing is cheaper."
    best = _best(cheaper, rule)
    found = differences[[other.name for other in cheaper].index(best.name)]
    if found.p < SIGNIFICANT:
        told = f"ahead of {best.name}, the best cheaper rung, {_by(found, rule)}"
    else:
        told = f"which these rows cannot tell from {best.name}, the best cheaper rung ({_gap(found, rule)})"
    return f"{rung.name} is recommended: {score}, {told}."


def _above(
    costlier: Sequence[Rung], differences: Sequence[Paired], adjusted: Sequence[float], rule: Rule, rows: int
) -> str:
    """What the costlier rungs have to say."""
    if not costlier:
        return "It is the costliest rung that was climbed, so nothing here says what more would bring."
    best = _best(costlier, rule)
    place = [other.name for other in costlier].index(best.name)
    found, p = differences[place], adjusted[place]
    named = f"{best.name} ({clock(best.seconds)} to fit and answer)"
    if rule.gain(found) <= 0:
        if len(costlier) == 1:
            return f"The one costlier rung, {named}, measured no better."
        return f"None of the {len(costlier)} costlier rungs measured better; {named} comes next."
    better = f"{named} measured better{',' if rule.lower else ''} {_by(found, rule)}"
    if p < SIGNIFICANT:
        return f"{better}, which is less than its cost needs."
    return (
        f"{better}, but {_over(len(costlier))}such a difference on {rows:,} rows can be chance "
        f"(adjusted p = {p:.2f}): it is no winner."
    )


def _over(costlier: int) -> str:
    return f"over {costlier} costlier rungs " if costlier > 1 else ""


def _by(found: Paired, rule: Rule) -> str:
    return f"{'with' if rule.lower else 'by'} {_gap(found, rule)}"


def _gap(found: Paired, rule: Rule) -> str:
    """The difference with the table's sign; where less is better in words, without a sign to be misread."""
    if not rule.lower:
        return str(found)
    gap, name = found.difference, NAMES[rule.metric]
    sign, word = (1, "higher") if gap.value > 0 else (-1, "lower")
    low, high = sorted((sign * gap.low, sign * gap.high))
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    return f"a {name} {word} by {sign * gap.value:.3f} [{low:.3f}, {high:.3f}], {p}"
