from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pegbox.data import Examples, split, text_key
from pegbox.errors import InputError


def folds(rows: Examples, most: int, seed: int) -> list[list[int]]:
    """Positions of the rows of each fold, by class, with equal texts in one; as many folds as there can be.

    A class with one distinct text would lie in one fold alone, and could not be learnt where it is asked: its
    rows are in no fold, so that they are always learnt from.

    Args:
        rows: Labelled rows.
        most: How many folds, unless a class has fewer distinct texts.
        seed: Another seed gives other folds.

    Returns:
        Positions, fold by fold; empty where there can be no two.
    """
    labels = rows.labels or ()
    distinct = Counter(label for label, _ in set(zip(labels, map(text_key, rows.texts), strict=True)))
    numbered = replace(rows, numbers=tuple(range(len(rows))))
    kept = numbered.select([index for index, label in enumerate(labels) if distinct[label] > 1])
    for count in range(most if len(kept) else 0, 1, -1):
        try:
            parts = split(kept, fractions={str(fold): 1 / count for fold in range(count)}, seed=seed)
        except InputError:
            continue
        return [list(part.numbers) for part in parts.values()]
    return []


def others(rows: int, held: Sequence[int]) -> list[int]:
    """All positions of ``rows`` but those of a fold."""
    out = set(held)
    return [index for index in range(rows) if index not in out]
