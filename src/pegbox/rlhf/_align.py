"""Reinforcement learning of a policy: draw, score, weigh, step."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._atomic import write_text
from pegbox.errors import InputError, RunError, UsageError
from pegbox.models import processes
from pegbox.rlhf._learner import Learner
from pegbox.rlhf._monitor import Monitor, standard_error
from pegbox.rlhf._rewards import Reward, Scale
from pegbox.rlhf._roles import Roles
from pegbox.rlhf._rollouts import Prompts, Rollouts
from pegbox.rlhf._sequences import Answered
from pegbox.rlhf._settings import Alignment
from pegbox.rlhf._signals import KLControl
from pegbox.rlhf._updates import Metrics, Updates
from pegbox.training import (
    Checkpoints,
    check_same,
    flat_moments,
    interruption,
    resolve_precision,
    resume_hint,
)

METRICS = "metrics.jsonl"
CALIBRATED = 256


@dataclass(eq=False)
class Aligner:
    """One run.

    Args:
        roles: Its parts.
        prompts: Prompts to learn on.
        held: Prompts that nothing is learnt on, for win rates.
        settings: How to train.
        stops: Token ids that end an answer.
        decode: Token ids to text.
        folder: Where checkpoints and metrics go.
        key: What the run depends on beside its settings.
        say: Receives lines for the user.
    """

    roles: Roles
    prompts: Prompts
    held: Prompts
    settings: Alignment
    stops: Sequence[int]
    decode: Callable[[Sequence[Sequence[int]]], list[str]]
    folder: Path
    key: Mapping[str, str]
    say: Callable[[str], None]
    history: list[Metrics] = field(default_factory=list)

    def __post_init__(self) -> None:
        device = self.roles.base.device
        self.rollouts = Rollouts(
            self.roles.base,
            self.stops,
            self.decode,
            self.settings.max_tokens,
            self.settings.seed,
            self.settings.minibatch_size,
            resolve_precision(self.settings.precision, device) == "bf16",
        )
        self.control = KLControl(self.settings.beta, self.settings.target_kl, self.settings.kl_horizon)
        self.learners = {"policy": Learner(self.roles.policy, self.settings.learning_rate, self.settings)}
        if self.roles.value is not None:
            rate = self.settings.value_learning_rate or self.settings.learning_rate
            self.learners["value"] = Learner(self.roles.value, rate, self.settings)
        self.updates = Updates(self.roles, self.learners, self.rollouts, self.settings)
        self.checkpoints = Checkpoints(self.folder, self.say)
        self.step = 0
        self.scale = Scale(0.0, 1.0)
        self.before: dict[str, Tensor] = {}
        self.monitor = Monitor(0.0, 1.0)
        self.told = False

    def run(self, *, resume: bool) -> list[Metrics]:
        """Train; returns the metrics of each step.

        Raises:
            UsageError: When the folder holds an unfinished run, or a resume is of another one.
            InputError: For a reward that is constant or not finite.
            RunError: When the policy's numbers are not finite any more.
        """
        self._start(resume)
        try:
            while self.step < self.settings.steps:
                self._advance()
        except KeyboardInterrupt as stopped:
            stopped.add_note(self._interrupted())  # so that nobody needs to tell it again
            raise
        return self.history

    # The run

    def _start(self, resume: bool) -> None:
        kept = self.checkpoints.newest()
        finished = kept is not None and kept.record["step"] >= self.settings.steps
        if kept is not None and not resume and not finished:
            raise UsageError(
                "the folder holds an interrupted run",
                where=str(self.folder),
                expected="a new folder",
                fix=f"continue it with {resume_hint()}, or remove the folder",
            )
        if kept is None or not resume:
            self._begin()
            self._tell_value()
            if processes.rank() == 0:
                self.checkpoints.forget(-1)
                self._write_metrics()
            processes.wait()
            return
        check_same(kept.record["run"], self._signature(), kept.path)
        self._remember_reference(kept.record["reference"])
        self.step = kept.record["step"]
        self.control.beta = kept.record["beta"]
        self.history = list(kept.record["metrics"])
        for name, learner in self.learners.items():
            learner.restore(kept.tensors(name), kept.tensors(f"{name}-moments"), kept.record[name])
        held = map(_tensors, kept.record["evaluations"])
        for metrics in self.history:
            self.monitor.seen(metrics["step"], metrics, next(held) if "held_reward" in metrics else None)
        if processes.rank() == 0:
            self._write_metrics()
        self.say(f"resumed after step {self.step} of {self.settings.steps}")

    def _interrupted(self) -> str:
        """Tell how far the run came and how to go on, and return what was told."""
        kept = self.checkpoints.newest(tell=False)
        last = kept.record["step"] if kept else None
        line = interruption(self.step, self.settings.steps, last, self.folder)
        self.say(line)
        return line

    def _signature(self) -> dict[str, Any]:
        return {**self.settings.repeated(), **self.key}

    def _begin(self) -> None:
        """Measure the reference; a reward that fails there was never right, so nothing of the run is kept."""
        try:
            self._measure_reference()
        except RunError as error:
            raise InputError(error.what, where=error.where, expected=error.expected, fix=error.fix) from error

    def _measure_reference(self) -> None:
        """The reward's scale, lengths and the answers that the policy must beat, all of the reference."""
        count = min(CALIBRATED, max(len(self.prompts), 64))
        chosen = [index % len(self.prompts) for index in range(count)]
        rows = self.rollouts.draw(self.roles.reference, self.prompts, chosen, "reference")
        raw = self.rollouts.score(
            self.roles.reward,
            rows,
            [self.prompts.texts[index] for index in chosen],
            "reward of the reference",
        )
        self.scale = Scale.of(raw, "reward on the reference's answers")
        lengths = [len(answer) for answer in rows.answers]
        self.monitor = Monitor(sum(lengths) / count, sum(rows.finished) / count)
        if len(self.held):
            self.before = self._held_scores(self.roles.reference, "held reference")

    def _tell_value(self) -> None:
        """Let a value model that started as the reward model foresee rewards as they are told."""
        if self.roles.value is None or not self.roles.value_is_reward:
            return
        with torch.no_grad():
            for name, value in self.roles.value.named_parameters():
                if not value.requires_grad or "score" not in name.split("."):
                    continue
                if name.endswith("bias"):
                    value.sub_(self.scale.mean)
                value.div_(self.scale.deviation)

    def _reference(self) -> dict[str, Any]:
        """What was measured on the reference, for a checkpoint."""
        return {
            "mean": self.scale.mean,
            "deviation": self.scale.deviation,
            "length": self.monitor.length,
            "ended": self.monitor.ended,
            "before": _lists(self.before),
        }

    def _remember_reference(self, kept: Mapping[str, Any]) -> None:
        self.scale = Scale(kept["mean"], kept["deviation"])
        self.monitor = Monitor(kept["length"], kept["ended"])
        self.before = _tensors(kept["before"])

    def _advance(self) -> None:
        started = time.perf_counter()
        metrics = self._learn(self.step)
        self.step += 1
        last = self.step == self.settings.steps
        held = None
        if len(self.held) and (last or self.step % self.settings.evaluate_every == 0):
            held = self._evaluated(metrics)
        metrics |= {"step": self.step, "seconds": time.perf_counter() - started}
        self.history.append(metrics)
        if processes.rank() == 0:
            with (self.folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        for line in _lines(metrics, self.settings.steps, first=not self.told):
            self.say(line)
        self.told = True
        for warning in self.monitor.seen(self.step, metrics, held):
            self.say(f"warning: {warning}")
        if last or self.step % self.settings.checkpoint_every == 0:
            self._save()

    def _save(self) -> None:
        if processes.rank() == 0:
            tensors = {name: learner.tensors() for name, learner in self.learners.items()}
            kept = {f"{name}-moments": flat_moments(one.optimizer) for name, one in self.learners.items()}
            record = {
                "run": self._signature(),
                "step": self.step,
                "beta": self.control.beta,
                "metrics": self.history,
                "evaluations": [_lists(scores) for scores in self.monitor.evaluations],
                "reference": self._reference(),
                **{name: one.optimizer.state_dict()["param_groups"] for name, one in self.learners.items()},
            }
            self.checkpoints.write(self.step, {**tensors, **kept}, record, None, also=lambda _: None)
        processes.wait()

    def _write_metrics(self) -> None:
        lines = "".join(json.dumps(metrics) + "\n" for metrics in self.history)
        write_text(self.folder / METRICS, lines)

    # One step

    def _learn(self, step: int) -> Metrics:
        settings = self.settings
        chosen = self._chosen(step)
        rows = self.rollouts.draw(self.roles.policy, self.prompts, chosen, f"step {step}")
        texts = [self.prompts.texts[index] for index in chosen]
        raw = self._scores(self.roles.reward, rows, texts)
        scores = self.scale.told(raw, rows.finished, settings.missing_end_penalty)
        minibatches = self.updates.minibatches(rows, step)
        known, first = self.updates.known(rows, minibatches)
        mask = known["mask"]
        weights, returns, signals = self.updates.weights(known, scores.float(), self.control.beta)
        told = self.updates.learn(minibatches, known, weights, returns, step, first)
        divergence = ((known["policy"] - known["reference"]) * mask).sum(1)
        beta = self.control.beta
        self.control.update(float(divergence.mean()), len(rows))
        metrics = {
            "reward": float(scores.mean()),
            "reward_error": standard_error(scores),
            "kl": float(divergence.mean()),
            "kl_error": standard_error(divergence),
            "beta": beta,
            "entropy": -float(known["policy"][mask].mean()),
            "length": float(mask.sum(1).float().mean()),
            "ended": sum(rows.finished) / len(rows),
            **told,
            **signals,
        }
        if self.roles.gold is not None:
            metrics["gold"] = float(self._scores(self.roles.gold, rows, texts).mean())
        return metrics

    def _chosen(self, step: int) -> list[int]:
        """Prompts of a step: all in a seeded order, pass after pass, each as often as it is drawn for."""
        count = self.settings.prompts_per_step
        first = step * count
        places = [divmod(at, len(self.prompts)) for at in range(first, first + count)]
        orders = {turn: self._order(turn) for turn in {turn for turn, _ in places}}
        found = [orders[turn][place] for turn, place in places]
        repeats = self.settings.draws if self.settings.algorithm == "rloo" else 1
        return [index for index in found for _ in range(repeats)]

    def _order(self, turn: int) -> list[int]:
        """The order of the prompts in one pass over them."""
        order = list(range(len(self.prompts)))
        random.Random(f"{self.settings.seed} prompts {turn}").shuffle(order)
        return order

    def _scores(self, reward: Reward, rows: Answered, texts: Sequence[str]) -> Tensor:
        return self.rollouts.score(reward, rows, texts, f"reward, step {self.step + 1}")

    # Held-out prompts

    def _evaluated(self, metrics: Metrics) -> dict[str, Tensor]:
        """Scores (prompts,) on held-out prompts; in the metrics also how often they beat the reference's."""
        found = {}
        for name, scores in self._held_scores(self.roles.policy, "held policy").items():
            before, each = self.before[name], scores.mean(1)
            wins = ((scores > before).double() + 0.5 * (scores == before).double()).mean(1)
            for kind, values in (("held", each), ("win_rate", wins)):
                metrics[f"{kind}_{name}"] = float(values.mean())
                metrics[f"{kind}_{name}_error"] = standard_error(values)
            found[name] = each
        return found

    def _held_scores(self, module: nn.Module, name: str) -> dict[str, Tensor]:
        """Scores (prompts, draws) of a model's answers to the held-out prompts."""
        draws = self.settings.held_draws
        chosen = [index for index in range(len(self.held)) for _ in range(draws)]
        rows = self.rollouts.draw(module, self.held, chosen, name)
        texts = [self.held.texts[index] for index in chosen]
        found = {"reward": self.scale.standard(self._scores(self.roles.reward, rows, texts))}
        if self.roles.gold is not None:
            found["gold"] = self._scores(self.roles.gold, rows, texts)
        return {kind: scores.reshape(-1, draws) for kind, scores in found.items()}


def _lists(scores: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a checkpoint keeps of scores."""
    return {name: values.tolist() for name, values in scores.items()}


def _tensors(kept: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in kept.items()}


# Name in the metrics, head of the column, how it is written.
_COLUMNS = (
    ("reward", "reward", "{:+.3f}"),
    ("gold", "gold", "{:+.3f}"),
    ("kl", "KL", "{:.2f}"),
    ("beta", "beta", "{:.3g}"),
    ("entropy", "entropy", "{:.2f}"),
    ("length", "length", "{:.0f}"),
    ("ended", "ended", "{:.0%}"),
    ("clipped", "clipped", "{:.0%}"),
    ("explained_variance", "explained", "{:.2f}"),
    ("gradient", "gradient", "{:.2f}"),
    ("win_rate_reward", "wins", "{:.0%}"),
)
_WIDTH = 10
# Lines after which the heads are said again.
_AGAIN = 20


def _lines(metrics: Mapping[str, Any], steps: int, *, first: bool) -> list[str]:
    """A step as a line of a table; its heads before the first one, and now and then."""
    step, width = metrics["step"], 2 * len(str(steps)) + 9
    columns = [part for part in _COLUMNS if part[0] in metrics or part[0] == "win_rate_reward"]
    cells = [form.format(metrics[name]) if name in metrics else "" for name, _, form in columns]
    line = f"{f'step {step} of {steps}':<{width}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells)
    heads = " " * width + "".join(f"{head:>{_WIDTH}}" for _, head, _ in columns)
    return [heads, line.rstrip()] if first or step % _AGAIN == 1 else [line.rstrip()]
