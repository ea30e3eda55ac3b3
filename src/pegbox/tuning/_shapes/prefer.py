"""How good an answer is: a reward, learnt from pairs of answers of which one was preferred."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pegbox._progress import track
from pegbox.data import Conversations, Preferences, Table, from_answers, take
from pegbox.errors import CapabilityError, InputError, RunError
from pegbox.evaluation import RewardScores, score_rewards
from pegbox.methods import Method, Solved, Solver
from pegbox.models import POSITIONS, Base, batches, collate, in_mode
from pegbox.tasks import AnswerIds, Encoded, Prefer, PreferPrompt, no_encoder_decoder
from pegbox.training import Trainable
from pegbox.tuning._answers import Array, softmax
from pegbox.tuning._seen import told_seen
from pegbox.tuning._shapes._pair_rows import TOKENS_ON_ACCELERATOR, TOKENS_PER_BATCH, PairRows
from pegbox.tuning._shapes._shape import Work

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned

SCALE_PAIRS = 512


@dataclass(frozen=True)
class Rewarded:
    """The reward of one answer.

    Args:
        reward: As the model gives it, in nats; only differences between answers mean something.
        standard: Less the mean and divided by the standard deviation of the answers that it was tuned on;
            ``None`` where these are not known.
    """

    reward: float
    standard: float | None = None


@dataclass(frozen=True)
class Preferred:
    """Which of two answers to a prompt is better.

    Args:
        index: The better one, 0 for the first and 1 for the second; the first where both are alike.
        text: Its text.
        probability: Probability that the first is better, the logistic function of the rewards' difference.
        rewards: Both rewards.
        deviation: Standard deviation of ``probability`` under the posterior, where it is averaged over one.
    """

    index: int
    text: str
    probability: float
    rewards: tuple[float, float]
    deviation: float | None = None


class PreferShape:
    """See :class:`pegbox.Prefer`."""

    def check(self, task: Prefer, rows: Any, valid: Any, say: Callable[[str], None]) -> None:
        """All rows must be pairs of which one is preferred."""
        task.check(rows, say)
        if valid is not None:
            task.gold(valid)

    def base(self, base: Base, method: Method) -> Base:
        """The base's trunk, on which a head scores; methods without anything to train are refused.

        Raises:
            CapabilityError: For such a method, and for an encoder-decoder.
        """
        if base.kind == "encoder-decoder":
            raise no_encoder_decoder(base.name)
        if isinstance(method, Solver):
            raise CapabilityError(
                f"{method.name} trains no head, and without one a model has no reward to give",
                expected="a method that trains, such as lora",
                fix="use pegbox reward, or --method lora",
            )
        return base.headed()

    def solver(self, work: Work, method: Solver, rows: Any) -> Callable[[], Solved]:
        """Never: see :meth:`base`."""
        raise NotImplementedError

    def trainable(self, work: Work, parts: Sequence[Preferences]) -> list[Trainable]:
        """The pairs of each part, by cross-entropy over both rewards: -log sigma(chosen - rejected).

        That is the likelihood of Bradley and Terry 1952 (Ouyang et al. 2022, equation 1).
        """
        found: list[Trainable] = []
        for part in parts:
            prompt = _prompt(work.prompt)
            pairs = prompt.encode_pairs(part, too_long=work.too_long)
            for note in pairs.notes():
                work.say(note)
            gold = prompt.task.gold(part.select(pairs.kept))
            found.append(PairRows(work.base, pairs, gold))
        return found

    def rows(
        self,
        task: Prefer,
        table: Table,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        labelled: bool = True,
        on_bad: str = "error",
    ) -> Preferences | Conversations:
        """Pairs by the task's own columns or others that stand for them, unlabelled also single answers."""
        if label is not None:
            raise InputError(
                "preferences have no column of labels",
                where=f"--label {label}",
                expected="the columns of prompt, chosen and rejected",
                fix="name them with --text prompt,chosen,rejected",
            )
        return task.read_table(table, texts=texts, ranked=labelled, on_bad=on_bad)

    def logits(self, tuned: Tuned, rows: Preferences) -> Tensor:
        """Rewards (rows, 2) of both answers, whose softmax is the probability that each is better."""
        pairs = _whole(_prompt(tuned.prompt).encode_pairs(rows, too_long=_asked(tuned)), tuned)
        return _scores(tuned, pairs.encoded).reshape(-1, 2)

    def predict(
        self, tuned: Tuned, inputs: Sequence[Sequence[Any]] | Preferences | Conversations
    ) -> list[Any]:
        """Rewards of answers, given as (prompt, answer); which is better, given (prompt, first, second)."""
        rows = inputs if isinstance(inputs, Preferences | Conversations) else from_answers(inputs)
        if not len(rows):
            return []
        if isinstance(rows, Preferences):
            return _compared(tuned, rows)
        told = _prompt(tuned.prompt).encode_answers(rows, too_long=_asked(tuned))
        found = _scores(tuned, _whole(told, tuned).encoded).tolist()
        scale = reward_scale(tuned)
        return [
            Rewarded(reward, None if scale is None else (reward - scale[0]) / scale[1]) for reward in found
        ]

    def evaluate(self, tuned: Tuned, rows: Preferences, *, resamples: int, seed: int) -> RewardScores:
        """Scores of pairs, those left out that do not fit; lengths are in characters."""
        prompt = _prompt(tuned.prompt)
        prompt.task.gold(rows)
        started = time.perf_counter()
        pairs = prompt.encode_pairs(rows, too_long=tuned.too_long)
        for note in pairs.notes():
            tuned.say(note)
        kept = rows.select(pairs.kept)
        found = _scores(tuned, pairs.encoded).double().numpy().reshape(-1, 2)
        margins = _log_odds(tuned.probabilities(kept)) if tuned.averaged else None
        seconds = time.perf_counter() - started
        told_seen(tuned, kept, "prompts")
        lengths = [np.array([len(answer) for answer in side]) for side in (kept.chosen, kept.rejected)]
        how: dict[str, Any] = {"margins": margins, "resamples": resamples, "seed": seed}
        scores = score_rewards(found[:, 0], found[:, 1], *lengths, **how)
        return replace(scores, seconds=seconds)


