"""Progress that tells the truth: a bar with the time left on a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")
QUIET_SECONDS = 2.0


def track(
    items: Iterable[Item], label: str, *, total: int | None = None, unit: str = "batches"
) -> Iterator[Item]:
    """Yield the items; after two seconds show how far the loop is and how long it will take.

    Args:
        items: What to loop over.
        label: What is being done, in the present participle.
        total: Number of items where it cannot be asked from ``items``.
        unit: What the items are.
    """
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    started = last = time.monotonic()
    terminal = sys.stderr.isatty()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        interval = 0.2 if terminal else max(10.0, (now - started) / 4)
        if count and now - started > QUIET_SECONDS and (now - last > interval):
            last = now
            left = (now - started) / done * (count - done)
            line = f"{label}: {done} of {count} {unit}, {left:.0f} s left"
            sys.stderr.write(f"\r\x1b[K{line}" if terminal else f"{line}\n")
            sys.stderr.flush()
    if terminal and time.monotonic() - started > QUIET_SECONDS:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
