"""Rare classes: weighted in the loss, or drawn more often."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pegbox.errors import UsageError
from pegbox.training._trainable import Trainable

Numbers = npt.NDArray[np.int64]


def classes(rows: Trainable, balance: str) -> Numbers | None:
    """Return the class of each row ``(rows,)``, or None where nothing is balanced.

    Raises:
        UsageError: The rows have no classes.
    """
    if balance == "none":
        return None
    found: Any = getattr(rows, "groups", None)
    if found is None:
        raise UsageError(
            "these rows have no classes to balance",
            where=f"balance '{balance}'",
            expected="rows with one label each, or balance none",
            fix="leave balance out",
        )
    return np.asarray(found, dtype=np.int64)


def class_weights(groups: Numbers) -> npt.NDArray[np.float32]:
    """Return a weight for each row ``(rows,)``: inverse to how frequent its class is, 1 on average.

    A row of class c weighs N / (K n_c), with N rows, K classes that occur, n_c rows of class c. Source: King
    and Zeng, Logistic regression in rare events data, 2001, in the form of scikit-learn's "balanced".
    """
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return (len(groups) / (len(counts) * counts))[inverse].astype(np.float32)


def drawn(groups: Numbers, generator: np.random.Generator) -> Numbers:
    """Draw as many rows as there are, each class equally often (up to one), in no particular order.

    Within a class each row comes equally often (up to one): rows of a rare class several times, those of a
    frequent one at most once, others in the next epoch.
    """
    values = np.unique(groups)
    quota = np.full(len(values), len(groups) // len(values))
    quota[generator.permutation(len(values))[: len(groups) % len(values)]] += 1
    parts = []
    for value, wanted in zip(values, quota, strict=True):
        members = np.flatnonzero(groups == value)
        whole, rest = divmod(int(wanted), len(members))
        parts += [members] * whole + [generator.permutation(members)[:rest]]
    return np.concatenate(parts)
