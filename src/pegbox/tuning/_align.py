"""A policy from a tuned model and a reward: PPO and RLOO on one copy of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from pegbox.data import Conversations, Dialogue, Preferences
from pegbox.errors import CapabilityError, InputError, check_whole
from pegbox.evaluation import PolicyScores, Reach
from pegbox.methods import Attached, LoRA
from pegbox.models import Base, processes
from pegbox.rlhf import Aligner, Alignment, Prompts, Reward, Roles, Scale
from pegbox.training import hush, tell
from pegbox.tuning._claim import claimed
from pegbox.tuning._judge import Judge, SideBySide
from pegbox.tuning._once import Once
from pegbox.tuning._prompts_asked import (
    Asking,
    apart,
    as_prompts,
    asked_prompts,
    decoded,
    unique_prompts,
    writes,
)
from pegbox.tuning._reward_of import reward_of
from pegbox.tuning._seen import row_digests
from pegbox.tuning._tuned import Cost, Tuned

SHOWN = 4


@dataclass(frozen=True, eq=False)
class Aligned:
    """What reinforcement learning made.

    Args:
        tuned: The policy, ready to predict, evaluate and save.
        history: Metrics of each step.
        samples: Held-out prompts with an answer before and after.
        scale: Mean and standard deviation of the reward on the reference's answers.
        aligner: The run, for :meth:`reach`.
    """

    tuned: Tuned
    history: list[dict[str, Any]]
    samples: tuple[dict[str, str], ...]
    scale: Scale
    aligner: Aligner

    def judge(self, *, draws: int = 0, prompts: int = 8, resamples: int = 1000) -> PolicyScores:
        """Rewards, win rate and divergence on the held-out prompts, and the share of what can be reached.

        Args:
            draws: Answers of each model per prompt for the frontier; 0 measures none.
            prompts: Held-out prompts of the frontier.
            resamples: Bootstrap resamples of the intervals.
        """
        return self.side_by_side(draws=draws, prompts=prompts, resamples=resamples)[0]

    def side_by_side(
        self, *, draws: int = 0, prompts: int = 8, resamples: int = 1000
    ) -> tuple[PolicyScores, tuple[SideBySide, ...]]:
        """The same with the answers that were judged; arguments as for :meth:`judge`."""
        run, roles = self.aligner, self.aligner.roles
        return Judge(
            rollouts=run.rollouts,
            reference=roles.reference,
            reward=roles.reward,
            gold=roles.gold,
            prompts=run.held,
            penalty=run.settings.missing_end_penalty,
            scale=self.scale,
        ).measured(roles.policy, draws=draws, prompts=prompts, resamples=resamples)

    def reach(self, *, draws: int = 256, prompts: int = 8) -> Reach:
        """Of the reward that reweighting the reference's own answers reaches, what the policy has.

        Args:
            draws: Answers of each model per held-out prompt.
            prompts: Held-out prompts.
        """
        check_whole(draws, 1, "draws")
        found = self.judge(draws=draws, prompts=prompts).reach
        assert found is not None
        return found


def align(
    sft: Tuned | str | Path,
    reward: Any,
    rows: Conversations | Preferences | str | Path,
    *,
    settings: Alignment | None = None,
    held: Conversations | Preferences | str | Path | None = None,
    gold: Any = None,
    adapter: LoRA | None = None,
    folder: str | Path,
    resume: bool = False,
    judged: bool = False,
    texts: Sequence[str] = (),
    dialogue: Dialogue | None = None,
    on_bad: str = "error",
    say: Callable[[str], None] = tell,
    **options: Any,
) -> Aligned:
    """Tune a policy by reinforcement learning so that its answers are rewarded, close to where it starts.

    All roles share the base's weights: the policy is a copy of the tuned model's adapter, which itself is
    the reference; the value model starts as a copy of the reward model's adapter and head.

    Args:
        sft: The tuned model to start from (``pegbox sft``), or its folder: tuned by lora or qlora, fully
            tuned or merged (its weights are then the base), or a base by zero-shot.
        reward: Reward model on the same base, or its folder; a function of prompt and answer, or
            ``module:function``; a .json file of rules.
        rows: Prompts: rows, file or hub id; answers that are there are not read.
        settings: How to train.
        held: Prompts for win rates, of equal ones the first; else a tenth of the prompts, at most 128.
        gold: A second reward that nothing is trained on, to see over-optimisation by.
        adapter: LoRA of the policy where the tuned model has no adapter of its own.
        folder: Where checkpoints and ``metrics.jsonl`` go.
        resume: Continue from the newest checkpoint in ``folder``.
        judged: Refuse prompts of which none can be held out to judge the policy by.
        texts: Columns of the prompts in files; those of the tuned model, else the usual ones when not given.
        dialogue: How prompts of ``Human: ... Assistant: ...`` in files are read, see :class:`pegbox.Prefer`;
            as the reward model reads them when not given.
        on_bad: ``"error"`` or ``"drop"`` for rows of files that cannot be used.
        say: Receives lines for the user.
        options: As for :meth:`Tuned.load`, where a folder is given.

    Raises:
        CapabilityError: For a model that writes no text, or an adapter that cannot be copied.
        InputError: For a reward of another base, constant or not finite, and prompts that cannot be read.
        UsageError: For wrong settings, or a folder with an unfinished run.
    """
    say = Once.of(say)
    settings = settings or Alignment()
    start = sft if isinstance(sft, Tuned) else Tuned.load(sft, say=say, **options)
    prompt = writes(start)
    base = start.base
    processes.join(base.device)
    if processes.rank():
        say = hush
    scored, model, name = reward_of(reward, base, prompt.task.chat_template)
    asked_as: Any = None if model is None else model.prompt.task
    asking = Asking(tuple(texts), dialogue, on_bad, "none" if asked_as is None else asked_as.dialogue)
    learnt, held_rows = _prompts(start, rows, held, settings, asking, say, judged=judged)
    prompts, others = (as_prompts(prompt, part, settings.max_tokens, say) for part in (learnt, held_rows))
    truth = None if gold is None else reward_of(gold, base, prompt.task.chat_template, "gold")[0]
    method, policy = policy_of(start, adapter or LoRA(), settings.seed, say)
    value = None if settings.algorithm == "rloo" else _value(base, model, adapter or LoRA(), settings.seed)
    reference = start.network
    reference.requires_grad_(False).eval()
    roles = Roles(base, policy, reference, value, scored, truth, value_is_reward=_copies(model))
    key = _key(start, method, model, name, gold, prompts, others)
    aligner = Aligner(
        roles=roles,
        prompts=prompts,
        held=others,
        settings=settings,
        stops=prompt.stops,
        decode=decoded(prompt),
        folder=Path(folder),
        key=key,
        say=say,
    )
    with claimed(Path(folder), {**key, "settings": str(settings.repeated())}, resume=resume):
        history = aligner.run(resume=resume)
    policy.requires_grad_(False).eval()
    count = aligner.learners["policy"].count
    tuned = replace(
        start,
        method=method,
        module=method.trained(base, policy),
        cost=Cost(sum(step["seconds"] for step in history), count, len(prompts)),
        details=_details(start, settings, name, aligner, history),
        training_rows=start.training_rows | frozenset(row_digests(learnt)),
        weights=False,
        origin=None,
        say=say,
    )
    return Aligned(tuned, history, _samples(start, tuned, held_rows), aligner.scale, aligner)


def _prompts(
    start: Tuned,
    rows: Any,
    held: Any,
    settings: Alignment,
    asking: Asking,
    say: Callable[[str], None],
    *,
    judged: bool,
) -> tuple[Conversations, Conversations]:
    """Prompts to learn on, and held out."""
    asked = asked_prompts(start, rows, asking, say)
    if held is not None:
        others = unique_prompts(asked_prompts(start, held, asking, say), say)
        known = set(asked.messages)
        if seen := sum(messages in known for messages in others.messages):
            say(f"warning: {seen} of {len(others)} held-out prompts are learnt on too")
        return asked, others
    learnt, others = apart(asked, settings.seed, say)
    if judged and not len(others):
        raise InputError(
            "no prompts are left to judge the policy by",
            where=asked.source,
            expected="several different prompts",
            fix="name a file of others with held",
        )
    return learnt, others


def policy_of(
    start: Tuned, adapter: LoRA, seed: int, say: Callable[[str], None]
) -> tuple[Attached, nn.Module]:
    """A trainable copy of the tuned model's adapter, or a new one where it has none."""
    base, prompt = start.base, start.prompt
    if start.module is None or start.weights:
        if start.weights and start.origin is None:
            raise CapabilityError(
                "the tuned weights are another copy than the base's, which would be the reference",
                where=base.name,
                expected="the folder of the tuned model, so that its weights are the base",
                fix="save it, and pass the folder",
            )
        return adapter, adapter.attach(base, prompt, seed=seed)
    method = start.method
    if method.name not in ("lora", "qlora") or not isinstance(method, Attached):
        raise CapabilityError(
            f"a policy cannot start from an adapter of the method {method.name}",
            where=base.name,
            expected="a model tuned by lora, qlora or full, or merged",
            fix="merge it with pegbox merge where that can be done, or tune with --method lora",
        )
    if adapter != LoRA():
        say(f"the policy copies the tuned model's {method.name}: other options of an adapter are not its own")
    return method, copied(method, base, prompt, start.module, seed)


