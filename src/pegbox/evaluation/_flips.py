from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pegbox.evaluation._estimate import Floats
from pegbox.evaluation._inputs import read_distance, read_gold, read_mask, read_numbers, read_pair


@dataclass(frozen=True)
class Distance:
    """Distance to the nearest training row over a group of rows, in the caller's unit."""

    mean: float
    median: float


@dataclass(frozen=True)
class FlippedRows:
    """Some flipped rows, and how far from the training rows they lie.

    Args:
        rows: Their numbers as they were given; indices counted from 0 when none were.
        distance: Over these rows; ``None`` when it is not known or there are none.
    """

    rows: tuple[int, ...]
    distance: Distance | None = None

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.rows)


@dataclass(frozen=True)
class FlipGroup:
    """Rows flipped in one direction.

    Args:
        all: All of them.
        inside: Those of the training set; None when it is not known which they are.
        outside: The others; None likewise.
    """

    all: FlippedRows
    inside: FlippedRows | None = None
    outside: FlippedRows | None = None

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.all.count


@dataclass(frozen=True)
class Flips:
    """Which rows changed their answer from the base's to the tuned model's.

    Args:
        rows: Rows compared.
        right_to_wrong: The base was right, the tuned model is not: what tuning broke.
        wrong_to_right: What tuning mended.
        wrong_to_wrong: One wrong answer for another (three labels or more).
        unchanged_distance: Distance of the rows that did not flip, to compare with.
    """

    rows: int
    right_to_wrong: FlipGroup
    wrong_to_right: FlipGroup
    wrong_to_wrong: FlipGroup
    unchanged_distance: Distance | None = None

    @property
    def count(self) -> int:
        """Number of rows whose answer changed."""
        return self.right_to_wrong.count + self.wrong_to_right.count + self.wrong_to_wrong.count

    @property
    def unchanged(self) -> int:
        """Number of rows whose answer did not change."""
        return self.rows - self.count

    def __str__(self) -> str:
        parts = [
            f"{_signed(group, sign)} {name}"
            for group, sign, name in (
                (self.wrong_to_right, "+", "wrong to right"),
                (self.right_to_wrong, "-", "right to wrong"),
                (self.wrong_to_wrong, "", "wrong to wrong"),
            )
        ]
        return f"{self.count} of {self.rows} rows: {', '.join(parts)}"


def flips(
    base: ArrayLike,
    tuned: ArrayLike,
    gold: ArrayLike,
    *,
    in_training: ArrayLike | None = None,
    distance: ArrayLike | None = None,
    numbers: Sequence[int] | None = None,
) -> Flips:
    """Find the rows whose most probable label changed, by direction.

    Args:
        base: Probabilities of the base ``(rows, labels)``.
        tuned: Probabilities of the tuned model on the same rows ``(rows, labels)``.
        gold: Gold label indices ``(rows,)``.
        in_training: True for rows that were trained on ``(rows,)``.
        distance: Distance of each row to its nearest training row ``(rows,)``, any unit, not negative.
        numbers: What each row is called ``(rows,)``, such as its row number in a file; by default its index.

    Raises:
        InputError: arrays that cannot be scored or do not belong together.
    """
    before, after = read_pair(base, tuned, ("base", "tuned"))
    answers = read_gold(gold, *before.shape)
    mask = read_mask(in_training, len(answers))
    far = read_distance(distance, len(answers))
    names = read_numbers(numbers, len(answers))
    old, new = before.argmax(axis=1), after.argmax(axis=1)
    changed, was_right, is_right = old != new, old == answers, new == answers
    return Flips(
        rows=len(answers),
        right_to_wrong=_group(changed & was_right, mask, far, names),
        wrong_to_right=_group(changed & is_right, mask, far, names),
        wrong_to_wrong=_group(changed & ~was_right & ~is_right, mask, far, names),
        unchanged_distance=_distance(~changed, far),
    )


def _group(
    chosen: NDArray[np.bool_], mask: NDArray[np.bool_] | None, far: Floats | None, names: tuple[int, ...]
) -> FlipGroup:
    if mask is None:
        return FlipGroup(_rows(chosen, far, names))
    return FlipGroup(
        _rows(chosen, far, names), _rows(chosen & mask, far, names), _rows(chosen & ~mask, far, names)
    )


def _rows(chosen: NDArray[np.bool_], far: Floats | None, names: tuple[int, ...]) -> FlippedRows:
    return FlippedRows(tuple(names[row] for row in np.flatnonzero(chosen)), _distance(chosen, far))


def _distance(chosen: NDArray[np.bool_], far: Floats | None) -> Distance | None:
    if far is None or not chosen.any():
        return None
    return Distance(float(far[chosen].mean()), float(np.median(far[chosen])))


def _signed(group: FlipGroup, sign: str) -> str:
    count = f"{sign if group.count else ''}{group.count}"
    if group.inside is None or not group.count:
        return count
    return f"{count} ({group.inside.count} in training)"
