import difflib
import math
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, TypeGuard


class PegboxError(Exception):
    """Base of all errors that Pegbox raises on purpose.

    Args:
        what: What went wrong, as one sentence without a full stop.
        where: File, row, column, key or tensor path.
        expected: What would have been valid.
        fix: What the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", expected: str = "", fix: str = "") -> None:
        self.what, self.where, self.expected, self.fix = what, where, expected, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [f"{self.what} ({self.where})" if self.where else self.what]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UsageError(PegboxError):
    """Wrong use: an unknown option, key or value. Exit code 2."""

    exit_code = 2


class InputError(UsageError):
    """A file, row, label or model folder that cannot be used as given. Exit code 2."""


class CapabilityError(UsageError):
    """A method that cannot work on this model, task or platform. Exit code 2."""


class RunError(PegboxError):
    """A run that failed although its input was right. Exit code 1."""


def check_names(names: Iterable[str], valid: Sequence[str], what: str, *, where: str = "") -> None:
    """Raise UsageError for the first name that is none of the valid ones, with the nearest of them.

    Args:
        names: What was given.
        valid: What there is.
        what: The error's first part, with ``{}`` or ``{!r}`` in place of the name.
        where: Its place, likewise.
    """
    for name in names:
        if name not in valid:
            raise UsageError(
                what.format(name),
                where=where.format(name),
                expected=", ".join(valid) or "no options",
                fix=nearest(str(name), valid),
            )


def nearest(word: str, valid: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``did you mean 'x'?`` for the nearest valid word within ``cutoff``, else an empty string."""
    lowered = {item.lower(): item for item in valid}
    match = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=cutoff)
    return f"did you mean '{lowered[match[0]]}'?" if match else ""


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number of Python's; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can be
        return False


def is_whole(value: object, least: float = -math.inf) -> TypeGuard[int]:
    """Whether a value is a whole number of Python's that is not below ``least``; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_whole(value: object, least: int, where: str) -> int:
    """The whole number; NumPy's are whole numbers too.

    Raises:
        UsageError: For anything else, and for less than ``least``.
    """
    try:
        found = None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        found = None
    if found is None or found < least:
        raise UsageError(f"{where} is {value!r}", where=where, expected=f"a whole number of at least {least}")
    return found


def check_seeds(values: object) -> tuple[int, ...]:
    """The seeds, one or more and each once.

    Raises:
        UsageError: For anything else.
    """
    seeds = tuple(check_whole(seed, 0, "seeds") for seed in several(values, "seeds"))
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError(
            "there are no seeds" if not seeds else "a seed is given twice",
            where=f"seeds {list(seeds)}",
            expected="one or more different whole numbers, such as seeds=(0, 1, 2)",
        )
    return seeds


def several(values: object, where: str) -> tuple[Any, ...]:
    """What was given as a list, as a tuple; one string alone is one name, not its letters.

    Raises:
        UsageError: For what cannot be listed.
    """
    if isinstance(values, str):
        return (values,)
    try:
        return tuple(values)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(
            f"{where} is {values!r}, and not a list",
            where=where,
            expected="a list",
            fix=f"write [{values!r}]",
        ) from None
