"""What a method would take on a base and rows, before it is fitted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from pegbox.comparison._calibration import SECONDS, Calibration
from pegbox.comparison._case import Case
from pegbox.comparison._lengths import row_lengths
from pegbox.comparison._packed import Packed
from pegbox.comparison._profile import Asked
from pegbox.comparison._speed import Clock
from pegbox.data import Rows
from pegbox.errors import InputError, PegboxError
from pegbox.methods import Attached, Method, build
from pegbox.models import Base
from pegbox.tasks import Choose, Task, TooLong
from pegbox.tuning import Training, as_read, shape_of

# Answering is told for so many rows.
ANSWERED = 1000


@dataclass(frozen=True)
class Costs:
    """What a method would take; of a method that cannot work, why.

    Args:
        method: Its name.
        options: Its options.
        feasible: Whether it can work on this base and task.
        reason: Why not; empty when it can.
        seconds: Of fitting at the most, since early stopping is not foreseen; this and all that follow are
            ``None`` when it cannot work.
        answer_seconds: Of answering 1,000 rows like those.
        memory: Bytes at the peak of loading, fitting and answering, above what the process had before it
            loaded the base.
        flops: Floating point operations of fitting.
        answer_flops: The same of answering one row.
        parameters: Trained or solved parameters.
        adapter_bytes: Size of what would be saved.
    """

    method: str
    options: Mapping[str, Any]
    feasible: bool
    reason: str = ""
    seconds: float | None = None
    answer_seconds: float | None = None
    memory: int | None = None
    flops: float | None = None
    answer_flops: float | None = None
    parameters: int | None = None
    adapter_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The costs as a JSON-able mapping."""
        return asdict(self)


class Estimator:
    """Estimates for one base and some rows; what is measured is measured once, for all methods.

    Args:
        base: The base.
        task: The task.
        rows: Rows to tune on, those held out for early stopping among them.
        training: How gradient methods are trained.
        too_long: What to do with texts that do not fit.
        seconds: About how long measuring may take.
        clock: What tells the time in seconds.
        calibration: What was measured before, on the same base and rows.

    Raises:
        InputError: Without rows.
        UsageError: For training settings that cannot be.
    """

    def __init__(
        self,
        base: Base,
        task: Task,
        rows: Rows,
        *,
        training: Training | None = None,
        too_long: TooLong = "shorten",
        seconds: float = SECONDS,
        clock: Clock = time.perf_counter,
        calibration: Calibration | None = None,
    ) -> None:
        if not len(rows):
            raise InputError("there are no rows to estimate for", expected="labelled rows", fix="pass rows=")
        self.base, self.task, self.rows = base, task, rows
        self.training = training or Training()
        self.training.settings(build("lora"), 0)  # wrong settings are the caller's fault, not a method's
        self.too_long: TooLong = too_long
        self.seconds, self.clock = seconds, clock
        self.measured = calibration

    def costs(self, method: Method | str) -> Costs:
        """What a method would take, or why it cannot work."""
        method = build(method) if isinstance(method, str) else method
        try:
            return self._costs(method, Asked.of(self._asked, self._prompt, method))
        except PegboxError as error:
            reason = error.what + (f" ({error.fix})" if error.fix else "")
            return Costs(method.name, method.options(), feasible=False, reason=reason)

    @property
    def calibration(self) -> Calibration:
        """What is measured, on the first question for costs.

        Raises:
            CapabilityError: When nothing can be attached to the base.
        """
        if self.measured is None:
            self.measured = self._measure()
        return self.measured

    def _measure(self) -> Calibration:
        lengths = self._lengths(self._asked, self._prompt)
        return Calibration.measured(
            self._asked,
            self._prompt,
            lengths,
            rows=len(self.rows),
            batch_size=self._batch(lengths),
            precision=self.training.precision,
            seconds=self.seconds,
            clock=self.clock,
        )

    @cached_property
    def _packed(self) -> Packed:
        return Packed.measured(self.base, bf16=self.calibration.precision == "bf16", clock=self.clock)

    @cached_property
    def _asked(self) -> Base:
        """The base as the task is asked of it: its trunk where a head answers."""
        return shape_of(self.task).base(as_read(self.base, self.task), build("lora"))

    @cached_property
    def _prompt(self) -> Any:
        return self._asked.prepare(self.task.with_rows(None))

    @cached_property
    def _known(self) -> dict[str, list[int]]:
        return {}

    def _lengths(self, base: Base, prompt: Any) -> list[int]:
        """Tokens of each row as a kind of base reads it, without soft tokens."""
        if base.kind not in self._known:
            plain = prompt.without_soft() if hasattr(prompt, "without_soft") else prompt
            self._known[base.kind] = row_lengths(base, plain, self.rows, too_long=self.too_long)
        return self._known[base.kind]

    def _batch(self, lengths: Sequence[int]) -> int:
        """Sequences of one step: of multiple choice each row has several."""
        each = len(lengths) / len(self.rows) if isinstance(self.task, Choose) else 1.0
        return max(1, round(self.training.batch_size * each))

    def _costs(self, method: Method, asked: Asked) -> Costs:
        packed = self._packed if method.quantise and not self.base.quantise else None
        lengths = self._lengths(asked.base, asked.prompt)
        case = Case(self.calibration, self.base, asked, lengths, len(self.rows), self._batch(lengths), packed)
        fitted = case.trained(self.training) if isinstance(method, Attached) else case.solved()
        return Costs(
            method=method.name,
            options=method.options(),
            feasible=True,
            seconds=fitted.seconds,
            answer_seconds=case.answer_seconds * ANSWERED / len(self.rows),
            memory=max(case.loaded, case.base + max(fitted.memory, fitted.kept + case.answer_memory)),
            flops=fitted.flops,
            answer_flops=sum(case.passes) / len(self.rows),
            parameters=fitted.parameters,
            adapter_bytes=fitted.adapter_bytes,
        )


def estimate(
    base: Base,
    task: Task,
    method: Method | str,
    rows: Rows | None = None,
    *,
    training: Training | None = None,
    too_long: TooLong = "shorten",
    seconds: float = SECONDS,
) -> Costs:
    """What fitting and answering with a method would take, by its shapes and a few measured steps.

    What is measured is kept with the base: asked for another method on the same rows, the answer takes a
    moment.

    Args:
        base: The base.
        task: The task.
        method: The method, or its name.
        rows: Rows to tune on; by default those that the task was read from.
        training: How gradient methods are trained.
        too_long: What to do with texts that do not fit.
        seconds: About how long measuring may take.

    Returns:
        The costs; those of a method that cannot work say why.

    Raises:
        InputError: Without rows.
        UsageError: For no such method.
    """
    rows = rows if rows is not None else task.rows
    if rows is None:
        raise InputError("there are no rows to estimate for", expected="labelled rows", fix="pass rows=")
    training = training or Training()
    key = json.dumps([task.to_json(), rows.digest(), asdict(training), too_long], sort_keys=True)
    known = _KNOWN.setdefault(base, {})
    estimator = Estimator(
        base, task, rows, training=training, too_long=too_long, seconds=seconds, calibration=known.get(key)
    )
    found = estimator.costs(method)
    if estimator.measured is not None:
        known[key] = estimator.measured
    return found


# What was measured on a base, as long as that is in memory; it must not hold the base itself.
_KNOWN: WeakKeyDictionary[Base, dict[str, Calibration]] = WeakKeyDictionary()
