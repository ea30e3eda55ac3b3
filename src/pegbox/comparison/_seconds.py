"""How long fitting and answering take, from operations and what was measured of this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pegbox.comparison._calibration import Calibration
from pegbox.comparison._flops import Batch, below, stepped, validated
from pegbox.comparison._memory import FLOAT, MOMENTS
from pegbox.comparison._profile import Profile
from pegbox.training import Settings

# Of these many rows those at three places go to early stopping: 15 %, as fit holds out.
EVERY, HELD = 20, (3, 9, 15)


@dataclass(frozen=True)
class Course:
    """What a training run does at the most, were it not stopped early.

    Args:
        train: Rows and padded tokens of each batch of an epoch.
        valid: The same of one evaluation.
        below: The same of the passes of a cached trunk over all rows.
        epochs: Passes over the rows.
        steps: Optimiser steps.
        evaluations: How often the validation loss is measured.
        checkpoints: How many are written at the most.
        recomputed: Whether activations are computed again in backward passes.
        longest: Tokens of the longest row.
        tokens: Tokens of all rows.
    """

    train: list[Batch]
    valid: list[Batch]
    below: list[Batch]
    epochs: float
    steps: int
    evaluations: int
    checkpoints: int
    recomputed: bool
    longest: int
    tokens: int

    @classmethod
    def of(cls, settings: Settings, lengths: Sequence[int], *, batch: int, held_out: bool) -> Course:
        """The course of a run by its settings.

        Args:
            settings: The engine's settings.
            lengths: Tokens of each sequence.
            batch: Sequences of one step.
            held_out: Whether rows are held out for early stopping.
        """
        valid = [length for at, length in enumerate(lengths) if held_out and at % EVERY in HELD]
        train = [length for at, length in enumerate(lengths) if not held_out or at % EVERY not in HELD]
        batches = stepped(train, batch)
        updates = math.ceil(len(batches) / settings.accumulation)
        steps = settings.total_steps(updates)
        epochs = steps / updates
        evaluations = math.ceil(epochs * settings.evaluations_per_epoch) if valid else 0
        return cls(
            train=batches,
            valid=validated(valid, 2 * batch),
            below=[one for part in (train, valid) for one in below(part)],
            epochs=epochs,
            steps=steps,
            evaluations=evaluations,
            # A better loss is kept at once, at the most after every evaluation.
            checkpoints=max(evaluations, math.ceil(epochs), 1),
            recomputed=settings.gradient_checkpointing,
            longest=max(lengths),
            tokens=sum(lengths),
        )


def training_operations(profile: Profile, course: Course) -> float:
    """Floating point operations of a run."""
    again = 1 + course.recomputed
    each = sum(again * profile.forward(*batch) + profile.backward(*batch) for batch in course.train)
    checked = sum(profile.forward(*batch) for batch in course.valid)
    once = sum(profile.trunk(*batch) for batch in course.below) if profile.trunk is not None else 0.0
    return course.epochs * each + course.evaluations * checked + once


def training_seconds(measured: Calibration, profile: Profile, course: Course) -> float:
    """Seconds of a run that is not stopped early."""
    machine, share = measured.machine, profile.calls / measured.calls
    forward, backward = measured.forward, measured.backward
    again = 1 + course.recomputed
    each = sum(
        again * forward(profile.forward(*batch), share) + backward(profile.backward(*batch), share)
        for batch in course.train
    )
    checked = sum(forward(profile.forward(*batch), share) for batch in course.valid)
    once = sum(forward(profile.trunk(*batch)) for batch in course.below) if profile.trunk is not None else 0.0
    steps = course.epochs * len(course.train) * machine.step
    steps += course.steps * machine.update * profile.parameters
    stored = machine.checkpoint + machine.store * (FLOAT + MOMENTS) * profile.parameters
    begun = machine.begin + profile.attaching
    return (
        begun
        + once
        + course.epochs * each
        + course.evaluations * checked
        + steps
        + course.checkpoints * stored
    )


def answering_seconds(measured: Calibration, profile: Profile, passes: Sequence[float]) -> float:
    """Seconds of some passes that read answers, by their operations."""
    share = profile.calls / measured.calls
    return sum(measured.answer(operations, share) for operations in passes)
