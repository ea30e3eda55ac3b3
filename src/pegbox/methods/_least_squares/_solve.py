from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pegbox.errors import InputError, UsageError, nearest
from pegbox.methods._least_squares._check import as_problem, check_penalty
from pegbox.methods._least_squares._solution import Solution, System, gradient_scale
from pegbox.methods._least_squares._spectrum import SVD_WORK, Spectrum
from pegbox.methods._least_squares._targets import residual

# A Cholesky factor loses as many digits as the condition number has; beyond this, use the SVD.
_CHOLESKY_LIMIT = 1e8
_DISTRUST = 1e12
_NAMES: dict[str, System] = {"primal": "primal", "dual": "dual", "svd": "svd"}


def solve(
    Z: Tensor,
    L: Tensor,
    gold: Tensor,
    *,
    penalty: float,
    smoothing: float,
    intercept: bool = True,
    system: Literal["auto", "primal", "dual", "svd"] = "auto",
    spectrum: Spectrum | None = None,
) -> Solution:
    """Fit W and b to the centred residual by ridge regression (Hoerl & Kennard 1970).

    Minimises |R - 1b' - ZW|^2 + penalty |W|^2 in float64. ``auto`` takes the thin SVD for small or
    ill-conditioned problems, else one Cholesky factor of the smaller normal matrix: ``primal``
    (Z'Z + penalty I, width by width) when rows >= width, ``dual`` (ZZ' + penalty I, rows by rows) otherwise.

    Args:
        Z: (rows, width) features.
        L: (rows, labels) logits of the base; zeros for an encoder without an output layer.
        gold: (rows,) label indices.
        penalty: At least 0. With 0, an ill-posed problem gives the minimum-norm solution and a warning text.
        smoothing: Smoothing of the log targets, in (0, 1 - 1/labels).
        intercept: Whether to fit an unpenalised intercept.
        system: Which equations to solve.
        spectrum: The features' decomposition where it is already known; implies ``svd``.

    Raises:
        InputError: Features or labels that cannot be used, or an ill-posed problem that a Cholesky factor was
            asked to solve (the message gives the condition number).
        UsageError: A penalty or smoothing out of range.
    """
    Z, L, gold = as_problem(Z, L, gold)
    R = residual(gold, L, smoothing)
    check_penalty(penalty)
    if spectrum is not None and spectrum.intercept != intercept:
        raise UsageError(f"the spectrum was computed with intercept={spectrum.intercept}")
    mean, centre = (Z.mean(0), R.mean(0)) if intercept else (Z.new_zeros(Z.shape[1]), R.new_zeros(R.shape[1]))
    Zc, Rc = Z - mean, R - centre
    bound = (float(Zc.square().sum()) + penalty) / penalty if penalty > 0 else float("inf")
    name: System = "svd" if spectrum is not None else _pick(system, Zc, bound)
    rank, warning = min(len(Z) - intercept, Z.shape[1]), ""
    if name == "svd":
        spectrum = spectrum or Spectrum.of(Z, intercept, "svd")
        W, bound, rank = spectrum.solve(R, penalty)[0], spectrum.condition(penalty), spectrum.rank
        warning = ill_posed(bound, penalty, rank, Z.shape[1])
    else:
        W = _SYSTEMS[name](Zc, Rc, penalty)
    gradient = Zc.T @ (Rc - Zc @ W) - penalty * W
    norm = float(gradient.norm()) / gradient_scale(Zc, R, intercept)
    return Solution(W, centre - mean @ W, penalty, smoothing, "squared", norm, name, bound, rank, warning)


def ill_posed(condition: float, penalty: float, rank: int, width: int) -> str:
    """Return a warning where the normal equations do not determine the solution, else an empty text."""
    if condition < _DISTRUST:
        return ""
    if penalty == 0 and rank < width:
        return (
            f"penalty 0 is ill-posed: the features span {rank} of {width} directions; "
            "of all solutions the one of least norm was taken"
        )
    return f"the problem is ill-conditioned (condition number {condition:.1e}); use a larger penalty"


def cholesky(matrix: Tensor) -> Tensor:
    """Return the lower Cholesky factor of a normal matrix.

    Raises:
        InputError: The matrix is singular to working precision; the message gives its condition number.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    diagonal = factor.diagonal()
    if int(info) == 0 and float((diagonal.min() / diagonal.max()).square()) > 1e-14:
        return factor
    values = torch.linalg.eigvalsh(matrix)
    condition = float(values[-1] / values[0].clamp(min=torch.finfo(values.dtype).tiny))
    raise InputError(
        "the normal equations are ill-posed",
        where=f"condition number {condition:.1e}",
        expected="below 1e+14",
        fix="use a larger penalty, or system='svd' for the minimum-norm solution",
    )


def _pick(system: str, Zc: Tensor, bound: float) -> System:
    if system in _NAMES:
        return _NAMES[system]
    if system != "auto":
        valid = ("auto", *_NAMES)
        raise UsageError(f"unknown system '{system}'", expected=", ".join(valid), fix=nearest(system, valid))
    rows, width = Zc.shape
    if bound > _CHOLESKY_LIMIT or rows * width * min(rows, width) < SVD_WORK:
        return "svd"
    return "primal" if rows >= width else "dual"


def _primal(Zc: Tensor, Rc: Tensor, penalty: float) -> Tensor:
    normal = Zc.T @ Zc
    normal.diagonal().add_(penalty)
    return torch.cholesky_solve(Zc.T @ Rc, cholesky(normal))


def _dual(Zc: Tensor, Rc: Tensor, penalty: float) -> Tensor:
    normal = Zc @ Zc.T
    normal.diagonal().add_(penalty)
    return Zc.T @ torch.cholesky_solve(Rc, cholesky(normal))


_SYSTEMS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"primal": _primal, "dual": _dual}