def reward_scores(tuned: Tuned, ids: Sequence[Sequence[int]]) -> Tensor:
    """Raw rewards of token sequences: prompt, answer and its end, as :class:`PreferPrompt` has them.

    Args:
        tuned: A reward model.
        ids: Token ids of each sequence, at least one.

    Returns:
        Rewards (rows,) on the CPU in float32, in nats; :func:`reward_scale` standardises them.

    Raises:
        InputError: For a sequence that is empty or longer than the context.
        RunError: When a reward is not a finite number.
    """
    context = tuned.base.context
    bad = next((at for at, row in enumerate(ids) if not 0 < len(row) <= context), None)
    if bad is not None:
        raise InputError(
            f"a sequence has {len(ids[bad])} tokens",
            where=f"sequence {bad}, counted from 0",
            expected=f"1 to {context}, the context of {tuned.base.name}",
            fix="shorten prompts or answers",
        )
    # Without progress: it is asked in every step of a policy.
    return _scores(tuned, Encoded(tuple(map(tuple, ids)), (0,) * len(ids)), quiet=True)


def reward_scale(tuned: Tuned) -> tuple[float, float] | None:
    """Mean and standard deviation of rewards, by which they are standardised, where they are known."""
    found = tuned.details.get("reward")
    return None if found is None else (float(found["mean"]), float(found["sd"]))


