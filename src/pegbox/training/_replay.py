"""What is replayed beside the rows that are learnt, so that a model does not forget what it could say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pegbox.training._trainable import Trainable

# Tells the order of replayed rows from that of the others, which has the same seed.
_STREAM = 1


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


def replayed_indices(rows: int, seed: int, places: Iterable[int]) -> list[int]:
    """Return the indices of replayed rows at some places of their endless order.

    Args:
        rows: How many rows there are.
        seed: Of the order.
        places: Counted from 0.
    """
    import numpy as np

    found: list[int] = []
    orders: dict[int, list[int]] = {}
    for place in places:
        turn, at = divmod(place, rows)
        if turn not in orders:
            orders[turn] = np.random.default_rng((seed, _STREAM, turn)).permutation(rows).tolist()
        found.append(turn * rows + orders[turn][at])
    return found
