from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pegbox.data import Examples, Table, examples, find_columns, read
from pegbox.errors import InputError, UsageError, nearest
from pegbox.tasks._saved import FORMAT, reading_task
from pegbox.tasks._template import Template


@dataclass(frozen=True)
class Demonstration:
    """One solved row that is shown before the question."""

    fields: Mapping[str, str]
    label: str


@dataclass(frozen=True)
class Classify:
    """Ask which of K labels fits a text or a pair of texts.

    The answer is read as a probability of each label word at the answer slot of the template; an encoder
    without an output layer, and any model with a head, reads the plain texts instead and needs neither
    template nor words.

    Args:
        labels: The K >= 2 label names, in the order of all probability columns.
        fields: One or two text column names.
        label_column: The column that held the labels.
        template: Text with the fields as slots and one ``{answer}`` slot; derived when ``None``.
        label_words: One word per label; derived when ``None``.
        demonstrations: Solved rows that are shown before each question, or the pool for ``similar``.
        similar: When set, each question is shown this many of the most similar demonstrations per label.
        draws: How many draws of equal size ``demonstrations`` holds one after the other; each is shown on
            its own, and the probabilities are averaged.
        readout: ``words``, or ``head`` for a linear layer of its own on the hidden states of the plain texts.
        rows: Labelled rows to tune on; not part of the saved task.
        notes: What was guessed on the way, one line each.

    Raises:
        InputError: With fewer than two labels, repeated labels, or a template that does not fit.
    """

    labels: tuple[str, ...]
    fields: tuple[str, ...] = ("text",)
    label_column: str = "label"
    template: str | None = None
    label_words: tuple[str, ...] | None = None
    demonstrations: tuple[Demonstration, ...] = ()
    similar: int | None = None
    draws: int = 1
    readout: Literal["words", "head"] = "words"
    rows: Examples | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("labels", "fields", "label_words", "demonstrations"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise UsageError(
                    f"{name} is the text {value!r}, whose letters are no {name.replace('_', ' ')}",
                    where=name,
                    expected="a list",
                    fix=f"write {name}=({value!r}, ...)",
                )
            object.__setattr__(self, name, None if value is None else tuple(value))
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise InputError(
                "a classification task needs at least two different labels",
                where=f"labels {list(self.labels)}",
                expected="two or more distinct names",
                fix="check the label column",
            )
        if len(self.fields) not in (1, 2) or len(set(self.fields)) != len(self.fields):
            raise InputError(
                "a classification task reads one or two text columns",
                where=f"fields {list(self.fields)}",
                expected="one name, or two different ones for pairs",
                fix="name them with --text",
            )
        if self.readout not in ("words", "head"):
            raise InputError(
                "unknown readout",
                where=f"readout {self.readout!r}",
                expected="words or head",
                fix="write words",
            )
        if self.template is not None:
            Template(self.template, self.fields)
        if self.label_words is not None:
            self._check_words(self.label_words)
        self._check_demonstrations()

    @classmethod
    def from_file(
        cls,
        source: str | Path,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        template: str | None = None,
        label_words: Mapping[str, str] | Sequence[str] | None = None,
        split: str | None = None,
        on_bad: str = "error",
    ) -> Classify:
        """Read labelled rows from a file or hub id; columns that are not named are guessed and noted.

        Args:
            source: csv, tsv, json, jsonl, parquet file or hub id.
            texts: One or two text columns.
            label: The label column.
            template: See the class.
            label_words: Words in the order of the sorted labels, or a mapping from label to word.
            split: Split of a hub data set.
            on_bad: ``"error"`` or ``"drop"`` for rows without text or label.
        """
        table = read(source, split=split)
        return cls.from_table(
            table, texts=texts, label=label, template=template, label_words=label_words, on_bad=on_bad
        )

    @classmethod
    def from_table(
        cls,
        table: Table,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        template: str | None = None,
        label_words: Mapping[str, str] | Sequence[str] | None = None,
        on_bad: str = "error",
    ) -> Classify:
        """As :meth:`from_file`, from a table that is already read."""
        columns = find_columns(table, texts=texts, label=label)
        rows = examples(table, columns, on_bad=on_bad)  # type: ignore[arg-type]
        return cls(
            labels=rows.label_names,
            fields=columns.texts,
            label_column=columns.label or "label",
            template=template,
            label_words=align_words(label_words, rows.label_names),
            rows=rows,
            notes=(columns.note, *rows.notes()),
        )

    def with_rows(self, rows: Examples | None) -> Classify:
        """The same task on other rows."""
        return replace(self, rows=rows)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; the rows and notes stay out."""
        return {
            "format": FORMAT,
            "task": "classify",
            "labels": list(self.labels),
            "fields": list(self.fields),
            "label_column": self.label_column,
            "template": self.template,
            "label_words": list(self.label_words) if self.label_words else None,
            "similar": self.similar,
            "draws": self.draws,
            "readout": self.readout,
            "demonstrations": [{"fields": dict(d.fields), "label": d.label} for d in self.demonstrations],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], where: str = "task.json") -> Classify:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: When the mapping is no classification task of this format.
        """
        with reading_task(saved, "classify", where, AttributeError):
            return cls(
                labels=tuple(saved["labels"]),
                fields=tuple(saved["fields"]),
                label_column=saved["label_column"],
                template=saved["template"],
                label_words=tuple(saved["label_words"]) if saved["label_words"] else None,
                demonstrations=tuple(
                    Demonstration(dict(d["fields"]), d["label"]) for d in saved["demonstrations"]
                ),
                similar=saved["similar"],
                draws=saved.get("draws", 1),  # earlier folders lack it
                readout=saved.get("readout", "words"),  # earlier folders lack it
            )

    def gold(self, rows: Examples) -> list[int]:
        """Label indices of the rows.

        Raises:
            InputError: When a row has no label or one that the task does not know.
        """
        if rows.labels is None:
            raise InputError(
                "these rows have no labels", where=rows.source, fix="name the column with --label"
            )
        index = {label: position for position, label in enumerate(self.labels)}
        for label, number in zip(rows.labels, rows.numbers, strict=True):
            if label not in index:
                raise InputError(
                    f"the label '{label}' is unknown to the task",
                    where=f"{rows.source}, row {number}",
                    expected=f"one of {', '.join(self.labels)}",
                    fix=nearest(label, self.labels) or "correct the label or tune again with it",
                )
        return [index[label] for label in rows.labels]

    def check_all_present(self, rows: Examples) -> None:
        """Raise InputError when a label has no row, since nothing can be learnt about it."""
        present = set(rows.labels or ())
        absent = [label for label in self.labels if label not in present]
        if absent:
            raise InputError(
                f"no training row has the label {', '.join(repr(label) for label in absent)}",
                where=rows.source,
                expected=f"at least one row of each of {', '.join(self.labels)}",
                fix="add rows of that label, or take it out of the other files",
            )

    def _check_demonstrations(self) -> None:
        for number, shown in enumerate(self.demonstrations, 1):
            if shown.label not in self.labels or not set(self.fields) <= set(shown.fields):
                raise InputError(
                    "a demonstration does not fit the task",
                    where=f"demonstration {number}, label '{shown.label}', texts {', '.join(shown.fields)}",
                    expected=f"a label of {', '.join(self.labels)} and the texts {', '.join(self.fields)}",
                    fix="take it out, or make it from rows of this task",
                )
        if self.similar is not None and (type(self.similar) is not int or self.similar < 1):
            raise InputError(
                "similar must be a number of demonstrations per label",
                where=f"similar {self.similar!r}",
                expected="a whole number of at least 1, or nothing",
            )
        whole = type(self.draws) is int and self.draws >= 1 and len(self.demonstrations) % self.draws == 0
        if not whole or (self.draws > 1 and (self.similar is not None or not self.demonstrations)):
            raise InputError(
                "the demonstrations cannot be divided into draws",
                where=f"draws {self.draws!r} of {len(self.demonstrations)} demonstrations",
                expected="a whole number of at least 1 that divides them, and 1 for the most similar ones",
                fix="leave draws at 1",
            )

    def _check_words(self, words: Sequence[str]) -> None:
        empty = any(not word.strip() for word in words)
        if len(words) != len(self.labels) or empty:
            fault = "a label word is empty" if empty else f"{len(words)} label words"
            raise InputError(
                f"{fault} for {len(self.labels)} labels",
                where=f"label words {list(words)}",
                expected=f"one word for each of {', '.join(self.labels)}",
                fix="write --label-words label=word,label=word",
            )
        if len(set(words)) != len(words):
            twice = next(word for word in words if list(words).count(word) > 1)
            raise InputError(
                f"the label word '{twice}' stands for two labels",
                where=f"label words {dict(zip(self.labels, words, strict=True))}",
                expected="a different word for each label",
                fix="change one of them with --label-words",
            )


def align_words(
    words: Mapping[str, str] | Sequence[str] | None, labels: Sequence[str]
) -> tuple[str, ...] | None:
    """Bring label words into the order of the labels.

    Raises:
        InputError: When a mapping misses a label or names an unknown one.
    """
    if words is None or not isinstance(words, Mapping):
        return tuple(words) if words else None
    for name in words:
        if name not in labels:
            raise InputError(
                f"a label word is given for the unknown label '{name}'",
                where="label words",
                expected=f"one of {', '.join(labels)}",
                fix=nearest(name, labels),
            )
    missing = [label for label in labels if label not in words]
    if missing:
        raise InputError(
            f"no label word is given for {', '.join(repr(label) for label in missing)}",
            where="label words",
            expected=f"one word for each of {', '.join(labels)}",
            fix="write --label-words label=word,label=word",
        )
    return tuple(words[label] for label in labels)
