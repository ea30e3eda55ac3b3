"""Conversations as a model that writes learns them: token ids with a mask of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pegbox.data import Conversations, rows_text
from pegbox.errors import InputError
from pegbox.tasks._prompt import TooLong


@dataclass(frozen=True)
class Spoken:
    """Conversations as token ids, and which of them the model is to say.

    Args:
        ids: Token ids of each sequence; of an encoder-decoder what its decoder reads, its start included.
        said: For each sequence whether each token is to be said, as long as ``ids``.
        sources: Token ids that the encoder of an encoder-decoder reads, else ``None``.
        rows: The row (0-based) that each sequence is of.
        numbers: Row numbers of all rows that were asked for.
        shortened: Row numbers whose question was cut.
        left_out: Row numbers that do not fit and were left out.
        divided: Row numbers of plain texts that are read in several windows.
        source: Where the rows come from.
    """

    ids: tuple[tuple[int, ...], ...]
    said: tuple[tuple[bool, ...], ...]
    sources: tuple[tuple[int, ...], ...] | None
    rows: tuple[int, ...]
    numbers: tuple[int, ...]
    shortened: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    divided: tuple[int, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def notes(self) -> list[str]:
        """Lines for the user on what was cut, divided and left out."""
        where = f"{self.source}: " if self.source else ""
        count = len(self.numbers)
        told = (
            (self.shortened, "questions shortened to fit the context"),
            (self.divided, "texts read in several windows"),
            (self.left_out, "rows left out, since they do not fit into the context"),
        )
        return [f"{where}{len(rows)} of {count} {what} ({rows_text(rows)})" for rows, what in told if rows]


def too_long_error(
    rows: Conversations, numbers: Sequence[int], context: int, too_long: TooLong
) -> InputError:
    """The error on rows that do not fit into the context, of these numbers."""
    what = "the answer and the template alone are" if too_long == "shorten" else "the row is"
    count = f"{len(numbers)} rows are" if len(numbers) > 1 else "a row is"
    return InputError(
        f"{count} longer than the context" + (f": {what} longer than it" if too_long == "shorten" else ""),
        where=f"{rows.source}, {rows_text(numbers)}",
        expected=f"at most {context} tokens",
        fix="raise --max-length, shorten them, or leave them out with --too-long drop",
    )
