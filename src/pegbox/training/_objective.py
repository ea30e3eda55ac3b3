"""The loss of rows under a model, in the chosen precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pegbox.training._trainable import Trainable


class Objective(nn.Module):
    """A model with the rows it is trained on, as one module whose output is the loss.

    Being the module that is prepared for training (wrapped in DistributedDataParallel, say), it leaves the
    model itself unwrapped and unpatched, and lets the loss reach into the model's parts.

    Args:
        model: Any module; the parameters with ``requires_grad`` are trained.
        rows: The rows and their loss.
        precision: ``bf16`` or ``float32``.
        head: The part of the model that is new, if there is one.
        replayed: Rows that are replayed beside them, if there are any.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Trainable,
        precision: str,
        head: nn.Module | None = None,
        replayed: Trainable | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.rows, self.replayed = rows, replayed
        self.bf16 = precision == "bf16"
        self.names = [name for name, value in model.named_parameters() if value.requires_grad]
        self.trained = [value for value in model.parameters() if value.requires_grad]
        # No module of this one, whose state it would double.
        self.head = [value for value in head.parameters() if value.requires_grad] if head else []

    def forward(self, batch: dict[str, Tensor], *, replay: bool = False) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the number of answers of ``batch``, of replayed rows or the others."""
        device = next(iter(batch.values())).device.type
        rows = self.replayed if replay else self.rows
        assert rows is not None
        with torch.autocast(device, torch.bfloat16, enabled=self.bf16):
            return rows.loss(self.model, batch)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of the trained parameters: the frozen ones, far more, have none to drop."""
        for value in self.trained:
            if set_to_none:
                value.grad = None
            elif value.grad is not None:
                value.grad.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Return the trained parameters by name, detached, on the CPU."""
        return {
            name: value.detach().cpu().contiguous()
            for name, value in zip(self.names, self.trained, strict=True)
        }

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Copy ``tensors``, by name, into the trained parameters."""
        for name, value in zip(self.names, self.trained, strict=True):
            value.copy_(tensors[name])
