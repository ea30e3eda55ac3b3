"""Closed form and scikit-learn as solvers on the same cached features."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import _common as common

Array = npt.NDArray[Any]
# Penalties as shares of 10 s_1^2: decades are choose_newton's default grid, 30 points choose_penalty's.
GRIDS = {"decades": 10.0 ** -np.arange(1, 9), "fine": np.logspace(-8, 0, 30), "default": None}


@dataclass(frozen=True)
class Peer:
    """One way to call LogisticRegressionCV.

    Args:
        solver: Its solver.
        scaled: Whether features are standardised first, inside the time.
        dtype: ``float32``, as the cache holds the features, or ``float64``.
        grid: Penalties of the closed form's grids, or scikit-learn's own default.
    """

    solver: str = "lbfgs"
    scaled: bool = False
    dtype: str = "float32"
    grid: str = "decades"

    def __str__(self) -> str:
        grid = {"decades": "8 penalties", "fine": "30 penalties", "default": "own 10 penalties"}[self.grid]
        return f"{self.solver}, {'standardised' if self.scaled else 'as they are'}, {self.dtype}, {grid}"


PEERS = (
    Peer(),
    Peer(dtype="float64"),
    Peer(scaled=True),
    Peer(scaled=True, dtype="float64"),
    Peer("newton-cholesky", dtype="float64"),
    Peer("newton-cholesky", scaled=True, dtype="float64"),
    Peer(grid="fine"),
    Peer(scaled=True, grid="fine"),
    Peer(grid="default"),
    Peer(scaled=True, grid="default"),
)


class Case:
    """A model, a data set and a number of training rows, with features once they are asked for."""

    def __init__(self, model: str, data: str, count: int, test: int | None) -> None:
        import pegbox

        self.model, self.data = model, data
        self.path = common.model_path(model)
        self.base = pegbox.load(self.path)
        task, train = common.task_and_rows(data)
        self.train = common.part(train, count)
        self.test = common.part(common.task_and_rows(data, "test")[1], test)
        self.task = task
        self.prompt = self.base.prepare(task)
        self.gold = torch.tensor(task.gold(self.train))
        self.answers = np.array(task.gold(self.test))

    @cached_property
    def features(self) -> tuple[Any, Any]:
        """The base's features of the training and the test rows."""
        from pegbox.models import extract, output_scale

        # With scale 1 the logits of the features are those that the correction is added to.
        assert output_scale(self.base.module(len(self.task.labels))) == 1.0
        train, test = (
            extract(self.base, self.prompt, self.prompt.encode(rows)) for rows in (self.train, self.test)
        )
        return train, test

    @cached_property
    def lean_base(self) -> Any:
        """The base in bfloat16."""
        import pegbox

        return pegbox.load(self.path, dtype="bfloat16")

    def quality(self, probabilities: Array) -> common.Cell:
        """Accuracy and log-loss on the test rows."""
        own = probabilities[np.arange(len(self.answers)), self.answers]
        return {
            "accuracy": float((probabilities.argmax(1) == self.answers).mean()),
            "nll": float(-np.log(np.maximum(own, 1e-12)).mean()),
        }


def solve_alone(case: Case, loss: str) -> common.Cell:
    """Decompose, choose by leave-one-out and solve: what LogisticRegressionCV.fit does, and no more."""
    # The solver is not public by itself; the public way, measured too, also makes posterior and adapter.
    from pegbox.methods import _least_squares as ls

    train, test = case.features
    started = time.perf_counter()
    Z, L = train.hidden.double(), train.logits.double()
    spectrum = ls.Spectrum.of(Z)
    if loss == "log":
        choice = ls.choose_newton(Z, L, case.gold, spectrum=spectrum)
        solution = ls.newton(Z, L, case.gold, penalty=choice.penalty, spectrum=spectrum)
    else:
        choice = ls.choose_penalty(Z, L, case.gold, spectrum=spectrum)
        penalty, smoothing = choice.penalty, choice.smoothing
        solution = ls.solve(Z, L, case.gold, penalty=penalty, smoothing=smoothing, spectrum=spectrum)
    elapsed = time.perf_counter() - started
    logits = test.logits.double() + test.hidden.double() @ solution.weight + solution.intercept
    return {"seconds": elapsed, "penalty": choice.penalty, **case.quality(logits.softmax(1).numpy())}


def solve_whole(case: Case, loss: Any) -> common.Cell:
    """The public method on cached features: as above, with posterior and LoRA adapter."""
    from pegbox.methods import ClosedForm, Problem

    encoded = case.prompt.encode(case.train)
    problem = Problem(case.base, case.prompt, case.train, case.gold, encoded, 0, None, common.hush)
    problem.__dict__["features"] = case.features[0]
    started = time.perf_counter()
    ClosedForm(loss=loss).solve(problem)
    return {"seconds": time.perf_counter() - started}


def solve_by_sklearn(case: Case, peer: Peer, *, jobs: int) -> common.Cell:
    """LogisticRegressionCV with its usual five folds, scored by log-loss."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler

    train, test = case.features
    X, held = train.hidden.numpy().astype(peer.dtype), test.hidden.numpy().astype(peer.dtype)
    strengths = inverse_penalties(X, peer, len(case.task.labels))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        started = time.perf_counter()
        scaler = StandardScaler().fit(X) if peer.scaled else None
        model = LogisticRegressionCV(
            Cs=strengths,
            l1_ratios=(0,),
            scoring="neg_log_loss",
            solver=peer.solver,
            max_iter=1000,
            n_jobs=jobs,
            use_legacy_attributes=False,
        ).fit(X if scaler is None else scaler.transform(X), case.gold.numpy())
        elapsed = time.perf_counter() - started
    probabilities = model.predict_proba(held if scaler is None else scaler.transform(held))
    unfinished = sum(issubclass(item.category, ConvergenceWarning) for item in caught)
    return {
        "seconds": elapsed,
        "C": float(model.C_),
        "unconverged": unfinished,
        **case.quality(probabilities),
    }


def inverse_penalties(X: Array, peer: Peer, labels: int) -> Any:
    """Return scikit-learn's C for the closed form's penalties on these features.

    Both minimise the summed log-loss; to it the closed form adds penalty/2 |W|^2, scikit-learn |W|^2 / (2 C).
    With two labels scikit-learn fits only the margin v, for which W = (-v/2, v/2) and |W|^2 = |v|^2 / 2.
    """
    shares = GRIDS[peer.grid]
    if shares is None:
        return 10
    centred = X.astype("float64") - X.mean(0)
    if peer.scaled:
        deviation = centred.std(0)
        centred /= np.where(deviation > 0, deviation, 1)
    top = 10 * np.linalg.norm(centred, 2) ** 2
    return np.sort((2 if labels == 2 else 1) / (top * shares))
