"""How far training is: a bar on a terminal, a few plain lines elsewhere, nothing for short runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from pegbox.training._clock import clock, remaining
from pegbox.training._told import STEP

_QUIET_SECONDS = 2.0
_REDRAW_SECONDS = 0.2
_LINES = 10


class Meter:
    """Tells the progress of a run.

    The estimate of the time left is the mean over this session of all that was spent on a step:
    evaluations and checkpoints count. The first step is left out, being the longest batch and the warm-up.

    Args:
        total: Steps of the whole run.
        done: Steps done before this session.
        say: Receives plain lines where there is no terminal.
        console: Where a bar is drawn if it is a terminal; None = standard error.
        now: The clock.
    """

    def __init__(
        self,
        total: int,
        done: int,
        say: Callable[[str], None],
        *,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.done, self.say, self.now = total, done, say, now
        self.console = console or Console(file=sys.stderr)
        self.start = now()
        self.begun = done
        self.counted_from = (done, self.start)
        self.told, self.drawn, self.seen = done, self.start, self.start
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def advance(self, step: int, loss: float | None) -> None:
        """Note that ``step`` is done; ``loss`` is the last training loss known."""
        moment = self.now()
        if self.done == self.begun + 1 == self.counted_from[0] + 1:
            self.counted_from = (self.done, self.seen)
        self.done, self.seen = step, moment
        if moment - self.start < _QUIET_SECONDS:
            return
        if self.console.is_terminal:
            if moment - self.drawn < _REDRAW_SECONDS and step < self.total:
                return
            self.drawn = moment
            self._draw(self._note(moment, loss))
        elif step - self.told >= self.total / _LINES or step == self.total:
            self.told = step
            self.say(f"{STEP}{step} of {self.total}, {self._note(moment, loss)}")

    def close(self) -> None:
        """Take the bar away."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _note(self, moment: float, loss: float | None) -> str:
        since, start = self.counted_from
        left = remaining(moment - start, self.done - since, self.total - self.done)
        return (f"loss {loss:.4g}, " if loss is not None else "") + f"{clock(left)} left"

    def _draw(self, note: str) -> None:
        if self.bar is None:
            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, console=self.console, transient=True, refresh_per_second=4)
            self.task = self.bar.add_task(note, total=self.total)
            self.bar.start()
        self.bar.update(self.task, completed=self.done, description=note)