def copied(method: Attached, base: Base, prompt: Any, module: nn.Module, seed: int) -> nn.Module:
    """A trainable module with the numbers of another that the same method made."""
    found = method.attach(base, prompt, seed=seed)
    numbers = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in found.named_parameters():
            if value.requires_grad:
                value.copy_(numbers[name])
    return found


def _value(base: Base, reward: Tuned | None, adapter: LoRA, seed: int) -> nn.Module:
    """A model that foresees rewards before each token: it starts as the reward model, else as the base."""
    trunk = base.headed("none")
    if reward is not None and _copies(reward):
        assert isinstance(reward.method, Attached)
        assert reward.module is not None
        return copied(reward.method, trunk, reward.prompt, reward.module, seed)
    lone: Any = SimpleNamespace(task=SimpleNamespace(labels=("value",)))
    return adapter.attach(trunk, lone, seed=seed)


def _copies(reward: Tuned | None) -> bool:
    """Whether a value model can start as a copy of the reward model: where that is an adapter."""
    return reward is not None and isinstance(reward.method, Attached) and not reward.weights


def _key(
    start: Tuned,
    method: Attached,
    model: Tuned | None,
    reward: str,
    gold: Any,
    prompts: Prompts,
    held: Prompts,
) -> dict[str, str]:
    """What a run depends on beside its settings."""
    return {
        "base": start.base.fingerprint,
        "method": f"{method.name} {method.options()}",
        "start": adapter_digest(start),
        "reward": reward if model is None else adapter_digest(model),
        "gold": "none" if gold is None else str(getattr(gold, "__name__", gold)),
        "prompts": sha256(repr(prompts.ids).encode()).hexdigest(),
        "held-out prompts": sha256(repr(held.ids).encode()).hexdigest(),
    }


