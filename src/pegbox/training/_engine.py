"""The training engine: transformers' Trainer with our batches, loss, checkpoints and silence."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainingArguments

from pegbox.errors import CapabilityError, RunError
from pegbox.training import _memory, _random
from pegbox.training._balance import class_weights, classes
from pegbox.training._batches import Buckets, Indices
from pegbox.training._checkpoints import Checkpoint, Checkpoints
from pegbox.training._history import Ledger
from pegbox.training._moments import flat_moments, load_moments
from pegbox.training._objective import Objective
from pegbox.training._optimizer import adamw
from pegbox.training._pace import Pace
from pegbox.training._portions import Portions
from pegbox.training._progress import Meter
from pegbox.training._rehearsal import Rehearsal
from pegbox.training._replay import Replay
from pegbox.training._settings import Settings
from pegbox.training._trainable import WEIGHTS
from pegbox.training._validation import Validation

# Reading a loss waits for an accelerator, so there it is done once in so many steps.
_READ_EVERY = 16


class Engine(transformers.Trainer):
    """Trains an `Objective`; knows neither method nor task.

    What differs from `transformers.Trainer`: length buckets; gradients of the mean loss over all answers of
    an accumulated batch, on all processes; fused AdamW over the trained parameters only; checkpoints by
    `Checkpoints`; a stop at the first loss that is not finite, or when it explodes; fewer rows at once when
    memory runs out; nothing printed but by the meter.

    Args:
        objective: Model, rows and precision.
        settings: How to train.
        arguments: As made by `arguments`; its ``max_steps`` is set here.
        valid: The same model with the validation rows, or None.
        checkpoints: Where they go.
        replay: What is replayed beside the rows, or None.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        settings: Settings,
        arguments: TrainingArguments,
        valid: Objective | None,
        checkpoints: Checkpoints,
        replay: Replay | None = None,
    ) -> None:
        self.objective: Objective = objective
        self.settings, self.checkpoints = settings, checkpoints
        self.weights: Tensor | None = None
        self.order = self._order(objective, arguments)
        self.portions = self._portions(objective, settings.batch_size, arguments)
        self.valid: Validation | None = None
        if valid is not None:
            twice = 2 * settings.batch_size  # without a backward pass they need less memory
            portions = self._portions(valid, twice, arguments)
            self.valid = Validation(valid, twice, portions, self._prepare_inputs)
        self.updates = math.ceil(len(self.order) / settings.accumulation)
        self.rehearsal = None if replay is None else self._rehearsal(replay, arguments)
        self.total = arguments.max_steps = settings.total_steps(self.updates)
        arguments.warmup_steps = math.ceil(settings.warmup * self.total)
        super().__init__(model=objective, args=arguments, callbacks=[Pace(self)])
        self.remove_callback(PrinterCallback)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise CapabilityError(
                "training with sharded parameters (FSDP, DeepSpeed) is not supported",
                fix="launch plain data-parallel processes (torchrun, or accelerate with MULTI_GPU)",
            )
        self.ledger = Ledger()
        self.signature: dict[str, Any] = {}
        self.origin: Checkpoint | None = None
        self.meter: Meter | None = None
        self.started = time.monotonic()
        self.aside = 0.0  # seconds spent on evaluations and checkpoints
        self.rows_seen = 0
        self._zero = torch.zeros((), device=arguments.device)
        self._loss = self._answers = self._mean = self._zero
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._batches: list[list[int]] = []
        self._generators: dict[str, Tensor] = {}

    def _order(self, objective: Objective, arguments: TrainingArguments) -> Buckets:
        settings = self.settings
        groups = classes(objective.rows, settings.balance)
        if groups is not None and settings.balance == "weights":
            self.weights, groups = torch.from_numpy(class_weights(groups)), None
        return Buckets(
            objective.rows.lengths,
            settings.batch_size,
            seed=settings.seed,
            rank=arguments.process_index,
            processes=arguments.world_size,
            groups=groups,
        )

    def _portions(self, objective: Objective, rows: int, arguments: TrainingArguments) -> Portions:
        alone = arguments.world_size == 1
        tokens: int | None = getattr(objective.rows, "tokens_at_once", None)
        lengths, say = objective.rows.lengths, self.checkpoints.say
        return Portions(rows, halving=alone, lengths=lengths, say=say, tokens=tokens)

    def _rehearsal(self, replay: Replay, arguments: TrainingArguments) -> Rehearsal:
        return Rehearsal(
            replay,
            len(self.objective.rows) / self.updates,
            at_once=self.settings.batch_size,
            seed=self.settings.seed,
            say=self.checkpoints.say,
            rank=arguments.process_index,
            processes=arguments.world_size,
        )

    # Batches

    def get_train_dataloader(self) -> DataLoader:
        """Return the buckets as a loader; each process's sampler already deals out its own part."""
        return DataLoader(
            Indices(len(self.objective.rows)),
            batch_sampler=self.order,
            collate_fn=lambda indices: {"rows": indices},  # collated part by part, see _portions
            generator=torch.Generator(),  # or each pass would draw from the global one, which dropout uses
        )

    # One step

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """Add the gradient of the summed loss of a batch; on the last of the step divide by the answers.

        Returns:
            The mean loss per answer of the whole accumulated batch on its last part, else 0: a scalar.
        """
        if not self._batches and self.portions.halving:
            self._generators = _random.capture()
        self._batches.append(inputs["rows"])
        self.rows_seen += len(inputs["rows"]) * self.args.world_size
        if not (self._add(model, inputs["rows"]) and self._rehearse(model)):
            self._repeat(model)
        if not self.accelerator.sync_gradients:
            return self._zero
        self._batches = []
        return self._normalise()

    def _add(self, model: nn.Module, indices: list[int]) -> bool:
        """Add the gradient of a batch; return False when memory ran out and fewer rows at once may do."""
        try:
            for part in self.portions.cut(indices):
                loss, answers = model(self._prepare_inputs(self._collated(part)))
                self.accelerator.backward(loss)
                self._loss = self._loss + loss.detach()
                self._answers = self._answers + answers
        except RuntimeError as problem:
            if not self.portions.shrink(problem, indices, f"at step {self.state.global_step + 1}"):
                raise
            return False
        return True

    def _repeat(self, model: nn.Module) -> None:
        """Do the batches of this step again: a backward pass that broke off left parts of gradients."""
        done = False
        while not done:
            self.objective.zero_grad()
            _memory.release()
            _random.restore(self._generators)
            self._loss, self._answers = self._zero, self._zero
            done = all(self._add(model, indices) for indices in self._batches) and self._rehearse(model)

    def _rehearse(self, model: nn.Module) -> bool:
        """Add the gradient of what a step replays, once all else is there; return False as `_add` does."""
        if self.rehearsal is None or not self.accelerator.sync_gradients:
            return True
        answers = self._answers
        if self.args.world_size > 1:
            answers = self.accelerator.reduce(answers.float(), "sum")
        backward: Any = self.accelerator.backward
        return self.rehearsal.add(model, self.state.global_step, answers, self._prepare_inputs, backward)

    def _collated(self, indices: list[int]) -> dict[str, Tensor]:
        batch = self.objective.rows.collate(indices)
        return batch if self.weights is None else {**batch, WEIGHTS: self.weights[indices]}

    def _normalise(self) -> Tensor:
        loss, answers = self._loss, self._answers
        processes = self.args.world_size
        if processes > 1:
            loss, answers = self.accelerator.reduce(torch.stack([loss, answers.to(loss.dtype)]), "sum")
        answers = torch.where(answers > 0, answers, 1)  # the sum of a few weights may be below 1
        gradients = [value.grad for value in self.objective.trained if value.grad is not None]
        # Data-parallel processes average their gradients, so the sum is `processes` times what lies here.
        torch._foreach_div_(gradients, answers / processes)
        self._loss, self._answers = self._zero, self._zero
        self._mean = loss / answers
        return self._mean

    def _clip_grad_norm(self, *_: Any) -> Tensor:
        norm = nn.utils.clip_grad_norm_(self.objective.trained, self.args.max_grad_norm)
        self._pending.append((self._mean, norm))
        if norm.device.type == "cpu" or len(self._pending) >= _READ_EVERY:
            self.settle(self.state.global_step + 1)
        return norm

    def settle(self, step: int) -> None:
        """Read the losses and gradient norms of the steps up to ``step`` that were not read yet.

        Raises:
            RunError: One of them is not finite, or the losses explode.
        """
        if not self._pending:
            return
        values = torch.stack([torch.stack(pair).float() for pair in self._pending]).tolist()
        first = step - len(values) + 1
        self._pending = []
        for at, (loss, norm) in enumerate(values, start=first):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.diverged(at, f"training loss {loss:.4g}, gradient norm {norm:.4g}")
            self.ledger.window.append(loss)
            watch = self.ledger.watch
            watch.note(loss)
            if watch.exploded(self.settings.divergence):
                seen = f"the training loss rose from {watch.lowest:.4g} to {watch.smoothed:.4g}"
                self.diverged(at, seen, f"at most {watch.limit(self.settings.divergence):.4g}")

    def diverged(self, step: int, seen: str, expected: str = "finite values") -> None:
        """Raise the error for a loss that is not finite or explodes; the model gets its last good parameters.

        Args:
            step: When it was seen.
            seen: What was seen.
            expected: What it should have been.
        """
        kept = self.checkpoints.best()
        rates = f"learning_rate (now {self.settings.learning_rate:g})"
        if self.objective.head and self.settings.head_learning_rate:
            rates += f" and head_learning_rate (now {self.settings.head_learning_rate:g})"
        remedy = f"lower {rates} or raise warmup"
        if self.objective.bf16:
            remedy += ", or set precision to float32"
        if kept:
            self.objective.load(kept.tensors("parameters"))
        rest = f"; the last good checkpoint is {kept.path}" if kept else "; there is no checkpoint yet"
        raise RunError(
            f"training diverged: {seen}", where=f"step {step}", expected=expected, fix=remedy + rest
        )

    def floating_point_ops(self, *_: Any) -> int:
        """Return 0: operations are not counted."""
        return 0

    # Optimiser

    def create_optimizer(self, *_: Any) -> torch.optim.Optimizer:
        """Make AdamW over the trained parameters."""
        if self.optimizer is None:
            self.optimizer = adamw(self.objective.trained, self.settings, self.objective.head)
        return self.optimizer

    # Validation

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the validation loss; note the best, stop when patience is over."""
        start = time.monotonic()
        step = self.state.global_step
        loss = self._validation_loss()
        if not math.isfinite(loss):
            self.diverged(step, f"validation loss {loss:.4g}")
        improved = self.ledger.validated(step, loss)
        metrics = {"eval_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if 0 < self.settings.patience <= self.ledger.waiting and step < self.total:
            self.ledger.stopped_early = self.control.should_training_stop = True
        self.control.should_save |= improved or self.ledger.stopped_early
        self.aside += time.monotonic() - start
        return metrics

    def _validation_loss(self) -> float:
        assert self.valid is not None
        processes = self.args.world_size
        totals = self.valid.sums(rank=self.args.process_index, processes=processes)
        if processes > 1:
            totals = self.accelerator.reduce(totals.to(self.args.device), "sum")
        loss, answers = totals.tolist()
        return loss / max(answers, 1.0)

    # Checkpoints

    def _save_checkpoint(self, *_: Any) -> None:
        start = time.monotonic()
        step = self.state.global_step
        self.settle(step)
        generators = _random.capture()
        if self.args.world_size > 1:
            device = self.args.device
            generators = {k: self.accelerator.gather(v.to(device)[None]).cpu() for k, v in generators.items()}
        else:
            generators = {key: value[None] for key, value in generators.items()}
        if self.args.process_index == 0:
            self._write(step, generators)
        self.accelerator.wait_for_everyone()
        self.aside += time.monotonic() - start

    def _write(self, step: int, generators: dict[str, Tensor]) -> None:
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        self.measure()
        self.ledger.rows_at_once = self.portions.rows
        self.ledger.valid_rows_at_once = self.valid.portions.rows if self.valid else None
        self.ledger.replay_rows_at_once = self.rehearsal.portions.rows if self.rehearsal else None
        record = {
            "run": self.signature,
            "finished": step >= self.total or self.ledger.stopped_early,
            "ledger": self.ledger.to_json(),
            "scheduler": self.lr_scheduler.state_dict(),
            "optimizer": self.optimizer.state_dict()["param_groups"],
        }
        self.checkpoints.write(
            step,
            {
                "parameters": self.objective.tensors(),
                "optimizer": flat_moments(self.optimizer),
                "random": generators,
            },
            record,
            self.ledger.best_step,
            also=lambda place: self.state.save_to_json(str(place / "trainer_state.json")),
        )

    def measure(self) -> None:
        """Bring the seconds, speed and memory in the ledger up to date."""
        before = self.origin.record["ledger"]["seconds"] if self.origin else 0.0
        elapsed = time.monotonic() - self.started
        self.ledger.seconds = before + elapsed
        self.ledger.examples_per_second = self.rows_seen / max(elapsed - self.aside, 1e-9)
        self.ledger.peak_memory_bytes = _memory.peak(self.args.device)

    def restore(self, origin: Checkpoint) -> None:
        """Set parameters, ledger and step to those of ``origin``."""
        self.objective.load(origin.tensors("parameters"))
        self.ledger = Ledger.from_json(origin.record["ledger"])
        self.portions.rows = self.ledger.rows_at_once or self.portions.rows
        if self.valid:
            self.valid.portions.rows = self.ledger.valid_rows_at_once or self.valid.portions.rows
        if self.rehearsal:
            kept = self.ledger.replay_rows_at_once
            self.rehearsal.portions.rows = kept or self.rehearsal.portions.rows
        self.state.global_step = origin.step

    def _load_from_checkpoint(self, *_: Any) -> None:
        if self.origin is not None:
            self.restore(self.origin)

    def _load_optimizer_and_scheduler(self, *_: Any) -> None:
        if self.origin is None or self.optimizer is None or self.lr_scheduler is None:
            return
        stored = self.origin.tensors("optimizer")
        load_moments(self.optimizer, stored, self.origin.record["optimizer"])
        self.lr_scheduler.load_state_dict(self.origin.record["scheduler"])

    def _load_rng_state(self, *_: Any) -> None:
        if self.origin is not None:
            stored = self.origin.tensors("random")
            _random.restore({key: value[self.args.process_index] for key, value in stored.items()})
