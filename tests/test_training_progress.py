import io
import subprocess
import sys

import pytest
from rich.console import Console

from pegbox.training._progress import Meter, clock


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def run(meter: Meter, clock: Clock, steps: int, seconds: float) -> None:
    for step in range(meter.done + 1, steps + 1):
        clock.time += seconds
        meter.advance(step, 0.25)


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def test_silent_when_short() -> None:
    lines: list[str] = []
    now = Clock()
    run(Meter(100, 0, lines.append, console=plain(), now=now), now, steps=100, seconds=0.019)
    assert lines == []


@pytest.mark.parametrize("total", [7, 100, 1003])
def test_at_most_a_line_per_tenth_without_a_terminal(total: int) -> None:
    lines: list[str] = []
    now = Clock()
    run(Meter(total, 0, lines.append, console=plain(), now=now), now, steps=total, seconds=2.5)
    assert min(total, 10) - 1 <= len(lines) <= 11
    assert lines[-1] == f"training: step {total} of {total}, loss 0.25, 0 s left"


def test_estimate_is_the_time_that_is_left() -> None:
    lines: list[str] = []
    now = Clock()
    meter = Meter(100, 40, lines.append, console=plain(), now=now)
    now.time += 30  # the first step of a resumed session is slow and says nothing about the others
    meter.advance(41, None)
    run(meter, now, steps=50, seconds=3.0)
    assert lines[-1] == "training: step 50 of 100, loss 0.25, 2 min 30 s left"


def test_a_bar_on_a_terminal_and_no_lines() -> None:
    lines: list[str] = []
    now = Clock()
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    meter = Meter(10, 0, lines.append, console=console, now=now)
    run(meter, now, steps=1, seconds=1.0)
    assert screen.getvalue() == ""
    run(meter, now, steps=9, seconds=1.0)
    meter.close()
    assert lines == []
    assert "training" in screen.getvalue()
    assert "loss 0.25, 1 s left" in screen.getvalue()


def test_clock() -> None:
    assert [clock(value) for value in (0.4, 59, 60, 185, 3600, 7621)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "3 min 05 s",
        "1 h 00 min",
        "2 h 07 min",
    ]


def test_the_room_loads_without_torch() -> None:
    code = "import sys, pegbox.training; assert not {'torch', 'transformers', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
