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

from pegbox.data import (
    Conversations,
    Dialogue,
    Preferences,
    conversations,
    find_conversation_columns,
    read,
    split,
)
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import Attached, LoRA
from pegbox.models import Base
from pegbox.rlhf import (
    Aligner,
    Alignment,
    Frontier,
    Prompts,
    Reward,
    Roles,
    Scale,
    begin,
    frontier,
    rank,
)
from pegbox.tasks import GeneratePrompt, Prefer
from pegbox.training import hush, tell
from pegbox.tuning._claim import claimed
from pegbox.tuning._once import Once
from pegbox.tuning._reward_of import reward_of
from pegbox.tuning._seen import row_digests
from pegbox.tuning._tuned import Cost, Tuned

HELD_SHARE, MOST_HELD, SHOWN = 0.1, 128, 4
BETAS = tuple(10 ** (exponent / 8) for exponent in range(8, -13, -1))


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

    def reach(self, *, draws: int = 128, prompts: int = 16) -> Reach:
        """Of the reward that reweighting the reference's own answers reaches, what the policy has.

        Args:
            draws: Answers of the reference per held-out prompt.
            prompts: Held-out prompts.
        """
        return reach(self.aligner, draws=draws, prompts=prompts)


@dataclass(frozen=True)
class Reach:
    """A policy beside the frontier of reward and divergence.

    Args:
        frontier: What reweighting the reference's answers reaches.
        reward: Mean reward of the policy, standardised.
        divergence: Its divergence in nats per answer.
        share: Of the gain reachable at that divergence, the share it has; NaN beyond the frontier.
        effective: Effective number of the reference's answers per prompt there; below 50 the frontier itself
            is a poor estimate.
    """

    frontier: Frontier
    reward: float
    divergence: float
    share: float
    effective: float


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
        held: Prompts for win rates; else a tenth of the prompts, at most 128.
        gold: A second reward that nothing is trained on, to see over-optimisation by.
        adapter: LoRA of the policy where the tuned model has no adapter of its own.
        folder: Where checkpoints and ``metrics.jsonl`` go.
        resume: Continue from the newest checkpoint in ``folder``.
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
    begin(base.device)
    if rank():
        say = hush
    scored, model, name = reward_of(reward, base, prompt.task.chat_template)
    asked_as: Any = None if model is None else model.prompt.task
    dialogue: Dialogue = "none" if asked_as is None else asked_as.dialogue
    prompts, others, learnt, held_rows = _prompts(start, prompt, rows, held, settings, dialogue, say)
    truth = None if gold is None else reward_of(gold, base, prompt.task.chat_template)[0]
    method, policy = policy_of(start, adapter or LoRA(), settings.seed)
    value = None if settings.algorithm == "rloo" else _value(base, model, adapter or LoRA(), settings.seed)
    reference = start.module if start.module is not None else base.model
    reference.requires_grad_(False).eval()
    roles = Roles(base, policy, reference, value, scored, truth, value_is_reward=_copies(model))
    key = _key(start, method, model, name, gold, prompts, others)
    tokenizer = prompt.tokenizer
    aligner = Aligner(
        roles=roles,
        prompts=prompts,
        held=others,
        settings=settings,
        stops=prompt.stops,
        decode=lambda ids: [
            text.strip()
            for text in tokenizer.batch_decode([list(row) for row in ids], skip_special_tokens=True)
        ],
        folder=Path(folder),
        key=key,
        say=say,
    )
    with claimed(Path(folder), {**key, "settings": str(settings.to_json())}, resume=resume):
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


def reach(aligner: Aligner, *, draws: int, prompts: int) -> Reach:
    """See :meth:`Aligned.reach`."""
    if not len(aligner.held):
        raise UsageError("there are no held-out prompts", expected="held=, or more prompts")
    count = min(prompts, len(aligner.held))
    chosen = [index for index in range(count) for _ in range(draws)]
    before = aligner.drawn_on_held(aligner.roles.reference, chosen, "frontier")
    scores = aligner.told(before, chosen).reshape(count, draws)
    found = frontier(scores, BETAS)
    after = aligner.drawn_on_held(aligner.roles.policy, chosen, "reach")
    reward = float(aligner.told(after, chosen).mean())
    divergence = aligner.divergence(after)
    nearest = min(range(len(BETAS)), key=lambda at: abs(found.divergence[at] - divergence))
    return Reach(found, reward, divergence, found.share(reward, divergence), found.effective[nearest])


