from collections.abc import Sequence

import torch
from torch import Tensor

from pegbox.errors import UsageError
from pegbox.methods._least_squares._check import as_problem, check_penalty
from pegbox.methods._least_squares._choose import (
    Choice,
    best_cell,
    choice_of,
    default_penalties,
    further_penalties,
)
from pegbox.methods._least_squares._logistic import DENSE_LIMIT, Logistic, row_blocks
from pegbox.methods._least_squares._newton import minimise
from pegbox.methods._least_squares._solve import cholesky
from pegbox.methods._least_squares._spectrum import Spectrum

_EXTENSIONS = 2
_PATIENCE = 2


def choose_newton(
    Z: Tensor,
    L: Tensor,
    gold: Tensor,
    *,
    penalties: Sequence[float] | None = None,
    intercept: bool = True,
    spectrum: Spectrum | None = None,
    tolerance: float = 1e-6,
) -> Choice:
    """Choose the penalty of ``newton`` by approximate leave-one-out log-loss.

    Each left-out fit is approximated by one Newton step from the full fit (Rad & Maleki 2020), which needs
    only blocks of the inverse Hessian. The fits run from the largest penalty down, each from the one before,
    and by default stop once the loss has risen twice in a row; the best is then refined to a quarter decade.
    When the Hessian is too large to be built, its coupling between labels is dropped, as ``criterion`` says.

    Args:
        Z: (rows, width) features.
        L: (rows, labels) logits of the base.
        gold: (rows,) label indices.
        penalties: Positive penalties; default decades, extended where needed, then quarters of a decade.
        intercept: Whether an unpenalised intercept is fitted.
        spectrum: The features' decomposition where it is already known.
        tolerance: Scaled gradient norm at which each fit stops.

    Raises:
        InputError: Features or labels that cannot be used, or an absent label with a free intercept.
        UsageError: A penalty that is not positive.
        RunError: A fit did not converge.
    """
    Z, L, gold = as_problem(Z, L, gold)
    spectrum = spectrum or Spectrum.of(Z, intercept)
    if spectrum.intercept != intercept:
        raise UsageError(f"the spectrum was computed with intercept={spectrum.intercept}")
    if penalties is None:
        top = default_penalties(spectrum)[-1]
        grid = [top / 10**step for step in range(1, 9)]
    elif len(penalties):
        grid = [check_penalty(p, positive=True) for p in penalties]
    else:
        raise UsageError("no penalties to choose from", expected="at least one number")
    path = _Path(spectrum, L, gold, tolerance)
    cells = _search(path, grid) if penalties is None else path.cells(grid, len(grid))
    size = (spectrum.rank + intercept) * (L.shape[1] - 1)
    kind = "one Newton step per row" if size <= DENSE_LIMIT else "one Newton step per row, labels apart"
    return choice_of(cells, f"approximate leave-one-out ({kind})")


def left_out_logits(problem: Logistic, A: Tensor) -> Tensor:
    """Return each row's logits after one Newton step on the other rows, (rows, labels).

    With M_n the row's block X H^-1 X' and G_n its own curvature, the step moves the row's logits by
    (I - M_n G_n)^-1 M_n (p_n - y_n): the exact Newton step, by Woodbury's identity.

    Args:
        problem: The fit to all rows.
        A: Its optimum, (coordinates, labels - 1).
    """
    logits = problem.logits(A)
    probabilities = logits.softmax(dim=1)
    if problem.size > DENSE_LIMIT:
        return logits + _apart(problem, probabilities)
    blocks = row_blocks(problem.factor(probabilities), problem.design)
    errors = (probabilities - problem.one_hot) @ problem.contrasts
    left = torch.eye(blocks.shape[1]).to(blocks) - blocks @ problem.weights(probabilities)
    moved = torch.linalg.solve(left, blocks @ errors[:, :, None])[:, :, 0]
    return logits + moved @ problem.contrasts.T


def _apart(problem: Logistic, probabilities: Tensor) -> Tensor:
    moved = torch.zeros_like(probabilities)
    # K/(K - 1) makes the blocks exact for two labels, and for any number at equal probabilities.
    share = probabilities.shape[1] / (probabilities.shape[1] - 1)
    for label in range(probabilities.shape[1]):
        weight = share * probabilities[:, label] * (1 - probabilities[:, label])
        hessian = problem.design.T @ (weight[:, None] * problem.design)
        hessian.diagonal().add_(problem.penalties)
        solved = torch.linalg.solve_triangular(cholesky(hessian), problem.design.T, upper=False)
        reach = solved.square().sum(dim=0)
        error = probabilities[:, label] - problem.one_hot[:, label]
        moved[:, label] = reach * error / (1 - reach * weight)
    return moved


class _Path:
    """Left-out losses along a path of penalties, each fit started from the one before."""

    def __init__(self, spectrum: Spectrum, L: Tensor, gold: Tensor, tolerance: float) -> None:
        self.spectrum, self.L, self.gold, self.tolerance = spectrum, L, gold, tolerance
        coordinates = spectrum.rank + int(spectrum.intercept)
        self.last = spectrum.left.new_zeros(coordinates, L.shape[1] - 1)

    def cells(self, penalties: Sequence[float], patience: int) -> Tensor:
        """Return (penalties, 4), from the largest down until the loss has risen ``patience`` times."""
        rows: list[list[float]] = []
        best, risen = float("inf"), 0
        for penalty in sorted(penalties, reverse=True):
            rows.append(self._cell(penalty))
            risen = risen + 1 if rows[-1][2] > best else 0
            best = min(best, rows[-1][2])
            if risen == patience:
                break
        return torch.tensor(rows, dtype=torch.float64)

    def _cell(self, penalty: float) -> list[float]:
        problem = Logistic.of(self.spectrum, self.L, self.gold, penalty)
        self.last, _ = minimise(problem, self.last, self.tolerance, 100)
        drop = left_out_logits(problem, self.last)
        drop = drop - drop.gather(1, self.gold[:, None])
        loss = float(drop.logsumexp(dim=1).mean())
        right = drop.scatter(1, self.gold[:, None], -1.0).amax(dim=1).lt(0.0)
        return [penalty, 0.0, loss, float(right.to(drop.dtype).mean())]


def _search(path: _Path, decades: list[float]) -> Tensor:
    cells = path.cells(decades, _PATIENCE)
    for _ in range(_EXTENSIONS):
        before = best_cell(cells)
        more = further_penalties(cells[:, 0].tolist(), float(before[0]))
        if not more:
            break
        cells = torch.cat([cells, path.cells(more, _PATIENCE)])
        if float(before[2] - best_cell(cells)[2]) < 1e-6:
            break
    for ratio in (10**0.5, 10**0.25):
        penalty = float(best_cell(cells)[0])
        cells = torch.cat([cells, path.cells([penalty * ratio, penalty / ratio], _PATIENCE)])
    return cells
