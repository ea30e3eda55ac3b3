"""One method on one base and some rows: what fitting and answering take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psutil

from pegbox.comparison import _memory as memory
from pegbox.comparison._calibration import Calibration
from pegbox.comparison._flops import answer_passes, answered, shown_tokens, solve_flops
from pegbox.comparison._packed import Packed
from pegbox.comparison._profile import Asked, Profile
from pegbox.comparison._seconds import Course, answering_seconds, training_operations, training_seconds
from pegbox.methods import BLOCK_ROWS, STREAM_ROWS, SUBSET_ROWS, Attached, ClosedForm, FewShot
from pegbox.models import TOKENS_ON_ACCELERATOR, Base, output_layer
from pegbox.tuning import MIN_VALID_ROWS, TRUNK_MEMORY_SHARE, Training


@dataclass(frozen=True)
class Fitted:
    """What fitting takes.

    Args:
        seconds: At the most.
        memory: Bytes beyond the base at its peak.
        kept: Bytes beyond the base that the fitted model keeps.
        flops: Floating point operations.
        parameters: Trained or solved parameters.
        adapter_bytes: Size of what would be saved.
    """

    seconds: float = 0.0
    memory: int = 0
    kept: int = 0
    flops: float = 0.0
    parameters: int = 0
    adapter_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Case:
    """One method on one base and some rows.

    Args:
        measured: What was measured.
        whole: The base as it is loaded.
        asked: Base, prompt and method, as the method uses them.
        lengths: Tokens of each sequence, without soft tokens.
        rows: How many rows there are; sequences are more where a row has several.
        batch: Sequences of one step.
        packed: What unpacking would add, where the base is not in 4 bits yet and would have to be.
    """

    measured: Calibration
    whole: Base
    asked: Asked
    lengths: Sequence[int]
    rows: int
    batch: int
    packed: Packed | None = None

    @property
    def base(self) -> int:
        """Bytes of the base as it would be loaded, and of what the libraries take for themselves."""
        base = self.whole
        weights = memory.weights_bytes(base.model)
        if self.packed is not None:
            packed, _ = memory.packed_bytes(base)
            # The file stays mapped as long as one of its tensors is used as it lies there.
            weights = packed + (weights if base.device.type == "cpu" else 0)
        return weights + (memory.LIBRARIES if base.device.type == "cpu" else 0)

    @property
    def loaded(self) -> int:
        """Bytes at the peak of loading: weights are read whole before they are put into 4 bits."""
        if self.packed is None:
            return self.base
        return self.base + memory.packed_bytes(self.whole)[1]

    @cached_property
    def answering(self) -> Profile:
        """The profile of passes that read answers."""
        return Profile.of(self.asked, trunk_cache="off")

    @cached_property
    def passes(self) -> list[float]:
        """Operations of each pass in which the rows are answered."""
        return answer_passes(self.asked, self.answering, self.lengths)

    @property
    def answer_seconds(self) -> float:
        """Seconds of answering the rows."""
        found = answering_seconds(self.measured, self.answering, self.passes)
        if self.packed is not None:
            batches = answered(self.lengths, self.asked.base.device.type)
            found += sum(self.packed.seconds(batch, backward=False) for batch in batches)
        return found

    @property
    def answer_memory(self) -> int:
        """Bytes of answering, beyond base and fitted model."""
        found = self.measured.answer_memory or 0
        base, method = self.asked.base, self.asked.method
        if isinstance(method, FewShot) and base.kind == "causal" and method.selection == "random":
            shown = shown_tokens(self.asked, method, self.lengths)
            rows = min(len(self.lengths), max(1, TOKENS_ON_ACCELERATOR // shown))
            # Every row has its own copy of the demonstrations' keys and values.
            found += memory.cache_bytes(base, rows * (shown + max(self.lengths)))
        return found

    def solved(self) -> Fitted:
        """Fitting without gradients."""
        method = self.asked.method
        if not isinstance(method, ClosedForm):
            return Fitted()
        settings: Any = self.asked.base.model.config
        width, labels = settings.hidden_size, len(self.asked.prompt.task.labels)
        solved = solve_flops(self.rows, width, labels)
        found = memory.solve_bytes(self.rows, width, labels)
        if method.streaming or (method.streaming is None and self.rows > STREAM_ROWS):
            found = memory.stream_bytes(width, labels, BLOCK_ROWS, SUBSET_ROWS)
        outputs = self._outputs(labels)
        return Fitted(
            seconds=self.answer_seconds + self.measured.machine.solve * solved,
            memory=(self.measured.answer_memory or 0) + found,
            kept=self.rows * width * memory.FLOAT,
            flops=sum(self.passes) + solved,
            parameters=labels * (width + method.intercept),
            adapter_bytes=memory.FLOAT * (labels * (width + outputs) + outputs * method.intercept),
        )

    def trained(self, training: Training) -> Fitted:
        """Fitting by gradients, at the most epochs."""
        method, base, measured = self.asked.method, self.asked.base, self.measured
        assert isinstance(method, Attached)
        settings = training.settings(method, 0)
        tokens = [length + self.asked.soft for length in self.lengths]
        course = Course.of(settings, tokens, batch=self.batch, held_out=self.rows >= MIN_VALID_ROWS)
        profile = self._profile(training, course)
        seconds = training_seconds(measured, profile, course)
        if self.packed is not None:
            steps = sum(self.packed.seconds(batch, backward=True) for batch in course.train)
            checked = sum(self.packed.seconds(batch, backward=False) for batch in course.valid)
            seconds += course.epochs * steps + course.evaluations * checked
        held = memory.trained_bytes(base, profile.parameters, whole=method.whole)
        whole = memory.weights_bytes(base.model)
        return Fitted(
            seconds=seconds,
            memory=held + self._steps_memory(profile, course),
            kept=memory.FLOAT * base.parameters if method.whole else memory.FLOAT * profile.parameters,
            flops=training_operations(profile, course),
            parameters=profile.parameters,
            adapter_bytes=whole if method.whole else memory.FLOAT * profile.parameters,
        )

    def _profile(self, training: Training, course: Course) -> Profile:
        """The profile of a step, the trunk in every step where its states would not fit into memory."""
        bf16 = self.measured.precision == "bf16"
        how: dict[str, Any] = {"bf16": bf16, "recomputed": course.recomputed}
        found = Profile.of(self.asked, trunk_cache=training.trunk_cache, **how)
        if found.width * course.tokens > TRUNK_MEMORY_SHARE * psutil.virtual_memory().available:
            return Profile.of(self.asked, trunk_cache="off", **how)
        return found

    def _steps_memory(self, profile: Profile, course: Course) -> int:
        """Bytes of the largest step: what passes and what is kept, or the gradients once that is let go."""
        measured = self.measured
        largest = max(profile.kept(*batch) for batch in course.train)
        passing = measured.trunk_memory or 0
        told = measured.step_memory if measured.step_memory is not None else round(measured.kept)
        steps = passing + max(told - passing, 0) * largest / measured.kept
        gradients = memory.FLOAT * profile.parameters
        found = memory.TRAINING if self.asked.base.device.type == "cpu" else 0
        if profile.trunk is None:
            return found + max(round(steps), gradients)
        return found + max(round(steps), passing, gradients) + profile.width * course.tokens

    def _outputs(self, labels: int) -> int:
        """Rows of the output layer."""
        if self.asked.base.kind == "encoder":
            return labels
        layer: Any = output_layer(self.asked.base.model)[1]
        return int(layer.weight.shape[0])
