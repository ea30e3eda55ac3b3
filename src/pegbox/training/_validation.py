"""The validation loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pegbox.training import _memory
from pegbox.training._batches import descending
from pegbox.training._objective import Objective
from pegbox.training._portions import Portions
from pegbox.training._trainable import Trainable


class Validation:
    """Measures the loss over the validation rows, each answer counting alike, whatever training balances.

    Args:
        objective: The model that is trained, with the validation rows.
        batch_size: Rows of one batch.
        portions: How many of them go through the model at once.
        prepare: Puts a batch where the model is.
    """

    def __init__(
        self,
        objective: Objective,
        batch_size: int,
        portions: Portions,
        prepare: Callable[[Any], dict[str, Tensor]],
    ) -> None:
        self.objective, self.batch_size = objective, batch_size
        self.portions, self.prepare = portions, prepare

    @property
    def rows(self) -> Trainable:
        """The validation rows."""
        return self.objective.rows

    @torch.no_grad()
    def sums(self, *, rank: int, processes: int) -> Tensor:
        """Return the summed loss and the number of answers of this process's share of the rows, ``(2,)``."""
        self.objective.eval()
        measured = [torch.zeros(2)]
        for indices in descending(self.rows.lengths, self.batch_size, rank=rank, processes=processes):
            measured += self._measured(indices)
        self.objective.train()
        return torch.stack([part.to(measured[-1].device) for part in measured]).sum(0)

    def _measured(self, indices: list[int]) -> list[Tensor]:
        try:
            return [self._part(part) for part in self.portions.cut(indices)]
        except RuntimeError as problem:
            if not self.portions.shrink(problem, indices, "in validation"):
                raise
        _memory.release()
        return self._measured(indices)

    def _part(self, indices: list[int]) -> Tensor:
        loss, answers = self.objective(self.prepare(self.rows.collate(indices)))
        return torch.stack([loss, answers.to(loss)])
