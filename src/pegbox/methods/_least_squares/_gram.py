import torch
from torch import Tensor

from pegbox.errors import InputError, UsageError
from pegbox.methods._least_squares._check import as_features, check_penalty
from pegbox.methods._least_squares._solution import Solution
from pegbox.methods._least_squares._solve import cholesky, ill_posed
from pegbox.models import processes

_CHOLESKY_LIMIT = 1e12


class Gram:
    """Normal equations accumulated block by block in float64, in O(width^2) memory whatever the rows.

    Kept centred by merging means (Chan, Golub & LeVeque 1983), so that features far from the origin lose no
    digits. The solution equals the one-shot ``solve`` with the primal system.

    Args:
        width: Width of the features.
        labels: Number of columns of the residual.
        smoothing: The smoothing with which the residuals are made; recorded in the solution.
        intercept: Whether to fit an unpenalised intercept.
        device: Where the sums live.
    """

    def __init__(
        self,
        width: int,
        labels: int,
        *,
        smoothing: float,
        intercept: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.width, self.labels, self.smoothing, self.intercept = width, labels, smoothing, intercept
        self.rows = 0
        self.squares = 0.0
        self.mean = torch.zeros(width + labels, dtype=torch.float64, device=device)
        # Features against features and residuals: one matrix, as both are centred alike.
        self.moments = torch.zeros(width, width + labels, dtype=torch.float64, device=device)

    def update(self, Z: Tensor, R: Tensor) -> None:
        """Add a block of features (rows, width) and residuals (rows, labels).

        Raises:
            InputError: The block has another width, or values that are not finite.
        """
        Z, R = as_features(Z), as_features(R)
        if Z.shape[1] != self.width or R.shape != (len(Z), self.labels):
            raise InputError(
                "the block does not fit the accumulated sums",
                where=f"features {tuple(Z.shape)}, residuals {tuple(R.shape)}",
                expected=f"(rows, {self.width}) and (rows, {self.labels})",
            )
        block = torch.cat([Z, R], dim=1).to(self.mean.device)
        mean = block.mean(dim=0) if self.intercept else torch.zeros_like(self.mean)
        block = block - mean
        rows = self.rows + len(block)
        shift = mean - self.mean
        self.moments += block[:, : self.width].T @ block
        self.moments += (self.rows * len(block) / rows) * torch.outer(shift[: self.width], shift)
        self.squares += float(block[:, self.width :].square().sum())
        self.squares += self.rows * len(block) / rows * float(shift[self.width :].square().sum())
        self.mean += shift * (len(block) / rows)
        self.rows = rows

    def all_reduce(self) -> None:
        """Sum over all ranks in place; does nothing where ``torch.distributed`` is not initialised."""
        if not processes.several():
            return
        total = torch.tensor([float(self.rows)], dtype=torch.float64, device=self.mean.device)
        processes.add_up(total)
        mean = self.mean * (self.rows / max(float(total), 1.0))
        processes.add_up(mean)
        shift = self.mean - mean
        self.moments += self.rows * torch.outer(shift[: self.width], shift)
        squares = total.new_tensor([self.squares + self.rows * float(shift[self.width :].square().sum())])
        processes.add_up(self.moments)
        processes.add_up(squares)
        self.mean, self.rows, self.squares = mean, round(float(total)), float(squares)

    def solve(self, penalty: float) -> Solution:
        """Solve the accumulated normal equations.

        Args:
            penalty: At least 0; where the equations are ill-conditioned their pseudo-inverse is used.

        Raises:
            UsageError: No rows were added, or the penalty is out of range.
        """
        check_penalty(penalty)
        if self.rows == 0:
            raise UsageError("no rows were added before the solve", fix="call update first")
        normal, cross = self.moments[:, : self.width].clone(), self.moments[:, self.width :]
        trace = float(normal.trace())
        normal.diagonal().add_(penalty)
        bound = (trace + penalty) / penalty if penalty > 0 else float("inf")
        rank, warning = min(self.rows - self.intercept, self.width), ""
        if bound < _CHOLESKY_LIMIT:
            W = torch.cholesky_solve(cross, cholesky(normal))
        else:
            W, bound, rank = _pseudo_solve(normal, cross)
            warning = ill_posed(bound, penalty, rank, self.width)
        b = self.mean[self.width :] - self.mean[: self.width] @ W
        design = (trace + (self.rows if self.intercept else 0)) ** 0.5
        targets = (self.squares + self.rows * float(self.mean[self.width :].square().sum())) ** 0.5
        norm = float((cross - normal @ W).norm()) / max(design * targets, torch.finfo(torch.float64).tiny)
        return Solution(W, b, penalty, self.smoothing, "squared", norm, "stream", bound, rank, warning)


def _pseudo_solve(normal: Tensor, cross: Tensor) -> tuple[Tensor, float, int]:
    values, vectors = torch.linalg.eigh(normal)
    floor = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    keep = values > floor
    kept = vectors[:, keep]
    rank = int(keep.sum())
    condition = float(values[-1] / values[0]) if rank == len(values) else float("inf")
    return kept @ ((kept.T @ cross) / values[keep][:, None]), condition, rank
