from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.data import rows_text
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

    def predict(
        self, model: nn.Module, rows: Scored, places: Sequence[Place], *, only: Sequence[int] | None = None
    ) -> Predictive:
        """The linearised predictive of rows (Immer et al. 2021; Daxberger et al. 2021).

        Args:
            model: The tuned model.
            rows: The rows.
            places: Its uncertain layers, as :func:`places` finds them.
            only: Row numbers to take; all when ``None``.
        """
        means, covariances, order = [], [], []
        basis = self.basis.to(places[0].layer.weight.device)
        with closing(measured(basis, model, rows, places, only=only)) as parts:
            for part in parts:
                order += part.indices
                means.append(part.scores.double().cpu())
                covariances.append(part.covariance(self.precision).cpu())
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


@dataclass(frozen=True, eq=False)
class Reach:
    """How far a batch's answers reach along the posterior's directions, for every precision.

    Args:
        indices: Which rows.
        scores: (batch, answers).
        roots: Contrasts of the answers (batch, answers, contrasts).
        projected: Gradients of the contrasts in the basis (batch, contrasts, directions).
        rest: Products of what of the gradients lies outside the basis (batch, contrasts, contrasts).
        basis: The basis.
    """

    indices: list[int]
    scores: Tensor
    roots: Tensor
    projected: Tensor
    rest: Tensor
    basis: Basis

    def covariance(self, precision: float) -> Tensor:
        """Of the answers' logits less their mean, (batch, answers, answers) float64.

        Along an eigenvector with the value e the variance is 1/(precision + e), elsewhere 1/precision.
        Nothing of the weights' size is built.
        """
        own = self.basis.precision(precision)
        inner = (self.projected / (own + self.basis.values.double())) @ self.projected.mT + self.rest / own
        return self.roots @ inner @ self.roots.mT


def measured(
    basis: Basis,
    model: nn.Module,
    rows: Scored,
    places: Sequence[Place],
    *,
    only: Sequence[int] | None = None,
) -> Generator[Reach, None, None]:
    """Go through batches of rows; close the iterator where it is left early."""
    order = in_batches(rows, places, rows.answers - 1, only=only)
    with closing(track_slopes(model, rows, places, contrasts, order, "sure")) as batches:
        for found in batches:
            check_slopes(found)
            projected = basis.project(found.parts).double()
            rest = _without_negative(basis.products(found.parts) - projected @ projected.mT)
            yield Reach(found.indices, found.scores, found.seeds.double(), projected, rest, basis)


def _without_negative(products: Tensor) -> Tensor:
    """The nearest matrices (batch, size, size) without negative eigenvalues, which rounding may leave."""
    if products.shape[1] == 1:
        return products.clamp(min=0.0)
    values, vectors = torch.linalg.eigh(products)
    return (vectors * values.clamp(min=0.0)[:, None, :]) @ vectors.mT


def track_slopes(
    model: nn.Module,
    rows: Scored,
    places: Sequence[Place],
    seeds: Callable[[Tensor], Tensor],
    order: Sequence[Sequence[int]],
    name: str,
) -> Generator[Slopes, None, None]:
    """As :func:`slopes`, with a progress bar."""
    label = {"sure": "asking how sure", "fit": "measuring curvature"}[name]
    with closing(slopes(model, rows, places, seeds, order=order)) as found:
        for _ in track(list(order), label):
            yield next(found)


def check_slopes(found: Slopes) -> None:
    """Raise RunError for gradients that are not numbers."""
    if not all(torch.isfinite(part).all() for part in found.parts):
        raise RunError(
            "the answers' gradients are not finite numbers",
            where=rows_text(index + 1 for index in found.indices),
            expected="finite gradients",
            fix="load the base in float32",
        )


def check_rows(rows: Scored) -> None:
    """Raise InputError when there is nothing to measure curvature on."""
    if not len(rows):
        raise InputError(
            "there are no rows to measure the curvature on",
            expected="the labelled rows that the adapter was tuned on",
            fix="name the training file",
        )
