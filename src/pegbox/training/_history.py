"""What happened in a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pegbox.training._divergence import Watch


@dataclass(frozen=True)
class History:
    """The course of one training run, resumed parts included.

    Args:
        steps: Optimiser steps done.
        epochs: Passes over the rows done, as a fraction.
        seconds: Wall-clock time of all parts of the run, evaluations and checkpoints included.
        train_losses: ``(step, loss)``: mean over the steps since the entry before, of the loss per answer.
        valid_losses: ``(step, loss)``: loss per answer over all validation rows.
        best_step: The step whose parameters the model holds.
        best_valid_loss: Validation loss of that step; None without validation rows.
        stopped_early: Whether patience ended the run before its last step.
        resumed_from: Step of the checkpoint that the last part started from; None if never resumed.
        peak_memory_bytes: On CUDA the most memory allocated while training; elsewhere the most resident
            memory that the process ever had, or 0 where the platform does not tell.
        examples_per_second: Rows trained on per second of the last part, all processes together,
            without evaluations and checkpoints.
        rows_at_once: Most rows of one forward pass at the end: ``batch_size``, or fewer after memory ran out.
        replayed: Rows replayed, those of all passes and processes together.
    """

    steps: int
    epochs: float
    seconds: float
    train_losses: list[tuple[int, float]]
    valid_losses: list[tuple[int, float]]
    best_step: int
    best_valid_loss: float | None
    stopped_early: bool
    resumed_from: int | None
    peak_memory_bytes: int
    examples_per_second: float
    rows_at_once: int
    replayed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the history as a JSON object."""
        return asdict(self)


@dataclass
class Ledger:
    """The part of the history that a checkpoint must carry for a resume to continue it exactly."""

    train_losses: list[tuple[int, float]] = field(default_factory=list)
    valid_losses: list[tuple[int, float]] = field(default_factory=list)
    best_step: int | None = None
    best_loss: float = float("inf")
    waiting: int = 0
    stopped_early: bool = False
    window: list[float] = field(default_factory=list)
    seconds: float = 0.0
    examples_per_second: float = 0.0
    peak_memory_bytes: int = 0
    rows_at_once: int | None = None
    valid_rows_at_once: int | None = None
    replay_rows_at_once: int | None = None
    watch: Watch = field(default_factory=Watch)

    def close_window(self, step: int) -> None:
        """Enter the mean of the step losses since the last call as the training loss at ``step``."""
        if self.window:
            self.train_losses.append((step, sum(self.window) / len(self.window)))
            self.window = []

    def validated(self, step: int, loss: float) -> bool:
        """Enter a validation loss and return whether it is the lowest so far."""
        self.valid_losses.append((step, loss))
        if loss < self.best_loss:
            self.best_step, self.best_loss, self.waiting = step, loss, 0
            return True
        self.waiting += 1
        return False

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as a JSON object (no infinity, which JSON lacks)."""
        return asdict(self) | {"best_loss": None if self.best_step is None else self.best_loss}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Ledger:
        """Rebuild a ledger from `to_json`'s object."""
        ledger = cls(**stored)
        ledger.best_loss = float("inf") if stored["best_loss"] is None else stored["best_loss"]
        ledger.train_losses = [(step, loss) for step, loss in stored["train_losses"]]
        ledger.valid_losses = [(step, loss) for step, loss in stored["valid_losses"]]
        ledger.watch = Watch(**stored["watch"])
        return ledger
