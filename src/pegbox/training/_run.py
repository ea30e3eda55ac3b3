"""One run from its start, or from a checkpoint, to its best parameters."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pegbox.errors import CapabilityError, InputError, RunError, UsageError
from pegbox.training import _memory, _random
from pegbox.training._arguments import arguments
from pegbox.training._attention import quick_attention
from pegbox.training._balance import classes
from pegbox.training._checkpoints import Checkpoint, Checkpoints, check_same
from pegbox.training._engine import Engine
from pegbox.training._history import History
from pegbox.training._objective import Objective
from pegbox.training._precision import resolve_precision
from pegbox.training._progress import Meter
from pegbox.training._replay import Replay
from pegbox.training._settings import Settings
from pegbox.training._told import hush, interruption, resume_hint
from pegbox.training._trainable import Trainable


def run(
    model: nn.Module,
    rows: Trainable,
    settings: Settings,
    folder: Path,
    valid: Trainable | None,
    head: nn.Module | None,
    replay: Replay | None,
    resume: bool,
    say: Callable[[str], None],
) -> History:
    """Do what `train` promises; see there."""
    _check(model, rows, valid, replay)
    if settings.device:
        model.to(settings.device)
    with _undisturbed(model), gradient_checkpointing(model, settings.gradient_checkpointing):
        engine = _engine(model, rows, settings, folder, valid, head, replay, say)
        engine.origin = _origin(engine, resume)
        if engine.origin is None or not engine.origin.record["finished"]:
            _work(engine, say)
        else:
            engine.restore(engine.origin)
        best = engine.ledger.best_step
        if best is not None and best != engine.state.global_step:
            engine.objective.load(engine.checkpoints.read(best).tensors("parameters"))
        return _history(engine)


def _check(model: nn.Module, rows: Trainable, valid: Trainable | None, replay: Replay | None) -> None:
    if not any(value.requires_grad for value in model.parameters()):
        raise UsageError("the model has no trainable parameters", fix="attach a method before training")
    others = replay.rows if replay is not None else None
    for name, part in (("training", rows), ("validation", valid), ("replayed", others)):
        if part is not None and len(part) == 0:
            raise InputError(f"there are no {name} rows", expected="at least one row")


def _engine(
    model: nn.Module,
    rows: Trainable,
    settings: Settings,
    folder: Path,
    valid: Trainable | None,
    head: nn.Module | None,
    replay: Replay | None,
    say: Callable[[str], None],
) -> Engine:
    place = next(value.device for value in model.parameters() if value.requires_grad)
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    # Each of several processes moves the model from the CPU to an accelerator of its own, if there are any.
    use_cpu = place.type == "cpu" and (
        alone or settings.device == "cpu" or not torch.accelerator.is_available()
    )
    made = arguments(settings, folder, use_cpu=use_cpu)
    if alone and (place.type != made.device.type or place.index not in (None, 0)):
        raise UsageError(
            f"cannot train on {place}",
            expected="the CPU or the first visible accelerator",
            fix="choose the accelerator by the environment, for example CUDA_VISIBLE_DEVICES",
        )
    precision = resolve_precision(settings.precision, made.device)
    speak = say if made.process_index == 0 else hush
    engine = Engine(
        Objective(model, rows, precision, head, replay.rows if replay is not None else None),
        settings=settings,
        arguments=made,
        valid=None if valid is None else Objective(model, valid, precision),
        checkpoints=Checkpoints(folder, speak),
        replay=replay,
    )
    engine.signature = _signature(engine, precision)
    return engine


def _signature(engine: Engine, precision: str) -> dict[str, Any]:
    """Return what must be the same for a resume to make sense, as a flat JSON object."""
    settings = dataclasses.asdict(engine.settings) | {"precision": precision}
    for harmless in ("device", "divergence", "report_to"):  # the parameters do not depend on them
        del settings[harmless]
    shapes = [
        (name, list(value.shape), str(value.dtype))
        for name, value in zip(engine.objective.names, engine.objective.trained, strict=True)
    ]
    return (
        settings
        | _replayed(engine)
        | _head(engine)
        | {
            "processes": engine.args.world_size,
            "training rows": _rows(engine.objective.rows),
            "classes": _classes(engine),
            "validation rows": _rows(engine.valid.rows) if engine.valid else "none",
            "trained parameters": f"{len(shapes)} tensors, names and shapes {_short(shapes)}",
        }
    )


def _rows(rows: Trainable) -> str:
    return f"{len(rows)} rows, lengths {_short([int(length) for length in rows.lengths])}"


def _replayed(engine: Engine) -> dict[str, str]:
    """Nothing without, so that runs of earlier versions can still be resumed."""
    if engine.rehearsal is None:
        return {}
    replay = engine.rehearsal.replay
    name = f" ({replay.name})" if replay.name else ""
    return {"replay": f"ratio {replay.ratio:g}, {_rows(replay.rows)}{name}"}


def _head(engine: Engine) -> dict[str, str]:
    """What learns at a rate of its own, if anything does."""
    objective = engine.objective
    if not objective.head or engine.settings.head_learning_rate is None:
        return {}
    own = {id(value) for value in objective.head}
    pairs = zip(objective.names, objective.trained, strict=True)
    names = [name for name, value in pairs if id(value) in own]
    return {"new head": f"{len(names)} tensors {_short(names)}"}


def _classes(engine: Engine) -> str:
    groups = classes(engine.objective.rows, engine.settings.balance)
    return "not balanced" if groups is None else _short(groups.tolist())


def _short(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]


def _origin(engine: Engine, resume: bool) -> Checkpoint | None:
    """Return the checkpoint to start from, and delete those that the run will replace."""
    checkpoints = engine.checkpoints
    found = checkpoints.newest(tell=resume)
    if not resume:
        _check_finished(found, checkpoints.folder)
        found = None
    elif found:
        check_same(found.record["run"], engine.signature, found.path)
        checkpoints.say(f"resuming from step {found.step} of {engine.total}")
    else:
        checkpoints.say(f"no checkpoint in {checkpoints.folder}: starting afresh")
    engine.accelerator.wait_for_everyone()
    if engine.args.process_index == 0:
        checkpoints.forget(after=found.step if found else -1)
    return found


def check_no_unfinished(folder: Path) -> None:
    """Raise UsageError when a folder holds a run that was interrupted, which a new run would replace."""
    _check_finished(Checkpoints(folder, hush).newest(tell=False), folder)


def _check_finished(found: Checkpoint | None, folder: Path) -> None:
    if found and not found.record["finished"]:
        raise UsageError(
            f"the folder holds an unfinished run at step {found.step}",
            where=str(folder),
            expected="no such folder, or a run that finished",
            fix=f"continue it with {resume_hint()}, or remove the folder to start afresh",
        )


def _work(engine: Engine, say: Callable[[str], None]) -> None:
    origin = engine.origin
    if engine.args.process_index == 0:
        engine.meter = Meter(engine.total, origin.step if origin else 0, say)
    try:
        with _attending(engine):
            engine.train(resume_from_checkpoint=str(origin.path) if origin else None)
    except KeyboardInterrupt as stopped:
        stopped.add_note(_interrupted(engine))  # so that nobody needs to tell it again
        raise
    except RuntimeError as problem:
        if not _memory.ran_out(problem):
            raise
        raise _exhausted(engine) from problem
    finally:
        if engine.meter:
            engine.meter.close()
    engine.measure()


def _attending(engine: Engine) -> AbstractContextManager[Any]:
    recomputed = _recomputes(engine.objective.model) or engine.settings.gradient_checkpointing
    # Layers in 4 bits answer in the format they are asked in, and would carry float32 on to layers in bf16.
    packed = bool(getattr(engine.objective.model, "is_loaded_in_4bit", False))
    return quick_attention(engine.args.device, bf16=engine.objective.bf16 and not (recomputed or packed))


def _exhausted(engine: Engine) -> RunError:
    settings, parts = engine.settings, [engine.objective.rows]
    rows = engine.portions.rows
    if engine.valid:
        parts, rows = [*parts, engine.valid.rows], min(rows, engine.valid.portions.rows)
    remedies = [] if settings.gradient_checkpointing else ["set gradient_checkpointing"]
    if rows > 1:
        halves = f"halve batch_size (to {rows // 2}) and double accumulation (to {2 * settings.accumulation})"
        remedies = [f"{halves}, which gives the same gradients", *remedies]
    else:
        remedies += ["shorten the texts", "take a smaller model"]
    longest = max(max(part.lengths) for part in parts)
    return RunError(
        f"out of memory with {rows} row{'s' if rows > 1 else ''} of up to {longest} tokens at once",
        where=f"step {engine.state.global_step + 1}",
        fix=", or ".join(remedies),
    )


def _interrupted(engine: Engine) -> str:
    """Tell how far the run came and how to go on, and return what was told."""
    if engine.meter:
        engine.meter.close()
    kept, folder = engine.checkpoints.newest(tell=False), engine.checkpoints.folder
    line = interruption(engine.state.global_step, engine.total, kept.step if kept else None, folder)
    engine.checkpoints.say(line)
    return line


def _history(engine: Engine) -> History:
    ledger, step = engine.ledger, engine.state.global_step
    return History(
        steps=step,
        epochs=step / engine.updates,
        seconds=ledger.seconds,
        train_losses=ledger.train_losses,
        valid_losses=ledger.valid_losses,
        best_step=step if ledger.best_step is None else ledger.best_step,
        best_valid_loss=None if ledger.best_step is None else ledger.best_loss,
        stopped_early=ledger.stopped_early,
        resumed_from=engine.origin.step if engine.origin else None,
        peak_memory_bytes=ledger.peak_memory_bytes,
        examples_per_second=ledger.examples_per_second,
        rows_at_once=engine.portions.rows,
        replayed=engine.rehearsal.rows_by(step) if engine.rehearsal else 0,
    )


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Leave random generators and the model's configuration as found, and the model in eval mode."""
    generators = _random.capture()
    config: Any = getattr(model, "config", None)
    cache = getattr(config, "use_cache", None)
    try:
        if cache:
            config.use_cache = False  # keys and values that a training pass would keep for nothing
        yield
    finally:
        if cache:
            config.use_cache = cache
        model.eval()
        _random.restore(generators)


@contextmanager
def gradient_checkpointing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Recompute activations in the backward pass while the block runs, if ``wanted``."""
    if not wanted or _recomputes(model):
        yield
        return
    whole: Any = model
    inner = whole.get_base_model() if hasattr(model, "get_base_model") else whole
    if not getattr(inner, "supports_gradient_checkpointing", False):
        raise CapabilityError(
            f"{type(inner).__name__} cannot recompute its activations",
            where="gradient_checkpointing",
            fix="set gradient_checkpointing to false",
        )
    inner._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=False))
    try:
        yield
    finally:
        inner._set_gradient_checkpointing(False)


def _recomputes(model: nn.Module) -> bool:
    """Whether a model recomputes its activations by itself; Transformers has had two names for it."""
    names = ("is_activation_checkpointing", "is_gradient_checkpointing")
    whole: Any = model
    inner = whole.get_base_model() if hasattr(model, "get_base_model") else whole
    known = next((name for name in names if hasattr(type(inner), name)), None)
    return known is not None and bool(getattr(inner, known))
