"""The settings of one training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pegbox.errors import UsageError, is_number, is_whole

_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "learning_rate": (lambda v: is_number(v) and v > 0, "a number above 0"),
    "head_learning_rate": (
        lambda v: v is None or (is_number(v) and v > 0),
        "a number above 0, or nothing (learning_rate)",
    ),
    "epochs": (lambda v: is_number(v) and v > 0, "a number above 0"),
    "batch_size": (lambda v: is_whole(v, 1), "a whole number from 1"),
    "accumulation": (lambda v: is_whole(v, 1), "a whole number from 1"),
    "warmup": (lambda v: is_number(v) and 0 <= v < 1, "a share of the steps, from 0 to below 1"),
    "schedule": (lambda v: v in ("linear", "cosine", "constant"), "linear, cosine or constant"),
    "weight_decay": (lambda v: is_number(v) and v >= 0, "a number from 0"),
    "gradient_clip": (lambda v: is_number(v) and v >= 0, "a number from 0 (0 = no clipping)"),
    "precision": (lambda v: v in ("auto", "bf16", "float32"), "auto, bf16 or float32"),
    "patience": (lambda v: is_whole(v, 0), "a whole number from 0 (0 = never stop early)"),
    "evaluations_per_epoch": (lambda v: is_whole(v, 1), "a whole number from 1"),
    "checkpoint_every": (
        lambda v: v == "epoch" or is_whole(v, 1),
        "epoch, or a whole number of steps from 1",
    ),
    "seed": (lambda v: is_whole(v) and 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
    "max_steps": (lambda v: v is None or is_whole(v, 1), "a whole number from 1, or nothing"),
    "adam_beta1": (lambda v: is_number(v) and 0 <= v < 1, "a number from 0 to below 1"),
    "adam_beta2": (lambda v: is_number(v) and 0 <= v < 1, "a number from 0 to below 1"),
    "adam_epsilon": (lambda v: is_number(v) and v > 0, "a number above 0"),
    "gradient_checkpointing": (lambda v: isinstance(v, bool), "true or false"),
    "divergence": (
        lambda v: is_number(v) and (v > 1 or v == 0),
        "a number above 1, or 0 (0 = only what is not finite)",
    ),
    "balance": (lambda v: v in ("none", "weights", "sampling"), "none, weights or sampling"),
    "report_to": (lambda v: isinstance(v, str), "names of trackers separated by commas, or none"),
    "device": (
        lambda v: v in (None, "cpu", "cuda", "mps"),
        "cpu, cuda, mps, or nothing (where the model is)",
    ),
}


@dataclass(frozen=True)
class Settings:
    """How to train. All faults are gathered into one error that names the keys.

    Args:
        learning_rate: Peak learning rate of AdamW.
        head_learning_rate: That of a new head, where `train` is told of one; nothing = ``learning_rate``.
        epochs: Passes over the rows; a fraction is allowed.
        batch_size: Rows of one forward pass, per process.
        accumulation: Forward passes per optimiser step.
        warmup: Share of the steps over which the learning rate rises from 0.
        schedule: What follows the warm-up: ``linear`` or ``cosine`` decay to 0, or ``constant``.
        weight_decay: Decoupled decay; vectors (biases, norms, scales) are never decayed.
        gradient_clip: Largest norm of the gradient of the mean loss; 0 = no clipping.
        precision: ``bf16`` runs the forward pass under autocast; ``auto`` does so where the processor
            multiplies bf16 natively. Parameters keep their own type in any case.
        patience: Stop after so many evaluations without a lower validation loss; 0 = never.
        evaluations_per_epoch: How often the validation loss is measured.
        checkpoint_every: Steps between checkpoints, or ``epoch``.
        seed: Of the order of the rows and of dropout.
        max_steps: Upper limit of optimiser steps, whatever ``epochs`` says.
        adam_beta1: Decay of AdamW's first moment.
        adam_beta2: Decay of AdamW's second moment.
        adam_epsilon: AdamW's denominator offset.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third
            more time.
        divergence: Stop when the training loss, smoothed, is so many times its lowest value, and above
            where it started; 0 = only when it is not finite.
        balance: Make rows of all classes count alike: ``weights`` in the loss, or ``sampling`` them equally
            often. The validation loss is never balanced.
        report_to: Trackers that are told the losses: ``tensorboard``, ``wandb``, ... separated by commas.
        device: Where to train; nothing = where the model lies.

    Raises:
        UsageError: One or more values are invalid.
    """

    learning_rate: float
    head_learning_rate: float | None = None
    epochs: float = 3
    batch_size: int = 16
    accumulation: int = 1
    warmup: float = 0.06
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    precision: Literal["auto", "bf16", "float32"] = "auto"
    patience: int = 4
    evaluations_per_epoch: int = 2
    checkpoint_every: int | Literal["epoch"] = "epoch"
    seed: int = 0
    max_steps: int | None = None
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    gradient_checkpointing: bool = False
    divergence: float = 3.0
    balance: Literal["none", "weights", "sampling"] = "none"
    report_to: str = "none"
    device: str | None = None

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            names = ", ".join(fault.split()[0] for fault in faults)
            raise UsageError(
                "invalid training settings: " + "; ".join(faults), fix=f"correct it, or leave out {names}"
            )

    def _faults(self) -> Iterator[str]:
        for key, (valid, expected) in _RULES.items():
            value = getattr(self, key)
            if not valid(value):
                yield f"{key} is {value!r}, expected {expected}"

    def total_steps(self, updates_per_epoch: int) -> int:
        """Return the optimiser steps of the whole run, given those of one epoch."""
        steps = math.ceil(self.epochs * updates_per_epoch)
        return min(steps, self.max_steps) if self.max_steps else steps

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return asdict(self)
