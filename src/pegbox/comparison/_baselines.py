from __future__ import annotations

from pegbox.comparison._bag_of_words import BagOfWords
from pegbox.comparison._fitted import Baseline
from pegbox.comparison._majority import LongestOption, Majority
from pegbox.errors import CapabilityError, UsageError, nearest
from pegbox.tasks import Task

_ALL: tuple[Baseline, ...] = (Majority(), LongestOption(), BagOfWords())


def baselines(task: Task | None = None) -> dict[str, Baseline]:
    """Baselines by name, cheapest first: all, or those that can answer a task."""
    return {one.name: one for one in _ALL if task is None or _answers(one, task)}


def build_baseline(name: str) -> Baseline:
    """The baseline of a name.

    Raises:
        UsageError: For no such baseline, naming the nearest.
    """
    known = baselines()
    if name not in known:
        raise UsageError(
            f"there is no baseline '{name}'", expected=", ".join(known), fix=nearest(name, known)
        )
    return known[name]


def _answers(baseline: Baseline, task: Task) -> bool:
    try:
        baseline.check(task)
    except CapabilityError:
        return False
    return True
