"""Which rows a step replays, and their gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pegbox.training._portions import Portions
from pegbox.training._replay import Replay, replayed_indices


@dataclass(frozen=True)
class Portion:
    """What is replayed in one step.

    Args:
        indices: Indices of the rows of this process.
        weight: Weight of their mean loss per answer beside that of the rows that are learnt.
        answers: Answers of all processes' rows.
    """

    indices: list[int]
    weight: float
    answers: int


class Rehearsal:
    """Says which replayed rows belong to which step, by seed and step alone, and adds their gradient.

    A step that learns B rows on average replays B r / (1 - r): the whole number below their sum so far, less
    those of the steps before. They come pass by pass, each shuffled anew.

    Args:
        replay: What to replay.
        per_step: Rows that a step learns on average, over all processes.
        at_once: Most rows of one forward pass.
        seed: Of the order.
        say: Told when memory runs out.
        rank: This process.
        processes: Number of processes.
    """

    def __init__(
        self,
        replay: Replay,
        per_step: float,
        *,
        at_once: int,
        seed: int,
        say: Callable[[str], None],
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.replay, self.per_step, self.seed = replay, per_step, seed
        self.rank, self.processes = rank, processes
        lengths = _Endless(replay.rows.lengths)
        self.portions = Portions(at_once, halving=processes == 1, lengths=lengths, say=say)

    def rows_by(self, step: int) -> int:
        """Return how many rows all steps before one replay together."""
        return math.floor(step * self.per_step * self.replay.ratio / (1 - self.replay.ratio))

    def portion(self, step: int) -> Portion | None:
        """Return what a step, counted from 0, replays; None when it is its turn to replay nothing."""
        first, last = self.rows_by(step), self.rows_by(step + 1)
        if first == last:
            return None
        indices = replayed_indices(len(self.replay.rows), self.seed, range(first, last))
        weight, answers = len(indices) / self.per_step, sum(map(self.replay.rows.answers, indices))
        own = indices[self.rank :: self.processes]
        # A process without a row of its own goes through the motions, or the others would wait for ever.
        return Portion(own or indices[:1], weight if own else 0.0, answers)

    def add(
        self,
        model: nn.Module,
        step: int,
        answers: Tensor,
        prepare: Callable[[Any], dict[str, Tensor]],
        backward: Callable[[Tensor], None],
    ) -> bool:
        """Add the gradient of what a step replays; return False when memory ran out and fewer may do.

        The gradient is that of (rows replayed / rows learnt) times the mean loss per answer replayed, times
        ``answers``, by which all gradients of the step are divided afterwards.

        Args:
            model: The objective.
            step: Counted from 0.
            answers: Of the rows that the step learns, over all processes; a scalar.
            prepare: Puts a batch where the model is.
            backward: Adds the gradient of a loss.
        """
        portion = self.portion(step)
        if portion is None:
            return True
        factor = answers * (portion.weight / portion.answers)
        try:
            for part in self.portions.cut(portion.indices):
                loss, _ = model(prepare(self.replay.rows.collate(part)), replay=True)
                backward(loss * factor)
        except RuntimeError as problem:
            if not self.portions.shrink(problem, portion.indices, f"in the replay of step {step + 1}"):
                raise
            return False
        return True


class _Endless(Sequence[int]):
    """Lengths of rows that are counted on without end."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        return self.lengths[index % len(self.lengths)]
