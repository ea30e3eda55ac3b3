"""How fast this machine is at what fitting and answering are made of."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pegbox.comparison._flops import solve_flops
from pegbox.methods import choose_penalty
from pegbox.training import Checkpoints, Settings, adamw, hush, train

Clock = Callable[[], float]

UPDATED = 1 << 18
STORED = 1 << 21
SOLVED_ROWS = 256
STEPS = 24


@dataclass(frozen=True)
class Line:
    """Seconds as a line in floating point operations.

    Args:
        start: Seconds that a pass takes however small it is.
        each: Seconds per operation beyond.
    """

    start: float
    each: float

    def __call__(self, operations: float, share: float = 1.0) -> float:
        """Seconds of a pass that calls ``share`` as many functions as the one that was measured."""
        return self.start * share + self.each * operations

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Line:
        """The line through the first and last of some (operations, seconds), never below the origin."""
        small, short = min(points)
        large, long = max(points)
        each = (long - short) / (large - small) if large > small else 0.0
        start = short - each * small
        if each > 0 and start >= 0:
            return cls(start, each)
        return cls(0.0, long / large)


@dataclass(frozen=True)
class Machine:
    """What does not depend on the base.

    Args:
        begin: Seconds that the engine takes to begin and end a run.
        step: Seconds that it adds to each step.
        update: Seconds of an optimiser step per trained parameter.
        checkpoint: Seconds of a checkpoint however small it is.
        store: Seconds per byte of a checkpoint.
        solve: Seconds per floating point operation of the closed form's equations, in float64.
    """

    begin: float
    step: float
    update: float
    checkpoint: float
    store: float
    solve: float

    @classmethod
    def measured(cls, width: int, rows: int, labels: int, device: torch.device, clock: Clock) -> Machine:
        """Measure it in about a second.

        Args:
            width: Width of the features that the closed form would solve for.
            rows: How many there would be.
            labels: Their labels.
            device: Where training happens.
            clock: What tells the time in seconds.
        """
        with tempfile.TemporaryDirectory(prefix="pegbox-") as folder:
            checkpoint, store = _storing(Path(folder), clock)
            begin, step = _running(Path(folder) / "run", clock)
        return cls(
            begin=max(begin - checkpoint, 0.0),
            step=step,
            update=_updating(device, clock),
            checkpoint=checkpoint,
            store=store,
            solve=_solving(min(rows, SOLVED_ROWS), width, labels, clock),
        )


def fastest(run: Callable[[], object], clock: Clock = time.perf_counter, times: int = 2) -> float:
    """Seconds of the fastest of some runs."""
    found = []
    for _ in range(times):
        started = clock()
        run()
        found.append(clock() - started)
    return min(found)


def _updating(device: torch.device, clock: Clock) -> float:
    """Seconds per parameter of what follows a backward pass: dividing, clipping, AdamW."""
    value = nn.Parameter(torch.zeros(UPDATED // 512, 512, device=device))
    optimizer = adamw([value], Settings(learning_rate=1e-3))

    def step() -> None:
        value.grad = torch.ones_like(value)
        torch._foreach_div_([value.grad], 2.0)
        nn.utils.clip_grad_norm_([value], 1.0)
        optimizer.step()

    return fastest(step, clock, 3) / UPDATED


def _storing(folder: Path, clock: Clock) -> tuple[float, float]:
    """Seconds of a checkpoint, and per byte of it."""
    checkpoints = Checkpoints(folder, hush)

    def store(size: int) -> Callable[[], None]:
        content = {"parameters": {"value": torch.zeros(size, dtype=torch.uint8)}}
        return lambda: checkpoints.write(1, content, {}, None, also=lambda _: None)

    small, large = fastest(store(1024), clock), fastest(store(STORED), clock)
    return small, max(large - small, 0.0) / STORED


def _running(folder: Path, clock: Clock) -> tuple[float, float]:
    """Seconds of a run of no work, and of each of its steps."""
    settings = Settings(learning_rate=1e-3, epochs=1, batch_size=1, warmup=0.0)

    def seconds(count: int, place: str) -> float:
        started = clock()
        train(_Nothing(), _NoRows(count), settings=settings, folder=folder / place, say=hush)
        return clock() - started

    seconds(1, "imports")
    short, long = seconds(1, "short"), seconds(STEPS + 1, "long")
    step = max(long - short, 0.0) / STEPS
    return max(short - step, 0.0), step


def _solving(rows: int, width: int, labels: int, clock: Clock) -> float:
    """Seconds per operation of the closed form's leave-one-out search."""
    dice = torch.Generator().manual_seed(0)
    features = torch.randn(rows, width, generator=dice, dtype=torch.float64)
    logits = torch.zeros(rows, labels, dtype=torch.float64)
    gold = torch.arange(rows) % labels
    started = clock()
    choose_penalty(features, logits, gold)
    return (clock() - started) / solve_flops(rows, width, labels)


class _Nothing(nn.Module):
    """A model of one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class _NoRows:
    """Rows that cost nothing."""

    def __init__(self, count: int) -> None:
        self.lengths = [1] * count

    def __len__(self) -> int:
        return len(self.lengths)

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return {"rows": torch.tensor(list(indices))}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        weight: Tensor = model.weight  # type: ignore[assignment]
        return weight.sum(), batch["rows"].new_tensor(len(batch["rows"]))