def writes(start: Tuned) -> GeneratePrompt:
    """The prompt of a tuned model that writes answers token by token.

    Raises:
        CapabilityError: For any other.
    """
    prompt = start.prompt
    if not isinstance(prompt, GeneratePrompt) or prompt.kind != "causal":
        raise CapabilityError(
            "a policy writes answers token by token, and this model does not",
            where=f"{start.base.name}, a {start.prompt.task.to_json()['task']} task",
            expected="a causal model tuned by pegbox sft",
            fix="tune one with pegbox sft",
        )
    return prompt


def _prompts(
    start: Tuned,
    prompt: GeneratePrompt,
    rows: Any,
    held: Any,
    settings: Alignment,
    dialogue: Dialogue,
    say: Callable[[str], None],
) -> tuple[Prompts, Prompts, Conversations, Conversations]:
    """Prompts to learn on and held out, as token ids that leave room for an answer, and as messages."""
    asked = _asked(start, rows, dialogue)
    others = None if held is None else _asked(start, held, dialogue)
    if others is None:
        asked, others = _apart(asked, settings, say)
    room = prompt.context - settings.max_tokens
    if room < 1:
        raise UsageError(
            "answers leave no room for prompts",
            where=f"max_tokens {settings.max_tokens}, context {prompt.context}",
            expected=f"max_tokens below {prompt.context}",
            fix="lower max_tokens",
        )
    found = []
    for part in (asked, others):
        ids, cut = prompt.ask(part, room=room) if len(part) else ([], [])
        if cut:
            say(f"{part.source}: {len(cut)} of {len(part)} prompts shortened to leave room for answers")
        texts = tuple(messages[-1].content for messages in part.messages)
        found.append(Prompts(tuple(ids), texts))
    return found[0], found[1], asked, others


def _apart(
    asked: Conversations, settings: Alignment, say: Callable[[str], None]
) -> tuple[Conversations, Conversations]:
    """Prompts to learn on, and a tenth for win rates, equal prompts on one side."""
    share = min(HELD_SHARE, MOST_HELD / len(asked))
    try:
        parts = split(asked, fractions={"train": 1 - share, "held": share}, seed=settings.seed)
    except InputError:
        return asked, asked.select([])
    say(f"{len(parts['held'])} of {len(asked)} prompts held out for win rates (seed {settings.seed})")
    return parts["train"], parts["held"]


def _asked(start: Tuned, rows: Any, dialogue: Dialogue) -> Conversations:
    """Prompts without answers; of a table by the tuned model's columns, those of pairs, or their names."""
    if isinstance(rows, str | Path):
        table = read(rows)
        if {"chosen", "rejected"} <= set(table.columns):
            rows = Prefer.from_table(table, dialogue=dialogue).rows
        else:
            task: Any = start.prompt.task
            own = task.template is not None or all(name in table.columns for name in task.fields)
            if own:
                rows = task.read_table(table, answered=False)
            else:
                columns = find_conversation_columns(table, need_answers=False)
                rows = conversations(table, columns, need_answers=False)
    if isinstance(rows, Preferences):
        rows = Conversations(rows.source, rows.prompts, None, rows.numbers, dropped=rows.dropped)
    found: Conversations = rows
    if found.references is not None:
        found = replace(found, messages=found.prompts(), references=None)
    if not len(found):
        raise InputError("there are no prompts", where=found.source, expected="one prompt or more")
    return found


def policy_of(start: Tuned, adapter: LoRA, seed: int) -> tuple[Attached, nn.Module]:
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
    rows = held.select(range(min(SHOWN, len(held))))
    if not len(rows):
        return ()
    before, after = start.predict(rows), tuned.predict(rows)
    return tuple(
        {"prompt": messages[-1].content, "before": one.text, "after": other.text}
        for messages, one, other in zip(rows.messages, before, after, strict=True)
    )


__all__ = ["Aligned", "Reach", "Reward", "align", "reach"]
