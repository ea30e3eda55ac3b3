from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Combination:
    """One word for each label, and how it answers.

    Args:
        columns: For each label the column of its word.
        correct: Rows whose own label has the largest logit.
        log_likelihood: Of the rows' own labels, summed, in nats.
    """

    columns: tuple[int, ...]
    correct: int
    log_likelihood: float

    @property
    def order(self) -> tuple[float, float]:
        """Sorts the better before the worse: by accuracy, ties by likelihood."""
        return -self.correct, -self.log_likelihood


def best_combinations(
    logits: Tensor, gold: Tensor, options: Sequence[Sequence[int]], *, width: int
) -> list[Combination]:
    """The best choices of one column for each label, the best first.

    A beam over the labels: what is kept after k labels answers the rows of these k labels best. With two
    labels, and a width of at least the options of the first, every combination is tried.

    Args:
        logits: (rows, columns) logits of all candidate words.
        gold: (rows,) label indices.
        options: For each label the columns that may stand for it, the likelier first.
        width: Combinations that are kept after each label.

    Returns:
        At most ``width`` combinations; none where the labels cannot get words of their own.
    """
    kept = [Combination((), 0, 0.0)]
    for label, columns in enumerate(options):
        rows = gold <= label
        grown = [
            combination
            for prefix in kept
            for combination in _grown(logits[rows].double(), gold[rows], prefix.columns, columns)
        ]
        kept = sorted(grown, key=lambda combination: combination.order)[:width]
    return kept


def _grown(
    logits: Tensor, gold: Tensor, prefix: tuple[int, ...], columns: Sequence[int]
) -> list[Combination]:
    """Each column that is free behind the prefix, scored on the rows (rows, columns) of the labels so far."""
    free = [column for column in columns if column not in prefix]
    last = gold == len(prefix)
    # A column that no row prefers in front, so that the first label has rivals too.
    before = torch.cat([logits.new_full((len(logits), 1), -torch.inf), logits[:, list(prefix)]], dim=1)
    index = torch.where(last, 0, gold + 1)[:, None]
    added = logits[:, free]
    own = torch.where(last[:, None], added, before.gather(1, index))
    rivals = before.scatter(1, index, -torch.inf).amax(1, keepdim=True)
    rivals = torch.where(last[:, None], rivals, torch.maximum(rivals, added))
    likelihood = (own - torch.logaddexp(before.logsumexp(1, keepdim=True), added)).sum(0).tolist()
    correct = (own > rivals).sum(0).tolist()
    return [
        Combination((*prefix, column), int(right), value)
        for column, right, value in zip(free, correct, likelihood, strict=True)
    ]
