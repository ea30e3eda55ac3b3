import random
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from pegbox.data import Examples, text_key
from pegbox.errors import InputError
from pegbox.tasks._classify import Demonstration

BLOCK = 1024

Matrix = npt.NDArray[np.floating]


def random_per_class(
    rows: Examples, labels: Sequence[str], per_class: int, *, seed: int
) -> list[Demonstration]:
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


def random_draws(
    rows: Examples, labels: Sequence[str], per_class: int, draws: int, *, seed: int
) -> list[list[Demonstration]]:
    """Several draws of :func:`random_per_class`, the first by ``seed`` itself, all of one size."""
    return [random_per_class(rows, labels, per_class, seed=seed + (draw << 32)) for draw in range(draws)]


def random_others(
    rows: Examples,
    labels: Sequence[str],
    per_class: int,
    *,
    seed: int,
    draw: int = 0,
    among: Collection[int] | None = None,
) -> list[list[int]]:
    """For each row, at random, other rows of each label to show before it, in random order.

    Args:
        rows: Labelled rows; neither a row itself nor its duplicates (see :func:`text_keys`) are shown to it.
        labels: All labels.
        per_class: Rows of each label.
        seed: Seed of the draws; each row has its own.
        draw: Another number gives another draw.
        among: Indices of the rows that may be shown; all when ``None``.

    Returns:
        Row indices, (rows, labels times ``per_class``).

    Raises:
        InputError: When a label has not one different text more than are to be shown.
    """
    keys = text_keys(rows)
    twins = Counter(zip(keys, rows.labels or (), strict=True))
    members = {
        label: [index for index in _members(rows, label) if among is None or index in among]
        for label in labels
    }
    for label, found in members.items():
        _check_enough(rows, label, len({keys[index] for index in found}), per_class)
    answers = []
    for row, own in enumerate(keys):
        generator = random.Random(f"{seed}/{draw}/{row}")
        chosen: list[int] = []
        for label, found in members.items():
            # As many more as are dropped at the most, so that enough are left.
            some = generator.sample(found, min(len(found), per_class + twins[own, label]))
            chosen += [index for index in some if keys[index] != own][:per_class]
        generator.shuffle(chosen)
        answers.append(chosen)
    return answers


def _check_enough(rows: Examples, label: str, texts: int, per_class: int) -> None:
    if texts <= per_class:
        raise InputError(
            f"too few rows of the label '{label}' to show {per_class} to each other row",
            where=f"{rows.source}, {texts} different texts",
            expected=f"at least {per_class + 1} different texts of each label",
            fix="add rows of that label, or show fewer demonstrations per class",
        )


def most_similar(
    rows: Examples,
    features: Matrix,
    queries: Matrix,
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
        same: For each query the index of a row with its own texts: neither that row nor its duplicates
            (letter case and spacing aside) are shown.
    """
    chosen = nearest_rows(rows, features, queries, labels, per_class, same=same)
    return [[demonstration(rows, index) for index in picked] for picked in chosen]


def nearest_rows(
    rows: Examples,
    features: Matrix,
    queries: Matrix,
    labels: Sequence[str],
    per_class: int,
    *,
    same: Sequence[int | None] | None = None,
) -> list[list[int]]:
    """Row indices of :func:`most_similar`."""
    members = [np.array(_members(rows, label)) for label in labels]
    keys = text_keys(rows)
    twins: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        twins.setdefault(key, []).append(index)
    known, asked = _unit(features), _unit(queries)
    answers: list[list[int]] = []
    for start in range(0, len(asked), BLOCK):
        cosine = asked[start : start + BLOCK] @ known.T
        for query, scores in enumerate(cosine, start):
            own = same[query] if same is not None else None
            if own is not None:
                scores[twins[keys[own]]] = -np.inf
            answers.append(_pick(scores, members, per_class))
    return answers


def _pick(scores: Matrix, members: Sequence[npt.NDArray[np.int64]], per_class: int) -> list[int]:
    picked = [
        int(index)
        for group in members
        for index in group[np.argsort(-scores[group], kind="stable")[:per_class]]
        if np.isfinite(scores[index])
    ]
    return sorted(picked, key=lambda index: float(scores[index]))


def text_keys(rows: Examples) -> list[str]:
    """A string per row that duplicates share: see :func:`pegbox.data.text_key`."""
    return [text_key(texts) for texts in rows.texts]


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


def _unit(matrix: Matrix) -> Matrix:
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.maximum(norms, np.finfo(matrix.dtype).tiny)
