"""How a fit trains, as far as its user says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pegbox.errors import check_names
from pegbox.methods import Method
from pegbox.models import Base
from pegbox.training import Settings, trackers
from pegbox.tuning._trunk_rows import TrunkCache, check_trunk_cache

EPOCHS = 8


@dataclass(frozen=True)
class Training:
    """How gradient methods are trained; what is ``None`` is the method's default, or else the engine's.

    What each value may be is said by :class:`pegbox.training.Settings`.

    Args:
        learning_rate: Peak learning rate.
        head_learning_rate: That of a new head; when not given the same, or for a head on every token the
            method's own where that is higher.
        epochs: Most passes over the rows; 8 where the method has no default.
        batch_size: Rows of one forward pass, per process.
        accumulation: Batches per optimiser step.
        warmup: Share of the steps over which the learning rate rises from 0.
        schedule: What follows the warm-up: ``linear`` or ``cosine`` decay to 0, or ``constant``.
        weight_decay: Decoupled decay of matrices.
        gradient_clip: Largest norm of the gradient; 0 = no clipping.
        precision: ``auto``, ``bf16`` or ``float32``.
        patience: Evaluations without improvement before stopping; 0 = never stop.
        evaluations_per_epoch: How often the validation loss is measured.
        max_steps: Upper limit on optimiser steps.
        checkpoint_every: Steps between checkpoints, or ``epoch``.
        gradient_checkpointing: Less memory for about a third more time.
        divergence: Stop when the smoothed training loss is so many times its lowest value; 0 = only
            when it is not finite.
        balance: ``weights`` or ``sampling`` makes rare labels count as much as frequent ones.
        report_to: Trackers, such as ``tensorboard`` or ``wandb``, separated by commas.
        trunk_cache: Whether layers below all that is trained run once per row instead of in every step:
            ``auto`` where that changes nothing, ``on`` also where they have dropout (they then lose it),
            ``off`` never.
    """

    learning_rate: float | None = None
    head_learning_rate: float | None = None
    epochs: float | None = None
    batch_size: int = 16
    accumulation: int = 1
    warmup: float | None = None
    schedule: Literal["linear", "cosine", "constant"] | None = None
    weight_decay: float | None = None
    gradient_clip: float = Settings.gradient_clip
    precision: Literal["auto", "bf16", "float32"] = "auto"
    patience: int = Settings.patience
    evaluations_per_epoch: int = Settings.evaluations_per_epoch
    max_steps: int | None = None
    checkpoint_every: int | Literal["epoch"] = "epoch"
    gradient_checkpointing: bool = Settings.gradient_checkpointing
    divergence: float = Settings.divergence
    balance: Literal["none", "weights", "sampling"] = Settings.balance
    report_to: str = Settings.report_to
    trunk_cache: TrunkCache = "auto"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Training:
        """Make it from a mapping.

        Raises:
            UsageError: For an unknown key, naming the nearest.
        """
        valid = [item.name for item in fields(cls)]
        check_names(options, valid, "training has no option '{}'")
        given = dict(options)
        if isinstance(given.get("trunk_cache"), bool):  # what YAML makes of on and off
            given["trunk_cache"] = "on" if given["trunk_cache"] else "off"
        return cls(**given)

    def settings(self, method: Method, seed: int) -> Settings:
        """The engine's settings for a method.

        Raises:
            UsageError: For values that cannot be, and for a tracker that is not installed.
        """
        check_trunk_cache(self.trunk_cache)
        known = {item.name for item in fields(Settings)}
        given = {name: getattr(self, name) for name in known if getattr(self, name, None) is not None}
        capability = method.capability
        defaults = {"epochs": EPOCHS, "learning_rate": capability.learning_rate, **capability.defaults}
        made = Settings(**{**defaults, **given, "seed": seed})
        trackers(made.report_to)  # before any work is done
        return made

    def for_base(
        self, settings: Settings, method: Method, base: Base, say: Callable[[str], None]
    ) -> Settings:
        """The settings with the rate of the head that a base as its task reads it gets, if it gets one."""
        rate = self.head_learning_rate
        if base.kind != "encoder":
            if rate is not None:
                say("head_learning_rate is not used: label words answer, and no head is new")
            return replace(settings, head_learning_rate=None)
        own = method.capability.token_rate
        if rate is None and base.pooling == "none" and own is not None:
            rate = max(own, settings.learning_rate)
        return replace(settings, head_learning_rate=rate)
