"""A contest: each side picks its fastest settings, then all run in turn, several times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import _common as common

Options = dict[str, Any]
Run = Callable[..., common.Cell]
# Seconds from which a try is not repeated.
LONG = 2.0


@dataclass(frozen=True)
class Side:
    """One competitor: how it is run, with the settings it may choose the fastest from.

    Args:
        name: As reported.
        run: Runs it under settings, passed by keyword but for ``threads``, and returns its cell.
        settings: What it may choose from.
        probe: Shorter run to choose by; ``run`` where there is none.
        quick: Whether a run takes milliseconds, so that it is run once unmeasured.
    """

    name: str
    run: Run
    settings: list[Options]
    probe: Run | None = None
    quick: bool = False


def counts() -> list[int]:
    """Return the thread numbers to try: one and all."""
    return sorted({1, common.cores()})


def measure(cells: common.Cells, key: Options, sides: list[Side], repeats: int) -> list[common.Cell]:
    """Find each side's fastest settings, then run all sides in turn, ``repeats`` times."""
    for side in sides:
        if side.quick:
            timed(side.run, side.settings[0])
    chosen = [fastest(cells, {**key, "side": side.name}, side) for side in sides]
    found = []
    for repeat in range(repeats):
        for side, settings in zip(sides, chosen, strict=True):
            name = {**key, "side": side.name, "repeat": repeat}
            common.log(f"{' '.join(map(str, name.values()))} {settings}")
            found.append(cells.get(name, partial(timed, side.run, settings)))
    return found


def fastest(cells: common.Cells, key: Options, side: Side) -> Options:
    """Return the settings under which a side is fastest, each tried twice unless that takes long."""

    def tried(settings: Options) -> common.Cell:
        first = timed(side.probe or side.run, settings)
        if first["seconds"] > LONG:
            return first
        return min(first, timed(side.probe or side.run, settings), key=lambda cell: cell["seconds"])

    times = [
        cells.get({**key, "try": settings}, partial(tried, settings))["seconds"] for settings in side.settings
    ]
    return side.settings[times.index(min(times))]


def timed(run: Run, settings: Options) -> common.Cell:
    """Run a side under its threads."""
    with common.threads(settings["threads"]):
        others = {name: value for name, value in settings.items() if name != "threads"}
        return {"settings": settings, **run(**others)}
