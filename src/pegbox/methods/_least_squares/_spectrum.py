from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pegbox.errors import InputError, UsageError
from pegbox.methods._least_squares._check import as_features, check_penalty

Decomposition = Literal["svd", "gram"]

# Beyond this many multiply-adds the Gram matrix's eigenvectors save a third of the time to choose and solve
# (bench/claims.py --only losses).
SVD_WORK = 1e8


@dataclass(frozen=True)
class Spectrum:
    """Thin singular value decomposition ``Z - mean = U diag(s) V'`` of the features, computed once.

    Every penalty afterwards costs O(rows * labels) beyond a product with U. Singular values below the
    rounding error of the decomposition are left out, so that ``penalty=0`` gives the minimum-norm solution
    (Penrose 1955).

    Attributes:
        left: U, (rows, rank).
        values: s, (rank,), descending.
        right: V, (width, rank).
        mean: Mean of the features, (width,); zeros without an intercept.
        intercept: Whether an unpenalised intercept is fitted, by centring.
        decomposition: ``svd``, or ``gram`` for eigenvectors of the smaller of Z'Z and ZZ'. The latter squares
            the condition number: a solution's relative error is about 1e-16 s_1^2 / penalty, which
            matters only for penalties far below the grid of ``choose_penalty``, which starts at 1e-7 s_1^2.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    mean: Tensor
    intercept: bool
    decomposition: Decomposition

    @classmethod
    def of(cls, Z: Tensor, intercept: bool = True, decomposition: Decomposition | None = None) -> "Spectrum":
        """Decompose features (rows, width); ``None`` chooses ``svd`` unless the matrix is large.

        Raises:
            InputError: The features are empty or not finite.
        """
        Z = as_features(Z)
        rows, width = Z.shape
        if decomposition is None:
            decomposition = "gram" if rows * width * min(rows, width) > SVD_WORK else "svd"
        mean = Z.mean(dim=0) if intercept else Z.new_zeros(width)
        left, values, right = (_by_svd if decomposition == "svd" else _by_gram)(Z - mean)
        return cls(left, values, right, mean, intercept, decomposition)

    @property
    def rows(self) -> int:
        """Number of rows decomposed."""
        return self.left.shape[0]

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.right.shape[0]

    @property
    def rank(self) -> int:
        """Numerical rank of the (centred) features."""
        return self.values.numel()

    def condition(self, penalty: float) -> float:
        """Return the condition number of Z'Z + penalty I, over all ``width`` directions."""
        if self.rank == 0:
            return 1.0
        smallest = float(self.values[-1]) ** 2 if self.rank == self.width else 0.0
        floor = smallest + penalty
        return (float(self.values[0]) ** 2 + penalty) / floor if floor > 0 else float("inf")

    def solve(self, R: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """Minimise |R - 1b' - ZW|^2 + penalty |W|^2.

        Args:
            R: (rows, columns) targets.
            penalty: At least 0; 0 gives the minimum-norm solution.

        Returns:
            W (width, columns) and b (columns,); b is zero without an intercept.
        """
        self.check_rows(R)
        R, centre = self.centre(R)
        W = self.right @ (self.filter(check_penalty(penalty))[:, None] * (self.left.T @ R))
        return W, centre - self.mean @ W

    def leverage(self, penalty: float) -> Tensor:
        """Return the diagonal of the hat matrix, (rows,), the intercept's 1/rows included."""
        remainders = self.remainders(torch.tensor([check_penalty(penalty)], dtype=torch.float64))
        own = self.left.square() @ (1.0 - remainders[0])
        return own + 1.0 / self.rows if self.intercept else own

    def slack(self, penalties: Tensor) -> Tensor:
        """Return 1 - leverage for many penalties at once, (rows, penalties), without cancellation.

        Raises:
            InputError: A row has leverage one, so that the other rows do not determine its prediction.
        """
        squares = self.left.square()
        outside = 1.0 - squares.sum(dim=1) - (1.0 / self.rows if self.intercept else 0.0)
        free = outside.clamp(min=0.0)[:, None] + squares @ self.remainders(penalties).T
        if float(free.min()) < 1e-12:
            raise InputError(
                "leave-one-out is undefined: a row alone determines its own prediction",
                where=f"row {int(free.amin(dim=1).argmin()) + 1}, counting from 1",
                expected="a leverage below 1",
                fix="use a larger penalty or more rows",
            )
        return free

    def errors(self, target: Tensor, coefficients: Tensor, penalties: Tensor) -> Tensor:
        """Return the fits' errors, (columns, penalties, rows).

        Args:
            target: (rows, columns) centred targets.
            coefficients: U' target, (rank, columns).
            penalties: (penalties,).
        """
        outside = target - self.left @ coefficients
        loads = coefficients.T[:, None, :] * self.remainders(penalties)[None]
        inside = loads.reshape(-1, self.rank) @ self.left.T
        return outside.T[:, None, :] + inside.reshape(target.shape[1], len(penalties), self.rows)

    def leave_one_out(self, R: Tensor, penalty: float) -> Tensor:
        """Return what each row is predicted by the fit to all other rows, (rows, columns), without refits.

        The left-out error is e/(1 - h) exactly (PRESS, Allen 1974), the refitted intercept included.

        Raises:
            InputError: A row has leverage one, so that the other rows do not determine its prediction.
        """
        self.check_rows(R)
        target, centre = self.centre(R)
        penalties = torch.tensor([check_penalty(penalty)], dtype=torch.float64)
        free = self.slack(penalties)
        return target + centre - self.errors(target, self.left.T @ target, penalties)[:, 0].T / free

    def filter(self, penalty: float) -> Tensor:
        """Return s/(s^2 + penalty), (rank,)."""
        return self.values / (self.values.square() + penalty)

    def remainders(self, penalties: Tensor) -> Tensor:
        """Return penalty/(s^2 + penalty), what each direction leaves unfitted, (penalties, rank)."""
        penalties = penalties.to(self.values)[:, None]
        return penalties / (self.values.square() + penalties)

    def centre(self, R: Tensor) -> tuple[Tensor, Tensor]:
        """Split columns of R (rows, columns) into deviations and mean (zero without an intercept)."""
        R = R.to(torch.float64)
        mean = R.mean(dim=0) if self.intercept else R.new_zeros(R.shape[1])
        return R - mean, mean

    def check_rows(self, R: Tensor) -> None:
        """Raise UsageError unless R is a matrix with this spectrum's rows."""
        if R.ndim != 2 or len(R) != self.rows:
            raise UsageError(
                "the spectrum was computed from other rows",
                where=f"targets of shape {tuple(R.shape)}",
                expected=f"({self.rows}, columns)",
            )


def _by_svd(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    left, values, right = torch.linalg.svd(Z, full_matrices=False)
    keep = values > values[0] * max(Z.shape) * torch.finfo(Z.dtype).eps
    return left[:, keep], values[keep], right.mT[:, keep]


def _by_gram(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tall = Z.shape[0] >= Z.shape[1]
    squares, vectors = torch.linalg.eigh(Z.T @ Z if tall else Z @ Z.T)
    squares, vectors = squares.flip(0), vectors.flip(1)
    keep = squares > squares[0].clamp(min=0) * max(Z.shape) * torch.finfo(Z.dtype).eps
    values, vectors = squares[keep].sqrt(), vectors[:, keep]
    other = (Z @ vectors if tall else Z.T @ vectors) / values
    return (other, values, vectors) if tall else (vectors, values, other)
