"""Prompts that a policy is asked: read, set apart, and as token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

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
from pegbox.rlhf import Prompts
from pegbox.tasks import GeneratePrompt, Prefer
from pegbox.tuning._tuned import Tuned

HELD_SHARE, MOST_HELD = 0.1, 128
Held = TypeVar("Held", Conversations, Preferences)


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


def decoded(prompt: GeneratePrompt) -> Callable[[Sequence[Sequence[int]]], list[str]]:
    """Token ids of answers to their texts."""
    tokenizer = prompt.tokenizer
    return lambda ids: [
        text.strip() for text in tokenizer.batch_decode([list(row) for row in ids], skip_special_tokens=True)
    ]


def as_prompts(
    prompt: GeneratePrompt, asked: Conversations, max_tokens: int, say: Callable[[str], None]
) -> Prompts:
    """Prompts as token ids that leave room for an answer, and the texts of their last messages.

    Raises:
        UsageError: When answers leave no room.
    """
    room = prompt.context - max_tokens
    if room < 1:
        raise UsageError(
            "answers leave no room for prompts",
            where=f"max_tokens {max_tokens}, context {prompt.context}",
            expected=f"max_tokens below {prompt.context}",
            fix="lower max_tokens",
        )
    ids, cut = prompt.ask(asked, room=room) if len(asked) else ([], [])
    if cut:
        say(f"{asked.source}: {len(cut)} of {len(asked)} prompts shortened to leave room for answers")
    return Prompts(tuple(ids), tuple(messages[-1].content for messages in asked.messages))


def apart(asked: Conversations, seed: int, say: Callable[[str], None]) -> tuple[Conversations, Conversations]:
    """Prompts to learn on, and a tenth for win rates, equal prompts on one side."""
    try:
        learnt, held = hold_prompts(asked, seed)
    except InputError:
        return asked, asked.select([])
    say(f"{len(held)} of {len(asked)} prompts held out for win rates (seed {seed})")
    return learnt, held


def hold_prompts(rows: Held, seed: int) -> tuple[Held, Held]:
    """Rows to learn on, and a tenth of them to judge by, at most 128, equal prompts on one side.

    Raises:
        InputError: When they cannot be divided.
    """
    share = min(HELD_SHARE, MOST_HELD / len(rows))
    parts = split(rows, fractions={"train": 1 - share, "held": share}, seed=seed)
    return parts["train"], parts["held"]


def asked_prompts(start: Tuned, rows: Any, dialogue: Dialogue) -> Conversations:
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
