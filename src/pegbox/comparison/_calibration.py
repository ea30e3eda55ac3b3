"""A few measured steps of one method, by which the costs of all are estimated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pegbox.comparison._flops import answered, below, stepped
from pegbox.comparison._made_up import made_up
from pegbox.comparison._peak import peak_memory
from pegbox.comparison._profile import Asked, Profile
from pegbox.comparison._speed import Clock, Line, Machine
from pegbox.errors import PegboxError
from pegbox.methods import LoRA, Method, SoftPrompt
from pegbox.models import Base
from pegbox.training import quick_attention, resolve_precision

# Methods to measure, the first that can be attached.
MEASURED: tuple[Method, ...] = (LoRA(), LoRA(targets="all-linear"), SoftPrompt())
SECONDS = 20.0


@dataclass(frozen=True)
class Calibration:
    """What was measured on a base and rows of the user's lengths.

    Args:
        machine: What does not depend on the base.
        forward: Seconds of a forward pass in training.
        backward: Seconds of a backward pass.
        answer: Seconds of a pass that reads answers, in the base's own number format.
        calls: Torch functions that the measured method's forward pass calls.
        kept: Bytes that its largest measured step kept for the backward pass.
        step_memory: Bytes above the loaded base at the peak of those steps; ``None`` where it is not told.
        answer_memory: The same of reading answers.
        trunk_memory: The same of running a frozen trunk before training.
        precision: ``bf16`` or ``float32``, that of the steps.
    """

    machine: Machine
    forward: Line
    backward: Line
    answer: Line
    calls: float
    kept: float
    step_memory: int | None
    answer_memory: int | None
    trunk_memory: int | None
    precision: str

    @classmethod
    def measured(
        cls,
        base: Base,
        prompt: Any,
        lengths: Sequence[int],
        *,
        rows: int,
        batch_size: int,
        precision: str = "auto",
        seconds: float = SECONDS,
        clock: Clock = time.perf_counter,
    ) -> Calibration:
        """Run a few real steps and passes on made-up rows of the given lengths.

        Args:
            base: The base.
            prompt: The task made ready for it.
            lengths: Tokens of each row; see :func:`pegbox.comparison.fit_flops`.
            rows: How many rows the closed form would be solved on.
            batch_size: Sequences of one step.
            precision: As in :class:`pegbox.Training`.
            seconds: About how long it may take; with fewer rows at a time where whole batches would not fit.
            clock: What tells the time in seconds.

        Raises:
            CapabilityError: When no method can be attached to the base.
        """
        asked, profile, module, resolved = _measurable(base, prompt, precision)
        passes = _Passes(asked, module, resolved == "bf16", clock)
        tokens = sorted(length + asked.soft for length in lengths)
        share = passes.share(profile, stepped(tokens, batch_size), seconds)
        size = max(1, round(batch_size * share))
        answer, answer_memory = passes.answers(profile, answered(tokens, base.device.type), share)
        trunk_memory = passes.trunk(below(tokens), share)
        steps = _steps(stepped(tokens, size))
        forward, backward, step_memory = passes.steps(profile, steps)
        machine = Machine.measured(
            _width(base), rows, max(2, len(asked.prompt.task.labels)), base.device, clock
        )
        return cls(
            machine=machine,
            forward=forward,
            backward=backward,
            answer=answer,
            calls=profile.calls,
            kept=max(profile.kept(*batch) for batch in steps),
            step_memory=step_memory,
            answer_memory=answer_memory,
            trunk_memory=trunk_memory,
            precision=resolved,
        )


@dataclass(frozen=True, eq=False)
class _Passes:
    """Timed passes of one module."""

    asked: Asked
    module: nn.Module
    bf16: bool
    clock: Clock

    def share(self, profile: Profile, batches: Sequence[tuple[int, int]], seconds: float) -> float:
        """Of a batch, the share that can be stepped on a few times within the seconds."""
        _, tokens = batches[len(batches) // 2]
        with self._as_trained(train=True):
            self._step(1, tokens)
            spent = sum(self._step(1, tokens))
        largest = max(profile.forward(*batch) + profile.backward(*batch) for batch in batches)
        one = profile.forward(1, tokens) + profile.backward(1, tokens)
        # Some five steps, and as much again for passes without gradients.
        return min(1.0, seconds / (10 * spent * largest / one))

    def steps(self, profile: Profile, batches: Sequence[tuple[int, int]]) -> tuple[Line, Line, int | None]:
        """Lines of forward and backward passes, and the memory that all steps took at their peak."""
        cold: set[tuple[int, int]] = set()
        warm: dict[tuple[int, int], tuple[float, float]] = {}
        device = self.asked.base.device
        with peak_memory(device) as peak, self._as_trained(train=True):
            for batch in batches:
                seconds = self._step(*batch)
                if batch in cold:
                    warm[batch] = seconds
                cold.add(batch)
        forward = [(profile.forward(*batch), seconds) for batch, (seconds, _) in warm.items()]
        backward = [(profile.backward(*batch), seconds) for batch, (_, seconds) in warm.items()]
        return Line.through(forward), Line.through(backward), peak.bytes

    def answers(
        self, profile: Profile, batches: Sequence[tuple[int, int]], share: float
    ) -> tuple[Line, int | None]:
        """The line of passes that read answers, and their memory."""
        chosen = _reduced([batches[0], batches[-1]], share)
        with peak_memory(self.asked.base.device) as peak, self._as_trained(train=False), torch.no_grad():
            points = []
            for batch in chosen:
                run = self._pass(*batch)
                run()
                points.append((profile.forward(*batch), self._timed(run)))
        return Line.through(points), peak.bytes

    def trunk(self, batches: Sequence[tuple[int, int]], share: float) -> int | None:
        """Memory of running the frozen base over batches as large as those of the trunk cache."""
        with peak_memory(self.asked.base.device) as peak, torch.no_grad(), self._autocast():
            self.module.eval()
            for batch in _reduced([batches[0], batches[-1]], share):
                self._pass(*batch)()
        return peak.bytes

    def _step(self, rows: int, tokens: int) -> tuple[float, float]:
        """Seconds of one forward and one backward pass."""
        started = self.clock()
        loss = self._pass(rows, tokens)()
        middle = self._now()
        loss.backward()
        ended = self._now()
        for value in self.module.parameters():
            value.grad = None
        return middle - started, ended - middle

    def _pass(self, rows: int, tokens: int) -> Callable[[], torch.Tensor]:
        made = made_up(self.asked.base, self.asked.prompt, [tokens] * rows)
        device = self.asked.base.device
        batch = {name: value.to(device) for name, value in made.collate(range(rows)).items()}
        return lambda: made.loss(self.module, batch)[0]

    def _timed(self, run: Callable[[], object]) -> float:
        started = self.clock()
        run()
        return self._now() - started

    def _now(self) -> float:
        if self.asked.base.device.type == "cuda":
            torch.cuda.synchronize(self.asked.base.device)
        return self.clock()

    @contextmanager
    def _as_trained(self, *, train: bool) -> Iterator[None]:
        """Mode, precision and attention of training, or those of reading answers."""
        device = self.asked.base.device
        places = [device] if device.type == "cuda" else []
        self.module.train(train)
        with torch.random.fork_rng(places):
            if not train:
                yield
                return
            with self._autocast(), quick_attention(device, bf16=self.bf16):
                yield

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.asked.base.device.type, torch.bfloat16, enabled=self.bf16)


def _measurable(base: Base, prompt: Any, precision: str) -> tuple[Asked, Profile, nn.Module, str]:
    """The first of some methods that can be attached, with its profile."""
    resolved = resolve_precision(precision, base.device)
    if base.quantise and base.dtype == torch.float16:
        resolved = "float32"
    fault: PegboxError | None = None
    for method in MEASURED:
        try:
            asked = Asked.of(base, prompt, method)
            profile = Profile.of(asked, bf16=resolved == "bf16", trunk_cache="off")
            return asked, profile, asked.module(), resolved
        except PegboxError as error:
            fault = fault or error
    assert fault is not None
    raise fault


def _steps(batches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The largest batch, others of middling size, and the first two once more, warm."""
    ordered = sorted(set(batches), key=lambda batch: batch[0] * batch[1])
    middle, upper = ordered[len(ordered) // 2], ordered[3 * len(ordered) // 4]
    return [ordered[-1], middle, upper, ordered[-1], middle]


def _reduced(batches: Sequence[tuple[int, int]], share: float) -> list[tuple[int, int]]:
    return [(max(1, round(rows * share)), tokens) for rows, tokens in dict.fromkeys(batches)]


def _width(base: Base) -> int:
    settings: Any = base.model.config
    return int(settings.hidden_size)
