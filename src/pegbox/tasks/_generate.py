from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pegbox.data import (
    ConversationColumns,
    Conversations,
    Table,
    conversations,
    find_conversation_columns,
    read,
    rows_text,
)
from pegbox.errors import InputError, UsageError, nearest
from pegbox.tasks._classify import Demonstration
from pegbox.tasks._decoding import Decoding
from pegbox.tasks._saved import FORMAT, reading_task

# Column of the tables that SQL answers can be run on, where there is one.
TABLE = "table"
Chat = Literal["auto", "model", "plain", "none"]


@dataclass(frozen=True)
class Generate:
    """Ask for a text: the answer to an instruction, a conversation's next turn, a record put into words, SQL.

    Args:
        format: How the rows were written: ``instruction``, ``prompt``, ``messages``, ``sharegpt``, ``input``
            or ``text``.
        columns: Column of each part, by the part's name (see :func:`pegbox.data.find_conversation_columns`).
        template: How the user's message is made of the columns, such as ``"{question}\\nSQL:"``; ``None`` for
            the columns' own texts.
        system: A system message before rows that have none.
        chat: How messages become one text: ``model`` by the tokenizer's own chat template, ``plain`` by a
            plain one (``Instruction: ... Response: ...``), ``none`` by prompt and answer as they stand;
            ``auto`` takes the tokenizer's own where it has one, and else ``none`` for plain texts, for
            ``prompt`` rows and with a template, ``plain`` for all others.
        chat_template: The Jinja template in use, once the task was made ready for a tokenizer.
        among: The only answers there are; the most probable of them is given. Empty for free text.
        decoding: How answers are decoded.
        demonstrations: Solved rows shown before each question as earlier turns.
        rows: Rows to tune on; not part of the saved task.
        notes: What was guessed on the way, one line each.

    Raises:
        UsageError: For values that cannot be.
    """

    format: str = "instruction"
    columns: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    chat: Chat = "auto"
    chat_template: str | None = None
    among: tuple[str, ...] = ()
    decoding: Decoding = field(default_factory=Decoding)
    demonstrations: tuple[Demonstration, ...] = ()
    rows: Conversations | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    # What methods may ask of any task, and free text does not have.
    label_words: ClassVar[None] = None
    similar: ClassVar[None] = None
    draws: ClassVar[int] = 1
    labels: ClassVar[tuple[()]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns))
        object.__setattr__(self, "among", tuple(self.among))
        object.__setattr__(self, "demonstrations", tuple(self.demonstrations))
        if self.chat not in get_args(Chat):
            raise UsageError(
                f"there is no way {self.chat!r} to write a conversation",
                where=f"chat {self.chat!r}",
                expected=", ".join(get_args(Chat)),
                fix=nearest(str(self.chat), get_args(Chat)) or "leave --chat out",
            )
        idle = [
            name
            for name, given in (
                ("system", self.system),
                ("among", self.among),
                ("chat", self.chat in ("model", "plain")),
            )
            if given
        ]
        if self.plain and idle:
            raise UsageError(
                f"plain texts are no conversations, so {' and '.join(idle)} would do nothing",
                where=f"format text, {idle[0]} {getattr(self, idle[0])!r}",
                expected="rows of prompts and answers, or none of these",
                fix=f"leave {idle[0]} out, or name the columns with --text and --label",
            )
        blank = any(not isinstance(answer, str) or not answer.strip() for answer in self.among)
        if blank or len(set(self.among)) != len(self.among) or len(self.among) == 1:
            raise UsageError(
                "answers to choose among must be at least two, different and not blank",
                where=f"among {list(self.among)}",
                expected="for example yes,no",
                fix="mend --among, or leave it out for free text",
            )

    @property
    def plain(self) -> bool:
        """Whether the rows are texts without a prompt."""
        return self.format == "text"

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that the prompt is made of."""
        return tuple(name for part, name in self.columns.items() if part not in ("output", "system"))

    @property
    def label_column(self) -> str:
        """The column of answers; of conversations the conversation itself."""
        return self.columns.get("output") or next(iter(self.columns.values()), "output")

    @classmethod
    def from_file(
        cls,
        source: str | Path,
        *,
        format: str | None = None,
        texts: Sequence[str] = (),
        label: str | None = None,
        split: str | None = None,
        on_bad: str = "error",
        **options: Any,
    ) -> Generate:
        """Read prompts and answers from a file or hub id; a format that is not named is detected and noted.

        Args:
            source: csv, tsv, json, jsonl or parquet file, or hub id.
            format: ``instruction``, ``prompt``, ``messages``, ``sharegpt``, ``input`` or ``text``.
            texts: Columns that the prompt is made of.
            label: Column of answers: texts, or lists of texts where several are right.
            split: Split of a hub data set.
            on_bad: ``"error"`` or ``"drop"`` for rows that cannot be used.
            options: ``template``, ``system``, ``chat``, ``among`` and ``decoding``, as for the class.
        """
        table = read(source, split=split)
        return cls.from_table(table, format=format, texts=texts, label=label, on_bad=on_bad, **options)

    @classmethod
    def from_table(
        cls,
        table: Table,
        *,
        format: str | None = None,
        texts: Sequence[str] = (),
        label: str | None = None,
        on_bad: str = "error",
        **options: Any,
    ) -> Generate:
        """As :meth:`from_file`, from a table that is already read."""
        columns = find_conversation_columns(
            table, format=format, texts=texts, label=label, template=options.get("template")
        )
        extra = _extra(table, columns.inputs, options.get("template"))
        rows = conversations(table, columns, on_bad=on_bad, extra=extra)
        notes = (columns.note, *rows.notes())
        return cls(format=columns.format, columns=columns.columns, rows=rows, notes=notes, **options)

    def read_table(
        self,
        table: Table,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        answered: bool = True,
        on_bad: str = "error",
    ) -> Conversations:
        """Rows of another table by the same columns, or by others that stand for them."""
        own = not texts and label is None
        if own:
            needed = {
                part: name
                for part, name in self.columns.items()
                if (answered or part != "output") and (part != "system" or name in table.columns)
            }
            columns = ConversationColumns(self.format, needed, self.template, "")  # type: ignore[arg-type]
        else:
            columns = find_conversation_columns(
                table, texts=texts, label=label, template=self.template, need_answers=answered
            )
        return conversations(
            table,
            columns,
            need_answers=answered,
            on_bad=on_bad,
            extra=_extra(table, columns.inputs, self.template),
        )

    def tell_absent(self, rows: Conversations, say: Callable[[str], None]) -> None:
        """Refuse rows without answers; say where closed answers are others than those to choose among."""
        references = self.gold(rows)
        if self.among:
            own = {" ".join(answer.split()) for answer in self.among}
            others = [
                number
                for number, answers in zip(rows.numbers, references, strict=True)
                if not any(" ".join(answer.split()) in own for answer in answers)
            ]
            if others:
                told = f"{len(others)} answers are none of those to choose among ({rows_text(others)})"
                say(f"{rows.source}: {told}")

    def gold(self, rows: Conversations) -> tuple[tuple[str, ...], ...]:
        """The right answers of each row.

        Raises:
            InputError: Where there are none.
        """
        if rows.references is None:
            raise InputError(
                "the rows have no answers",
                where=rows.source,
                expected="an answer in each row",
                fix="name the column of answers with --label",
            )
        return rows.references

    def with_rows(self, rows: Conversations | None) -> Generate:
        """The same task on other rows."""
        return replace(self, rows=rows)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; the rows and notes stay out."""
        return {
            "format": FORMAT,
            "task": "generate",
            "rows": self.format,
            "columns": dict(self.columns),
            "template": self.template,
            "system": self.system,
            "chat": self.chat,
            "chat_template": self.chat_template,
            "among": list(self.among),
            "decoding": self.decoding.to_json(),
            "demonstrations": [
                {"fields": dict(shown.fields), "label": shown.label} for shown in self.demonstrations
            ],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], where: str = "task.json") -> Generate:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: When the mapping is no generation task of this format.
        """
        with reading_task(saved, "generate", where, UsageError):
            return cls(
                format=saved["rows"],
                columns=saved["columns"],
                template=saved["template"],
                system=saved["system"],
                chat=saved["chat"],
                chat_template=saved["chat_template"],
                among=tuple(saved["among"]),
                decoding=Decoding.of(saved["decoding"]),
                demonstrations=tuple(
                    Demonstration(shown["fields"], shown["label"]) for shown in saved["demonstrations"]
                ),
            )


def _extra(table: Table, inputs: Sequence[str], template: str | None) -> tuple[str, ...]:
    """The column of tables, where there is one, and what a template was filled with, for the metrics."""
    cells = table.columns.get(TABLE, ())
    found = [TABLE] if any(isinstance(cell, Mapping) for cell in cells[:10]) else []
    found += [name for name in inputs if template is not None and name in table.columns]
    return tuple(dict.fromkeys(found))
