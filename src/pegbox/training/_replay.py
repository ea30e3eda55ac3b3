"""What is replayed beside the rows that are learnt, so that a model does not forget what it could say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pegbox.training._trainable import Trainable


class Replayable(Trainable, Protocol):
    """Rows that can be replayed without end: index i is row i modulo their number, in another pass."""

    def answers(self, index: int) -> int:
        """Return how many answers a row has, at least one."""


@dataclass(frozen=True)
class Replay:
    """What to replay, and how much of it.

    Args:
        rows: The rows and their loss.
        ratio: Share of them among all sequences, above 0 and below 1.
        name: What they are, for the description of the run in its checkpoints.
    """

    rows: Replayable
    ratio: float
    name: str = ""
