from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pegbox.data import Rows
from pegbox.errors import UsageError
from pegbox.tasks import Tag, Task

Floats = NDArray[np.float64]
Tags = tuple[tuple[str, ...], ...]


class Baseline(Protocol):
    """A way to answer that reads no language model, and that every method must beat."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def check(self, task: Task) -> None:
        """Raise CapabilityError for a kind of task that it cannot answer, with the reason."""

    def fit(
        self, task: Task, rows: Any, *, seed: int = 0, say: Callable[[str], None] = ...
    ) -> FittedBaseline:
        """Learn from labelled rows.

        Args:
            task: The task.
            rows: Labelled rows, of the type that the task reads.
            seed: Seed of all randomness.
            say: Receives lines for the user.

        Raises:
            CapabilityError: For a kind of task that it cannot answer.
            InputError: For rows that cannot be learnt from.
        """


@dataclass(frozen=True, eq=False)
class FittedBaseline:
    """A baseline that has seen the training rows.

    Args:
        name: The baseline's name.
        task: The task.
        answer: Maps rows to probabilities, or to the tags of their words.
        parameters: Numbers that were set.
        seconds: Wall time of the fit.
        details: What was chosen and measured, JSON-able.
    """

    name: str
    task: Task
    answer: Callable[[Any], Any] = field(repr=False)
    parameters: int
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, rows: Rows) -> Floats:
        """Probabilities in the order of the task's labels, (rows, labels).

        For multiple choice (rows, most options), 0 where a row has no such option.

        Raises:
            UsageError: For a tagging task.
        """
        if isinstance(self.task, Tag):
            raise UsageError(
                f"{self.name} gives words no probabilities", where="a tagging task", fix="ask for tags(rows)"
            )
        found: Floats = self.answer(rows)
        return found

    def tags(self, rows: Rows) -> Tags:
        """Well-formed BIO tags of each sentence's words.

        Raises:
            UsageError: For a task other than tagging.
        """
        if not isinstance(self.task, Tag):
            raise UsageError(
                f"{self.name} tags no words here",
                where=f"a {type(self.task).__name__.lower()} task",
                fix="ask for probabilities(rows)",
            )
        found: Tags = self.answer(rows)
        return found