def with_reward_scale(tuned: Tuned, rewards: Tensor | Sequence[float], of: str) -> Tuned:
    """The model with the mean and standard deviation of some rewards in its details.

    Args:
        tuned: A reward model.
        rewards: Raw rewards (rows,) of the answers that are to have mean 0 and standard deviation 1.
        of: What they are rewards of, such as ``training rows``.

    Raises:
        RunError: When all rewards are the same, so that there is nothing to divide by.
    """
    found = torch.as_tensor(rewards, dtype=torch.float64)
    mean, sd = float(found.mean()), float(found.std(correction=0))
    if not sd > 1e-12 * max(1.0, abs(mean)):
        raise RunError(
            "the reward is the same for all answers",
            where=f"{tuned.base.name}: {len(found)} answers of the {of}",
            expected="rewards that differ",
            fix="tune with a higher learning rate or for more epochs, and look at the rows with pegbox check",
        )
    scale = {"mean": mean, "sd": sd, "answers": len(found), "of": of}
    return replace(tuned, details={**tuned.details, "reward": scale})


def scaled_on_training_rows(tuned: Tuned, rows: Preferences) -> Tuned:
    """The model with the scale of the rewards of answers, chosen and rejected, that it was tuned on.

    Of more than 512 pairs it is that of so many, drawn at random: the mean is then known to about 3 % of the
    standard deviation. A reward that is the same for all is told, and has no scale.
    """
    some = take(rows, min(len(rows), SCALE_PAIRS), seed=0)
    pairs = _prompt(tuned.prompt).encode_pairs(some, too_long=tuned.too_long)
    try:
        return with_reward_scale(tuned, _scores(tuned, pairs.encoded), "training rows")
    except RunError as error:
        tuned.say(f"{error.what}: {error.fix}")
        return tuned


def _compared(tuned: Tuned, rows: Preferences) -> list[Preferred]:
    rewards = PreferShape().logits(tuned, rows)
    table, deviations = softmax(rewards), [None] * len(rows)
    if tuned.averaged:
        from pegbox.tuning._laplace import moments

        mean, spread = moments(tuned, rows)
        table, deviations = mean.numpy(), spread[:, 0].tolist()
    found = []
    for line, (first, (one, other)) in enumerate(zip(table[:, 0], rewards.tolist(), strict=True)):
        text = rows.rejected[line] if first < 0.5 else rows.chosen[line]
        found.append(Preferred(int(first < 0.5), text, float(first), (one, other), deviations[line]))
    return found


@torch.no_grad()
def _scores(tuned: Tuned, encoded: Encoded, *, quiet: bool = False) -> Tensor:
    """Raw rewards (sequences,), in batches of like length."""
    module, base = tuned.module, tuned.base
    assert module is not None
    found = torch.empty(len(encoded))
    size = TOKENS_PER_BATCH.get(base.device.type, TOKENS_ON_ACCELERATOR)
    with in_mode(module, training=False):
        parts = batches(encoded.lengths, size)
        for indices in parts if quiet else track(parts, "reading answers"):
            batch = collate(encoded, indices, kind="encoder", pad=base.pad)
            inputs = {name: value.to(base.device) for name, value in batch.items() if name != POSITIONS}
            found[indices] = module(**inputs).float().squeeze(-1).cpu()
    if not torch.isfinite(found).all():
        raise RunError(
            "a reward is not a finite number",
            where=f"{encoded.source or base.name}, sequence {int(torch.isfinite(found).int().argmin())}, "
            "counted from 0",
            expected="finite rewards",
            fix=f"load {base.name} in another number format than {base.dtype}",
        )
    return found


def _whole(answers: AnswerIds, tuned: Tuned) -> AnswerIds:
    """The same, told what was cut; refused where a row is left out, since each must have an answer."""
    answers.check_whole(tuned.base.context)
    for note in answers.notes():
        tuned.say(note)
    return answers


def _asked(tuned: Tuned) -> Any:
    """What to do with long rows that must all be answered."""
    return "shorten" if tuned.too_long == "drop" else tuned.too_long


def _log_odds(table: Array) -> Array:
    """Log-odds (rows,) that the first answer is better, of probabilities (rows, 2)."""
    logs = np.log(np.clip(np.asarray(table, dtype=np.float64), 1e-300, None))
    found: Array = logs[:, 0] - logs[:, 1]
    return found


def _prompt(prompt: object) -> PreferPrompt:
    assert isinstance(prompt, PreferPrompt)
    return prompt
