from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from pegbox.data import Rows, Table
from pegbox.methods import Method, Solved, Solver
from pegbox.models import Base, FeatureCache
from pegbox.tasks import Prompt, TooLong
from pegbox.training import Trainable

if TYPE_CHECKING:
    from pegbox.tuning._demonstrate import Demonstrate
    from pegbox.tuning._replay import Replayed
    from pegbox.tuning._tuned import Tuned


@dataclass(frozen=True, eq=False)
class Work:
    """What all steps of one fit share.

    Args:
        base: The base.
        prompt: The task, made ready for the base.
        seed: Seed of all randomness.
        too_long: What to do with texts that do not fit.
        cache: Feature cache.
        say: Receives lines for the user.
        demonstrate: Demonstrations that gradient methods are trained with.
        replayed: General text that gradient methods replay.
    """

    base: Base
    prompt: Prompt
    seed: int
    too_long: TooLong
    cache: FeatureCache | None
    say: Callable[[str], None]
    demonstrate: Demonstrate | None = None
    replayed: Replayed | None = None


class Shape(Protocol):
    """One kind of task, as fit and Tuned see it: what its rows are, how they are learnt, asked and scored.

    The rows that it takes are those that its own task reads; the type of all rows is
    :class:`pegbox.data.Rows`.
    """

    def check(self, task: Any, rows: Any, valid: Any, say: Callable[[str], None]) -> None:
        """Raise InputError for rows that cannot be learnt from."""

    def base(self, base: Base, method: Method) -> Base:
        """The base as this shape asks it with a method."""

    def solver(self, work: Work, method: Solver, rows: Any) -> Callable[[], Solved]:
        """What solves the rows without gradients, once they are encoded."""

    def trainable(self, work: Work, parts: Sequence[Any]) -> list[Trainable]:
        """The rows of each part as the engine trains on them, told what was shortened."""

    def rows(
        self,
        task: Any,
        table: Table,
        *,
        texts: Sequence[str] = (),
        label: str | None = None,
        labelled: bool = True,
        on_bad: str = "error",
    ) -> Rows:
        """The rows of a table by the task's own columns; see :meth:`pegbox.Tuned.read`."""

    def logits(self, tuned: Tuned, rows: Any) -> Tensor:
        """Answers before the softmax."""

    def predict(self, tuned: Tuned, inputs: Any) -> list[Any]:
        """One prediction per input."""

    def evaluate(self, tuned: Tuned, rows: Any, *, resamples: int, seed: int) -> Any:
        """Scores of labelled rows, at least one."""
