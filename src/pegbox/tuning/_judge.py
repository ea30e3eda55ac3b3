"""A policy beside the model it was tuned from, on prompts that nothing was learnt on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pegbox.data import Conversations, Preferences
from pegbox.errors import InputError, UsageError, check_whole
from pegbox.evaluation import FrontierDraws, Judged, PolicyScores, score_policy
from pegbox.rlhf import Answered, Prompts, Reward, Rollouts, Scale, reweighted
from pegbox.training import resolve_precision, tell
from pegbox.tuning._prompts_asked import Asking, as_prompts, asked_prompts, decoded, unique_prompts, writes
from pegbox.tuning._reward_of import reward_of
from pegbox.tuning._tuned import Tuned


@dataclass(frozen=True)
class SideBySide:
    """A prompt with an answer of each model, drawn at temperature 1.

    Args:
        prompt: The last message of the prompt.
        before: The reference's answer.
        after: The policy's answer.
        rewards_before: Rewards of the first by name, the learned one in standard deviations.
        rewards_after: Rewards of the second.
    """

    prompt: str
    before: str
    after: str
    rewards_before: dict[str, float]
    rewards_after: dict[str, float]


BETAS = tuple(10 ** (exponent / 8) for exponent in range(8, -13, -1))
# Answers of each model that are judged, or one per prompt where there are more prompts.
ANSWERS = 128
# Answers of one forward pass.
SIZE = 16


@dataclass(frozen=True, eq=False)
class Judge:
    """What a policy is judged by.

    Args:
        rollouts: Draws and scores answers.
        reference: What the policies were tuned from.
        reward: The reward that it was tuned by.
        gold: Another; ``None`` where there is none.
        prompts: Prompts that nothing was learnt on.
        penalty: Standard deviations of reward that an answer without an end loses on the frontier.
        scale: Mean and standard deviation of the reward on the reference's answers; measured on the
            prompts where it is ``None``.
    """

    rollouts: Rollouts
    reference: nn.Module
    reward: Reward
    gold: Reward | None
    prompts: Prompts
    penalty: float
    scale: Scale | None = None

    def measured(
        self, policy: Tuned | nn.Module, *, draws: int, prompts: int, resamples: int = 1000
    ) -> tuple[PolicyScores, tuple[SideBySide, ...]]:
        """Draw answers to all prompts, 128 or more of each model, and ``draws`` to a few for the frontier.

        Raises:
            UsageError: Without prompts, and for numbers that cannot be.
            InputError: For rewards that are constant or not finite.
        """
        for value, least, name in ((draws, 0, "draws"), (prompts, 1, "prompts"), (resamples, 1, "resamples")):
            check_whole(value, least, name)
        if not len(self.prompts):
            raise UsageError(
                "there are no prompts that nothing was learnt on", expected="held=, or more prompts"
            )
        module = policy.network if isinstance(policy, Tuned) else policy
        started, each = time.perf_counter(), -(-ANSWERS // len(self.prompts))
        chosen = [index for index in range(len(self.prompts)) for _ in range(each)]
        before = self.rollouts.draw(self.reference, self.prompts, chosen, "held reference")
        after = self.rollouts.draw(module, self.prompts, chosen, "held policy")
        scale = self.scale or Scale.of(self._raw(self.reward, before, chosen), "reward of the reference")
        judged = [self._judged(rows, chosen, scale) for rows in (before, after)]
        scores = score_policy(
            judged[0],
            judged[1],
            self.rollouts.divergence(module, self.reference, after).numpy(),
            each=each,
            drawn=self._frontier(module, scale, draws, min(prompts, len(self.prompts))) if draws else None,
            resamples=resamples,
            seed=self.rollouts.seed,
        ).timed(time.perf_counter() - started)
        first = range(0, len(chosen), each)
        sides = [
            (self.rollouts.decode(rows.select(first).answers), _by_row(one.rewards)[::each])
            for rows, one in zip((before, after), judged, strict=True)
        ]
        (said, valued), (said_now, valued_now) = sides
        rows = zip(self.prompts.texts, said, said_now, valued, valued_now, strict=True)
        return scores, tuple(SideBySide(*row) for row in rows)

    def _raw(self, reward: Reward, rows: Answered, chosen: list[int]) -> torch.Tensor:
        texts = [self.prompts.texts[index] for index in chosen]
        return self.rollouts.score(reward, rows, texts, "reward on held-out prompts")

    def _judged(self, rows: Answered, every: list[int], scale: Scale) -> Judged:
        rewards = {"reward": scale.standard(self._raw(self.reward, rows, every)).tolist()}
        if self.gold is not None:
            rewards["gold"] = self._raw(self.gold, rows, every).tolist()
        return Judged(rewards, [len(answer) for answer in rows.answers], rows.finished)

    def _frontier(self, policy: nn.Module, scale: Scale, draws: int, prompts: int) -> FrontierDraws:
        chosen = [index for index in range(prompts) for _ in range(draws)]

        def told(module: nn.Module, name: str) -> tuple[Answered, torch.Tensor]:
            rows = self.rollouts.draw(module, self.prompts, chosen, name)
            scores = scale.told(self._raw(self.reward, rows, chosen), rows.finished, self.penalty)
            return rows, scores.reshape(prompts, draws)

        _, before = told(self.reference, "frontier")
        rows, after = told(policy, "reach")
        spent = self.rollouts.divergence(policy, self.reference, rows).reshape(prompts, draws)
        best, divergence, effective = reweighted(before, BETAS)
        return FrontierDraws(
            beta=BETAS,
            rewards=best.numpy(),
            divergences=divergence.numpy(),
            effective=effective.numpy(),
            plain=before.mean(1).numpy(),
            reward=after.mean(1).numpy(),
            divergence=spent.mean(1).numpy(),
            draws=draws,
        )


def _by_row(rewards: Mapping[str, Any]) -> list[dict[str, float]]:
    """Columns of rewards to one mapping per row."""
    return [dict(zip(rewards, row, strict=True)) for row in zip(*rewards.values(), strict=True)]


def judge(
    policy: Tuned | str | Path,
    sft: Tuned | str | Path,
    reward: Any,
    prompts: Conversations | Preferences | str | Path,
    *,
    gold: Any = None,
    max_tokens: int = 64,
    draws: int = 0,
    frontier_prompts: int = 8,
    missing_end_penalty: float = 1.0,
    precision: str = "float32",
    resamples: int = 1000,
    seed: int = 0,
    say: Callable[[str], None] = tell,
    **options: Any,
) -> PolicyScores:
    """Compare a policy with the model it was tuned from: rewards, wins, divergence, the reachable share.

    Answers are drawn at temperature 1, equally many per prompt, at least 128 of each model in all. Of equal
    prompts one is asked, since the intervals are over prompts.

    Args:
        policy: The policy, tuned by :func:`align`, :func:`dpo` or otherwise, or its folder.
        sft: What it was tuned from, which is the reference, or its folder; on the same base.
        reward: Reward model, function, ``module:function`` or file of rules, as for :func:`align`.
        prompts: Prompts that nothing was learnt on: rows, file or hub id.
        gold: A second reward.
        max_tokens: Most tokens of an answer.
        draws: Answers of each model per prompt for the frontier; 0 measures none.
        frontier_prompts: Prompts of the frontier.
        missing_end_penalty: Standard deviations of reward that an answer without an end loses there.
        precision: As in :class:`pegbox.training.Settings`.
        resamples: Bootstrap resamples of the intervals.
        seed: Of the answers and the resamples.
        say: Receives lines for the user.
        options: As for :meth:`Tuned.load`, where a folder is given.

    Raises:
        CapabilityError: For a model that writes no text.
        InputError: For models on different bases, and prompts or rewards that cannot be used.
        UsageError: For answers that leave no room for prompts.
    """
    start = sft if isinstance(sft, Tuned) else Tuned.load(sft, say=say, **options)
    base = start.base
    tuned = policy if isinstance(policy, Tuned) else Tuned.load(policy, model=base, say=say)
    writes(tuned)
    if tuned.base.fingerprint != base.fingerprint:
        raise InputError(
            "the policy lies on another base than the model that it is compared with",
            where=f"{tuned.base.name}, reference on {base.name}",
            expected="one base for both",
        )
    judge = judge_of(
        start, reward, prompts, gold=gold, max_tokens=max_tokens, penalty=missing_end_penalty,
        precision=precision, seed=seed, say=say,
    )  # fmt: skip
    return judge.measured(tuned, draws=draws, prompts=frontier_prompts, resamples=resamples)[0]


def judge_of(
    start: Tuned,
    reward: Any,
    prompts: Conversations | Preferences | str | Path,
    *,
    gold: Any,
    max_tokens: int,
    penalty: float = 1.0,
    precision: str = "float32",
    seed: int,
    say: Callable[[str], None],
) -> Judge:
    """What policies that start from a tuned model are judged by; the arguments are those of :func:`judge`.

    Raises:
        CapabilityError: For a model that writes no text.
        InputError: For prompts or rewards that cannot be used.
        UsageError: For answers that leave no room for prompts.
    """
    prompt, base = writes(start), start.base
    scored, model, _ = reward_of(reward, base, prompt.task.chat_template)
    truth = None if gold is None else reward_of(gold, base, prompt.task.chat_template, "gold")[0]
    asked_as: Any = None if model is None else model.prompt.task
    asking = Asking(usual="none" if asked_as is None else asked_as.dialogue)
    asked = unique_prompts(asked_prompts(start, prompts, asking, say), say)
    rollouts = Rollouts(
        base,
        prompt.stops,
        decoded(prompt),
        max_tokens,
        seed,
        SIZE,
        resolve_precision(precision, base.device) == "bf16",  # type: ignore[arg-type]
    )
    return Judge(rollouts, start.network, scored, truth, as_prompts(prompt, asked, max_tokens, say), penalty)
