from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pegbox.errors import CapabilityError, InputError
from pegbox.methods._least_squares._solution import Solution, gradient_scale
from pegbox.methods._least_squares._solve import cholesky
from pegbox.methods._least_squares._spectrum import Spectrum
from pegbox.methods._least_squares._targets import centred, helmert

# A dense Hessian of this many coordinates takes 128 MB and a second or two to factor on one core.
DENSE_LIMIT = 4000
_BLOCK = 8_000_000


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression with offsets, in the features' row space and in orthonormal contrasts.

    Logits are ``offset + design @ A @ contrasts'`` with A (coordinates, labels - 1). The optimum lies in the
    row space and its weights sum to zero over the labels, so nothing is lost, and |A| = |W|.

    Attributes:
        design: (rows, coordinates): U diag(s), and a last column of ones with an intercept.
        offset: (rows, labels) centred base logits.
        one_hot: (rows, labels).
        contrasts: (labels, labels - 1).
        penalties: (coordinates,); zero for the intercept.
        spectrum: The features' decomposition.
    """

    design: Tensor
    offset: Tensor
    one_hot: Tensor
    contrasts: Tensor
    penalties: Tensor
    spectrum: Spectrum

    @classmethod
    def of(cls, spectrum: Spectrum, L: Tensor, gold: Tensor, penalty: float) -> "Logistic":
        """Set up the problem from checked base logits (rows, labels) and gold (rows,).

        Raises:
            InputError: A label has no row while an intercept is fitted, so that there is no optimum.
        """
        spectrum.check_rows(L)
        labels = L.shape[1]
        counts = torch.bincount(gold, minlength=labels)
        if spectrum.intercept and int(counts.min()) == 0:
            raise InputError(
                "the log loss has no optimum: with a free intercept an absent label's bias falls without end",
                where=f"label {int(counts.argmin())} has no row",
                expected="at least one row of every label",
                fix="add such a row, use the squared loss, or fit without an intercept",
            )
        design = spectrum.left * spectrum.values
        penalties = design.new_full((spectrum.rank,), penalty)
        if spectrum.intercept:
            design = torch.cat([design, design.new_ones(len(design), 1)], dim=1)
            penalties = torch.cat([penalties, penalties.new_zeros(1)])
        one_hot = torch.nn.functional.one_hot(gold, labels).to(torch.float64)
        return cls(design, centred(L), one_hot, helmert(labels, L.device), penalties, spectrum)

    @property
    def size(self) -> int:
        """Number of free coordinates."""
        return self.design.shape[1] * self.contrasts.shape[1]

    @property
    def scale(self) -> float:
        """Bound on the gradient's norm: that of errors of length one in every row."""
        features = self.design[:, : self.spectrum.rank]
        return gradient_scale(features, len(features) ** 0.5, self.spectrum.intercept)

    def logits(self, A: Tensor) -> Tensor:
        """Return (rows, labels) logits."""
        return self.offset + (self.design @ A) @ self.contrasts.T

    def value(self, A: Tensor) -> float:
        """Return the summed log-loss plus half the penalty."""
        loss = -(self.logits(A).log_softmax(dim=1) * self.one_hot).sum()
        return float(loss + 0.5 * (self.penalties[:, None] * A.square()).sum())

    def gradient(self, A: Tensor, probabilities: Tensor) -> Tensor:
        """Return the gradient of ``value`` in A, (coordinates, labels - 1)."""
        errors = (probabilities - self.one_hot) @ self.contrasts
        return self.design.T @ errors + self.penalties[:, None] * A

    def curve(self, probabilities: Tensor, direction: Tensor) -> Tensor:
        """Return the Hessian times ``direction`` (coordinates, labels - 1), without building it."""
        moved = (self.design @ direction) @ self.contrasts.T
        moved = probabilities * (moved - (probabilities * moved).sum(dim=1, keepdim=True))
        return self.design.T @ (moved @ self.contrasts) + self.penalties[:, None] * direction

    def weights(self, probabilities: Tensor) -> Tensor:
        """Return the Hessian of each row's log-loss in the contrasts, (rows, labels - 1, labels - 1)."""
        means = probabilities @ self.contrasts
        spread = torch.einsum("nk,ka,kb->nab", probabilities, self.contrasts, self.contrasts)
        return spread - means[:, :, None] * means[:, None, :]

    def factor(self, probabilities: Tensor) -> Tensor:
        """Return the Cholesky factor of the dense Hessian, coordinates ordered contrast by contrast.

        Raises:
            CapabilityError: There are more than ``DENSE_LIMIT`` coordinates.
        """
        if self.size > DENSE_LIMIT:
            raise CapabilityError(
                f"the exact Hessian of the log loss has {self.size} coordinates",
                expected=f"at most {DENSE_LIMIT}: (labels - 1) times the features' rank",
                fix="use the squared loss, fewer rows or fewer labels",
            )
        weights = self.weights(probabilities)
        width, count = self.design.shape[1], self.contrasts.shape[1]
        hessian = self.design.new_empty(count, width, count, width)
        for a in range(count):
            for b in range(a + 1):
                part = self.design.T @ (weights[:, a, b, None] * self.design)
                hessian[a, :, b], hessian[b, :, a] = part, part
            hessian[a, :, a].diagonal().add_(self.penalties)
        return cholesky(hessian.reshape(self.size, self.size))

    def coordinates(self, solution: Solution) -> Tensor:
        """Return A of a solution in the features' own coordinates."""
        A = self.spectrum.right.T @ solution.weight @ self.contrasts
        if not self.spectrum.intercept:
            return A
        shift = (solution.intercept + self.spectrum.mean @ solution.weight) @ self.contrasts
        return torch.cat([A, shift[None]])

    def solution(self, A: Tensor, gradient_norm: float) -> Solution:
        """Return the solution in the features' own coordinates."""
        rank, penalty = self.spectrum.rank, float(self.penalties[0])
        W = self.spectrum.right @ (A[:rank] @ self.contrasts.T)
        b = W.new_zeros(W.shape[1])
        if self.spectrum.intercept:
            b = self.contrasts @ A[rank] - self.spectrum.mean @ W
        condition = self.spectrum.condition(penalty)
        return Solution(W, b, penalty, 0.0, "log", gradient_norm, "newton", condition, rank)