def adapter_digest(tuned: Tuned) -> str:
    """SHA-256 of the numbers that lie beside a tuned model's base: none for the base alone."""
    if tuned.module is None or tuned.weights:
        return "none"
    shared = {value.data_ptr() for value in (tuned.base.whole or tuned.base).model.parameters()}
    found = sha256()
    for name, value in tuned.module.named_parameters():
        if value.data_ptr() not in shared:
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _details(
    start: Tuned, settings: Alignment, reward: str, aligner: Aligner, history: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        **start.details,
        "alignment": {
            "settings": settings.to_json(),
            "reward": reward,
            "scale": {"mean": aligner.scale.mean, "deviation": aligner.scale.deviation},
            "last": {key: value for key, value in history[-1].items() if math.isfinite(value)},
            "warnings": dict(aligner.monitor.told),
        },
    }


def _samples(start: Tuned, tuned: Tuned, held: Conversations) -> tuple[dict[str, str], ...]:
    """Greedy answers before and after to a few held-out prompts, with all that was said before them."""
    rows = held.select(list(range(min(SHOWN, len(held)))))
    if not len(rows):
        return ()
    before, after = start.predict(rows), tuned.predict(rows)
    return tuple(
        {"prompt": messages[-1].content, "before": one.text, "after": other.text}
        for messages, one, other in zip(rows.messages, before, after, strict=True)
    )


__all__ = ["Aligned", "Reward", "align"]
