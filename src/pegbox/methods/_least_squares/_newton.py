from collections.abc import Callable

import torch
from torch import Tensor

from pegbox.errors import InputError, RunError, UsageError
from pegbox.methods._least_squares._check import as_problem, check_penalty
from pegbox.methods._least_squares._logistic import Logistic
from pegbox.methods._least_squares._solution import Solution
from pegbox.methods._least_squares._spectrum import Spectrum
from pegbox.methods._least_squares._targets import centred, centred_one_hot, margin

# Above this many coordinates Hessian-vector products beat building and factoring the Hessian (measured:
# 1.3x at 256 coordinates, 3x at 770, 10x at 1280).
_DENSE_STEP = 200
_SHORTEST = 0.05
_START_SMOOTHING_SHARE = 0.2


def newton(
    Z: Tensor,
    L: Tensor,
    gold: Tensor,
    *,
    penalty: float,
    intercept: bool = True,
    start: Solution | None = None,
    tolerance: float = 1e-8,
    max_steps: int = 50,
    spectrum: Spectrum | None = None,
) -> Solution:
    """Fit W and b to the labels by the log loss, with the base logits as offset: exact Newton steps.

    Minimises sum_n -log softmax(L + 1b' + ZW)[n, gold_n] + penalty/2 |W|^2 by iteratively reweighted least
    squares (McCullagh & Nelder 1989) with step halving, in the features' row space. A small Hessian
    is factored; beyond that, conjugate gradients on exact Hessian-vector products solve for each step.

    Args:
        Z: (rows, width) features.
        L: (rows, labels) logits of the base.
        gold: (rows,) label indices.
        penalty: Above 0, since separable rows have no optimum otherwise.
        intercept: Whether to fit an unpenalised intercept.
        start: Where to begin; default the ridge solution at the same penalty.
        tolerance: Bound on the gradient's norm over ``Logistic.scale`` = sqrt(rows) |[1 Z]|_F.
        max_steps: Newton steps at the most.
        spectrum: The features' decomposition where it is already known.

    Raises:
        InputError: Features or labels that cannot be used, or an absent label with a free intercept.
        UsageError: A penalty that is not positive.
        RunError: The tolerance was not reached.
    """
    Z, L, gold = as_problem(Z, L, gold)
    check_penalty(penalty, positive=True)
    spectrum = spectrum or Spectrum.of(Z, intercept)
    if spectrum.intercept != intercept:
        raise UsageError(f"the spectrum was computed with intercept={spectrum.intercept}")
    problem = Logistic.of(spectrum, L, gold, penalty)
    A = problem.coordinates(start) if start is not None else _ridge_start(problem)
    A, norm = minimise(problem, A, tolerance, max_steps)
    return problem.solution(A, norm)


def minimise(problem: Logistic, A: Tensor, tolerance: float, max_steps: int) -> tuple[Tensor, float]:
    """Run Newton's method from A (coordinates, labels - 1) or from zero, whichever is lower.

    Returns:
        The optimum and its scaled gradient norm.

    Raises:
        RunError: The tolerance was not reached.
    """
    zero = torch.zeros_like(A)
    if problem.value(zero) < problem.value(A):
        A = zero
    scale, norm = problem.scale, float("inf")
    for _ in range(max_steps + 1):
        probabilities = problem.logits(A).softmax(dim=1)
        gradient = problem.gradient(A, probabilities)
        norm = float(gradient.norm()) / scale
        if norm < tolerance:
            return A, norm
        try:
            step = _newton_step(problem, probabilities, gradient, norm)
        except InputError:  # so sure of its labels that no curvature is left
            A = A + _majorising_step(problem, gradient)
        else:
            A = _halve(problem, A, step, gradient)
    raise RunError(
        f"Newton's method did not converge: gradient norm {norm:.1e} after {max_steps} steps",
        expected=f"below {tolerance:.1e}",
        fix="use a larger penalty, or scale the features",
    )


def _ridge_start(problem: Logistic) -> Tensor:
    labels = problem.contrasts.shape[0]
    gap = margin(_START_SMOOTHING_SHARE * (1 - 1 / labels), labels)
    target = gap * centred_one_hot(problem.one_hot.argmax(dim=1), labels) - centred(problem.offset)
    target = target @ problem.contrasts
    # Columns of the design are orthogonal, so the ridge solution needs no factorisation.
    squares = problem.design.square().sum(dim=0) + problem.penalties
    return (problem.design.T @ target) / squares[:, None]


def _newton_step(problem: Logistic, probabilities: Tensor, gradient: Tensor, norm: float) -> Tensor:
    if problem.size <= _DENSE_STEP:
        factor = problem.factor(probabilities)
        step = torch.cholesky_solve(-gradient.T.reshape(-1, 1), factor)
        return step.reshape(gradient.shape[1], gradient.shape[0]).T
    slope = float((probabilities * (1 - probabilities)).mean())
    squares = problem.design.square().sum(dim=0)
    diagonal = (squares * max(slope, 1e-6) + problem.penalties)[:, None]

    def product(direction: Tensor) -> Tensor:
        return problem.curve(probabilities, direction)

    # Forcing terms that shrink with the gradient keep the outer convergence superlinear.
    return _conjugate_gradients(product, -gradient, diagonal, min(0.1, norm**0.5))


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, diagonal: Tensor, tolerance: float
) -> Tensor:
    answer, rest = torch.zeros_like(target), target.clone()
    scaled = rest / diagonal
    direction, energy = scaled.clone(), float((rest * scaled).sum())
    goal = tolerance * float(target.norm())
    for _ in range(2 * target.numel()):
        curved = product(direction)
        length = energy / float((direction * curved).sum())
        answer += length * direction
        rest -= length * curved
        if float(rest.norm()) <= goal:
            break
        scaled = rest / diagonal
        previous, energy = energy, float((rest * scaled).sum())
        direction = scaled + (energy / previous) * direction
    return answer


def _halve(problem: Logistic, A: Tensor, step: Tensor, gradient: Tensor) -> Tensor:
    """Take as much of the Newton step as lowers the value; else the majorising step."""
    before, slope = problem.value(A), float((gradient * step).sum())
    # Close to the optimum the decrease drowns in rounding; a step that keeps the value is then a good one.
    rounding = 1e-12 * max(1.0, abs(before))
    length = 1.0
    while length > _SHORTEST:
        trial = A + length * step
        if problem.value(trial) <= before + 1e-4 * length * slope + rounding:
            return trial
        length /= 2
    return A + _majorising_step(problem, gradient)


def _majorising_step(problem: Logistic, gradient: Tensor) -> Tensor:
    """Minimise the quadratic that lies above the loss everywhere (Boehning & Lindsay 1988).

    The curvature of a softmax is at most one half in every contrast. Where the base is sure of wrong labels
    the true curvature vanishes and Newton's step leads nowhere, but this one always lowers the value.
    """
    squares = problem.design.square().sum(dim=0)
    return -gradient / (squares / 2 + problem.penalties)[:, None]
