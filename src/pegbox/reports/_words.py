"""Sentences about a comparison that its tables and its page have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pegbox.evaluation import SIGNIFICANT

if TYPE_CHECKING:
    from pegbox.comparison import Comparison, Rung

MARKED = "the cheapest rung that no costlier one beats and no cheaper one equals"
P_DECIDES = (
    "where an interval leaves zero out and p is 0.05 or more, p decides: the interval is the bootstrap's, "
    "too narrow where few rows differ, and p also counts random signs of those rows, which is exact then"
)


def at_odds(rungs: Sequence[Rung]) -> bool:
    """Whether an interval of a difference leaves zero out beside a p-value that shows nothing."""
    found = [rung.difference for rung in rungs if rung.difference is not None]
    return any(
        part.p >= SIGNIFICANT and (part.difference.low > 0 or part.difference.high < 0) for part in found
    )


def fits(comparison: Comparison) -> str:
    """Which rungs are means over seeds, and which were fitted once; empty where one seed was asked for."""
    if len(comparison.seeds) < 2:
        return ""
    several = [rung for rung in comparison.rungs if len(rung.cells) > 1]
    once = [rung.name for rung in comparison.rungs if len(rung.cells) == 1]
    if not several:
        return "each rung was fitted once, since nothing in it is drawn at random"
    counts = sorted({len(rung.cells) for rung in several})
    mean = f"mean of {' or '.join(map(str, counts))} seeds"
    if not once:
        return mean
    named = ", ".join(rung.name for rung in several)
    return f"{mean}: {named}; fitted once, nothing being random: {', '.join(once)}"
