from collections.abc import Sequence
from typing import Protocol, TypeVar


class Rows(Protocol):
    """What the rows of every kind of task have in common."""

    @property
    def source(self) -> str:
        """Where they come from."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """1-based row numbers in the source."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """One class per row, by which splits are stratified; ``None`` where there is none."""

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """What makes two rows the same, row by row ``(rows, parts)``."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def select(self: "R", indices: Sequence[int]) -> "R":
        """Return the rows at these 0-based positions."""

    def digest(self) -> str:
        """Return the SHA-256 of the contents in order, not of source and row numbers."""

    def notes(self) -> list[str]:
        """Return lines for the user: rows left out by reason, and other changes."""


R = TypeVar("R", bound=Rows)
