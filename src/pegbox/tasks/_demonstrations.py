import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pegbox.data import Examples
from pegbox.errors import InputError
from pegbox.tasks._classify import Demonstration


def random_per_class(rows: Examples, labels: Sequence[str], per_class: int, *, seed: int) -> list[Demonstration]:
    """Draw rows of each label without replacement, in seeded order.

    Args:
        rows: Labelled rows to draw from.
        labels: All labels.
        per_class: Rows of each label.
        seed: Seed of the draw and of the order.

    Raises:
        InputError: When a label has no row.
    """
    generator = random.Random(seed)
    chosen: list[int] = []
    for label in labels:
        members = _members(rows, label)
        chosen += generator.sample(members, min(per_class, len(members)))
    generator.shuffle(chosen)
    return [demonstration(rows, index) for index in chosen]


def most_similar(
    rows: Examples,
    features: npt.NDArray[np.floating],
    queries: npt.NDArray[np.floating],
    labels: Sequence[str],
    per_class: int,
    *,
    same: Sequence[int | None] | None = None,
) -> list[list[Demonstration]]:
    """For each query the rows of each label with the largest cosine, the nearest last.

    Args:
        rows: Labelled rows to choose from.
        features: Their features, (rows, width).
        queries: Features of the queries, (queries, width).
        labels: All labels.
        per_class: Rows of each label.
        same: For each query the index of the row that it is itself, which is never shown.
    """
    cosine = _unit(queries) @ _unit(features).T
    for query, index in enumerate(same or ()):
        if index is not None:
            cosine[query, index] = -np.inf
    members = {label: np.array(_members(rows, label)) for label in labels}
    answers = []
    for scores in cosine:
        picked = [
            index
            for group in members.values()
            for index in group[np.argsort(-scores[group], kind="stable")[:per_class]]
            if np.isfinite(scores[index])
        ]
        picked.sort(key=lambda index: float(scores[index]))
        answers.append([demonstration(rows, int(index)) for index in picked])
    return answers


def demonstration(rows: Examples, index: int) -> Demonstration:
    """One row as a demonstration."""
    if rows.labels is None:
        raise InputError("demonstrations need labels", where=rows.source, fix="name the column with --label")
    return Demonstration({name: column[index] for name, column in rows.fields.items()}, rows.labels[index])


def _members(rows: Examples, label: str) -> list[int]:
    members = [index for index, value in enumerate(rows.labels or ()) if value == label]
    if not members:
        raise InputError(
            f"no row shows the label '{label}'",
            where=rows.source,
            expected="at least one row of each label to demonstrate",
            fix="add rows of that label",
        )
    return members


def _unit(matrix: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.maximum(norms, np.finfo(matrix.dtype).tiny)
