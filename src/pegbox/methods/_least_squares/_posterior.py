import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pegbox.errors import InputError, UsageError
from pegbox.methods._least_squares._check import Loss, as_features, as_problem
from pegbox.methods._least_squares._integrate import mean_softmax
from pegbox.methods._least_squares._logistic import Logistic, contrast_covariance
from pegbox.methods._least_squares._solution import Solution
from pegbox.methods._least_squares._spectrum import Spectrum
from pegbox.methods._least_squares._targets import helmert, residual

_SCALARS = ("penalty", "noise", "evidence", "rows", "free")


@dataclass(frozen=True)
class Posterior:
    """Gaussian posterior of the correction: exact for the squared loss, Laplace's for the log loss.

    Attributes:
        weight: (width, labels) mean of W.
        intercept: (labels,) mean of b.
        mean: (width,) where the features were centred.
        basis: (width, rank) row space of the features; every other direction keeps the prior.
        curvature: Squared loss: (rank,) s^2 + penalty. Log loss: (size, size) Cholesky factor of the Hessian.
        penalty: Prior precision (times the noise variance for the squared loss).
        noise: Noise variance of the residual's contrasts; 1 for the log loss, whose noise is the softmax.
        evidence: Log marginal likelihood: of the residuals for the squared loss, of the labels (Laplace) for
            the log loss. Comparable between penalties, not between the two losses or between smoothings.
        rows: Rows fitted.
        free: 1 if an intercept with a flat prior was fitted, else 0.
    """

    weight: Tensor
    intercept: Tensor
    mean: Tensor
    basis: Tensor
    curvature: Tensor
    penalty: float
    noise: float
    evidence: float
    rows: int
    free: int

    @classmethod
    def of(
        cls,
        solution: Solution,
        Z: Tensor,
        L: Tensor,
        gold: Tensor,
        *,
        intercept: bool = True,
        spectrum: Spectrum | None = None,
    ) -> "Posterior":
        """Compute the posterior around a solution.

        Args:
            solution: What ``solve`` or ``newton`` returned for these rows.
            Z: (rows, width) features.
            L: (rows, labels) logits of the base.
            gold: (rows,) label indices.
            intercept: Whether the solution has a free intercept.
            spectrum: The features' decomposition where it is already known.

        Raises:
            UsageError: The penalty is zero, so that there is no prior, or the spectrum disagrees.
            CapabilityError: Log loss with too many coordinates for an exact Hessian.
        """
        Z, L, gold = as_problem(Z, L, gold)
        if solution.penalty <= 0:
            raise UsageError("a posterior needs a prior", expected="a penalty above 0")
        spectrum = spectrum or Spectrum.of(Z, intercept)
        if spectrum.intercept != intercept:
            raise UsageError(f"the spectrum was computed with intercept={spectrum.intercept}")
        if solution.loss == "squared":
            R = residual(gold, L, solution.smoothing)
            noise, evidence = _squared_evidence(spectrum, R, solution.penalty)
            curvature = spectrum.values.square() + solution.penalty
        else:
            noise = 1.0
            curvature, evidence = _laplace_evidence(spectrum, L, gold, solution)
        parts = (solution.weight, solution.intercept, spectrum.mean, spectrum.right, curvature)
        return cls(*parts, solution.penalty, noise, evidence, len(Z), int(intercept))

    @property
    def loss(self) -> Loss:
        """The loss the posterior belongs to."""
        return "squared" if self.curvature.ndim == 1 else "log"

    def predictive(self, Z: Tensor, L: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (rows, labels) and covariance (rows, labels, labels) of the corrected logits.

        Rows of the covariance sum to zero: a constant added to all logits of a row has no meaning.
        """
        contrasts = helmert(self.weight.shape[1], self.weight.device)
        covariance = torch.einsum("ka,nab,lb->nkl", contrasts, self.contrast_covariance(Z), contrasts)
        return self._mean(Z, L), covariance

    def contrast_covariance(self, Z: Tensor) -> Tensor:
        """Return the covariance of the logits' orthonormal contrasts, (rows, labels - 1, labels - 1)."""
        shifted = as_features(Z) - self.mean
        inside = shifted @ self.basis
        outside = (shifted.square().sum(dim=1) - inside.square().sum(dim=1)).clamp(min=0.0) / self.penalty
        if self.basis.shape[0] == self.basis.shape[1]:
            outside = torch.zeros_like(outside)
        identity = torch.eye(self.weight.shape[1] - 1).to(inside)
        if self.loss == "squared":
            spread = outside + (inside.square() / self.curvature).sum(dim=1) + self.free / self.rows
            return self.noise * spread[:, None, None] * identity
        if self.free:
            inside = torch.cat([inside, inside.new_ones(len(inside), 1)], dim=1)
        return contrast_covariance(self.curvature, inside) + outside[:, None, None] * identity

    def probabilities(self, Z: Tensor, L: Tensor, *, samples: int = 1024, seed: int = 0) -> Tensor:
        """Return the labels' probabilities averaged over the posterior, (rows, labels).

        Two labels: Gauss-Hermite quadrature of the margin. More: antithetic Monte Carlo of the softmax, with
        the same draws for every row, so that a row's answer does not depend on the rows beside it.

        Args:
            Z: (rows, width) features.
            L: (rows, labels) logits of the base.
            samples: Draws, rounded up to an even number.
            seed: Seed of the draws.
        """
        mean, covariance = self.predictive(Z, L)
        return mean_softmax(mean, covariance, samples=samples, seed=seed)

    def tensors(self) -> dict[str, Tensor]:
        """Return all there is to save, ready for safetensors."""
        arrays = {
            name: getattr(self, name).contiguous()
            for name in ("weight", "intercept", "mean", "basis", "curvature")
        }
        scalars = [float(getattr(self, name)) for name in _SCALARS]
        return arrays | {"scalars": torch.tensor(scalars, dtype=torch.float64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Posterior":
        """Rebuild what ``tensors`` returned.

        Raises:
            InputError: A tensor is missing or has the wrong number of entries.
        """
        names = ("weight", "intercept", "mean", "basis", "curvature")
        missing = [name for name in (*names, "scalars") if name not in tensors]
        if missing or tensors["scalars"].shape != (len(_SCALARS),):
            raise InputError(
                "not a saved posterior",
                where="missing: " + ", ".join(missing) if missing else "tensor 'scalars'",
                expected=", ".join((*names, "scalars")),
            )
        penalty, noise, evidence, rows, free = tensors["scalars"].tolist()
        arrays = {name: tensors[name] for name in names}
        return cls(
            **arrays, penalty=penalty, noise=noise, evidence=evidence, rows=round(rows), free=round(free)
        )

    def _mean(self, Z: Tensor, L: Tensor) -> Tensor:
        return L.to(torch.float64) + Z.to(torch.float64) @ self.weight + self.intercept


def _squared_evidence(spectrum: Spectrum, R: Tensor, penalty: float) -> tuple[float, float]:
    """Return the noise variance that maximises the evidence, and the log evidence there.

    With a flat intercept this is the likelihood of the rows' contrasts (restricted likelihood), so one row
    counts as spent (Patterson & Thompson 1971; MacKay 1992 without the intercept).
    """
    target, _ = spectrum.centre(R @ helmert(R.shape[1], R.device))
    loads = spectrum.left.T @ target
    squares = spectrum.values.square()
    remainder = penalty / (squares + penalty)
    outside = (target - spectrum.left @ loads).square().sum()
    energy = float(outside + (remainder[:, None] * loads.square()).sum())
    rows = spectrum.rows - int(spectrum.intercept)
    columns = target.shape[1]
    noise = max(energy / (rows * columns), torch.finfo(torch.float64).tiny)
    spread = float(torch.log1p(squares / penalty).sum())
    evidence = -0.5 * columns * (rows * math.log(2 * math.pi * noise) + spread + rows)
    return noise, evidence


def _laplace_evidence(
    spectrum: Spectrum, L: Tensor, gold: Tensor, solution: Solution
) -> tuple[Tensor, float]:
    problem = Logistic.of(spectrum, L, gold, solution.penalty)
    A = problem.coordinates(solution)
    factor = problem.factor(problem.logits(A).softmax(dim=1))
    columns = A.shape[1]
    prior = 0.5 * spectrum.rank * columns * math.log(solution.penalty)
    flat = 0.5 * columns * math.log(2 * math.pi) if spectrum.intercept else 0.0
    return factor, -problem.value(A) + prior + flat - float(factor.diagonal().log().sum())
