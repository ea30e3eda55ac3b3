"""The precision of the prior: by held-out rows where there are any, else by the evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.uncertainty._curvature import Basis
from pegbox.uncertainty._laplace import Laplace, joined, measured
from pegbox.uncertainty._places import Place
from pegbox.uncertainty._predictive import Predictive
from pegbox.uncertainty._scored import Scored
from pegbox.uncertainty._temperature import Temperature, fit_temperature

GRID = tuple(10.0 ** (step / 4) for step in range(-12, 25))
COARSE = GRID[::4]
MANY = 8
_LITTLE = 32
_LOOKED_AT = 64
_APART = 0.1


def choose_precision(
    found: Laplace,
    model: nn.Module,
    rows: Scored,
    places: Sequence[Place],
    valid: Scored | None,
    say: Callable[[str], None],
) -> Laplace:
    """The posterior with a chosen precision, told how it was chosen and what else there was.

    Args:
        found: A posterior with any precision.
        model: The tuned model.
        rows: The rows that it was tuned on.
        places: Its uncertain layers.
        valid: Labelled rows that it was not tuned on.
        say: Receives lines for the user.
    """
    most = found.evidence.best()
    details: dict[str, Any] = {"evidence_precision": most, "evidence": found.evidence.at(most)}
    if valid is None or not len(valid):
        say(f"prior precision {most:.3g} by the evidence: there are no held-out rows to choose it by")
        found = _chosen(found, most, "evidence", details)
        _compare_sureness(found, model, rows, places, say)
        return found
    grid = COARSE if valid.answers > MANY else GRID
    looked = look(found.basis, model, valid, places, grid)
    best = min(range(len(grid)), key=looked.losses.__getitem__)
    chosen = _between(grid, looked.losses, best)
    details |= {
        "grid": list(grid),
        "losses": looked.losses,
        "map_loss": looked.temperature.before,
        "temperature": looked.temperature.value,
        "temperature_loss": looked.temperature.loss,
        "valid_rows": len(valid),
    }
    _tell(looked, grid, best, chosen, most, len(valid), say)
    return _chosen(found, chosen, f"log loss of {len(valid)} held-out rows", details)


def _chosen(found: Laplace, precision: float, how: str, details: dict[str, Any]) -> Laplace:
    return replace(found.with_precision(precision, how), details={**found.details, **details})


def _tell(
    looked: Looked,
    grid: Sequence[float],
    best: int,
    chosen: float,
    most: float,
    count: int,
    say: Callable[[str], None],
) -> None:
    losses, alone = looked.losses, looked.temperature.before
    say(
        f"prior precision {chosen:.3g} by the log loss of {count} held-out rows: {losses[best]:.4f}; without "
        f"posterior {alone:.4f}, with temperature {looked.temperature.value:.3g} instead "
        f"{looked.temperature.loss:.4f}; the evidence would choose {most:.3g}"
    )
    if best == len(grid) - 1:
        say("these rows trust the tuned weights as they are: the posterior is next to none")
    if best == 0:
        say(f"the least precision that is tried, {grid[0]:g}, is the best: the prior matters little here")
    near = min(range(len(grid)), key=lambda at: abs(math.log(grid[at] / most)))
    if losses[near] - alone > _APART:
        say(
            f"the evidence's precision would give {losses[near]:.4f}: it trusts this model far too little, "
            "and is not used"
        )
    if count < _LITTLE:
        say(f"{count} held-out rows are few to choose by; {_LITTLE} and more are better")


def _compare_sureness(
    found: Laplace, model: nn.Module, rows: Scored, places: Sequence[Place], say: Callable[[str], None]
) -> None:
    """Warn when the evidence and the tuned weights disagree strongly on how sure the answers are."""
    step = max(1, len(rows) // _LOOKED_AT)
    sure = found.predict(model, rows, places, only=range(0, len(rows), step))
    alone, averaged = (sure.probabilities(how).amax(1).mean().item() for how in ("map", "auto"))  # type: ignore[arg-type]
    if alone - averaged > _APART:
        say(
            f"by the evidence the answers to training rows are {averaged:.2f} sure on average, and "
            f"{alone:.2f} without posterior: which is right, held-out rows would tell (valid)"
        )


@dataclass(frozen=True, eq=False)
class Looked:
    """What labelled rows say of each precision.

    Args:
        losses: Log loss of the predictive under each, in nats per row.
        temperature: The temperature of least log loss on the same rows, with the loss without it.
    """

    losses: list[float]
    temperature: Temperature


def look(
    basis: Basis, model: nn.Module, rows: Scored, places: Sequence[Place], grid: Sequence[float]
) -> Looked:
    """Log loss of labelled rows under every precision; all share one pass over the rows.

    Args:
        basis: The posterior's basis.
        model: The tuned model.
        rows: Labelled rows.
        places: The uncertain layers.
        grid: The precisions.
    """
    totals, logits, golds = [0.0] * len(grid), [], []
    with closing(measured(basis, model, rows, places)) as parts:
        for part in parts:
            gold: Tensor = rows.collate(part.indices)["gold"].to(part.scores.device)
            logits.append(part.scores.double().cpu())
            golds.append(gold.cpu())
            for at, precision in enumerate(grid):
                found = Predictive(part.scores, part.covariance(precision)).probabilities()
                totals[at] -= float(found.gather(1, gold[:, None]).clamp(min=1e-300).log().sum())
    temperature = fit_temperature(joined(logits, -torch.inf), torch.cat(golds))
    return Looked([total / len(rows) for total in totals], temperature)


def _between(grid: Sequence[float], losses: Sequence[float], best: int) -> float:
    """The bottom of the parabola through the best three points of the grid, on a logarithmic scale."""
    if not 0 < best < len(grid) - 1:
        return grid[best]
    left, middle, right = losses[best - 1 : best + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    step = math.log(grid[best + 1] / grid[best])
    return math.exp(math.log(grid[best]) + shift * step)
