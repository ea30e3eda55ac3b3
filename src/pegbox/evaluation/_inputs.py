from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pegbox.errors import InputError, UsageError, check_whole

# A softmax computed in half precision misses one by up to about this much.
SUM_TOLERANCE = 1e-3
_ROUNDING = 1e-12
_SHOWN = 5


def read_probabilities(values: ArrayLike, name: str = "probabilities") -> NDArray[np.float64]:
    """Check and return ``values`` as float64 ``(rows, labels)`` whose rows sum to one.

    Rows that miss one by at most `SUM_TOLERANCE` are divided by their sum.

    Raises:
        InputError: wrong shape, no rows, fewer than two labels, NaN, outside [0, 1], or a wrong sum.
    """
    array = _numbers(values, name)
    if array.ndim != 2:
        raise InputError(f"{name} have shape {array.shape}", expected="two dimensions: (rows, labels)")
    if not len(array):
        raise InputError(f"{name} have no rows", expected="at least one row to evaluate")
    if array.shape[1] < 2:
        raise InputError(f"{name} have {array.shape[1]} column(s)", expected="one column per label, K >= 2")
    _refuse_rows(~np.isfinite(array).all(axis=1), f"{name} hold NaN or infinity")
    _refuse_rows(((array < 0) | (array > 1 + SUM_TOLERANCE)).any(axis=1), f"{name} lie outside [0, 1]")
    sums = array.sum(axis=1)
    _refuse_rows(
        np.abs(sums - 1) > SUM_TOLERANCE,
        f"{name} do not sum to one",
        fix="pass the softmax of the label logits, not the logits themselves",
    )
    # Dividing exact rows again would part equal confidences by a last bit.
    return array / np.where(np.abs(sums - 1) > _ROUNDING, sums, 1.0)[:, None]


def read_gold(values: ArrayLike, rows: int, labels: int) -> NDArray[np.int64]:
    """Check and return the gold label indices ``(rows,)``.

    Raises:
        InputError: wrong length, not whole numbers, or outside ``0 .. labels - 1``.
    """
    array = np.asarray(values)
    if array.shape != (rows,):
        raise InputError(f"gold has shape {array.shape}, the probabilities have {rows} rows",
                         expected=f"shape ({rows},)")  # fmt: skip
    if array.dtype.kind not in "iu":
        raise InputError(
            f"gold holds {array.dtype.name} values", expected="whole numbers: indices into labels"
        )
    _refuse_rows((array < 0) | (array >= labels), "gold is out of range", expected=f"0 to {labels - 1}")
    return array.astype(np.int64)


def read_labels(labels: Sequence[str], columns: int) -> tuple[str, ...]:
    """Check and return the label names.

    Raises:
        UsageError: not one name per column, or a name twice.
    """
    names = tuple(str(label) for label in labels)
    if len(names) != columns:
        raise UsageError(f"{len(names)} label names for probabilities with {columns} columns",
                         expected="one name per column, in column order")  # fmt: skip
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"label names occur twice: {', '.join(twice)}", expected="distinct names")
    return names


def read_pair(
    a: ArrayLike, b: ArrayLike, names: tuple[str, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check two systems' probabilities on the same rows.

    Raises:
        InputError: a fault of either, or different shapes.
    """
    first, second = read_probabilities(a, names[0]), read_probabilities(b, names[1])
    if first.shape != second.shape:
        raise InputError(
            f"the two systems differ in shape: {names[0]} {first.shape}, {names[1]} {second.shape}",
            expected="the same rows and labels in the same order",
        )
    return first, second


def read_mask(values: ArrayLike | None, rows: int) -> NDArray[np.bool_] | None:
    """Check the training mask ``(rows,)`` of booleans.

    Raises:
        InputError: wrong length, or not booleans.
    """
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (rows,) or array.dtype != np.bool_:
        raise InputError(f"in_training has shape {array.shape} of {array.dtype.name}",
                         expected=f"{rows} booleans, one per row")  # fmt: skip
    return array


def read_distance(values: ArrayLike | None, rows: int) -> NDArray[np.float64] | None:
    """Check the distances ``(rows,)``.

    Raises:
        InputError: wrong length, NaN or negative.
    """
    if values is None:
        return None
    array = _numbers(values, "distance")
    if array.shape != (rows,):
        raise InputError(f"distance has shape {array.shape}", expected=f"({rows},), one per row")
    _refuse_rows(~(array >= 0) | np.isinf(array), "distance is negative or not a number")
    return array


def read_numbers(values: Sequence[int] | None, rows: int) -> tuple[int, ...]:
    """Check the row numbers ``(rows,)``; without any, rows are counted from 0.

    Raises:
        InputError: wrong length, or not whole numbers.
    """
    if values is None:
        return tuple(range(rows))
    array = np.asarray(values)
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise InputError(f"numbers have shape {array.shape} of {array.dtype.name}",
                         expected=f"{rows} whole numbers, one per row")  # fmt: skip
    return tuple(int(number) for number in array)


def read_count(value: int, name: str) -> int:
    """Check a count of at least one.

    Raises:
        UsageError: it is smaller, or no whole number.
    """
    return check_whole(value, 1, name)


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} are not an array of numbers", expected="numbers, rows of one length"
        ) from error


def _refuse_rows(bad: Any, what: str, **details: Any) -> None:
    rows = np.flatnonzero(bad)
    if not rows.size:
        return
    shown = ", ".join(str(row) for row in rows[:_SHOWN])
    more = f" and {rows.size - _SHOWN} more" if rows.size > _SHOWN else ""
    raise InputError(what, where=f"row {shown}{more}, counted from 0", **details)
