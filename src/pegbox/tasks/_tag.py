from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from pegbox.data import Sentences, Table, find_tag_columns, read, sentences
from pegbox.errors import InputError, nearest
from pegbox.tasks._saved import FORMAT, reading_task


@dataclass(frozen=True)
class Tag:
    """Ask which entity each word of a sentence belongs to: BIO tags, scored by a linear head on every token.

    A word's answer is read at its first sub-word. Predictions are the most probable sequence of tags in which
    each I- continues an entity of its type.

    Args:
        types: Entity types, in the order of the tag columns.
        tokens_column: Column that held the words.
        tags_column: Column that held the tags.
        rows: Tagged sentences to tune on; not part of the saved task.
        notes: What was guessed on the way, one line each.

    Raises:
        InputError: Without a type, or with repeated ones.
    """

    types: tuple[str, ...]
    tokens_column: str = "tokens"
    tags_column: str = "tags"
    rows: Sentences | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    # What methods may ask of any task, and sentences do not have.
    template: ClassVar[None] = None
    label_words: ClassVar[None] = None
    demonstrations: ClassVar[tuple[()]] = ()
    similar: ClassVar[None] = None
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", tuple(self.types))
        blank = any(not name or name.split() != [name] for name in self.types)
        if not self.types or blank or len(set(self.types)) != len(self.types):
            raise InputError(
                "a tagging task needs at least one entity type, and different ones",
                where=f"types {list(self.types)}",
                expected="names without spaces, such as PER and LOC",
                fix="check the tags: those of entities are B-type and I-type",
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """The column of words."""
        return (self.tokens_column,)

    @property
    def label_column(self) -> str:
        """The column of tags."""
        return self.tags_column

    @property
    def labels(self) -> tuple[str, ...]:
        """The tags: ``O``, then B- and I- of each type."""
        return ("O", *(f"{place}-{name}" for name in self.types for place in "BI"))

    @classmethod
    def from_file(
        cls,
        source: str | Path,
        *,
        tokens: str | None = None,
        tags: str | None = None,
        split: str | None = None,
        on_bad: str = "error",
    ) -> Tag:
        """Read tagged sentences from a file or hub id; columns that are not named are guessed and noted.

        Args:
            source: jsonl, json, parquet or CoNLL file, or hub id.
            tokens: Column of lists of words.
            tags: Column of lists of BIO tags.
            split: Split of a hub data set.
            on_bad: ``"error"``, ``"drop"`` or ``"repair"``, see :func:`pegbox.data.sentences`.
        """
        return cls.from_table(read(source, split=split), tokens=tokens, tags=tags, on_bad=on_bad)

    @classmethod
    def from_table(
        cls, table: Table, *, tokens: str | None = None, tags: str | None = None, on_bad: str = "error"
    ) -> Tag:
        """As :meth:`from_file`, from a table that is already read."""
        columns = find_tag_columns(table, tokens=tokens, tags=tags)
        rows = sentences(table, columns, on_bad=on_bad)
        return cls(
            types=rows.types,
            tokens_column=columns.tokens,
            tags_column=columns.tags or "tags",
            rows=rows,
            notes=(columns.note, *rows.notes()),
        )

    def with_rows(self, rows: Sentences | None) -> Tag:
        """The same task on other rows."""
        return replace(self, rows=rows)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; the rows and notes stay out."""
        return {
            "format": FORMAT,
            "task": "tag",
            "types": list(self.types),
            "tokens_column": self.tokens_column,
            "tags_column": self.tags_column,
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], where: str = "task.json") -> Tag:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: When the mapping is no tagging task of this format.
        """
        with reading_task(saved, "tag", where):
            return cls(tuple(saved["types"]), saved["tokens_column"], saved["tags_column"])

    def gold(self, rows: Sentences) -> list[list[int]]:
        """Tag indices of each row's words.

        Raises:
            InputError: When the rows have no tags, or one of a type that the task does not know.
        """
        if rows.tags is None:
            raise InputError(
                "these rows have no tags", where=rows.source, fix="name their column with --label"
            )
        index = {label: position for position, label in enumerate(self.labels)}
        for tags, number in zip(rows.tags, rows.numbers, strict=True):
            unknown = next((tag for tag in tags if tag not in index), None)
            if unknown is not None:
                raise InputError(
                    f"the tag '{unknown}' is unknown to the task",
                    where=f"{rows.source}, row {number}",
                    expected=f"O, or B- or I- of {', '.join(self.types)}",
                    fix=nearest(unknown[2:], self.types) or "correct the tag or tune again with its type",
                )
        return [[index[tag] for tag in tags] for tags in rows.tags]

    def tell_absent(self, rows: Sentences, say: Callable[[str], None]) -> None:
        """Say which types no row has: nothing can be learnt about them."""
        absent = [name for name in self.types if name not in rows.types]
        if absent:
            say(f"no training row has an entity of the type {', '.join(absent)}: none will be found")
