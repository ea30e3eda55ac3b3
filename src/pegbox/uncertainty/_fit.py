from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.errors import UsageError, check_whole
from pegbox.models import processes
from pegbox.uncertainty._choose import choose_precision
from pegbox.uncertainty._curvature import GRADES, Gatherer, Grade
from pegbox.uncertainty._diag import Diagonal
from pegbox.uncertainty._evidence import check_precision
from pegbox.uncertainty._full import Full
from pegbox.uncertainty._jacobian import Slopes, in_batches
from pegbox.uncertainty._kron import RANK, Kronecker
from pegbox.uncertainty._laplace import Laplace, check_rows, check_slopes, track_slopes
from pegbox.uncertainty._places import Place
from pegbox.uncertainty._resume import Progress
from pegbox.uncertainty._roots import MixedRoots, exact_roots
from pegbox.uncertainty._scored import Scored

_BLOCK = 256


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
    context: str = "",
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
        context: What else the answers depend on, such as the base: a fit that was interrupted goes on only
            where it is the same.
        folder: Where to leave what was gathered every now and then, and to go on from; nowhere by default. It
            is removed at the end.
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
    if rank is not None:
        check_whole(rank, 1, "rank")
    check_whole(seed, 0, "seed")
    if precision is not None:
        check_precision(precision)
    check_rows(rows)
    width = 1 if roots == "mixed" else max(1, rows.answers - 1)
    gatherer = _gatherer(grade, sum(place.size for place in places), len(rows) * width, rank, seed)
    order = in_batches(rows, places, width, only=processes.own(range(len(rows))))
    key = _key(places, rows, context, grade, roots, rank, seed, order)
    device = places[0].layer.weight.device
    progress = Progress(folder if processes.size() == 1 else None, key, device)
    try:
        likelihood = _gather(gatherer, model, rows, places, roots, order, seed, progress)
    except KeyboardInterrupt as stopped:
        if folder is not None:
            say("interrupted: the same call goes on from what was measured")
            stopped.add_note("told")  # so that nobody needs to tell it again
        raise
    distance = sum(place.distance() for place in places)
    found = Laplace(grade, part, gatherer.basis(), 1.0, likelihood, distance, len(rows), "given")
    found = replace(found, details={"roots": roots, "rank": rank, "seed": seed})
    if precision is not None:
        found = found.with_precision(precision)
    else:
        found = choose_precision(found, model, rows, places, valid, say)
    progress.done()
    return found


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
        done = at_batch if number == at_pass else 0
        seeds = exact_roots if roots == "exact" else MixedRoots((seed, number, processes.rank()), done)
        try:
            with closing(track_slopes(model, rows, places, seeds, order[done:], "fit")) as batches:
                for found in batches:
                    check_slopes(found)
                    gatherer.add(found.parts)
                    likelihood += _likelihood(rows, found) if number == 0 else 0.0
                    done += 1
                    progress.step(gatherer, likelihood, number, done)
        except KeyboardInterrupt:
            progress.write(gatherer, likelihood, number, done)
            raise
        if processes.size() > 1:  # merged in one order by all, so that all find the same
            first, *others = _of_all(gatherer.tensors(), places[0].layer.weight.device)
            gatherer.restore(first)
            gatherer.join(others)
        if number < gatherer.passes - 1:
            gatherer.next_pass()
    return float(sum(processes.of_all(likelihood)))


def _of_all(tensors: dict[str, Tensor], device: torch.device) -> list[dict[str, Tensor]]:
    """What each process gathered, in their order."""
    found = processes.of_all({name: value.cpu() for name, value in tensors.items()})
    return [{name: value.to(device) for name, value in one.items()} for one in found]


def _likelihood(rows: Scored, found: Slopes) -> float:
    gold = rows.collate(found.indices)["gold"].to(found.scores.device)
    return float(found.scores.double().log_softmax(1).gather(1, gold[:, None]).sum())


def _key(places: Sequence[Place], rows: Scored, *terms: Any) -> str:
    """What a fit depends on, to go on with no other: all that the model sees, and its uncertain weights."""
    from hashlib import sha256

    digest = sha256(repr((len(rows), terms)).encode())
    for start in range(0, len(rows), _BLOCK):
        batch = rows.collate(range(start, min(start + _BLOCK, len(rows))))
        for name in sorted(batch):
            value = batch[name].contiguous()
            digest.update(f"{name} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    for place in places:
        digest.update(f"{place.name} {place.rows} {place.layer.weight.dtype}".encode())
        digest.update(place.values().numpy().tobytes())
    return digest.hexdigest()
