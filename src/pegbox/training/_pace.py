"""When the engine logs, evaluates and saves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pegbox.training._peaks import restart_peak

if TYPE_CHECKING:
    from pegbox.training._engine import Engine

_LOSSES_KEPT = 100


class Pace(TrainerCallback):
    """Decides when the engine logs, evaluates and saves."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.owed = False  # a checkpoint that was due while the loss was suspect

    def on_train_begin(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """Start the clock and switch dropout on."""
        self.engine.started = time.monotonic()
        self.engine.objective.train()
        restart_peak(args.device)

    def on_epoch_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Tell the sampler, and rows that change with it, which epoch it is; after a resume too."""
        epoch = self.engine.order.epoch = state.global_step // self.engine.updates
        begin = getattr(self.engine.objective.rows, "begin_epoch", None)
        if begin is not None:
            begin(epoch)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Set what is due after this step, and move the bar."""
        engine, step = self.engine, state.global_step
        last = step >= engine.total
        log = last or step % max(1, engine.total // _LOSSES_KEPT) == 0
        per_epoch, share = engine.settings.evaluations_per_epoch, engine.updates
        due = step * per_epoch // share > (step - 1) * per_epoch // share
        every = engine.settings.checkpoint_every
        control.should_evaluate = engine.valid is not None and (last or due)
        self.owed |= step % (engine.updates if every == "epoch" else every) == 0
        if log or control.should_evaluate or self.owed:
            engine.settle(step)
        suspect = engine.ledger.watch.suspect(engine.settings.divergence)
        control.should_save = last or (self.owed and not suspect)
        self.owed &= not control.should_save
        if log:
            engine.ledger.close_window(step)
        control.should_log = log and bool(args.report_to)
        if engine.meter:
            losses = engine.ledger.train_losses
            engine.meter.advance(step, losses[-1][1] if losses else None)
