from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pegbox.errors import UsageError, is_number, is_whole

Rule = tuple[str, Any, Callable[[Any], bool], str]


def positive_int(value: Any) -> bool:
    """Whether a value is a whole number of at least one."""
    return is_whole(value, 1)


def number(value: Any) -> bool:
    """Whether a value is a finite int or float."""
    return is_number(value)


def boolean(value: Any) -> bool:
    """Whether a value is true or false."""
    return isinstance(value, bool)


def optional_int(value: Any) -> bool:
    """Whether a value is none, or a whole number of at least one."""
    return value is None or positive_int(value)


def layers_rule(layers: int | None) -> Rule:
    """The rule of the option ``layers``: only so many from the top."""
    return "layers", layers, optional_int, "a whole number of at least 1, or none"


def dropout_rule(dropout: float) -> Rule:
    """The rule of the option ``dropout``."""
    return "dropout", dropout, lambda v: number(v) and 0 <= v < 1, "from 0 to below 1"


def check_options(method: str, rules: Iterable[Rule]) -> None:
    """Gather all wrong options of a method into one UsageError.

    Args:
        method: Name of the method.
        rules: Option name, its value, whether it is valid, and what is.
    """
    wrong = [(name, value, expected) for name, value, valid, expected in rules if not valid(value)]
    if wrong:
        raise UsageError(
            f"{method}: " + "; ".join(f"{name} is {value!r}" for name, value, _ in wrong),
            expected="; ".join(f"{name}: {expected}" for name, _, expected in wrong),
            fix=f"correct it, or leave out {', '.join(name for name, _, _ in wrong)}",
        )
