from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pegbox._progress import track
from pegbox.comparison._folds import folds, others
from pegbox.comparison._power_law import FEWEST
from pegbox.data import Examples, take
from pegbox.errors import InputError, UsageError
from pegbox.methods import ClosedForm, Equations

Floats = NDArray[np.float64]
FOLDS = 5
MOST_SIZES = 9
MOST_LABELS = 4096
_EPSILON = 1e-12


@dataclass(frozen=True)
class Draw:
    """One repeat: the rows to learn from in the order in which they join, and the rows to score on.

    Args:
        order: Positions among the labelled rows; the first n are the subset of size n.
        held: Positions among the rows that are scored.
    """

    order: tuple[int, ...]
    held: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Measured:
    """The closed form on nested subsets of rows.

    Args:
        sizes: Rows of each subset, rising.
        error: 1 where the answer is wrong, 0 where it is right, NaN for rows that were not held out,
            (repeats, sizes, rows).
        nll: Log-loss in nats, likewise.
    """

    sizes: tuple[int, ...]
    error: Floats
    nll: Floats


def draws(rows: Examples, tested: int | None, repeats: int, seed: int) -> list[Draw]:
    """The repeats: subsets in random order, scored on other rows or on folds of their own.

    Args:
        rows: The labelled rows.
        tested: Number of other rows to score on; ``None`` to hold out a fold of the rows in each repeat.
        repeats: How many.
        seed: Seed of orders and folds.

    Raises:
        InputError: Too few texts of a label for two folds.
        UsageError: Fewer than two repeats.
    """
    if repeats < 2:
        raise UsageError(f"repeats is {repeats}", expected="at least 2, so that they can be compared")
    if tested is not None:
        everyone = list(range(len(rows)))
        return [Draw(_order(rows, everyone, seed + at), tuple(range(tested))) for at in range(repeats)]
    found: list[Draw] = []
    while len(found) < repeats:
        parts = folds(rows, FOLDS, seed + len(found))
        if not parts:
            raise InputError(
                "no label but one has two different texts, so that none can be held out",
                where=rows.source,
                expected="at least two different texts of each of two labels",
                fix="pass test=, other labelled rows to score on",
            )
        at = len(found)
        found += [
            Draw(_order(rows, others(len(rows), held), seed + at + place), tuple(held))
            for place, held in enumerate(parts)
        ]
    return found[:repeats]


def checked_sizes(sizes: Sequence[int] | None, most: int, labels: int, source: str) -> tuple[int, ...]:
    """Sizes of the subsets, rising; by default up to nine, each root two times the last.

    Args:
        sizes: As they were given.
        most: Rows that every repeat can learn from.
        labels: Number of labels.
        source: Where the rows come from.

    Raises:
        InputError: Too few rows for a curve.
        UsageError: Sizes that are not rising, or that no subset can have.
    """
    if sizes is None:
        top, least = min(most, MOST_LABELS), max(2 * labels, 8)
        found = {round(top / 2 ** (step / 2)) for step in range(MOST_SIZES)}
        chosen = tuple(sorted(size for size in found if size >= least))
        if len(chosen) < FEWEST:
            raise InputError(
                f"{most} rows to learn from are too few for a learning curve",
                where=source,
                expected=f"at least {round(least * 2 ** ((FEWEST - 1) / 2))} for {labels} labels",
                fix="label more rows",
            )
        return chosen
    chosen = tuple(sizes)
    rising = all(type(size) is int for size in chosen) and sorted(set(chosen)) == list(chosen)
    if not rising or len(chosen) < FEWEST or chosen[0] < labels or chosen[-1] > most:
        raise UsageError(
            "these are no sizes of a learning curve",
            where=f"sizes {list(chosen)}",
            expected=f"at least {FEWEST} rising whole numbers from {labels} to {most}",
            fix="leave sizes out",
        )
    return chosen


def measure(
    known: Equations,
    asked: Equations,
    repeats: Sequence[Draw],
    sizes: Sequence[int],
    finish: Callable[[Tensor, float], Tensor],
) -> Measured:
    """Solve the closed form on the first n rows of each repeat and score it on the rows held out there.

    Args:
        known: Equations of the labelled rows.
        asked: Equations of the rows to score on; ``known`` itself where folds of it are held out.
        repeats: What is learnt from and scored in each repeat.
        sizes: Numbers n of rows to learn from.
        finish: What the model makes of logits (rows, labels), such as soft-capping, given their scale.
    """
    shape = (len(repeats), len(sizes), len(asked.gold))
    error, nll = np.full(shape, np.nan), np.full(shape, np.nan)
    whole: dict[tuple[int, ...], Tensor] = {}
    for at in track(range(len(repeats)), "learning curve", unit="repeats"):
        draw = repeats[at]
        held = list(draw.held)
        part, found = asked.part(held), []
        for size in sizes:
            key = tuple(sorted(draw.order[:size]))
            if key in whole:
                found.append(whole[key])
                continue
            found.append(ClosedForm().solution(known.part(key)).logits(part.features, part.logits))
            if size == len(known.gold):  # the same in each repeat
                whole[key] = found[-1]
        logits = finish(torch.cat(found), known.scale).double().reshape(len(sizes), len(held), -1)
        gold = part.gold.expand(len(sizes), -1)
        error[at, :, held] = (logits.argmax(2) != gold).double().T.numpy()
        own = logits.log_softmax(2).gather(2, gold[..., None]).squeeze(2)
        nll[at, :, held] = -own.clamp(min=math.log(_EPSILON)).T.numpy()
    return Measured(tuple(sizes), error, nll)


def _order(rows: Examples, positions: Sequence[int], seed: int) -> tuple[int, ...]:
    numbered = replace(rows, numbers=tuple(range(len(rows)))).select(positions)
    return take(numbered, len(numbered), seed).numbers
