"""The few exception classes of Pegbox: every message says what, where, what is valid and the fix."""

from pegbox.errors._errors import (
    CapabilityError,
    InputError,
    PegboxError,
    RunError,
    UsageError,
    check_names,
    check_seeds,
    check_whole,
    is_number,
    is_whole,
    nearest,
    several,
)

__all__ = [
    "CapabilityError",
    "InputError",
    "PegboxError",
    "RunError",
    "UsageError",
    "check_names",
    "check_seeds",
    "check_whole",
    "is_number",
    "is_whole",
    "nearest",
    "several",
]
