from __future__ import annotations

from collections.abc import Callable


class Once:
    """Passes every line on the first time only, so that the same rows are not reported again and again.

    Args:
        say: Receives the lines.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[str] = set()

    def __call__(self, line: str) -> None:
        """Say a line unless it was said before."""
        if line not in self._told:
            self._told.add(line)
            self._say(line)

    @classmethod
    def of(cls, say: Callable[[str], None]) -> Once:
        """Wrap ``say`` unless it is wrapped already."""
        return say if isinstance(say, cls) else cls(say)
