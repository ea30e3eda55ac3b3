from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.errors import InputError, RunError
from pegbox.uncertainty._curvature import Basis, Grade
from pegbox.uncertainty._evidence import Evidence, check_precision
from pegbox.uncertainty._jacobian import Slopes, in_batches, slopes
from pegbox.uncertainty._places import Place
from pegbox.uncertainty._predictive import Predictive
from pegbox.uncertainty._roots import contrasts
from pegbox.uncertainty._scored import Scored


@dataclass(frozen=True, eq=False)
class Laplace:
    """A normal posterior of the uncertain weights around the tuned ones.

    Its covariance is (curvature + precision I)^-1.

    Args:
        grade: How the curvature is approximated.
        part: Which of the adapter's weights are uncertain.
        basis: Eigenvectors and eigenvalues of the curvature, summed over the training rows.
        precision: Prior precision.
        log_likelihood: Of the training rows' labels, in nats, summed.
        distance: Squared distance of the weights from the middle of the prior.
        rows: Training rows.
        chosen: How the precision was chosen, in words.
        details: What was measured while choosing it, JSON-able.
    """

    grade: Grade
    part: str
    basis: Basis = field(repr=False)
    precision: float
    log_likelihood: float
    distance: float
    rows: int
    chosen: str
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def evidence(self) -> Evidence:
        """The log marginal likelihood, for every precision."""
        return Evidence(self.log_likelihood, self.distance, self.basis.values)

    def with_precision(self, precision: float, chosen: str = "given") -> Laplace:
        """The same curvature under another prior; costs nothing.

        Raises:
            UsageError: For a precision that is not above 0.
        """
        check_precision(precision)
        return replace(self, precision=float(precision), chosen=chosen)

    def predict(self, model: nn.Module, rows: Scored, places: Sequence[Place]) -> Predictive:
        """The linearised predictive of rows (Immer et al. 2021; Daxberger et al. 2021).

        Args:
            model: The tuned model.
            rows: The rows.
            places: Its uncertain layers, as :func:`places` finds them.
        """
        means, covariances, order = [], [], []
        basis = self.basis.to(places[0].layer.weight.device)
        for indices, scores, products, projected, roots in _measured(basis, model, rows, places, "sure"):
            order += indices
            means.append(scores.double().cpu())
            inner = _covariance(products, projected, basis.values, self.precision)
            covariances.append((roots @ inner @ roots.mT).cpu())
        if not order:
            return Predictive(torch.empty(0, 0), torch.empty(0, 0, 0))
        back = torch.tensor(order).argsort()
        return Predictive(joined(means, -torch.inf)[back], joined(covariances, 0.0)[back])

    def draw(self, places: Sequence[Place], count: int = 1, *, seed: int = 0) -> dict[str, Tensor]:
        """Weights drawn from the posterior, by place (draws, outputs, inputs), a bias as the last input.

        Raises:
            CapabilityError: For a posterior of answers from sketched gradients.
        """
        generator = torch.Generator().manual_seed(seed)
        noise = [
            torch.randn(count, *place.shape, generator=generator, dtype=torch.float64) for place in places
        ]
        values = self.basis.values.double().cpu()
        factors = (self.precision / (self.precision + values)).sqrt() - 1.0
        found = self.basis.stretch(noise, factors)
        scale = 1.0 / math.sqrt(self.precision)
        return {place.name: place.values() + scale * own for place, own in zip(places, found, strict=True)}


def joined(parts: Sequence[Tensor], fill: float) -> Tensor:
    """Batches of rows under one another, those of fewer answers filled up."""
    most = max(part.shape[1] for part in parts)
    padded = []
    for part in parts:
        shape = (len(part), *[most] * (part.dim() - 1))
        own = part.new_full(shape, fill)
        own[tuple(slice(0, size) for size in part.shape)] = part
        padded.append(own)
    return torch.cat(padded)


def _measured(
    basis: Basis, model: nn.Module, rows: Scored, places: Sequence[Place], name: str
) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor, Tensor]]:
    """Row numbers, scores, products, projections and contrasts, batch by batch."""
    order = in_batches(rows, places, answers_of(model, rows, places))
    for found in track_slopes(model, rows, places, contrasts, order, name):
        check_scores(found)
        yield (
            found.indices,
            found.scores,
            basis.products(found.parts),
            basis.project(found.parts).double(),
            found.seeds.double(),
        )


def track_slopes(
    model: nn.Module,
    rows: Scored,
    places: Sequence[Place],
    seeds: Callable[[Tensor], Tensor],
    order: Sequence[Sequence[int]],
    name: str,
) -> Iterator[Slopes]:
    """As :func:`slopes`, with a progress bar."""
    label = {"sure": "asking how sure", "fit": "measuring curvature"}[name]
    found = slopes(model, rows, places, seeds, order=order)
    for _ in track(list(order), label):
        yield next(found)


def answers_of(model: nn.Module, rows: Scored, places: Sequence[Place]) -> int:
    """Most answers of a row, as the first batch tells."""
    if not len(rows):
        return 0
    device = places[0].layer.weight.device
    longest = sorted(range(len(rows)), key=lambda index: rows.lengths[index])[:1]
    batch = {key: value.to(device) for key, value in rows.collate(longest).items()}
    with torch.no_grad():
        return int(rows.scores(model, batch).shape[1])


def _covariance(products: Tensor, projected: Tensor, values: Tensor, precision: float) -> Tensor:
    """Of the contrasts, (batch, contrasts, contrasts) float64.

    Along an eigenvector with the value e the variance is 1/(precision + e), elsewhere 1/precision; written as
    what the curvature takes away from the prior's variance, so that nothing of the weights' size is built.
    """
    taken = values.double() / (precision * (precision + values.double()))
    return products / precision - (projected * taken) @ projected.mT


def precision_by_rows(
    basis: Basis,
    model: nn.Module,
    rows: Scored,
    places: Sequence[Place],
    grid: Sequence[float],
) -> tuple[list[float], float]:
    """Log loss of labelled rows under the predictive for each precision, and without it; in nats per row.

    All precisions share one pass over the rows.
    """
    totals, alone, count = [0.0] * len(grid), 0.0, 0
    for indices, scores, products, projected, roots in _measured(basis, model, rows, places, "sure"):
        gold = rows.collate(indices)["gold"].to(scores.device)
        alone -= float(scores.double().log_softmax(1).gather(1, gold[:, None]).sum())
        count += len(indices)
        for at, precision in enumerate(grid):
            inner = _covariance(products, projected, basis.values, precision)
            found = Predictive(scores, roots @ inner @ roots.mT).probabilities()
            totals[at] -= float(found.gather(1, gold[:, None]).clamp(min=1e-300).log().sum())
    return [total / count for total in totals], alone / count


def check_scores(found: Slopes) -> None:
    """Raise RunError for scores that are not numbers."""
    if torch.isnan(found.scores).any() or not torch.isfinite(found.scores.amax(1)).all():
        raise RunError(
            "the answers are not finite numbers",
            where=f"rows {', '.join(str(index + 1) for index in found.indices[:5])}",
            expected="finite logits",
            fix="load the base in float32, or tune again with a lower learning rate",
        )


def check_rows(rows: Scored) -> None:
    """Raise InputError when there is nothing to measure curvature on."""
    if not len(rows):
        raise InputError(
            "there are no rows to measure the curvature on",
            expected="the labelled rows that the adapter was tuned on",
            fix="name the training file",
        )
