"""Further rows for a closed-form solution, one rank-one update each."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from pegbox.methods._least_squares import Updatable
from pegbox.methods._method import Problem, Solved
from pegbox.methods._output_layer import Equations, attach_rows


@dataclass(frozen=True, eq=False)
class Growing:
    """A squared-loss fit that takes further rows with its penalty and smoothing as they are.

    The first call inverts the normal matrix; each call after it costs O(width^2) or O(rows^2) per row. A call
    leaves this object as it is, so that one solution can grow in several directions.

    Args:
        penalty: Ridge penalty.
        smoothing: Smoothing of the log targets.
        intercept: Whether an unpenalised intercept is fitted.
        scale: Logit scale of the model.
        equations: The rows solved so far; ``None`` once ``state`` holds them.
        state: The inverse of the normal matrix and what belongs to it.
    """

    penalty: float
    smoothing: float
    intercept: bool
    scale: float
    equations: Equations | None
    state: Updatable | None = None

    def __call__(self, problem: Problem) -> Solved:
        """The solution for all rows so far and those of ``problem``, without a posterior."""
        state = self._begin()
        new = Equations.of(problem, self.scale)
        for features, logits, gold in zip(new.features, new.logits, new.gold.tolist(), strict=True):
            state.add_row(features, logits, gold)
        solution = state.solution
        return Solved(
            prompt=problem.prompt,
            module=attach_rows(problem, solution.weight, solution.intercept / self.scale),
            parameters=solution.weight.numel() + solution.intercept.numel() * self.intercept,
            details={
                "penalty": self.penalty,
                "smoothing": self.smoothing,
                "system": f"{solution.system} update",
            },
            grow=replace(self, equations=None, state=state),
        )

    def _begin(self) -> Updatable:
        if self.equations is None:
            return copy.deepcopy(self.state)  # type: ignore[return-value]
        rows = self.equations
        options = {"penalty": self.penalty, "smoothing": self.smoothing, "intercept": self.intercept}
        return Updatable(rows.features, rows.logits, rows.gold, **options)  # type: ignore[arg-type]
