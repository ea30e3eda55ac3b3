import math
from typing import Literal

import torch
from torch import Tensor

from pegbox.errors import InputError, UsageError

Loss = Literal["squared", "log"]


def as_features(Z: Tensor) -> Tensor:
    """Return ``Z`` (rows, width) in float64.

    Raises:
        InputError: ``Z`` is no matrix, is empty, or holds NaN or infinite values (the row is named).
    """
    if Z.ndim != 2:
        raise InputError(
            "features are not a matrix", where=f"shape {tuple(Z.shape)}", expected="(rows, width)"
        )
    if 0 in Z.shape:
        raise InputError(
            "there are no features to solve for",
            where=f"shape {tuple(Z.shape)}",
            expected="at least one row and one column",
        )
    return _finite(Z.detach().to(torch.float64), "feature")


def as_problem(Z: Tensor, L: Tensor, gold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Check features (rows, width), base logits (rows, labels) and gold (rows,); floats become float64.

    Raises:
        InputError: Shapes disagree, a value is not finite, a gold label is out of range, or the rows hold
            fewer than two classes. A class that no row carries is allowed.
    """
    Z = as_features(Z)
    L, gold = as_labels(L, gold)
    if len(Z) != len(L):
        raise InputError(
            "features and base logits have different numbers of rows",
            where=f"{len(Z)} against {len(L)}",
            expected="one row of base logits per row of features",
        )
    if gold.unique().numel() < 2:
        count = f"{len(gold)} row" + ("s" if len(gold) > 1 else "")
        raise InputError(
            "the rows hold one class only",
            where=f"{count}, all of label {int(gold[0])}",
            expected="rows of at least two classes",
            fix="add rows of another class",
        )
    return Z, L, gold


def as_labels(L: Tensor, gold: Tensor) -> tuple[Tensor, Tensor]:
    """Check base logits (rows, labels) and gold (rows,); return float64 logits and int64 labels."""
    if L.ndim != 2 or L.shape[1] < 2:
        raise InputError(
            "base logits are not a matrix of at least two labels",
            where=f"shape {tuple(L.shape)}",
            expected="(rows, labels)",
        )
    return _finite(L.detach().to(torch.float64), "base logit"), as_gold(gold, len(L), L.shape[1])


def as_gold(gold: Tensor, rows: int, labels: int) -> Tensor:
    """Check that ``gold`` holds ``rows`` whole numbers in [0, labels); return it as int64."""
    if gold.shape != (rows,) or gold.is_floating_point():
        raise InputError(
            "gold labels do not fit the rows",
            where=f"shape {tuple(gold.shape)}, {gold.dtype}",
            expected=f"({rows},) whole numbers",
        )
    wrong = ((gold < 0) | (gold >= labels)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"gold label {int(gold[row])} is out of range",
            where=f"row {row + 1}, counting from 1",
            expected=f"0 to {labels - 1}",
        )
    return gold.detach().long()


def check_penalty(penalty: float, *, positive: bool = False) -> float:
    """Return ``penalty`` as a float; it must be finite and at least (or, if ``positive``, above) zero."""
    value = float(penalty)
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise UsageError(
            f"penalty {penalty} is not usable",
            expected="a finite number above 0" if positive else "a finite number of at least 0",
            fix="leave the penalty out to have it chosen by leave-one-out",
        )
    return value


def check_smoothing(smoothing: float, labels: int) -> float:
    """Return ``smoothing`` as a float; it must lie strictly between 0 and 1 - 1/labels."""
    limit = 1.0 - 1.0 / labels
    value = float(smoothing)
    if not 0.0 < value < limit:
        raise UsageError(
            f"smoothing {smoothing} is not usable for {labels} labels",
            expected=f"above 0 and below {limit:.6g} (1 - 1/labels)",
            fix="leave the smoothing out to have it chosen by leave-one-out",
        )
    return value


def _finite(values: Tensor, name: str) -> Tensor:
    bad = (~torch.isfinite(values)).any(dim=1).nonzero()
    if len(bad):
        row = int(bad[0])
        column = int((~torch.isfinite(values[row])).nonzero()[0])
        raise InputError(
            f"{name} is {values[row, column].item()}",
            where=f"row {row + 1} of {len(values)}, column {column + 1} (from 1); {len(bad)} such rows",
            expected="finite numbers",
            fix="run the base in float32 or bfloat16 instead of float16, or leave the row out",
        )
    return values