def contrast_covariance(factor: Tensor, design: Tensor) -> Tensor:
    """Return X H^-1 X' of each row, X = I (x) design row, (rows, labels - 1, labels - 1).

    Args:
        factor: (size, size) lower Cholesky factor of H, ordered contrast by contrast.
        design: (rows, coordinates).
    """
    return torch.cat(list(_covariance_blocks(factor, design)))


def _covariance_blocks(factor: Tensor, design: Tensor) -> Iterator[Tensor]:
    count = len(factor) // design.shape[1]
    step = max(1, _BLOCK // (len(factor) * count))
    for start in range(0, len(design), step):
        rows = design[start : start + step]
        lifted = torch.einsum("ab,nq->aqbn", torch.eye(count).to(rows), rows).reshape(len(factor), -1)
        solved = torch.linalg.solve_triangular(factor, lifted, upper=False).reshape(len(factor), count, -1)
        yield torch.einsum("man,mbn->nab", solved, solved)


def row_blocks(factor: Tensor, design: Tensor) -> Tensor:
    """Return ``contrast_covariance`` by the explicit inverse: cheaper for many rows."""
    width = design.shape[1]
    count = len(factor) // width
    inverse = torch.cholesky_inverse(factor).reshape(count, width, count, width)
    blocks = design.new_empty(len(design), count, count)
    for a in range(count):
        for b in range(a + 1):
            blocks[:, a, b] = ((design @ inverse[a, :, b]) * design).sum(dim=1)
            blocks[:, b, a] = blocks[:, a, b]
    return blocks
