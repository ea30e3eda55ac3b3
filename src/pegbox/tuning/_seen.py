from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pegbox.data import Rows, text_key

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned


def row_digests(rows: Rows) -> list[str]:
    """A short digest of each row's :func:`pegbox.data.text_key`."""
    return [sha256(text_key(texts).encode()).hexdigest()[:16] for texts in rows.texts]


def told_seen(tuned: Tuned, rows: Rows, what: str = "rows") -> npt.NDArray[np.bool_]:
    """Which rows were among the training rows, (rows,); these and those that stopped it are counted.

    Args:
        tuned: The model.
        rows: The rows.
        what: What makes two of them the same, as it is told: rows, or prompts.
    """
    digests = row_digests(rows)
    seen, stopping = (
        np.array([digest in known for digest in digests])
        for known in (tuned.training_rows, tuned.validation_rows)
    )
    for found, where in ((seen, "were among the training rows"), (stopping, "chose the stopping point")):
        if found.any():
            tuned.say(f"{rows.source}: {found.sum():,} of {len(rows):,} {what} {where}")
    return seen
