from typing import Literal

import torch
from torch import Tensor

from pegbox.errors import InputError, UsageError, nearest
from pegbox.methods._least_squares._check import as_problem, check_penalty
from pegbox.methods._least_squares._solution import Solution
from pegbox.methods._least_squares._solve import cholesky
from pegbox.methods._least_squares._targets import residual


class Updatable:
    """A squared-loss fit that takes one more labelled row by a rank-one update instead of a refit.

    ``primal`` keeps (Zc'Zc + penalty I)^-1 and updates it by Sherman and Morrison's formula, O(width^2);
    ``dual`` keeps (ZZ' + penalty I)^-1 and borders it, O(rows^2 + rows * width). Both equal a refit,
    the moved centre of the intercept included.

    Args:
        Z: (rows, width) features to start from.
        L: (rows, labels) logits of the base.
        gold: (rows,) label indices.
        penalty: Above 0.
        smoothing: In (0, 1 - 1/labels).
        intercept: Whether an unpenalised intercept is fitted.
        system: ``auto`` takes ``primal`` when rows >= width.
    """

    def __init__(
        self,
        Z: Tensor,
        L: Tensor,
        gold: Tensor,
        *,
        penalty: float,
        smoothing: float,
        intercept: bool = True,
        system: Literal["auto", "primal", "dual"] = "auto",
    ) -> None:
        Z, L, gold = as_problem(Z, L, gold)
        valid = ("auto", "primal", "dual")
        if system not in valid:
            raise UsageError(
                f"unknown system '{system}'", expected=", ".join(valid), fix=nearest(system, valid)
            )
        self.penalty, self.smoothing, self.intercept = (
            check_penalty(penalty, positive=True),
            smoothing,
            intercept,
        )
        primal = system == "primal" or (system == "auto" and len(Z) >= Z.shape[1])
        R = residual(gold, L, smoothing)
        self._state = (_Primal if primal else _Dual)(Z, R, self.penalty, intercept)
        self.width, self.labels, self.rows = Z.shape[1], L.shape[1], len(Z)

    def add_row(self, features: Tensor, logits: Tensor, gold: int) -> None:
        """Add one labelled row.

        Args:
            features: (width,) features of the row.
            logits: (labels,) logits of the base.
            gold: The row's label index.

        Raises:
            InputError: The row has another width, other labels, or values that are not finite.
        """
        if features.shape != (self.width,) or logits.shape != (self.labels,):
            raise InputError(
                "the new row does not fit the fit",
                where=f"features {tuple(features.shape)}, logits {tuple(logits.shape)}",
                expected=f"({self.width},) and ({self.labels},)",
            )
        row = features.detach().to(torch.float64)
        if not bool(torch.isfinite(row).all()):
            raise InputError("the new row's features are not finite", expected="finite numbers")
        target = residual(torch.tensor([gold], device=logits.device), logits[None], self.smoothing)[0]
        self._state.add(row, target)
        self.rows += 1

    @property
    def solution(self) -> Solution:
        """The fit to all rows so far."""
        W, b = self._state.weights()
        rank = min(self.rows - self.intercept, self.width)
        name = self._state.name
        return Solution(W, b, self.penalty, self.smoothing, "squared", None, name, None, rank)


class _Primal:
    name: Literal["primal", "dual"] = "primal"

    def __init__(self, Z: Tensor, R: Tensor, penalty: float, intercept: bool) -> None:
        self.rows, self.intercept = len(Z), intercept
        self.mean = Z.mean(dim=0) if intercept else Z.new_zeros(Z.shape[1])
        self.centre = R.mean(dim=0) if intercept else R.new_zeros(R.shape[1])
        Zc, Rc = Z - self.mean, R - self.centre
        normal = Zc.T @ Zc
        normal.diagonal().add_(penalty)
        self.inverse = torch.cholesky_inverse(cholesky(normal))
        self.weight = self.inverse @ (Zc.T @ Rc)

    def add(self, row: Tensor, target: Tensor) -> None:
        self.rows += 1
        # Centring makes the new row count as (rows - 1)/rows of its distance from the old mean, squared.
        share = (self.rows - 1) / self.rows if self.intercept else 1.0
        step, aim = row - self.mean, target - self.centre
        reach = self.inverse @ step
        gain = share / (1.0 + share * (step @ reach))
        self.weight = self.weight + gain * torch.outer(reach, aim - step @ self.weight)
        self.inverse = self.inverse - gain * torch.outer(reach, reach)
        if self.intercept:
            self.mean = self.mean + step / self.rows
            self.centre = self.centre + aim / self.rows

    def weights(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.centre - self.mean @ self.weight


class _Dual:
    name: Literal["primal", "dual"] = "dual"

    def __init__(self, Z: Tensor, R: Tensor, penalty: float, intercept: bool) -> None:
        self.penalty, self.intercept, self.targets = penalty, intercept, R
        # With an intercept any fixed origin gives the same weights; the first mean conditions well.
        self.origin = Z.mean(dim=0) if intercept else Z.new_zeros(Z.shape[1])
        self.features = Z - self.origin
        normal = self.features @ self.features.T
        normal.diagonal().add_(penalty)
        self.inverse = torch.cholesky_inverse(cholesky(normal))

    def add(self, row: Tensor, target: Tensor) -> None:
        step = row - self.origin
        link = self.inverse @ (self.features @ step)
        pivot = step @ step + self.penalty - (self.features @ step) @ link
        border = torch.cat([link, link.new_tensor([-1.0])])
        grown = torch.nn.functional.pad(self.inverse, (0, 1, 0, 1))
        self.inverse = grown + torch.outer(border, border) / pivot
        self.features = torch.cat([self.features, step[None]])
        self.targets = torch.cat([self.targets, target[None]])

    def weights(self) -> tuple[Tensor, Tensor]:
        solved = self.inverse @ self.targets
        if not self.intercept:
            return self.features.T @ solved, solved.new_zeros(solved.shape[1])
        ones = self.inverse.sum(dim=1)
        shift = solved.sum(dim=0) / ones.sum()
        W = self.features.T @ (solved - torch.outer(ones, shift))
        return W, shift - self.origin @ W
