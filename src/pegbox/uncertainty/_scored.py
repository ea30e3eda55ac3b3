from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn


class Scored(Protocol):
    """Encoded rows with the scores that a model gives their answers.

    Rows whose answers are options of their own, each read from a text of its own, score them one by one: no
    score of a batch depends on another option's text.
    """

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row, (rows,)."""

    @property
    def answers(self) -> int:
        """Most answers of a row."""

    @property
    def own_texts(self) -> bool:
        """Whether each answer is an option that is read from a text of its own."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The rows ``indices`` as one padded batch of CPU tensors, with the answers as ``gold`` (batch,)."""

    def scores(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Answer logits (batch, answers), minus infinity for an answer that a row lacks; gradients flow."""
