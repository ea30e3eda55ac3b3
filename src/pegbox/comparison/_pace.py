"""Whether another rung fits into what is left of a budget of time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pegbox.comparison._cell import Terms
from pegbox.comparison._estimate import estimate
from pegbox.comparison._ladder import Contender
from pegbox.comparison._result import Cell
from pegbox.methods import Method
from pegbox.training import clock


class Pace:
    """Holds a climb to its budget.

    Args:
        budget: Seconds, counted from now; ``None`` for no limit.
    """

    def __init__(self, budget: float | None) -> None:
        self.budget = budget
        self._started = time.monotonic()
        self._ratios: list[float] = []
        self._expected: dict[str, float] = {}

    def too_long(self, terms: Terms, contender: Contender, cells: int) -> str | None:
        """Why a rung is left out, or ``None`` where it fits.

        What a rung takes is estimated from the model's shapes and a few measured steps, times the ratio of
        what earlier rungs took to their estimates. Early stopping makes it less.

        Args:
            terms: What all cells share.
            contender: The rung.
            cells: How many fits it still needs.
        """
        if self.budget is None or not isinstance(contender.method, Method) or not cells:
            return None
        left = self.budget - (time.monotonic() - self._started)
        if left <= 0:
            return f"the budget of {clock(self.budget)} is spent"
        if not contender.trained:
            return None
        costs = estimate(terms.base, terms.task, contender.method, terms.train, training=terms.training)
        if not costs.feasible or costs.seconds is None:
            return None
        self._expected[contender.name] = costs.seconds
        ratio = sorted(self._ratios)[len(self._ratios) // 2] if self._ratios else 1.0
        wanted = cells * costs.seconds * ratio
        if wanted <= left:
            return None
        return (
            f"it would take about {clock(wanted)} for {cells} seed{'s' if cells > 1 else ''}, and "
            f"{clock(left)} are left of the budget of {clock(self.budget)}"
        )

    def note(self, cells: Sequence[Cell]) -> None:
        """Learn from what a rung took."""
        for cell in cells:
            expected = self._expected.get(cell.rung)
            if expected:
                self._ratios.append(cell.cost.seconds / expected)
