from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from pegbox.errors import UsageError
from pegbox.uncertainty._curvature import GRADES, Gatherer, Grade
from pegbox.uncertainty._diag import Diagonal
from pegbox.uncertainty._evidence import check_precision
from pegbox.uncertainty._full import Full
from pegbox.uncertainty._jacobian import in_batches
from pegbox.uncertainty._kron import RANK, Kronecker
from pegbox.uncertainty._laplace import (
    Laplace,
    answers_of,
    check_rows,
    check_scores,
    precision_by_rows,
    track_slopes,
)
from pegbox.uncertainty._places import Place
from pegbox.uncertainty._resume import Progress
from pegbox.uncertainty._roots import MixedRoots, exact_roots
from pegbox.uncertainty._scored import Scored
from pegbox.uncertainty._share import gathered, own_share, summed

GRID = tuple(10.0 ** (step / 4) for step in range(-12, 25))
_LITTLE = 32
_APART = 0.1


def fit_laplace(
    model: nn.Module,
    rows: Scored,
    places: Sequence[Place],
    *,
    grade: Grade = "exact",
    part: str = "all",
    precision: float | None = None,
    valid: Scored | None = None,
    roots: str = "exact",
    rank: int | None = RANK,
    seed: int = 0,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> Laplace:
    """Measure the curvature at a tuned adapter, and choose the precision of the prior.

    Nothing about the model changes: its modes, gradients and weights are afterwards what they were. Started
    by ``torchrun``, each process takes its share of the rows.

    Args:
        model: The tuned model.
        rows: The labelled rows that it was tuned on.
        places: Its uncertain layers.
        grade: ``exact``, ``kron``, ``ekfac`` or ``diag``.
        part: What the places are, to be told.
        precision: Prior precision; by default chosen: by the log loss of ``valid`` rows where there are any,
            else by the evidence.
        valid: Labelled rows that were not tuned on.
        roots: ``exact`` takes one backward pass per contrast of the answers; ``mixed`` one for all, with
            random signs, unbiased.
        rank: Directions that a Kronecker factor keeps of a wide side.
        seed: Of the sketch and of the random signs.
        folder: Where to leave what was gathered every now and then, and to go on from; nowhere by default.
        say: Receives lines for the user.

    Raises:
        UsageError: For an unknown grade or a precision that is not above 0.
        InputError: Without rows.
        RunError: For logits that are not numbers.
    """
    if grade not in GRADES:
        raise UsageError(f"there is no curvature '{grade}'", where="curvature", expected=", ".join(GRADES))
    if roots not in ("exact", "mixed"):
        raise UsageError(f"there are no roots '{roots}'", where="roots", expected="exact or mixed")
    if precision is not None:
        check_precision(precision)
    check_rows(rows)
    answers = answers_of(model, rows, places)
    width = 1 if roots == "mixed" else max(1, answers - 1)
    gatherer = _gatherer(grade, sum(place.size for place in places), len(rows) * width, rank, seed)
    order = in_batches(rows, places, width, only=own_share(len(rows)))
    progress = Progress(folder, _key(places, rows, grade, roots, rank, seed, order))
    likelihood = _gather(gatherer, model, rows, places, roots, order, seed, progress)
    distance = sum(place.distance() for place in places)
    found = Laplace(grade, part, gatherer.basis(), 1.0, likelihood, distance, len(rows), "given")
    progress.done()
    if precision is not None:
        return found.with_precision(precision)
    return _chosen(found, model, places, valid, say)


def _gatherer(grade: Grade, numbers: int, expected: int, rank: int | None, seed: int) -> Gatherer:
    if grade == "exact":
        return Full(numbers, expected, seed=seed)
    if grade == "diag":
        return Diagonal()
    return Kronecker(exact_values=grade == "ekfac", rank=rank)


def _gather(
    gatherer: Gatherer,
    model: nn.Module,
    rows: Scored,
    places: Sequence[Place],
    roots: str,
    order: Sequence[list[int]],
    seed: int,
    progress: Progress,
) -> float:
    """Fill the gatherer; returns the log likelihood of all labels."""
    likelihood, (at_pass, at_batch) = progress.begin(gatherer)
    for number in range(at_pass, gatherer.passes):
        start = at_batch if number == at_pass else 0
        seeds = exact_roots if roots == "exact" else MixedRoots(seed, start)
        batches = track_slopes(model, rows, places, seeds, order[start:], "fit")
        for at, found in enumerate(batches, start):
            check_scores(found)
            if number == 0:
                gold = rows.collate(found.indices)["gold"].to(found.scores.device)
                own = found.scores.double().log_softmax(1).gather(1, gold[:, None])
                likelihood += float(own.sum())
            gatherer.add(found.parts)
            progress.step(gatherer, likelihood, number, at + 1)
        others = gathered(gatherer.tensors())
        gatherer.join(others)
        if number < gatherer.passes - 1:
            gatherer.next_pass()
    return summed(likelihood)


def _key(places: Sequence[Place], rows: Scored, *terms: Any) -> str:
    """What a fit depends on, to go on with no other."""
    from hashlib import sha256

    digest = sha256(repr((len(rows), list(rows.lengths), terms)).encode())
    for place in places:
        digest.update(place.name.encode() + place.values().numpy().tobytes())
    return digest.hexdigest()


def _chosen(
    found: Laplace,
    model: nn.Module,
    places: Sequence[Place],
    valid: Scored | None,
    say: Callable[[str], None],
) -> Laplace:
    evidence = found.evidence
    most = evidence.best()
    details: dict[str, Any] = {"evidence_precision": most, "evidence": evidence.at(most)}
    if valid is None or not len(valid):
        say(
            f"prior precision {most:.3g} by the evidence, without held-out rows; it can be far too low for a "
            "model that is not over-confident: compare with held-out rows where there are any"
        )
        return _with(found, most, "evidence", details)
    losses, alone = precision_by_rows(found.basis, model, valid, places, GRID)
    best = min(range(len(GRID)), key=losses.__getitem__)
    chosen = _between(GRID, losses, best)
    details |= {
        "grid": list(GRID),
        "losses": losses,
        "map_loss": alone,
        "valid_rows": len(valid),
    }
    say(
        f"prior precision {chosen:.3g} by the log loss of {len(valid)} held-out rows: {losses[best]:.4f}, "
        f"{alone:.4f} without posterior; the evidence would choose {most:.3g}"
    )
    if best == len(GRID) - 1:
        say("these rows trust the tuned weights as they are: the posterior is next to none")
    near = min(range(len(GRID)), key=lambda at: abs(math.log(GRID[at] / most)))
    if losses[near] - alone > _APART:
        say(
            f"the evidence's precision would give {losses[near]:.4f}: it trusts this model far too little, "
            "and is not used"
        )
    if len(valid) < _LITTLE:
        say(f"{len(valid)} held-out rows are few to choose by; {_LITTLE} and more are better")
    return _with(found, chosen, f"log loss of {len(valid)} held-out rows", details)


def _with(found: Laplace, precision: float, chosen: str, details: dict[str, Any]) -> Laplace:
    return replace(found.with_precision(precision, chosen), details=details)


def _between(grid: Sequence[float], losses: Sequence[float], best: int) -> float:
    """The bottom of the parabola through the best three points of the grid, on a logarithmic scale."""
    if not 0 < best < len(grid) - 1:
        return grid[best]
    left, middle, right = losses[best - 1 : best + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    step = math.log(grid[best + 1] / grid[best])
    return math.exp(math.log(grid[best]) + shift * step)
