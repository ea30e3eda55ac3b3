"""Scores of a policy beside the model it was tuned from: rewards, wins, divergence, what is reachable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pegbox.errors import InputError
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._estimate import Estimate, Floats, percentile_interval, wilson
from pegbox.evaluation._json import plain, read_estimate, reading
from pegbox.evaluation._paired import permutation

FORMAT = "pegbox.policy-scores/1"
# Effective answers per prompt below which reweighting them says little.
ENOUGH = 50.0


@dataclass(frozen=True)
class RewardChange:
    """One reward of answers to the same prompts, before and after.

    Args:
        before: Mean of the reference's answers.
        after: Mean of the policy's.
        difference: After less before, paired by prompt.
        p: Two-sided p-value of no difference, by random signs of the prompts' differences.
        wins: Share of prompts to which the policy's answer has the higher reward; a tie counts half.
        ties: Pairs of answers with equal rewards.
    """

    before: Estimate
    after: Estimate
    difference: Estimate
    p: float
    wins: Estimate
    ties: int


@dataclass(frozen=True)
class Reach:
    """A policy beside what reweighting the reference's own answers by exp(reward / beta) reaches.

    Args:
        beta: Weights of the divergence, the largest first.
        rewards: Reward reached at each, in standard deviations of the reference's.
        divergences: Divergence at each, in nats per answer.
        effective: Effective number of answers per prompt at each.
        plain: Mean reward of the reference.
        reward: Of the policy on the same prompts.
        divergence: Of the policy on the same prompts.
        share: Of the gain reachable at the policy's divergence, the share it has; NaN outside the frontier.
        answers: Effective number of the reference's answers per prompt there.
        prompts: Prompts.
        draws: Answers of each model to each.
    """

    beta: tuple[float, ...]
    rewards: tuple[float, ...]
    divergences: tuple[float, ...]
    effective: tuple[float, ...]
    plain: float
    reward: Estimate
    divergence: Estimate
    share: Estimate
    answers: float
    prompts: int
    draws: int

    @property
    def fair(self) -> int:
        """How many of the points, from the first, are fair estimates."""
        return sum(answers >= ENOUGH for answers in self.effective)

    @property
    def sure(self) -> bool:
        """Whether so many answers have weight that the frontier is a fair estimate."""
        return self.answers >= ENOUGH


@dataclass(frozen=True)
class PolicyScores:
    """How a policy answers prompts that nothing was learnt on.

    Args:
        rows: Prompts.
        rewards: ``reward``, in standard deviations of the reference's own, and ``gold`` where there is one.
        divergence: Log-ratio of policy and reference over the policy's answers, in nats per answer.
        lengths: Tokens per answer before and after.
        ended: Share of answers that end, before and after.
        reach: The frontier; None where it was not measured.
        seconds: Wall-clock time of the run that is described.
    """

    rows: int
    rewards: dict[str, RewardChange]
    divergence: Estimate
    lengths: tuple[Estimate, Estimate]
    ended: tuple[Estimate, Estimate]
    reach: Reach | None = None
    seconds: float | None = field(default=None, compare=False)

    @property
    def metrics(self) -> dict[str, Estimate]:
        """All numbers with intervals by name."""
        found: dict[str, Estimate] = {}
        for name, part in self.rewards.items():
            found |= {
                f"{name}_before": part.before,
                f"{name}_after": part.after,
                f"{name}_change": part.difference,
                f"win_rate_{name}": part.wins,
            }
        found |= {
            "kl": self.divergence,
            "length_before": self.lengths[0],
            "length_after": self.lengths[1],
            "ended_before": self.ended[0],
            "ended_after": self.ended[1],
        }
        if self.reach is not None:
            found["share_reached"] = self.reach.share
        return found

    def timed(self, seconds: float) -> PolicyScores:
        """The same with the wall-clock time it took."""
        return replace(self, seconds=seconds)

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        return {"format": FORMAT, **plain(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PolicyScores:
        """Read what `to_json` wrote.

        Raises:
            InputError: not that format, or a part is missing.
        """
        with reading(values, FORMAT, "a file of a policy's scores", "scores"):
            before, after = map(read_estimate, values["lengths"])
            ended = tuple(map(read_estimate, values["ended"]))
            return cls(
                rows=values["rows"],
                rewards={name: _change(part) for name, part in values["rewards"].items()},
                divergence=read_estimate(values["divergence"]),
                lengths=(before, after),
                ended=(ended[0], ended[1]),
                reach=None if values["reach"] is None else _reach(values["reach"]),
                seconds=values["seconds"],
            )

    def __str__(self) -> str:
        told = {"prompts": f"{self.rows:,}", **{name: str(one) for name, one in self.metrics.items()}}
        width = max(map(len, told))
        return "\n".join(f"{name:<{width}} {value}" for name, value in told.items())


@dataclass(frozen=True)
class Judged:
    """What is measured of one model's answers, equally many to each prompt.

    Args:
        rewards: Scores (rows,) by name: ``reward``, and ``gold`` where there is one.
        lengths: Tokens (rows,).
        ended: Whether each ended (rows,).
    """

    rewards: Mapping[str, ArrayLike]
    lengths: ArrayLike
    ended: ArrayLike


@dataclass(frozen=True)
class FrontierDraws:
    """What a frontier is measured from.

    Args:
        beta: Weights of the divergence, the largest first.
        rewards: Reward (prompts, betas) of the reference's reweighted answers.
        divergences: Their divergence (prompts, betas).
        effective: Their effective number (prompts, betas).
        plain: Mean reward (prompts,) of the reference's answers.
        reward: Mean reward (prompts,) of the policy's.
        divergence: Mean log-ratio (prompts,) of the policy's.
        draws: Answers of each model to each prompt.
    """

    beta: tuple[float, ...]
    rewards: ArrayLike
    divergences: ArrayLike
    effective: ArrayLike
    plain: ArrayLike
    reward: ArrayLike
    divergence: ArrayLike
    draws: int


def score_policy(
    before: Judged,
    after: Judged,
    divergence: ArrayLike,
    *,
    each: int = 1,
    drawn: FrontierDraws | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> PolicyScores:
    """Measure a policy's answers beside those of the model it was tuned from, with 95 % bootstrap intervals.

    Intervals are percentiles over resamples of the prompts; where all resamples agree, shares take Wilson's.
    The share of the reachable reward is that of each resample at its own divergence; it is undefined where
    the policy lies outside the frontier, and in resamples that do.

    Args:
        before: The reference's answers.
        after: The policy's answers to the same prompts.
        divergence: Log-ratios (rows,) of policy and reference over the policy's answers, in nats.
        each: Answers of each model per prompt, which stand next to each other; what is told is of prompts,
            by the mean over their answers, and wins are of the first answer over the first, and so on.
        drawn: For the frontier; ``None`` for none.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        InputError: no prompts, arrays of different lengths, or numbers that are not finite.
        UsageError: no resamples.
    """
    answers = len(_read(divergence, "divergence"))
    rows = answers // each
    if rows * each != answers:
        raise InputError(f"there are {answers} answers", expected=f"{each} per prompt")
    sides = [
        {
            **{f"reward {name}": _read(part, name, answers) for name, part in side.rewards.items()},
            "length": _read(side.lengths, "lengths", answers),
            "ended": _read(side.ended, "ended", answers),
        }
        for side in (before, after)
    ]

    def mean(numbers: Floats) -> Estimate:
        values = numbers.reshape(rows, each).mean(1)
        found = bootstrap(lambda weights: weights @ values / rows, rows, resamples=resamples, seed=seed)
        return percentile_interval(float(values.mean()), found) if rows > 1 else _alone(float(values.mean()))

    def share(values: Floats) -> Estimate:
        found = mean(values)
        return Estimate(found.value, *wilson(float(values.sum()) / each, rows)) if found.zero_width else found

    rewards = {}
    for name in after.rewards:
        old, new = (side[f"reward {name}"] for side in sides)
        gaps = new - old
        rewards[name] = RewardChange(
            before=mean(old),
            after=mean(new),
            difference=mean(gaps),
            p=permutation(gaps.reshape(rows, each).mean(1), resamples, seed),
            wins=share((np.sign(gaps) + 1) / 2),
            ties=int((gaps == 0).sum()),
        )
    return PolicyScores(
        rows=rows,
        rewards=rewards,
        divergence=mean(_read(divergence, "divergence")),
        lengths=(mean(sides[0]["length"]), mean(sides[1]["length"])),
        ended=(share(sides[0]["ended"]), share(sides[1]["ended"])),
        reach=None if drawn is None else _reached(drawn, resamples, seed),
    )


def _read(values: ArrayLike, name: str, rows: int | None = None) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found) or (rows is not None and len(found) != rows):
        raise InputError(
            f"the numbers of {name} have the shape {found.shape}",
            expected="one per prompt, and at least one prompt" if rows is None else f"({rows},)",
        )
    if not np.isfinite(found).all():
        raise InputError(f"a number of {name} is not finite", expected="finite numbers")
    return found


def _alone(value: float) -> Estimate:
    return Estimate(value, math.nan, math.nan)


def _reached(drawn: FrontierDraws, resamples: int, seed: int) -> Reach:
    best, spent, many = (
        np.asarray(part, dtype=np.float64) for part in (drawn.rewards, drawn.divergences, drawn.effective)
    )
    base, reward, divergence = (
        _read(part, name, len(best))
        for part, name in (
            (drawn.plain, "plain rewards"),
            (drawn.reward, "rewards"),
            (drawn.divergence, "divergence"),
        )
    )
    rows = len(best)

    def of(weights: Floats) -> Floats:
        """(chunk, 3): reward, divergence and share."""
        means = [weights @ part / rows for part in (best, spent, base, reward, divergence)]
        return np.stack([means[3], means[4], _shares(*means)], axis=1)

    value = of(np.ones((1, rows)))[0]
    samples = bootstrap(of, rows, resamples=resamples, seed=seed)
    told = [
        percentile_interval(float(one), samples[:, at]) if rows > 1 else _alone(float(one))
        for at, one in enumerate(value)
    ]
    nearest = int(np.abs(spent.mean(0) - value[1]).argmin())
    return Reach(
        beta=drawn.beta,
        rewards=tuple(best.mean(0).tolist()),
        divergences=tuple(spent.mean(0).tolist()),
        effective=tuple(many.mean(0).tolist()),
        plain=float(base.mean()),
        reward=told[0],
        divergence=told[1],
        share=told[2],
        answers=float(many.mean(0)[nearest]),
        prompts=rows,
        draws=drawn.draws,
    )


def _shares(best: Floats, spent: Floats, base: Floats, reward: Floats, divergence: Floats) -> Floats:
    """Share of the reachable gain (chunk,); NaN outside the frontier."""
    found = np.full(len(reward), np.nan)
    for at in range(len(reward)):
        order = np.argsort(spent[at])
        inside = spent[at][order[0]] <= divergence[at] <= spent[at][order[-1]]
        reachable = np.interp(divergence[at], spent[at][order], best[at][order]) - base[at]
        if inside and reachable > 0:
            found[at] = (reward[at] - base[at]) / reachable
    return found


def _change(values: dict[str, Any]) -> RewardChange:
    told = {name: read_estimate(values[name]) for name in ("before", "after", "difference", "wins")}
    return RewardChange(**told, p=values["p"], ties=values["ties"])


def _reach(values: dict[str, Any]) -> Reach:
    told = {name: read_estimate(values[name]) for name in ("reward", "divergence", "share")}
    lists = {name: tuple(values[name]) for name in ("beta", "rewards", "divergences", "effective")}
    return Reach(**{**values, **lists, **told})
