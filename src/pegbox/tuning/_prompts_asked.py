"""Prompts that a policy is asked: read, set apart, and as token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pegbox.data import (
    Conversations,
    Dialogue,
    Preferences,
    Table,
    conversations,
    find_conversation_columns,
    in_turns,
    read,
    rows_text,
    split,
)
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.rlhf import Prompts
from pegbox.tasks import GeneratePrompt, Prefer
from pegbox.tuning._tuned import Tuned

HELD_SHARE, MOST_HELD = 0.1, 128
# Random signs of fewer differences agree by chance in 2 of 2^5 cases or more, which is above 5 %.
LEAST_HELD = 6
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
        say(
            f"{asked.source}: {len(cut)} of {len(asked)} prompts shortened to leave room for answers "
            f"({rows_text(cut)})"
        )
    return Prompts(tuple(ids), tuple(messages[-1].content for messages in asked.messages))


def apart(asked: Conversations, seed: int, say: Callable[[str], None]) -> tuple[Conversations, Conversations]:
    """Prompts to learn on, and a tenth for win rates, equal prompts on one side."""
    try:
        learnt, held = hold_prompts(asked, seed)
    except InputError:
        return asked, asked.select([])
    say(f"{len(held)} of {len(asked)} prompts held out for win rates (seed {seed})")
    return learnt, unique_prompts(held, say)


def unique_prompts(held: Conversations, say: Callable[[str], None]) -> Conversations:
    """Prompts to judge by, of equal ones the first: intervals resample prompts, as if each were news."""
    first: dict[Any, int] = {}
    repeated = [
        number
        for at, (number, messages) in enumerate(zip(held.numbers, held.messages, strict=True))
        if first.setdefault(messages, at) != at
    ]
    if repeated:
        say(
            f"{held.source}: {len(repeated)} of {len(held)} held-out prompts equal another and are left out "
            f"({rows_text(repeated)})"
        )
    if len(first) < LEAST_HELD:
        say(
            f"fewer than {LEAST_HELD} held-out prompts cannot show at 5 % that a policy is better, "
            "and their intervals are rough: --held FILE names others (held in Python)"
        )
    return held.select(list(first.values())) if repeated else held


def hold_prompts(rows: Held, seed: int) -> tuple[Held, Held]:
    """Rows to learn on, and a tenth of them to judge by, at most 128, equal prompts on one side.

    Raises:
        InputError: When they cannot be divided.
    """
    share = min(HELD_SHARE, MOST_HELD / len(rows))
    parts = split(rows, fractions={"train": 1 - share, "held": share}, seed=seed)
    return parts["train"], parts["held"]


@dataclass(frozen=True)
class Asking:
    """How the prompts of a file are read.

    Args:
        texts: Columns of the prompt; those of the tuned model, of pairs, or the usual ones when not given.
        dialogue: How prompts of ``Human: ... Assistant: ...`` are read; when not given as ``usual`` says,
            where they are such.
        on_bad: ``"error"`` or ``"drop"`` for rows that cannot be used.
        usual: How the reward model reads them.
    """

    texts: Sequence[str] = ()
    dialogue: Dialogue | None = None
    on_bad: str = "error"
    usual: Dialogue = "none"

    def rows(self, start: Tuned, table: Table, say: Callable[[str], None]) -> Conversations | Preferences:
        """The rows of a table; how they are read is told."""
        dialogue = self.dialogue or self.usual
        if not self.texts and {"chosen", "rejected"} <= set(table.columns):
            pairs = Prefer.from_table(table, dialogue=dialogue, on_bad=self.on_bad)
            assert pairs.rows is not None
            told(pairs.notes, say)
            return pairs.rows
        task: Any = start.prompt.task
        own = task.template is not None or all(name in table.columns for name in task.fields)
        if own and not self.texts:
            found = task.read_table(table, answered=False, on_bad=self.on_bad)
        else:
            columns = find_conversation_columns(table, texts=self.texts, need_answers=False)
            say(f"prompts: {columns.note}")
            found = conversations(table, columns, need_answers=False, on_bad=self.on_bad)
        found = in_turns(found, dialogue, strict=self.dialogue is not None)
        told(found.notes(), say)
        return found


def told(notes: Sequence[str], say: Callable[[str], None]) -> None:
    """Tell each of several lines."""
    for note in notes:
        say(note)


def asked_prompts(start: Tuned, rows: Any, asking: Asking, say: Callable[[str], None]) -> Conversations:
    """Prompts without answers; of a table by the tuned model's columns, those of pairs, or their names."""
    if isinstance(rows, str | Path):
        rows = asking.rows(start, read(rows), say)
    if isinstance(rows, Preferences):
        rows = Conversations(rows.source, rows.prompts, None, rows.numbers, dropped=rows.dropped)
    found: Conversations = rows
    if found.references is not None:
        found = replace(found, messages=found.prompts(), references=None)
    if not len(found):
        raise InputError("there are no prompts", where=found.source, expected="one prompt or more")
    return found
