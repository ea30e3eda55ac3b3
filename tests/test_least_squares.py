import math
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from pegbox.errors import CapabilityError, InputError, RunError, UsageError
from pegbox.methods._least_squares import (
    Gram,
    Posterior,
    Spectrum,
    Updatable,
    choose_newton,
    choose_penalty,
    newton,
    residual,
    smoothed_log_targets,
    solve,
    whole_vocabulary,
)
from pegbox.methods._least_squares import _newton_choice as newton_choice
from pegbox.methods._least_squares._logistic import Logistic
from pegbox.methods._least_squares._newton import minimise
from pegbox.methods._least_squares._targets import helmert, margin


def problem(rows: int, width: int, labels: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features off the origin, informative base logits and noisy labels, every label present."""
    make = torch.Generator().manual_seed(seed)
    Z = torch.randn(rows, width, generator=make, dtype=torch.float64) + 1.5
    truth = torch.randn(width, labels, generator=make, dtype=torch.float64) / width**0.5
    L = torch.randn(rows, labels, generator=make, dtype=torch.float64)
    noise = torch.randn(rows, labels, generator=make, dtype=torch.float64)
    gold = (L + 2 * (Z - 1.5) @ truth + noise).argmax(dim=1)
    gold[:labels] = torch.arange(labels)
    return Z, L, gold


def without(row: int, *tensors: Tensor) -> list[Tensor]:
    return [torch.cat([t[:row], t[row + 1 :]]) for t in tensors]


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return float((a - b).abs().max()) <= tolerance


SHAPES = [(40, 7, 3), (12, 30, 4), (25, 24, 2)]


# --- targets ---


def test_smoothed_targets_are_log_probabilities() -> None:
    targets = smoothed_log_targets(torch.tensor([2, 0]), 4, 0.1)
    expected = torch.tensor([[0.1 / 3, 0.1 / 3, 0.9, 0.1 / 3], [0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    assert close(targets.exp(), expected.double(), 1e-7)  # float32 literals


def test_residual_is_the_centred_difference() -> None:
    _, L, gold = problem(9, 3, 5)
    difference = smoothed_log_targets(gold, 5, 0.2) - L
    C = torch.eye(5, dtype=torch.float64) - 0.2
    assert close(residual(gold, L, 0.2), difference @ C, 1e-13)


def test_residual_ignores_a_constant_per_row() -> None:
    Z, L, gold = problem(20, 5, 3)
    moved = L + torch.linspace(-50, 50, 20, dtype=torch.float64)[:, None]
    a, b = (solve(Z, base, gold, penalty=0.3, smoothing=0.05) for base in (L, moved))
    assert close(a.weight, b.weight, 1e-12)  # the offsets of 50 cost two of sixteen digits
    assert close(a.logits(Z, L).softmax(1), b.logits(Z, moved).softmax(1), 1e-12)


def test_helmert_contrasts_are_orthonormal_and_sum_to_zero() -> None:
    B = helmert(6)
    assert close(B.T @ B, torch.eye(5, dtype=torch.float64), 1e-15)
    assert close(B @ B.T, torch.eye(6, dtype=torch.float64) - 1 / 6, 1e-15)


# --- the squared loss ---


@pytest.mark.parametrize(("rows", "width", "labels"), SHAPES)
@pytest.mark.parametrize("intercept", [True, False])
def test_primal_dual_and_svd_agree(rows: int, width: int, labels: int, intercept: bool) -> None:
    Z, L, gold = problem(rows, width, labels)
    fits = [
        solve(Z, L, gold, penalty=0.1, smoothing=0.05, intercept=intercept, system=system)
        for system in ("primal", "dual", "svd", "auto")
    ]
    assert [fit.system for fit in fits[:3]] == ["primal", "dual", "svd"]
    for fit in fits:
        # Condition numbers stay below 1e4 here, so that eleven digits are left.
        assert close(fit.weight, fits[2].weight, 1e-11)
        assert close(fit.intercept, fits[2].intercept, 1e-11)
        assert fit.gradient_norm is not None
        assert fit.gradient_norm < 1e-13
        assert close(fit.weight.sum(dim=1), torch.zeros(width, dtype=torch.float64), 1e-12)
        assert fit.condition is not None
        assert fits[2].condition is not None
        assert fit.condition >= fits[2].condition * (1 - 1e-12)


def test_solution_is_the_textbook_formula() -> None:
    Z, L, gold = problem(30, 6, 3)
    R = residual(gold, L, 0.1)
    W = torch.linalg.inv(Z.T @ Z + 0.7 * torch.eye(6, dtype=torch.float64)) @ Z.T @ R
    fit = solve(Z, L, gold, penalty=0.7, smoothing=0.1, intercept=False)
    assert close(fit.weight, W, 1e-12)
    assert close(fit.logits(Z, L), L + Z @ W, 1e-12)


def test_two_labels_equal_the_margin_system() -> None:
    Z, L, gold = problem(30, 6, 2)
    m = margin(0.1, 2) * (2 * gold.double() - 1) - (L[:, 1] - L[:, 0])
    Zc = Z - Z.mean(0)
    w = torch.linalg.solve(Zc.T @ Zc + 0.4 * torch.eye(6, dtype=torch.float64), Zc.T @ (m - m.mean()))
    fit = solve(Z, L, gold, penalty=0.4, smoothing=0.1)
    assert close(fit.weight[:, 1] - fit.weight[:, 0], w, 1e-12)


def test_order_of_rows_does_not_matter() -> None:
    Z, L, gold = problem(30, 6, 3)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    a = solve(Z, L, gold, penalty=0.4, smoothing=0.1)
    b = solve(Z[order], L[order], gold[order], penalty=0.4, smoothing=0.1)
    assert close(a.weight, b.weight, 1e-12)
    one, two = choose_penalty(Z, L, gold), choose_penalty(Z[order], L[order], gold[order])
    assert math.isclose(one.penalty, two.penalty, rel_tol=1e-9)  # the grid scales with the singular values
    assert math.isclose(one.loss, two.loss, rel_tol=1e-10)


@pytest.mark.parametrize("intercept", [True, False])
def test_equals_gradient_descent(intercept: bool) -> None:
    Z, L, gold = problem(40, 8, 3)
    R = residual(gold, L, 0.1)
    W = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(3, dtype=torch.float64, requires_grad=intercept)
    turned = [W, b] if intercept else [W]
    engine = torch.optim.LBFGS(turned, max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        engine.zero_grad()
        loss = (R - b - Z @ W).square().sum() + 0.5 * W.square().sum()
        loss.backward()
        return loss

    engine.step(closure)
    fit = solve(Z, L, gold, penalty=0.5, smoothing=0.1, intercept=intercept)
    assert float((W.detach() - fit.weight).norm() / fit.weight.norm()) < 1e-4  # METHODS asks for this bound


def test_penalty_zero_gives_the_minimum_norm_solution_and_says_so() -> None:
    Z, L, gold = problem(10, 30, 3)
    fit = solve(Z, L, gold, penalty=0.0, smoothing=0.1, intercept=False)
    assert close(fit.weight, torch.linalg.pinv(Z) @ residual(gold, L, 0.1), 1e-11)
    assert "span 10 of 30 directions" in fit.warning
    assert fit.rank == 10
    for system in ("primal", "dual"):
        with pytest.raises(InputError, match="condition number"):
            solve(
                Z, L, gold, penalty=0.0, smoothing=0.1, system=system
            )  # the intercept makes the dual singular


def test_a_well_posed_penalty_zero_has_no_warning() -> None:
    Z, L, gold = problem(40, 5, 3)
    fit = solve(Z, L, gold, penalty=0.0, smoothing=0.1)
    assert fit.warning == ""
    assert close(fit.weight, solve(Z, L, gold, penalty=0.0, smoothing=0.1, system="primal").weight, 1e-11)


def test_collinear_features_are_named_ill_posed() -> None:
    Z, L, gold = problem(40, 5, 3)
    doubled = torch.cat([Z, Z[:, :1]], dim=1)
    assert "span 5 of 6" in solve(doubled, L, gold, penalty=0.0, smoothing=0.1).warning


def test_an_absent_label_is_allowed() -> None:
    Z, L, gold = problem(20, 5, 3)
    fit = solve(Z, L, gold.clamp(max=1), penalty=0.1, smoothing=0.1)
    assert float(fit.logits(Z, L).softmax(1)[:, 2].mean()) < 0.2


# --- spectrum and leave-one-out ---


@pytest.mark.parametrize("decomposition", ["svd", "gram"])
@pytest.mark.parametrize(("rows", "width", "labels"), SHAPES)
@pytest.mark.parametrize("intercept", [True, False])
def test_leave_one_out_equals_refits(
    rows: int, width: int, labels: int, intercept: bool, decomposition: str
) -> None:
    Z, L, gold = problem(rows, width, labels)
    R = residual(gold, L, 0.1)
    spectrum = Spectrum.of(Z, intercept, decomposition)
    predictions = spectrum.leave_one_out(R, 0.3)
    for row in range(rows):
        rest = Spectrum.of(without(row, Z)[0], intercept)
        W, b = rest.solve(without(row, R)[0], 0.3)
        assert close(predictions[row], Z[row] @ W + b, 1e-9)  # the bound METHODS sets


@pytest.mark.parametrize("intercept", [True, False])
def test_leverage_is_the_diagonal_of_the_hat_matrix(intercept: bool) -> None:
    Z, L, gold = problem(15, 6, 3)
    spectrum = Spectrum.of(Z, intercept)
    hat = torch.stack(
        [sum_of(spectrum.solve(unit[:, None], 0.3), Z) for unit in torch.eye(15).double()], dim=1
    )
    assert close(spectrum.leverage(0.3), hat.diagonal(), 1e-13)
    R = residual(gold, L, 0.1)
    W, b = spectrum.solve(R, 0.3)
    press = R - (R - Z @ W - b) / (1 - hat.diagonal())[:, None]
    assert close(spectrum.leave_one_out(R, 0.3), press, 1e-11)


def sum_of(fit: tuple[Tensor, Tensor], Z: Tensor) -> Tensor:
    return (Z @ fit[0] + fit[1])[:, 0]


def test_leave_one_out_without_penalty_is_refused_where_undefined() -> None:
    Z, L, gold = problem(10, 30, 3)
    with pytest.raises(InputError, match="determines its own prediction"):
        Spectrum.of(Z).leave_one_out(residual(gold, L, 0.1), 0.0)


@pytest.mark.parametrize(("rows", "width", "labels"), SHAPES)
def test_choose_equals_refits_of_every_cell(rows: int, width: int, labels: int) -> None:
    Z, L, gold = problem(rows, width, labels)
    choice = choose_penalty(Z, L, gold, penalties=[0.03, 3.0], smoothings=[0.01, 0.3])
    assert choice.table.shape == (4, 4)
    for penalty, smoothing, loss, accuracy in choice.table.tolist():
        rest = [without(row, Z, L, gold) for row in range(rows)]
        fits = [solve(z, b, g, penalty=penalty, smoothing=smoothing) for z, b, g in rest]
        logits = torch.stack([fit.logits(Z[i], L[i]) for i, fit in enumerate(fits)])
        assert abs(float(torch.nn.functional.cross_entropy(logits, gold)) - loss) < 1e-9
        assert abs(float((logits.argmax(1) == gold).double().mean()) - accuracy) < 1e-12
    best = choice.table[choice.table[:, 2].argmin()].tolist()
    assert best == [choice.penalty, choice.smoothing, choice.loss, choice.accuracy]


def test_choose_in_blocks_of_penalties_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Z, L, gold = problem(30, 6, 3)
    whole = choose_penalty(Z, L, gold)
    monkeypatch.setattr("pegbox.methods._least_squares._choose._BLOCK", 1)
    assert close(choose_penalty(Z, L, gold).table, whole.table, 1e-12)


def test_choose_extends_a_default_grid_but_not_a_given_one() -> None:
    make = torch.Generator().manual_seed(3)
    Z = torch.randn(60, 40, generator=make, dtype=torch.float64)
    gold = torch.arange(60) % 2  # labels that no feature explains: no penalty is large enough
    L = torch.zeros(60, 2, dtype=torch.float64)
    top = float(Spectrum.of(Z).values[0]) ** 2
    assert choose_penalty(Z, L, gold, smoothings=[0.1]).penalty > 10 * top
    given = choose_penalty(Z, L, gold, penalties=[0.01 * top, 0.1 * top], smoothings=[0.1])
    assert given.penalty == 0.1 * top
    assert "penalty highest" in given.edges


def test_choose_improves_on_a_fixed_guess_and_keeps_a_perfect_base() -> None:
    Z, L, gold = problem(80, 20, 3)
    base = float(torch.nn.functional.cross_entropy(L, gold))
    assert choose_penalty(Z, L, gold).loss < base
    certain = 12.0 * torch.nn.functional.one_hot(gold, 3).double()
    kept = choose_penalty(Z, certain, gold)
    assert kept.accuracy == 1.0


def test_gram_decomposition_agrees_with_svd() -> None:
    for shape in SHAPES:
        Z, L, gold = problem(*shape)
        a, b = (choose_penalty(Z, L, gold, spectrum=Spectrum.of(Z, True, kind)) for kind in ("svd", "gram"))

        assert math.isclose(a.penalty, b.penalty, rel_tol=1e-9)
        assert math.isclose(a.loss, b.loss, rel_tol=1e-8)


# --- streaming ---


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("penalty", [0.2, 0.0])
def test_streaming_equals_one_shot(intercept: bool, penalty: float) -> None:
    Z, L, gold = problem(200, 9, 3)
    Z = Z + 1000.0 * intercept  # features far from the origin lose digits where sums are not centred
    R = residual(gold, L, 0.1)
    gram = Gram(9, 3, smoothing=0.1, intercept=intercept)
    for start, stop in ((0, 1), (1, 50), (50, 51), (51, 200)):
        gram.update(Z[start:stop], R[start:stop])
    fit = gram.solve(penalty)
    one = solve(Z, L, gold, penalty=penalty, smoothing=0.1, intercept=intercept)
    assert fit.system == "stream"
    assert close(fit.weight, one.weight, 1e-10)
    assert close(fit.logits(Z, L), one.logits(Z, L), 1e-10)
    assert fit.gradient_norm is not None
    assert fit.gradient_norm < 1e-12
    assert fit.warning == ""


def test_streaming_memory_does_not_grow_with_rows() -> None:
    gram = Gram(5, 2, smoothing=0.1)
    for seed in range(3):
        Z, L, gold = problem(50, 5, 2, seed)
        gram.update(Z, residual(gold, L, 0.1))
    assert gram.moments.shape == (5, 7)
    assert gram.rows == 150


def test_streaming_refuses_blocks_that_do_not_fit() -> None:
    gram = Gram(5, 2, smoothing=0.1)
    with pytest.raises(UsageError, match="no rows were added"):
        gram.solve(1.0)
    with pytest.raises(InputError, match="does not fit the accumulated sums"):
        gram.update(torch.zeros(3, 4), torch.zeros(3, 2))
    gram.update(torch.ones(3, 5), torch.ones(3, 2))
    gram.all_reduce()  # no process group: nothing to sum
    assert "ill-posed" in gram.solve(0.0).warning


def rank_worker(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    Z, L, gold = problem(60, 6, 3)
    R = residual(gold, L, 0.1)
    mine = slice(0, 17) if rank == 0 else slice(17, 60)
    gram = reduced(Z[mine], R[mine])
    one = solve(Z, L, gold, penalty=0.2, smoothing=0.1)
    assert gram.rows == 60
    assert close(gram.solve(0.2).weight, one.weight, 1e-10)
    assert close(gram.solve(0.2).intercept, one.intercept, 1e-10)
    assert abs(gram.squares - float((R - R.mean(0)).square().sum())) < 1e-9
    torch.distributed.destroy_process_group()


def test_streaming_sums_over_threads_that_stand_for_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    meet, slots = threading.Barrier(2, timeout=30), {}

    def all_reduce(values: Tensor) -> None:
        slots[threading.get_ident()] = values.clone()
        meet.wait()
        total = torch.stack(list(slots.values())).sum(dim=0)
        meet.wait()
        values.copy_(total)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    Z, L, gold = problem(60, 6, 3)
    R = residual(gold, L, 0.1)
    with ThreadPoolExecutor(2) as pool:
        grams = list(pool.map(lambda part: reduced(Z[part], R[part]), (slice(0, 17), slice(17, 60))))
    one = solve(Z, L, gold, penalty=0.2, smoothing=0.1)
    for gram in grams:
        assert gram.rows == 60
        assert close(gram.solve(0.2).weight, one.weight, 1e-10)
        assert close(gram.solve(0.2).intercept, one.intercept, 1e-10)
        assert abs(gram.squares - float((R - R.mean(0)).square().sum())) < 1e-9


def reduced(Z: Tensor, R: Tensor) -> Gram:
    gram = Gram(6, 3, smoothing=0.1)
    gram.update(Z, R)
    gram.all_reduce()
    return gram


@pytest.mark.slow  # two interpreters that import torch: up to 17 s on a busy machine
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_streaming_sums_over_ranks() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.start_processes(rank_worker, args=(port,), nprocs=2, start_method="spawn")


# --- the log loss ---


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("intercept", [True, False])
def test_newton_equals_scikit_learn(labels: int, intercept: bool) -> None:
    Z, L, gold = problem(80, 12, labels)
    fit = newton(Z, torch.zeros_like(L), gold, penalty=0.5, intercept=intercept)
    # scikit-learn minimises C * loss + |w|^2/2; for two labels its one w is our difference, |w|^2 = 2|W|^2.
    C = (2 if labels == 2 else 1) / 0.5
    other = LogisticRegression(C=C, tol=1e-12, max_iter=10000, fit_intercept=intercept, solver="newton-cg")
    other.fit(Z.numpy(), gold.numpy())
    assert fit.gradient_norm is not None
    assert fit.gradient_norm < 1e-8
    ours = fit.logits(Z, torch.zeros_like(L)).softmax(1)
    assert close(ours, torch.from_numpy(other.predict_proba(Z.numpy())), 1e-6)  # scikit-learn's own tolerance
    if labels > 2:
        assert close(fit.weight, torch.from_numpy(other.coef_.T), 1e-5)


@pytest.mark.parametrize(("rows", "width", "labels"), SHAPES)
def test_newton_with_offset_equals_scipy(rows: int, width: int, labels: int) -> None:
    Z, L, gold = problem(rows, width, labels)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        packed = torch.from_numpy(flat.copy()).reshape(width + 1, labels).requires_grad_()
        logits = L + Z @ packed[:width] + packed[width]
        loss = torch.nn.functional.cross_entropy(logits, gold, reduction="sum")
        loss = loss + 0.25 * packed[:width].square().sum()
        loss.backward()
        assert packed.grad is not None
        return float(loss.detach()), packed.grad.numpy().ravel()

    start = np.zeros((width + 1) * labels)
    options = {"gtol": 1e-10, "ftol": 1e-16, "maxiter": 20000, "maxfun": 50000}
    other = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    fit = newton(Z, L, gold, penalty=0.5)
    W = torch.from_numpy(other.x.reshape(width + 1, labels)[:width])
    assert close(fit.weight, W, 1e-5)  # L-BFGS stops short of the last digits
    assert objective(torch.cat([fit.weight, fit.intercept[None]]).numpy().ravel())[0] <= other.fun + 1e-9
    assert (fit.loss, fit.system, fit.smoothing) == ("log", "newton", 0.0)


def test_newton_by_conjugate_gradients_equals_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Z, L, gold = problem(60, 30, 5)
    monkeypatch.setattr("pegbox.methods._least_squares._newton._DENSE_STEP", 1000)
    dense = newton(Z, L, gold, penalty=0.1)
    monkeypatch.setattr("pegbox.methods._least_squares._newton._DENSE_STEP", 0)
    free = newton(Z, L, gold, penalty=0.1)
    assert free.gradient_norm is not None
    assert free.gradient_norm < 1e-8
    assert close(free.weight, dense.weight, 1e-5)  # gradient 1e-8 * scale over a penalty of 0.1


def test_newton_starts_anywhere() -> None:
    Z, L, gold = problem(40, 7, 3)
    cold = newton(Z, L, gold, penalty=0.1)
    warm = newton(Z, L, gold, penalty=0.1, start=newton(Z, L, gold, penalty=10.0))
    far = solve(Z, L, gold, penalty=1e-6, smoothing=1e-6)
    far = newton(Z, L, gold, penalty=0.1, start=far)
    assert close(warm.weight, cold.weight, 1e-6)
    assert close(far.weight, cold.weight, 1e-6)


def test_newton_is_invariant_to_a_constant_per_row() -> None:
    Z, L, gold = problem(40, 7, 3)
    moved = L + torch.linspace(-9, 9, 40, dtype=torch.float64)[:, None]
    assert close(newton(Z, L, gold, penalty=0.1).weight, newton(Z, moved, gold, penalty=0.1).weight, 1e-9)


def test_newton_refuses_problems_without_an_optimum() -> None:
    Z, L, gold = problem(20, 5, 3)
    with pytest.raises(InputError, match="label 2 has no row"):
        newton(Z, L, gold.clamp(max=1), penalty=0.1)
    newton(Z, L, gold.clamp(max=1), penalty=0.1, intercept=False)
    with pytest.raises(UsageError, match="penalty 0"):
        newton(Z, L, gold, penalty=0.0)
    with pytest.raises(RunError, match="did not converge: gradient norm"):
        newton(Z, L, gold, penalty=0.1, max_steps=0)


def test_one_newton_step_per_row_is_what_the_blocks_give() -> None:
    Z, L, gold = problem(15, 5, 3)
    spectrum = Spectrum.of(Z)
    whole = Logistic.of(spectrum, L, gold, 0.5)
    A, _ = minimise(whole, torch.zeros(6, 2, dtype=torch.float64), 1e-12, 50)
    predicted = newton_choice.left_out_logits(whole, A)
    for row in range(15):
        part = Logistic(
            *without(row, whole.design, whole.offset, whole.one_hot),
            whole.contrasts,
            whole.penalties,
            spectrum,
        )
        p = part.logits(A).softmax(1)
        step = torch.cholesky_solve(-part.gradient(A, p).T.reshape(-1, 1), part.factor(p)).reshape(2, 6).T
        assert close(whole.logits(A + step)[row], predicted[row], 1e-9)


@pytest.mark.parametrize(("rows", "width", "labels"), [(60, 7, 3), (40, 60, 4), (50, 10, 2)])
def test_choose_newton_is_near_real_refits(rows: int, width: int, labels: int) -> None:
    Z, L, gold = problem(rows, width, labels)
    grid = [10.0, 100.0]
    choice = choose_newton(Z, L, gold, penalties=grid)
    apart = choose_newton_apart(Z, L, gold, grid)
    for penalty, cell, rough in zip(grid, choice.table, apart, strict=True):
        refits = [newton(*without(row, Z, L, gold), penalty=penalty) for row in range(rows)]
        logits = torch.stack([fit.logits(Z[i], L[i]) for i, fit in enumerate(refits)])
        exact = float(torch.nn.functional.cross_entropy(logits, gold))
        # One Newton step per row: measured within 0.7 % here (2 and 14 % at penalties of 1 and 0.1).
        assert abs(float(cell[2]) - exact) < 0.01 * exact
        # Dropping the coupling between labels costs more: measured within 1.8 %, and nothing for two labels.
        assert abs(float(rough[2]) - exact) < (0.03 * exact if labels > 2 else 0.01 * exact)


def choose_newton_apart(Z: Tensor, L: Tensor, gold: Tensor, grid: list[float]) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newton_choice, "DENSE_LIMIT", 0)
        choice = choose_newton(Z, L, gold, penalties=grid)
    assert "labels apart" in choice.criterion
    return choice.table


def test_choose_newton_extends_its_grid_and_beats_the_base() -> None:
    Z, L, gold = problem(60, 20, 3)
    choice = choose_newton(Z, L, gold)
    assert choice.loss < float(torch.nn.functional.cross_entropy(L, gold))
    assert choice.smoothing == 0.0
    make = torch.Generator().manual_seed(3)
    noise = torch.randn(40, 30, generator=make, dtype=torch.float64)
    chance = choose_newton(noise, torch.zeros(40, 2), torch.arange(40) % 2)
    assert chance.penalty > 0.1 * float(Spectrum.of(noise).values[0]) ** 2


# --- posterior ---


@pytest.mark.parametrize(("rows", "width", "labels"), SHAPES)
@pytest.mark.parametrize("intercept", [True, False])
def test_squared_posterior_equals_brute_force(rows: int, width: int, labels: int, intercept: bool) -> None:
    Z, L, gold = problem(rows, width, labels)
    new = problem(5, width, labels, seed=9)
    fit = solve(Z, L, gold, penalty=0.8, smoothing=0.1, intercept=intercept)
    posterior = Posterior.of(fit, Z, L, gold, intercept=intercept)
    ones = torch.ones(rows, 1, dtype=torch.float64)
    X = torch.cat([Z, ones], 1) if intercept else Z
    x = torch.cat([new[0], ones[:5]], 1) if intercept else new[0]
    prior = torch.full((X.shape[1],), 0.8, dtype=torch.float64)
    prior[width:] = 0.0
    spread = posterior.noise * (x @ torch.linalg.inv(X.T @ X + prior.diag()) @ x.T).diagonal()
    C = torch.eye(labels, dtype=torch.float64) - 1 / labels
    mean, covariance = posterior.predictive(new[0], new[1])
    assert close(covariance, spread[:, None, None] * C, 1e-8)  # the bare inverse has condition numbers to 1e4
    assert close(mean, fit.logits(new[0], new[1]), 1e-14)


@pytest.mark.parametrize("intercept", [True, False])
def test_squared_evidence_equals_the_gaussian_density(intercept: bool) -> None:
    Z, L, gold = problem(14, 6, 3)
    fit = solve(Z, L, gold, penalty=0.8, smoothing=0.1, intercept=intercept)
    posterior = Posterior.of(fit, Z, L, gold, intercept=intercept)
    targets = residual(gold, L, 0.1) @ helmert(3)
    # A flat intercept leaves the density of the rows' own contrasts.
    Q = helmert(14) if intercept else torch.eye(14, dtype=torch.float64)
    shape = torch.eye(Q.shape[1], dtype=torch.float64) + (Q.T @ Z) @ (Q.T @ Z).T / 0.8
    seen = (Q.T @ targets).numpy()

    def density(noise: float) -> float:
        law = multivariate_normal(np.zeros(len(seen)), noise * shape.numpy())
        return sum(float(law.logpdf(seen[:, k])) for k in range(2))

    assert math.isclose(posterior.evidence, density(posterior.noise), rel_tol=1e-10)
    assert density(posterior.noise) > max(density(0.95 * posterior.noise), density(1.05 * posterior.noise))


def test_evidence_prefers_a_sensible_penalty() -> None:
    Z, L, gold = problem(400, 20, 3)

    def evidence(penalty: float) -> float:
        return Posterior.of(solve(Z, L, gold, penalty=penalty, smoothing=0.1), Z, L, gold).evidence

    assert evidence(30.0) > max(evidence(1e-2), evidence(1e5))


@pytest.mark.parametrize(("rows", "width", "labels"), [(40, 5, 3), (8, 12, 3), (30, 4, 2)])
@pytest.mark.parametrize("intercept", [True, False])
def test_laplace_equals_autograd_hessian(rows: int, width: int, labels: int, intercept: bool) -> None:
    Z, L, gold = problem(rows, width, labels)
    new = problem(4, width, labels, seed=9)
    fit = newton(Z, L, gold, penalty=0.6, intercept=intercept, tolerance=1e-12)
    posterior = Posterior.of(fit, Z, L, gold, intercept=intercept)
    B = helmert(labels)
    count = labels - 1

    def logits(flat: Tensor, features: Tensor, base: Tensor) -> Tensor:
        A = flat.reshape(width + intercept, count)
        return base + features @ A[:width] @ B.T + (B @ A[width] if intercept else 0.0)

    def objective(flat: Tensor) -> Tensor:
        loss = torch.nn.functional.cross_entropy(logits(flat, Z, L), gold, reduction="sum")
        return loss + 0.3 * flat[: width * count].square().sum()

    best = fit.weight @ B
    best = (torch.cat([best, (fit.intercept @ B)[None]]) if intercept else best).ravel()
    hessian = torch.autograd.functional.hessian(objective, best)
    jacobian = torch.autograd.functional.jacobian(lambda flat: logits(flat, new[0], new[1]), best)
    expected = jacobian @ torch.linalg.inv(hessian) @ jacobian.mT
    assert close(posterior.predictive(new[0], new[1])[1], expected, 1e-8)
    size = width * count
    log_prior = 0.5 * size * math.log(0.6) - 0.5 * size * math.log(2 * math.pi)
    evidence = -float(objective(best)) + log_prior + 0.5 * len(best) * math.log(2 * math.pi)
    evidence -= 0.5 * float(torch.linalg.slogdet(hessian).logabsdet)
    assert math.isclose(posterior.evidence, evidence, rel_tol=1e-9)


def test_binary_probabilities_are_exact_integrals() -> None:
    Z, L, gold = problem(30, 5, 2)
    posterior = Posterior.of(newton(Z, L, gold, penalty=0.5), Z, L, gold)
    mean, covariance = posterior.predictive(Z, L)
    probabilities = posterior.probabilities(Z, L)
    for row in range(0, 30, 6):
        centre = float(mean[row, 1] - mean[row, 0])
        C = covariance[row]
        sd = math.sqrt(float(C[0, 0] + C[1, 1] - 2 * C[0, 1]))

        def integrand(x: float, centre: float = centre, sd: float = sd) -> float:
            return math.exp(-x * x / 2) / math.sqrt(2 * math.pi) / (1 + math.exp(-centre - sd * x))

        assert abs(quad(integrand, -12, 12)[0] - float(probabilities[row, 1])) < 1e-6  # 100 nodes, sd up to 2
    assert close(probabilities.sum(1), torch.ones(30, dtype=torch.float64), 1e-14)


def test_sampled_probabilities_are_seeded_and_near_a_large_sample() -> None:
    Z, L, gold = problem(30, 5, 3)
    posterior = Posterior.of(newton(Z, L, gold, penalty=0.5), Z, L, gold)
    probabilities = posterior.probabilities(Z, L, seed=1)
    assert torch.equal(probabilities, posterior.probabilities(Z, L, seed=1))
    assert close(probabilities[7:9], posterior.probabilities(Z[7:9], L[7:9], seed=1), 1e-14)
    mean, covariance = posterior.predictive(Z, L)
    draws = np.random.default_rng(0).multivariate_normal(mean[3], covariance[3] + 1e-12 * np.eye(3), 200_000)
    large = torch.from_numpy(draws).softmax(1).mean(0)
    # The standard error of 1024 antithetic draws is at most 0.5/sqrt(1024) = 0.016; three of them.
    assert close(probabilities[3], large, 0.047)


def test_uncertainty_grows_away_from_the_rows_and_softens_answers() -> None:
    Z, L, gold = problem(30, 5, 3)
    for fit in (newton(Z, L, gold, penalty=0.5), solve(Z, L, gold, penalty=0.5, smoothing=0.1)):
        posterior = Posterior.of(fit, Z, L, gold)
        far = Z + 30.0
        near_spread = posterior.predictive(Z, L)[1].diagonal(dim1=1, dim2=2).mean()
        assert posterior.predictive(far, L)[1].diagonal(dim1=1, dim2=2).mean() > 10 * near_spread
        sure = fit.logits(far, L).softmax(1).amax(1).mean()
        assert posterior.probabilities(far, L).amax(1).mean() < sure


@pytest.mark.parametrize("loss", ["squared", "log"])
def test_posterior_round_trip(loss: str) -> None:
    Z, L, gold = problem(20, 30, 3)
    fit = newton(Z, L, gold, penalty=0.5) if loss == "log" else solve(Z, L, gold, penalty=0.5, smoothing=0.1)
    posterior = Posterior.of(fit, Z, L, gold)
    tensors = posterior.tensors()
    assert all(t.dtype == torch.float64 and t.is_contiguous() for t in tensors.values())
    again = Posterior.from_tensors(tensors)
    assert again.loss == loss
    assert again.evidence == posterior.evidence
    assert torch.equal(again.probabilities(Z, L), posterior.probabilities(Z, L))
    del tensors["basis"]
    with pytest.raises(InputError, match="missing: basis"):
        Posterior.from_tensors(tensors)


def test_posterior_limits_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Z, L, gold = problem(30, 5, 3)
    with pytest.raises(UsageError, match="needs a prior"):
        Posterior.of(solve(Z, L, gold, penalty=0.0, smoothing=0.1), Z, L, gold)
    fit = newton(Z, L, gold, penalty=0.5)
    monkeypatch.setattr("pegbox.methods._least_squares._logistic.DENSE_LIMIT", 3)
    with pytest.raises(CapabilityError, match="has 12 coordinates"):
        Posterior.of(fit, Z, L, gold)


# --- one more label ---


@pytest.mark.parametrize("system", ["primal", "dual"])
@pytest.mark.parametrize(("rows", "width", "labels"), SHAPES)
@pytest.mark.parametrize("intercept", [True, False])
def test_added_rows_equal_a_refit(rows: int, width: int, labels: int, intercept: bool, system: str) -> None:
    Z, L, gold = problem(rows, width, labels)
    start = rows - 5
    gold[:labels] = torch.arange(labels)
    settings = {"penalty": 0.2, "smoothing": 0.1, "intercept": intercept}
    growing = Updatable(Z[:start], L[:start], gold[:start], system=system, **settings)
    for row in range(start, rows):
        growing.add_row(Z[row], L[row], int(gold[row]))
        refit = solve(Z[: row + 1], L[: row + 1], gold[: row + 1], **settings)
        assert close(growing.solution.weight, refit.weight, 1e-8)  # the bound the issue sets
        assert close(growing.solution.intercept, refit.intercept, 1e-8)
    assert growing.solution.system == system
    assert growing.rows == rows


def test_a_row_that_does_not_fit_is_refused() -> None:
    Z, L, gold = problem(20, 5, 3)
    growing = Updatable(Z, L, gold, penalty=0.2, smoothing=0.1)
    with pytest.raises(InputError, match="does not fit the fit"):
        growing.add_row(Z[0, :4], L[0], 0)
    with pytest.raises(InputError, match="features are not finite"):
        growing.add_row(Z[0] * math.nan, L[0], 0)
    with pytest.raises(InputError, match="gold label 3 is out of range"):
        growing.add_row(Z[0], L[0], 3)


# --- the whole vocabulary ---


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("block", [7, 1000])
def test_whole_vocabulary_equals_solve_on_all_columns(intercept: bool, block: int) -> None:
    Z, L, gold = problem(30, 8, 20)
    widest = 0

    def base(start: int, stop: int) -> Tensor:
        nonlocal widest
        widest = max(widest, stop - start)
        return L[:, start:stop]

    settings = {"penalty": 0.3, "smoothing": 0.1, "intercept": intercept}
    fit = whole_vocabulary(Z, base, gold, 20, block=block, **settings)
    one = solve(Z, L, gold, **settings)
    assert widest == min(block, 20)
    assert close(fit.weight(), one.weight, 1e-11)
    assert close(fit.intercept, one.intercept, 1e-11)
    assert close(L[:, 3:9] + fit.correction(Z, 3, 9), one.logits(Z, L)[:, 3:9], 1e-11)


def test_whole_vocabulary_refuses_blocks_of_the_wrong_shape() -> None:
    Z, L, gold = problem(10, 4, 6)
    with pytest.raises(InputError, match="tokens 0 to 4"):
        whole_vocabulary(Z, lambda _a, _b: L, gold, 6, penalty=1.0, smoothing=0.1, block=4)


# --- bad input ---


def test_bad_input_is_named() -> None:
    Z, L, gold = problem(10, 4, 3)

    def refuse(
        match: str, *, z: Tensor = Z, base: Tensor = L, labels: Tensor = gold, **settings: object
    ) -> None:
        with pytest.raises(UsageError, match=match):
            solve(z, base, labels, **({"penalty": 1.0, "smoothing": 0.1} | settings))

    broken = Z.clone()
    broken[6, 2] = math.nan
    refuse(r"feature is nan \(row 7 of 10, column 3", z=broken)
    refuse("base logit is inf", base=L + math.inf)
    refuse("holds? one class only|one class only", labels=torch.zeros(10, dtype=torch.long))
    refuse("1 row, all of label", z=Z[:1], base=L[:1], labels=gold[:1], system="dual")
    refuse("no features to solve for", z=Z[:0], base=L[:0], labels=gold[:0])
    refuse("features are not a matrix", z=Z[0])
    refuse("different numbers of rows", z=Z[:9])
    refuse("gold label 3 is out of range", labels=gold.clamp(min=1) + 1)
    refuse("gold labels do not fit", labels=gold.double())
    refuse("penalty -1.0 is not usable", penalty=-1.0)
    refuse("penalty nan is not usable", penalty=math.nan)
    refuse(r"smoothing 0.7 is not usable for 3 labels", smoothing=0.7)
    refuse("smoothing 0", smoothing=0)
    refuse("did you mean 'primal'", system="primel")
    refuse("computed with intercept=True", intercept=False, spectrum=Spectrum.of(Z))


def test_bad_grids_are_named() -> None:
    Z, L, gold = problem(10, 4, 3)
    with pytest.raises(UsageError, match="no penalties to choose from"):
        choose_penalty(Z, L, gold, penalties=[])
    with pytest.raises(UsageError, match="penalty 0"):
        choose_penalty(Z, L, gold, penalties=[0.0, 1.0])
    with pytest.raises(UsageError, match="no penalties to choose from"):
        choose_newton(Z, L, gold, penalties=[])
    with pytest.raises(InputError, match="all rows have the same features"):
        choose_penalty(torch.ones(10, 4), L, gold)
    with pytest.raises(UsageError, match="computed from other rows"):
        choose_penalty(Z, L, gold, spectrum=Spectrum.of(Z[:9]))


def test_any_float_type_is_solved_in_float64() -> None:
    Z, L, gold = problem(30, 6, 3)
    rounded = solve(Z.bfloat16(), L.float(), gold.int(), penalty=0.5, smoothing=0.1)
    exact = solve(Z.bfloat16().double(), L.float().double(), gold, penalty=0.5, smoothing=0.1)
    assert rounded.weight.dtype == torch.float64
    assert torch.equal(rounded.weight, exact.weight)
    assert rounded.logits(Z.bfloat16(), L.float()).dtype == torch.float64


def test_repeated_rows_and_large_features_are_solved() -> None:
    Z, L, gold = problem(30, 60, 3)
    Z, L, gold = (torch.cat([t, t]) for t in (1e4 * Z, L, gold))
    choice = choose_penalty(Z, L, gold)
    fit = solve(Z, L, gold, penalty=choice.penalty, smoothing=choice.smoothing)
    assert fit.rank == 29  # thirty different rows, less the mean
    assert bool(torch.isfinite(fit.weight).all())
    # The twin of a left-out row is still there, so that almost every row is predicted right.
    assert choice.accuracy > 0.9
    assert newton(Z, L, gold, penalty=choice.penalty).gradient_norm < 1e-8


def test_newton_recovers_from_a_base_that_is_sure_of_the_wrong_label() -> None:
    """The curvature of the free intercept all but vanishes at such logits, and plain Newton diverges."""
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(400, 20, generator=generator, dtype=torch.float64)
    gold = (Z[:, 0] > 1).long()
    for gap in (11.0, 40.0):
        L = torch.tensor([0.0, gap], dtype=torch.float64).expand(400, 2)
        solution = newton(Z, L, gold, penalty=5.0)
        fresh = newton(Z, torch.zeros_like(L), gold, penalty=5.0)
        assert solution.gradient_norm is not None
        assert solution.gradient_norm < 1e-8
        # The free intercept takes up a constant offset, so both have the same optimum.
        torch.testing.assert_close(solution.weight, fresh.weight, atol=1e-7, rtol=0)
        assert choose_newton(Z, L, gold).loss < 0.4
