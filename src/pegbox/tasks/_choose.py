from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pegbox.data import AnswerKind, Questions, Table, find_choice_columns, questions, read
from pegbox.errors import InputError
from pegbox.tasks._classify import Demonstration
from pegbox.tasks._saved import FORMAT, reading_task
from pegbox.tasks._template import Template, slot_names

Normalise = Literal["tokens", "characters", "none"]


@dataclass(frozen=True)
class Choose:
    """Ask which of a question's own options is right.

    Each option is scored by its log-probability after the question, and the probabilities are a softmax over
    the row's options; their number may differ from row to row.

    Args:
        fields: The question's column, or the context's and the question's.
        options: The columns that held the options.
        answer_column: The column that held the answers.
        answer_kind: How that column names an option; found out for each file when ``None``.
        template: Text with the fields as slots, and ``{answer}`` at its end, where an option stands.
        normalise: Divide an option's log-probability by its ``tokens`` or ``characters``, or by ``none``.
        demonstrations: Solved rows that are shown before each question.
        rows: Questions to tune on; not part of the saved task.
        notes: What was guessed on the way, one line each.

    Raises:
        InputError: For a template that does not fit, or another normalisation.
    """

    fields: tuple[str, ...] = ("question",)
    options: tuple[str, ...] = ("choices",)
    answer_column: str = "answer"
    answer_kind: AnswerKind | None = None
    template: str | None = None
    normalise: Normalise = "tokens"
    demonstrations: tuple[Demonstration, ...] = ()
    rows: Questions | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    # What methods may ask of any task: one output scores an option, and no words stand for labels.
    labels: ClassVar[tuple[str, ...]] = ("option",)
    label_words: ClassVar[None] = None
    similar: ClassVar[None] = None
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("fields", "options", "demonstrations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.fields) not in (1, 2) or len(set(self.fields)) != len(self.fields) or not self.options:
            raise InputError(
                "a multiple-choice task reads a question, or a context and a question, and options",
                where=f"fields {list(self.fields)}, options {list(self.options)}",
                expected="one name, or two different ones, and the columns of the options",
                fix="name them with --text",
            )
        if self.normalise not in get_args(Normalise):
            raise InputError(
                "unknown normalisation",
                where=f"normalise {self.normalise!r}",
                expected=", ".join(get_args(Normalise)),
                fix="write tokens",
            )
        if self.template is not None and not Template(self.template, self.fields).answer_last:
            raise InputError(
                "the template goes on after the answer, where an option ends",
                where=repr(self.template),
                expected="{answer} after all text slots",
                fix="move {answer} to the end",
            )

    @property
    def label_column(self) -> str:
        """The column of answers."""
        return self.answer_column

    @property
    def wording(self) -> str:
        """The template, the derived one where none was given."""
        slots = slot_names(self.fields)
        context = f"{slots[0]}\n" if len(slots) > 1 else ""
        return self.template or f"{context}Question: {slots[-1]}\nAnswer: {{answer}}"

    @classmethod
    def from_file(
        cls,
        source: str | Path,
        *,
        texts: Sequence[str] = (),
        options: Sequence[str] = (),
        answer: str | None = None,
        template: str | None = None,
        normalise: Normalise = "tokens",
        split: str | None = None,
        on_bad: str = "error",
    ) -> Choose:
        """Read questions from a file or hub id; columns that are not named are guessed and noted.

        Args:
            source: csv, tsv, json, jsonl, parquet file or hub id.
            texts: The question's column, or the context's and the question's.
            options: One column of lists, or one column per option.
            answer: Column of the answers: an option's text, letter or number.
            template: See the class.
            normalise: See the class.
            split: Split of a hub data set.
            on_bad: ``"error"`` or ``"drop"`` for rows that cannot be used.
        """
        table = read(source, split=split)
        return cls.from_table(
            table,
            texts=texts,
            options=options,
            answer=answer,
            template=template,
            normalise=normalise,
            on_bad=on_bad,
        )

    @classmethod
    def from_table(
        cls,
        table: Table,
        *,
        texts: Sequence[str] = (),
        options: Sequence[str] = (),
        answer: str | None = None,
        template: str | None = None,
        normalise: Normalise = "tokens",
        on_bad: str = "error",
    ) -> Choose:
        """As :meth:`from_file`, from a table that is already read."""
        columns = find_choice_columns(table, texts=texts, options=options, answer=answer)
        rows, kind = questions(table, columns, on_bad=on_bad)
        return cls(
            fields=columns.texts,
            options=columns.options,
            answer_column=columns.answer or "answer",
            answer_kind=kind,
            template=template,
            normalise=normalise,
            rows=rows,
            notes=(columns.note, *rows.notes()),
        )

    def with_rows(self, rows: Questions | None) -> Choose:
        """The same task on other rows."""
        return replace(self, rows=rows)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; the rows and notes stay out."""
        return {
            "format": FORMAT,
            "task": "choose",
            "fields": list(self.fields),
            "options": list(self.options),
            "answer_column": self.answer_column,
            "answer_kind": self.answer_kind,
            "template": self.template,
            "normalise": self.normalise,
            "demonstrations": [{"fields": dict(d.fields), "label": d.label} for d in self.demonstrations],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], where: str = "task.json") -> Choose:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: When the mapping is no multiple-choice task of this format.
        """
        with reading_task(saved, "choose", where, AttributeError):
            return cls(
                fields=tuple(saved["fields"]),
                options=tuple(saved["options"]),
                answer_column=saved["answer_column"],
                answer_kind=saved["answer_kind"],
                template=saved["template"],
                normalise=saved["normalise"],
                demonstrations=tuple(
                    Demonstration(dict(d["fields"]), d["label"]) for d in saved["demonstrations"]
                ),
            )

    def gold(self, rows: Questions) -> list[int]:
        """Index of each row's right option.

        Raises:
            InputError: When the rows have no answers.
        """
        if rows.answers is None:
            raise InputError(
                "these rows have no answers", where=rows.source, fix="name their column with --label"
            )
        for answer, options, number in zip(rows.answers, rows.options, rows.numbers, strict=True):
            if not 0 <= answer < len(options):
                raise InputError(
                    f"the answer {answer} is none of {len(options)} options",
                    where=f"{rows.source}, row {number}",
                    expected=f"0 to {len(options) - 1}",
                )
        return list(rows.answers)
