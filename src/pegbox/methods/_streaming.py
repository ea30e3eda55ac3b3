"""The closed form for more rows than memory holds features of: normal equations, block by block."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from pegbox.data import take
from pegbox.methods._least_squares import Gram, Posterior, Solution, residual
from pegbox.methods._method import Problem
from pegbox.methods._output_layer import Equations
from pegbox.models import processes

BLOCK_ROWS = 4096
SUBSET_ROWS = 2048


def subset(problem: Problem, rows: int = SUBSET_ROWS) -> Problem:
    """A seeded sample of a problem's rows with the classes in proportion, the same on every rank."""
    if len(problem.rows) <= rows:
        return problem
    numbered = replace(problem.rows, numbers=tuple(range(len(problem.rows))))
    return problem.part(sorted(take(numbered, rows, seed=problem.seed).numbers))


def accumulate(
    problem: Problem, scale: float, *, smoothing: float, intercept: bool, block: int = BLOCK_ROWS
) -> Gram:
    """Normal equations of all rows, O(width^2) memory whatever the rows; every rank reads its own blocks.

    Args:
        problem: The rows; only ``block`` of their features exist at a time.
        scale: Logit scale of the model.
        smoothing: Smoothing of the log targets.
        intercept: Whether an unpenalised intercept is fitted.
        block: Rows per block.
    """
    starts = range(0, len(problem.rows), block)
    gram: Gram | None = None
    # A rank without a block of its own still takes part in the sum, with no rows in it.
    for start in list(starts)[processes.rank() :: processes.size()] or [0]:
        part = problem.part(range(start, min(start + block, len(problem.rows))))
        rows = Equations.of(part, scale)
        if gram is None:
            gram = Gram(
                rows.features.shape[1], rows.logits.shape[1], smoothing=smoothing, intercept=intercept
            )
        if processes.rank() < len(starts):
            gram.update(rows.features, residual(rows.gold, rows.logits, smoothing))
    assert gram is not None
    gram.all_reduce()
    return gram


def gram_posterior(gram: Gram, solution: Solution) -> Posterior:
    """Posterior of a squared-loss solution from its normal equations; see ``Posterior.of``.

    Args:
        gram: The accumulated equations.
        solution: What ``gram.solve`` returned.
    """
    normal, cross = gram.moments[:, : gram.width], gram.moments[:, gram.width :]
    values, basis = torch.linalg.eigh(normal)
    floor = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    values, basis = values[values > floor].flip(0), basis[:, values > floor].flip(1)
    # Columns of the residual sum to zero over the labels: its contrasts have the same squares, K - 1 of them.
    columns, rows = gram.labels - 1, gram.rows - int(gram.intercept)
    energy = gram.squares - float((solution.weight * cross).sum())
    noise = max(energy / (rows * columns), torch.finfo(torch.float64).tiny)
    spread = float(torch.log1p(values / solution.penalty).sum())
    evidence = -0.5 * columns * (rows * math.log(2 * math.pi * noise) + spread + rows)
    return Posterior(
        weight=solution.weight,
        intercept=solution.intercept,
        mean=_mean(gram),
        basis=basis,
        curvature=values + solution.penalty,
        penalty=solution.penalty,
        noise=noise,
        evidence=evidence,
        rows=gram.rows,
        free=int(gram.intercept),
    )


def _mean(gram: Gram) -> Tensor:
    mean = gram.mean[: gram.width]
    return mean if gram.intercept else torch.zeros_like(mean)
