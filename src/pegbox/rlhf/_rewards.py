"""What gives answers their scores: a reward model, or a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pegbox.errors import InputError, RunError
from pegbox.rlhf._sequences import Answered


class Reward(Protocol):
    """Scores of answers."""

    def __call__(self, rows: Answered, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Scores (rows,) of answers, given as token ids and as texts."""


@dataclass(frozen=True)
class FunctionReward:
    """A Python function of a prompt and an answer, or of lists of them, as a reward.

    Args:
        function: Takes prompt and answer, and returns a number.
        name: What it is called.
    """

    function: Callable[[str, str], float]
    name: str = "function"

    def __call__(self, rows: Answered, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:  # noqa: ARG002
        """Scores (rows,)."""
        found = []
        for prompt, answer in zip(prompts, answers, strict=True):
            try:
                found.append(float(self.function(prompt, answer)))
            except Exception as error:  # a function of the user's, which may fail in any way
                raise RunError(
                    f"the reward function fails: {type(error).__name__}: {error}",
                    where=f"{self.name}, answer {answer[:80]!r}",
                    expected="a function of a prompt and an answer that returns a number",
                    fix="mend the function",
                ) from error
        return torch.tensor(found, dtype=torch.float64)


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of a reward on the reference's answers, by which it is told.

    Args:
        mean: Mean.
        deviation: Standard deviation.
    """

    mean: float
    deviation: float

    @classmethod
    def of(cls, scores: Tensor, name: str) -> Scale:
        """Measure scores (rows,).

        Raises:
            InputError: When they are not finite, or all the same.
        """
        check_finite(scores, name)
        deviation = float(scores.double().std())
        if not deviation > 1e-8 * max(1.0, float(scores.abs().max())):
            raise InputError(
                f"the reward is the same for all {len(scores)} answers: there is nothing to learn from it",
                where=name,
                expected="a reward that tells answers apart",
                fix="look at the reward model's accuracy, or at the reward function",
            )
        return cls(float(scores.double().mean()), deviation)

    def standard(self, scores: Tensor) -> Tensor:
        """Scores with mean 0 and standard deviation 1 on the reference's answers."""
        return (scores.double() - self.mean) / self.deviation

    def told(self, scores: Tensor, finished: Sequence[bool], penalty: float) -> Tensor:
        """The same, less a penalty where an answer has no end."""
        return self.standard(scores) - penalty * (~torch.tensor(finished)).double()


def check_finite(scores: Tensor, name: str) -> None:
    """Raise InputError for scores that are not finite numbers."""
    wrong = int((~torch.isfinite(scores)).sum())
    if wrong:
        raise InputError(
            f"the reward of {wrong} of {len(scores)} answers is not a finite number",
            where=name,
            expected="finite scores",
            fix="look at the reward model, or at the reward function",
        )
