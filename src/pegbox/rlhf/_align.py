"""Reinforcement learning of a policy: draw, score, weigh, step."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._atomic import write_text
from pegbox.errors import RunError, UsageError
from pegbox.models import Base, without_dropout
from pegbox.rlhf import _processes as processes
from pegbox.rlhf._monitor import Monitor
from pegbox.rlhf._rewards import Reward, Scale, check_finite
from pegbox.rlhf._sample import sample
from pegbox.rlhf._sequences import Answered, Batch, entropies, logprobs, values
from pegbox.rlhf._settings import Alignment
from pegbox.rlhf._signals import (
    KLControl,
    clipped,
    gae,
    leave_one_out,
    token_rewards,
    value_loss,
    whiten,
)
from pegbox.training import _moments as moments
from pegbox.training import resolve_precision
from pegbox.training._checkpoints import Checkpoints, check_same

METRICS = "metrics.jsonl"
CALIBRATED = 256
_TENTH = 0.1
Metrics = dict[str, Any]


@dataclass(eq=False)
class Roles:
    """The parts of one run, all on the same weights of the base.

    Args:
        base: The base.
        policy: What is trained; starts as the reference.
        reference: What it is held to.
        value: Foresees the reward before each token; ``None`` for RLOO.
        reward: Scores answers.
        gold: Another score of them, which nothing is trained on; ``None`` where there is none.
        value_is_reward: Whether the value model starts as the reward model, in that one's own units.
    """

    base: Base
    policy: nn.Module
    reference: nn.Module
    value: nn.Module | None
    reward: Reward
    gold: Reward | None = None
    value_is_reward: bool = False


@dataclass(frozen=True)
class Prompts:
    """Prompts as token ids and as texts.

    Args:
        ids: Token ids of each.
        texts: Its text, for rewards that read texts.
    """

    ids: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


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
        self.bf16 = resolve_precision(self.settings.precision, device) == "bf16"
        self.control = KLControl(self.settings.beta, self.settings.target_kl, self.settings.kl_horizon)
        self.learners = {"policy": _Learner(self.roles.policy, self.settings.learning_rate, self.settings)}
        if self.roles.value is not None:
            rate = self.settings.value_learning_rate or self.settings.learning_rate
            self.learners["value"] = _Learner(self.roles.value, rate, self.settings)
        self.checkpoints = Checkpoints(self.folder, self.say)
        self.step = 0
        self.scale = Scale(0.0, 1.0)
        self.before: dict[str, Tensor] = {}
        self.monitor = Monitor(0.0, 1.0)

    def run(self, *, resume: bool) -> list[Metrics]:
        """Train; returns the metrics of each step.

        Raises:
            UsageError: When the folder holds an unfinished run, or a resume is of another one.
            InputError: For a reward that is constant or not finite.
            RunError: When the policy's numbers are not finite any more.
        """
        self._start(resume)
        while self.step < self.settings.steps:
            self._advance()
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
                fix="continue it with --resume, or remove the folder",
            )
        if kept is None or not resume:
            self._measure_reference()
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
        for metrics in self.history:
            self.monitor.seen(metrics["step"], metrics)
        if processes.rank() == 0:
            self._write_metrics()
        self.say(f"resumed after step {self.step} of {self.settings.steps}")

    def _signature(self) -> dict[str, Any]:
        own = {name: value for name, value in self.settings.to_json().items() if name != "checkpoint_every"}
        return {**own, **self.key}

    def _measure_reference(self) -> None:
        """The reward's scale, lengths and the answers that the policy must beat, all of the reference."""
        count = min(CALIBRATED, max(len(self.prompts), 64))
        chosen = [index % len(self.prompts) for index in range(count)]
        rows = self._drawn(self.roles.reference, self.prompts, chosen, "reference")
        raw = self._scores(self.roles.reward, rows, [self.prompts.texts[index] for index in chosen])
        self.scale = Scale.of(raw, "reward on the reference's answers")
        lengths = [len(answer) for answer in rows.answers]
        self.monitor = Monitor(sum(lengths) / count, sum(rows.finished) / count)
        if len(self.held):
            held = self._drawn(self.roles.reference, self.held, list(range(len(self.held))), "held reference")
            self.before = self._held_scores(held)

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
            "before": {name: scores.tolist() for name, scores in self.before.items()},
        }

    def _remember_reference(self, kept: Mapping[str, Any]) -> None:
        self.scale = Scale(kept["mean"], kept["deviation"])
        self.monitor = Monitor(kept["length"], kept["ended"])
        self.before = {
            name: torch.tensor(scores, dtype=torch.float64) for name, scores in kept["before"].items()
        }

    def _advance(self) -> None:
        started = time.perf_counter()
        metrics = self._learn(self.step)
        self.step += 1
        last = self.step == self.settings.steps
        if len(self.held) and (last or self.step % self.settings.evaluate_every == 0):
            metrics |= self._evaluated()
        metrics |= {"step": self.step, "seconds": time.perf_counter() - started}
        self.history.append(metrics)
        if processes.rank() == 0:
            with (self.folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        self.say(_line(metrics, self.settings.steps))
        for warning in self.monitor.seen(self.step, metrics):
            self.say(f"warning: {warning}")
        if last or self.step % self.settings.checkpoint_every == 0:
            self._save()

    def _save(self) -> None:
        if processes.rank() == 0:
            tensors = {name: learner.tensors() for name, learner in self.learners.items()}
            kept = {f"{name}-moments": moments.flat(one.optimizer) for name, one in self.learners.items()}
            record = {
                "run": self._signature(),
                "step": self.step,
                "beta": self.control.beta,
                "metrics": self.history,
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
        settings, pad = self.settings, self.roles.base.pad
        chosen = self._chosen(step)
        rows = self._drawn(self.roles.policy, self.prompts, chosen, f"step {step}")
        texts = [self.prompts.texts[index] for index in chosen]
        raw = self._scores(self.roles.reward, rows, texts)
        scores = self.scale.standard(raw)
        ended = torch.tensor(rows.finished)
        scores = scores - settings.missing_end_penalty * (~ended).double()
        groups = self._groups(rows, step)
        batches = [
            Batch.of(rows.select(processes.own(group)), pad, self.roles.base.device)
            if processes.own(group)
            else None
            for group in groups
        ]
        known = self._known(rows, groups, batches)
        mask = known["mask"]
        weights, returns, signals = self._weights(known, scores.float())
        told = self._updates(groups, batches, known, weights, returns, step)
        divergence = ((known["policy"] - known["reference"]) * mask).sum(1)
        beta = self.control.beta
        self.control.update(float(divergence.mean()), len(rows))
        metrics = {
            "reward": float(scores.mean()),
            "reward_error": _error(scores),
            "kl": float(divergence.mean()),
            "kl_error": _error(divergence),
            "beta": beta,
            "entropy": self._entropy(batches),
            "length": float(mask.sum(1).float().mean()),
            "ended": float(ended.float().mean()),
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

    def _drawn(self, module: nn.Module, prompts: Prompts, chosen: Sequence[int], name: str) -> Answered:
        """One answer to each chosen prompt, each by a seed of its own."""
        dice = random.Random(f"{self.settings.seed} answers {name}")
        seeds = [dice.getrandbits(62) for _ in chosen]
        mine = processes.own(list(zip(chosen, seeds, strict=True)))
        with self._autocast():
            found = sample(
                module,
                self.roles.base,
                [prompts.ids[index] for index, _ in mine],
                [seed for _, seed in mine],
                most=self.settings.max_tokens,
                stops=self.stops,
            )
        answers = processes.gathered(list(zip(found.answers, found.finished, strict=True)), len(chosen))
        return Answered(
            tuple(prompts.ids[index] for index in chosen),
            tuple(answer for answer, _ in answers),
            tuple(end for _, end in answers),
        )

    def _scores(self, reward: Reward, rows: Answered, texts: Sequence[str]) -> Tensor:
        mine = processes.own(range(len(rows)))
        part = rows.select(mine)
        answers = self.decode(part.answers)
        found = reward(part, [texts[index] for index in mine], answers).double().cpu()
        scores = torch.tensor(processes.gathered(found.tolist(), len(rows)), dtype=torch.float64)
        check_finite(scores, f"reward, step {self.step + 1}")
        return scores

    def _groups(self, rows: Answered, step: int) -> list[list[int]]:
        """Minibatches of rows of like lengths, in a seeded order."""
        order = sorted(range(len(rows)), key=lambda index: rows.lengths[index])
        size = self.settings.minibatch_size
        groups = [order[at : at + size] for at in range(0, len(order), size)]
        random.Random(f"{self.settings.seed} groups {step}").shuffle(groups)
        return groups

    @torch.no_grad()
    def _known(
        self, rows: Answered, groups: Sequence[Sequence[int]], batches: Sequence[Batch | None]
    ) -> dict[str, Tensor]:
        """What policy, reference and value model say of all answers, (rows, tokens) each.

        By the same passes over the same minibatches as in training, so that at first nothing has changed to
        the bit.
        """
        longest = max(map(len, rows.answers))
        names = ["policy", "reference", *(["value"] if self.roles.value is not None else [])]
        found = {name: torch.zeros(len(rows), longest) for name in names}
        for group, batch in zip(groups, batches, strict=True):
            if batch is None:
                continue
            mine, width = processes.own(group), batch.mask.shape[1]
            with self._autocast():
                said = {"policy": logprobs(self.roles.policy, batch)}
                said["reference"] = logprobs(self.roles.reference, batch)
                if self.roles.value is not None:
                    said["value"] = values(self.roles.value, batch)
            for name, part in said.items():
                found[name][mine, :width] = part.float().cpu()
        for part in found.values():
            processes.add_up(part)
        sizes = torch.tensor([len(answer) for answer in rows.answers])
        found["mask"] = torch.arange(longest) < sizes[:, None]
        return found

    def _weights(self, known: Mapping[str, Tensor], scores: Tensor) -> tuple[Tensor, Tensor, Metrics]:
        """What each token (PPO) or answer (RLOO) is weighed by, the returns, and what they say."""
        settings, mask = self.settings, known["mask"]
        rewards = token_rewards(known["policy"], known["reference"], mask, scores, self.control.beta)
        if settings.algorithm == "rloo":
            returns = rewards.sum(1)
            return leave_one_out(returns, settings.draws), returns, {"return": float(returns.mean())}
        weights, returns = gae(rewards, known["value"], mask, gamma=settings.gamma, lam=settings.lam)
        spread = returns[mask].var(unbiased=False)
        left = (returns - known["value"])[mask].var(unbiased=False)
        explained = float(1 - left / spread) if spread > 0 else 0.0
        if settings.whiten:
            weights = whiten(weights, mask)
        return weights, returns, {"explained_variance": explained, "return": float(rewards.sum(1).mean())}

    def _updates(
        self,
        groups: Sequence[Sequence[int]],
        batches: Sequence[Batch | None],
        known: Mapping[str, Tensor],
        weights: Tensor,
        returns: Tensor,
        step: int,
    ) -> Metrics:
        rate = 1 - (1 - _TENTH) * step / max(1, self.settings.steps - 1)
        sums: dict[str, float] = {}
        ratios: list[float] = []
        for _ in range(self.settings.epochs):
            for group, batch in zip(groups, batches, strict=True):
                part = {name: value[processes.own(group)] for name, value in known.items()}
                found = self._update(
                    group,
                    batch,
                    part,
                    weights[processes.own(group)],
                    returns[processes.own(group)],
                    known,
                    rate,
                )
                ratios.append(found.pop("ratio"))
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
        return {"first_ratio": ratios[0], **{name: value / len(ratios) for name, value in sums.items()}}

    def _update(
        self,
        group: Sequence[int],
        batch: Batch | None,
        part: Mapping[str, Tensor],
        weights: Tensor,
        returns: Tensor,
        known: Mapping[str, Tensor],
        rate: float,
    ) -> Metrics:
        """One optimiser step of each model on one minibatch; each backward pass within its own role."""
        settings = self.settings
        tokens = int(known["mask"][list(group)].sum())
        whole = settings.algorithm == "ppo"
        count = tokens if whole else len(group)
        told = torch.zeros(4, dtype=torch.float64)
        policy = self.learners["policy"]
        policy.optimizer.zero_grad()
        if batch is not None:
            width, device = batch.mask.shape[1], batch.ids.device
            old = part["policy"][:, :width].to(device)
            with self._autocast():
                now = logprobs(policy.module, batch)
            change = (now - old) * batch.mask
            told[3] = float((change.detach().exp() * batch.mask).sum())
            if whole:
                loss, cut = clipped(change, weights[:, :width].to(device), batch.mask, settings.clip)
            else:
                each = torch.ones(len(change), dtype=torch.bool, device=device)
                loss, cut = clipped(change.sum(1), weights.to(device), each, settings.clip)
            (loss / count).backward()
            told[0], told[1] = float(loss.detach()), float(cut)
            told[2] = float((change.detach().exp() - 1 - change.detach()).sum())
        processes.add_up(told)
        norm = policy.take(rate)
        self._check(norm, float(told[0]), "policy")
        found = {
            "policy_loss": float(told[0]) / count,
            "clipped": float(told[1]) / count,
            "approximate_kl": float(told[2]) / max(1, len(group)),
            "gradient": norm,
            "ratio": float(told[3]) / tokens,
        }
        if self.roles.value is not None:
            found |= self._value_update(batch, part, returns, tokens, rate)
        return found

    def _value_update(
        self, batch: Batch | None, part: Mapping[str, Tensor], returns: Tensor, tokens: int, rate: float
    ) -> Metrics:
        value = self.learners["value"]
        value.optimizer.zero_grad()
        total = torch.zeros(1, dtype=torch.float64)
        if batch is not None:
            width, device = batch.mask.shape[1], batch.ids.device
            with self._autocast():
                now = values(value.module, batch)
            before, wanted = part["value"][:, :width].to(device), returns[:, :width].to(device)
            loss = value_loss(now, before, wanted, batch.mask, self.settings.value_clip)
            (loss / tokens).backward()
            total[0] = float(loss.detach())
        processes.add_up(total)
        self._check(value.take(rate), float(total[0]), "value")
        return {"value_loss": float(total[0]) / tokens}

    @torch.no_grad()
    def _entropy(self, batches: Sequence[Batch | None]) -> float:
        """Mean entropy per token over the first minibatch."""
        sums = torch.zeros(2, dtype=torch.float64)
        if batches[0] is not None:
            with self._autocast():
                found = entropies(self.roles.policy, batches[0])
            sums[0], sums[1] = float(found.sum()), float(batches[0].mask.sum())
        processes.add_up(sums)
        return float(sums[0] / sums[1].clamp(min=1))

    def _check(self, norm: float, loss: float, name: str) -> None:
        if not (math.isfinite(norm) and math.isfinite(loss)):
            rate = "learning_rate" if name == "policy" else "value_learning_rate"
            raise RunError(
                f"the {name} model's loss or gradient is not a finite number",
                where=f"step {self.step + 1}",
                expected="finite numbers",
                fix=f"lower {rate}; the last checkpoint is kept in the folder",
            )

    # Held-out prompts

    def _evaluated(self) -> Metrics:
        """Rewards on held-out prompts, and how often they beat the reference's answers to the same."""
        rows = self._drawn(self.roles.policy, self.held, list(range(len(self.held))), "held policy")
        now = self._held_scores(rows)
        found: Metrics = {}
        for name, scores in now.items():
            found[f"held_{name}"] = float(scores.mean())
            found[f"held_{name}_error"] = _error(scores)
            wins = (scores > self.before[name]).double() + 0.5 * (scores == self.before[name]).double()
            found[f"win_rate_{name}"] = float(wins.mean())
        return found

    def _held_scores(self, rows: Answered) -> dict[str, Tensor]:
        texts = list(self.held.texts)
        found = {"reward": self.scale.standard(self._scores(self.roles.reward, rows, texts))}
        if self.roles.gold is not None:
            found["gold"] = self._scores(self.roles.gold, rows, texts)
        return found

    def drawn_on_held(self, module: nn.Module, chosen: Sequence[int], name: str) -> Answered:
        """Answers to held-out prompts, given by their places."""
        return self._drawn(module, self.held, chosen, name)

    def told(self, rows: Answered, chosen: Sequence[int]) -> Tensor:
        """Standardised rewards of answers to held-out prompts, less the penalty of a missing end."""
        raw = self._scores(self.roles.reward, rows, [self.held.texts[index] for index in chosen])
        missing = (~torch.tensor(rows.finished)).double()
        return self.scale.standard(raw) - self.settings.missing_end_penalty * missing

    @torch.no_grad()
    def divergence(self, rows: Answered) -> float:
        """Mean log-ratio of policy and reference over answers of the policy, in nats per answer."""
        found = torch.zeros(len(rows), dtype=torch.float64)
        order = sorted(range(len(rows)), key=lambda index: rows.lengths[index])
        size = self.settings.minibatch_size
        groups = [processes.own(order[at : at + size]) for at in range(0, len(order), size)]
        for mine in filter(None, groups):
            batch = Batch.of(rows.select(mine), self.roles.base.pad, self.roles.base.device)
            with self._autocast():
                change = logprobs(self.roles.policy, batch) - logprobs(self.roles.reference, batch)
            found[mine] = change.double().sum(1).cpu()
        return float(processes.add_up(found).mean())

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.roles.base.device.type, torch.bfloat16, enabled=self.bf16)


class _Learner:
    """A model that is trained, with its optimiser.

    It stays in training mode, which gradient checkpointing asks for, with its dropout set to 0.

    Args:
        module: The model.
        rate: Its learning rate.
        settings: How to train.
    """

    def __init__(self, module: nn.Module, rate: float, settings: Alignment) -> None:
        self.module, self.rate, self.settings = module, rate, settings
        self.trained = [value for value in module.parameters() if value.requires_grad]
        self._names = [name for name, value in module.named_parameters() if value.requires_grad]
        without_dropout(module)
        module.train()
        # Fused, a step is one kernel; eps as published PPO implementations have it.
        self.optimizer = torch.optim.AdamW(self.trained, lr=rate, eps=1e-5, weight_decay=0.0, fused=True)

    @property
    def count(self) -> int:
        """How many numbers are trained."""
        return sum(value.numel() for value in self.trained)

    def take(self, rate: float) -> float:
        """One step at this share of the rate; returns the gradient's norm before it was clipped."""
        processes.add_gradients(self.trained)
        most = self.settings.gradient_clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.trained, most))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * rate
        if math.isfinite(norm):
            self.optimizer.step()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The trained parameters by name."""
        return {
            name: value.detach().cpu().contiguous()
            for name, value in zip(self._names, self.trained, strict=True)
        }

    def restore(self, tensors: Mapping[str, Tensor], state: dict[str, Tensor], groups: Any) -> None:
        """Set parameters and optimiser to what a checkpoint holds."""
        with torch.no_grad():
            for name, value in zip(self._names, self.trained, strict=True):
                value.copy_(tensors[name])
        moments.load(self.optimizer, state, groups)


def _error(values: Tensor) -> float:
    """Standard error of a mean; 0 of a single value."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _line(metrics: Mapping[str, Any], steps: int) -> str:
    """A step in words."""
    parts = [
        f"reward {metrics['reward']:+.3f} ± {metrics['reward_error']:.3f}",
        f"KL {metrics['kl']:.2f}",
        f"beta {metrics['beta']:.3g}",
        f"entropy {metrics['entropy']:.2f}",
        f"length {metrics['length']:.0f}",
        f"ended {100 * metrics['ended']:.0f} %",
        f"clipped {100 * metrics['clipped']:.0f} %",
    ]
    if "gold" in metrics:
        parts.insert(1, f"gold {metrics['gold']:+.3f}")
    if "win_rate_reward" in metrics:
        parts.append(f"wins {100 * metrics['win_rate_reward']:.0f} %")
    return f"step {metrics['step']} of {steps}: " + ", ".join(parts)
