from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

from pegbox.data import (
    Conversations,
    Dialogue,
    PreferenceColumns,
    Preferences,
    Table,
    conversations,
    find_conversation_columns,
    find_preference_columns,
    in_turns,
    preferences,
    read,
)
from pegbox.errors import InputError, UsageError, nearest
from pegbox.tasks._generate import Chat, Generate
from pegbox.tasks._saved import FORMAT, reading_task

PARTS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Prefer:
    """Ask how good an answer to a prompt is, learnt from pairs of which one was preferred: a reward.

    Answers are written after their prompts as :class:`Generate` writes them, ends included.

    Args:
        format: How the rows were written: ``prompt``, ``messages``, ``dialogue`` or ``text``.
        columns: Column of each part: ``chosen``, ``rejected``, where there are such ``prompt``, ``system``.
        dialogue: Whether prompts of ``Human: ...`` and ``Assistant: ...`` are read as turns
            (``human-assistant``) or each as one message (``none``).
        system: A system message before rows that have none.
        chat: How messages become one text, see :class:`Generate`; ``auto`` takes the tokenizer's own chat
            template where it has one, and else ``none`` for texts that go on, ``plain`` for all others.
        chat_template: The Jinja template in use, once the task was made ready for a tokenizer.
        rows: Rows to tune on; not part of the saved task.
        notes: What was guessed on the way, one line each.

    Raises:
        UsageError: For another way to write or read conversations.
    """

    format: str = "prompt"
    columns: Mapping[str, str] = field(default_factory=lambda: {part: part for part in PARTS})
    dialogue: Dialogue = "none"
    system: str | None = None
    chat: Chat = "auto"
    chat_template: str | None = None
    rows: Preferences | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    # What methods may ask of any task: one output scores an answer, and no words stand for labels.
    labels: ClassVar[tuple[str, ...]] = ("reward",)
    label_words: ClassVar[None] = None
    similar: ClassVar[None] = None
    template: ClassVar[None] = None
    demonstrations: ClassVar[tuple[()]] = ()
    draws: ClassVar[int] = 1
    label_column: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns))
        for name, valid in (("chat", get_args(Chat)), ("dialogue", get_args(Dialogue))):
            value = getattr(self, name)
            if value not in valid:
                what = "write a conversation" if name == "chat" else "read a dialogue"
                raise UsageError(
                    f"there is no way {value!r} to {what}",
                    where=f"{name} {value!r}",
                    expected=", ".join(valid),
                    fix=nearest(str(value), valid) or f"leave --{name} out",
                )

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of prompt and answers."""
        return tuple(self.columns[part] for part in PARTS if part in self.columns)

    @property
    def spoken(self) -> Generate:
        """The task of writing such answers, which a policy has: it says how messages become one text."""
        return Generate(
            format="prompt" if self.format == "text" else "messages",
            system=self.system,
            chat=self.chat,
            chat_template=self.chat_template,
        )

    @classmethod
    def from_file(
        cls,
        source: str | Path,
        *,
        texts: Sequence[str] = (),
        dialogue: Dialogue = "none",
        split: str | None = None,
        on_bad: str = "error",
        **options: Any,
    ) -> Prefer:
        """Read preferences from a file or hub id; columns that are not named are guessed and noted.

        Args:
            source: csv, tsv, json, jsonl or parquet file, or hub id.
            texts: Columns of prompt, chosen and rejected answer, or of the last two alone.
            dialogue: See the class.
            split: Split of a hub data set.
            on_bad: ``"error"`` or ``"drop"`` for rows that cannot be used.
            options: ``system``, ``chat`` and ``chat_template``, as for the class.
        """
        table = read(source, split=split)
        return cls.from_table(table, texts=texts, dialogue=dialogue, on_bad=on_bad, **options)

    @classmethod
    def from_table(
        cls,
        table: Table,
        *,
        texts: Sequence[str] = (),
        dialogue: Dialogue = "none",
        on_bad: str = "error",
        **options: Any,
    ) -> Prefer:
        """As :meth:`from_file`, from a table that is already read."""
        columns = find_preference_columns(table, texts=texts, dialogue=dialogue)
        rows = preferences(table, columns, on_bad=on_bad)
        return cls(
            format=columns.format,
            columns=columns.columns,
            dialogue=dialogue,
            rows=rows,
            notes=(columns.note, *rows.notes()),
            **options,
        )

    def read_table(
        self, table: Table, *, texts: Sequence[str] = (), ranked: bool = True, on_bad: str = "error"
    ) -> Preferences | Conversations:
        """Rows of another table by the same columns, or by others that stand for them.

        Args:
            table: The table.
            texts: Columns of prompt, chosen and rejected; without ranking also of prompt and answer alone.
            ranked: Whether one answer must be known to be better; else prompts with one answer each are read
                too, as conversations.
            on_bad: ``"error"`` or ``"drop"`` for rows that cannot be used.
        """
        if not ranked and len(texts) == 2:
            return self._answers(table, texts, on_bad)
        needed = {
            part: name for part, name in self.columns.items() if part != "system" or name in table.columns
        }
        if not texts and all(name in table.columns for name in needed.values()):
            columns = PreferenceColumns(self.format, needed, self.dialogue)  # type: ignore[arg-type]
            return preferences(table, columns, on_bad=on_bad, ranked=ranked)
        try:
            columns = find_preference_columns(table, texts=texts, dialogue=self.dialogue, ranked=ranked)
        except InputError:
            if ranked or texts:
                raise
            return self._answers(table, (), on_bad)
        return preferences(table, columns, on_bad=on_bad, ranked=ranked)

    def _answers(self, table: Table, texts: Sequence[str], on_bad: str) -> Conversations:
        """Prompts with one answer each."""
        prompt, answer = texts or ("", "")
        found = find_conversation_columns(table, texts=(prompt,) if prompt else (), label=answer or None)
        rows = conversations(table, found, on_bad=on_bad)
        return rows if self.dialogue == "none" else in_turns(rows)

    def check(self, rows: Any, say: Callable[[str], None]) -> None:
        """Refuse rows that are no preferences; say where one prompt's length decides nearly all of them."""
        self.gold(rows)
        unequal = [
            len(one) > len(other)
            for one, other in zip(rows.chosen, rows.rejected, strict=True)
            if len(one) != len(other)
        ]
        share = sum(unequal) / len(unequal) if unequal else 0.5
        if len(unequal) >= 20 and abs(share - 0.5) > 0.2:
            side, wins = ("longer", share) if share > 0.5 else ("shorter", 1 - share)
            say(
                f"{rows.source}: the {side} answer is chosen in {wins:.0%} of the pairs, which length alone "
                "would tell: see the length bias of the scores"
            )

    def gold(self, rows: Any) -> list[int]:
        """Index of each pair's better answer, which is the first.

        Raises:
            InputError: When the rows are no pairs, or it is not known which answer is better.
        """
        if not isinstance(rows, Preferences) or not rows.answered:
            raise InputError(
                "it is not known which of two answers is better",
                where=rows.source,
                expected="a chosen and a rejected answer in each row",
                fix="name the columns with --text prompt,chosen,rejected",
            )
        return [0] * len(rows)

    def with_rows(self, rows: Preferences | None) -> Prefer:
        """The same task on other rows."""
        return replace(self, rows=rows)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; the rows and notes stay out."""
        return {
            "format": FORMAT,
            "task": "prefer",
            "rows": self.format,
            "columns": dict(self.columns),
            "dialogue": self.dialogue,
            "system": self.system,
            "chat": self.chat,
            "chat_template": self.chat_template,
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], where: str = "task.json") -> Prefer:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: When the mapping is no task of preferences of this format.
        """
        with reading_task(saved, "prefer", where, UsageError):
            names = ("columns", "dialogue", "system", "chat", "chat_template")
            return cls(format=saved["rows"], **{name: saved[name] for name in names})
