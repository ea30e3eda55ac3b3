"""What the engine trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn


WEIGHTS = "weights"
"""Key of the rows' weights, float32 ``(rows,)``, in a batch whose rows do not count alike."""


class Trainable(Protocol):
    """Encoded rows of a task together with their loss.

    Rows with one class each may offer it as ``groups``, ``(rows,)`` whole numbers, and can then be balanced.
    By weights: a batch may then hold ``weights``; the loss of each row is multiplied by its own, and the
    number of answers becomes the sum of their weights.

    Rows may say in ``tokens_at_once`` how many tokens, padding included, one forward pass takes at the most;
    a batch is then cut, never changed.

    Rows that differ from epoch to epoch may offer ``begin_epoch(epoch)``, which is called before each.
    """

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each row, for the length buckets: ``(rows,)``."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def collate(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the rows ``indices`` as one padded batch of CPU tensors. Must not draw random numbers."""

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of the losses over the answers of ``batch``, and the number of answers.

        Both are scalars on the device of the batch; the sum is float32 and carries the gradient.
        """
