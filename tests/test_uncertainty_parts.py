"""Second moments, evidence, probabilities, temperature, resuming and sharing."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as processes
from torch import Tensor

from pegbox.errors import InputError, RunError, UsageError
from pegbox.uncertainty import Evidence, Predictive, fit_laplace, fit_temperature, places
from pegbox.uncertainty import _fit as fit_module
from pegbox.uncertainty import _jacobian as jacobian_module
from pegbox.uncertainty import _resume as resume_module
from pegbox.uncertainty._full import Full
from pegbox.uncertainty._kron import Kronecker
from pegbox.uncertainty._roots import exact_roots
from pegbox.uncertainty._svd import RunningSecondMoment
from tuning_toy import hush
from uncertainty_toy import Rows, adapted

GRADES = ("exact", "kron", "ekfac", "diag")


def vectors(count: int, width: int, seed: int = 0, decay: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(-decay * torch.arange(width, dtype=torch.float64))
    return torch.randn(count, width, generator=generator, dtype=torch.float64) * scale


@pytest.mark.parametrize("rank", [None, 20, 6])
@pytest.mark.parametrize("block", [1, 7, 64])
def test_running_second_moments_are_those_of_the_whole(rank: int | None, block: int) -> None:
    """Exact where nothing is cut; with a cut, near the full decomposition of quickly falling values."""
    whole = vectors(64, 20, decay=1.2)
    moment = RunningSecondMoment(20, rank)
    for part in whole.split(block):
        moment.add(part)
    values, directions = moment.eigen()
    wanted = torch.linalg.svdvals(whole).square()[: len(values)]
    torch.testing.assert_close(values, wanted, rtol=1e-8 if rank != 6 else 1e-3, atol=1e-10)
    torch.testing.assert_close(directions.T @ directions, torch.eye(len(values)).double(), atol=1e-8, rtol=0)
    assert moment.trace == pytest.approx(float(whole.square().sum()))
    if rank == 6:
        assert len(values) == 6
        assert (values <= wanted + 1e-9).all(), "what is cut is a lower bound"
    again = RunningSecondMoment(20, rank)
    again.restore(moment.tensors())
    torch.testing.assert_close(again.eigen()[0], values)


def test_evidence_has_its_optimum_where_it_says() -> None:
    values = torch.tensor([50.0, 3.0, 0.2, 0.0]).double()
    found = Evidence(-20.0, 4.0, values)
    best = found.best()
    assert all(found.at(best) >= found.at(best * factor) for factor in (0.5, 0.99, 1.01, 2.0))
    # At the optimum the effective number of parameters is precision times distance (MacKay 1992).
    effective = float((values / (values + best)).sum())
    assert effective == pytest.approx(best * 4.0, rel=1e-4)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="no precision"):
            found.at(wrong)


@pytest.mark.parametrize("labels", [2, 4])
def test_probabilities_against_brute_force(labels: int) -> None:
    root = vectors(labels, labels, seed=1) - vectors(labels, labels, seed=1).mean(0)
    covariance = (root.T @ root).expand(3, labels, labels)
    covariance = covariance - covariance.mean(1, keepdim=True)
    covariance = covariance - covariance.mean(2, keepdim=True)
    found = Predictive(vectors(3, labels, seed=2), covariance)
    drawn = found.draws(200_000, seed=5).softmax(2).mean(0)
    torch.testing.assert_close(found.probabilities(samples=20_000), drawn, rtol=0, atol=6e-3)
    probit = found.probabilities("probit")
    torch.testing.assert_close(probit.sum(1), torch.ones(3).double())
    assert float((probit - drawn).abs().max()) < (0.02 if labels == 2 else 0.13)
    torch.testing.assert_close(found.probabilities("map"), found.mean.softmax(1))
    with pytest.raises(UsageError, match="no way 'bridge'"):
        found.probabilities("bridge")  # type: ignore[arg-type]


def test_without_variance_all_ways_are_the_softmax() -> None:
    mean = torch.tensor([[1.0, -0.5, 0.2], [0.3, 0.1, -torch.inf]])
    found = Predictive(mean, torch.zeros(2, 3, 3))
    for how in ("auto", "probit", "map"):
        torch.testing.assert_close(found.probabilities(how), mean.double().softmax(1))  # type: ignore[arg-type]


def test_temperature_is_where_the_log_loss_is_least() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(400, 3, generator=generator, dtype=torch.float64)
    gold = torch.distributions.Categorical(logits=logits / 2.5).sample()
    found = fit_temperature(logits, gold)
    assert found.value == pytest.approx(2.5, rel=0.2)
    grid = torch.linspace(1, 6, 2001).double()
    losses = [float(-(logits / t).log_softmax(1).gather(1, gold[:, None]).mean()) for t in grid]
    assert found.loss == pytest.approx(min(losses), abs=1e-7)
    assert found.value == pytest.approx(float(grid[int(np.argmin(losses))]), abs=0.01)
    assert fit_temperature(logits[:5], logits[:5].argmax(1)).value == 1.0, "never surer than the model"
    with pytest.raises(InputError, match="no temperature"):
        fit_temperature(logits[:0], gold[:0])
    with pytest.raises(InputError, match="not numbers"):
        fit_temperature(logits * math.nan, gold)


@pytest.mark.parametrize("grade", GRADES)
def test_an_interrupted_fit_goes_on_where_it_was(
    grade: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = adapted(3), Rows(12, 3)
    spots = places(model)
    monkeypatch.setattr(resume_module, "SECONDS", 0.0)
    monkeypatch.setattr(fit_module, "in_batches", lambda *_, **__: [[i, i + 1] for i in range(0, 12, 2)])
    how: dict[str, Any] = {"grade": grade, "precision": 1.0, "say": hush, "rank": None, "roots": "mixed"}
    whole = fit_laplace(model, rows, spots, **how)
    asked: list[int] = []
    stop = 9 if grade == "ekfac" else 4
    monkeypatch.setattr(resume_module, "SECONDS", 0.0 if grade == "kron" else 60.0)
    original = rows.scores

    def dying(inner: Any, batch: dict[str, Tensor]) -> Tensor:
        asked.append(1)
        if len(asked) == stop:
            raise KeyboardInterrupt
        return original(inner, batch)

    monkeypatch.setattr(rows, "scores", dying)
    with pytest.raises(KeyboardInterrupt):
        fit_laplace(model, rows, spots, folder=tmp_path, **how)
    assert len(list(tmp_path.iterdir())) == 1
    before = len(asked)
    resumed = fit_laplace(model, rows, spots, folder=tmp_path, **how)
    passes = 2 if grade == "ekfac" else 1
    assert len(asked) - before == 6 * passes - (stop - 1)
    assert not tmp_path.exists()
    torch.testing.assert_close(resumed.basis.values, whole.basis.values, rtol=1e-9, atol=1e-12)
    assert resumed.log_likelihood == pytest.approx(whole.log_likelihood)


@pytest.mark.parametrize("change", ["labels", "texts", "weights", "context"])
def test_another_fit_does_not_take_up_what_was_left(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = adapted(3), Rows(6, 3)
    monkeypatch.setattr(resume_module, "SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(resume_module.Progress, "done", lambda _: None)
        fit_laplace(model, rows, places(model), precision=1.0, folder=tmp_path, say=hush)
    (left,) = tmp_path.iterdir()
    context = ""
    if change == "labels":
        rows.gold = (rows.gold + 1) % 3
    elif change == "texts":
        rows._texts[0] = rows._texts[0] + 1
    elif change == "weights":
        model = adapted(3, seed=4)
    else:
        context = "another base"
    found = fit_laplace(model, rows, places(model), precision=1.0, context=context, folder=tmp_path, say=hush)
    fresh = fit_laplace(model, rows, places(model), precision=1.0, say=hush)
    assert found.log_likelihood == pytest.approx(fresh.log_likelihood, rel=1e-12)
    torch.testing.assert_close(found.basis.values, fresh.basis.values)
    assert not left.exists()


def test_a_damaged_progress_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = adapted(3), Rows(6, 3)
    monkeypatch.setattr(resume_module, "SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(resume_module.Progress, "done", lambda _: None)
        wanted = fit_laplace(model, rows, places(model), precision=1.0, folder=tmp_path, say=hush)
    (left,) = tmp_path.iterdir()
    left.write_bytes(left.read_bytes()[:50])
    found = fit_laplace(model, rows, places(model), precision=1.0, folder=tmp_path, say=hush)
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood)


def test_three_processes_merge_in_one_order() -> None:
    """With sides that are cut, an order of its own would give each process another basis."""
    model, rows = adapted(3, width=24, rank=4), Rows(30, 3, width=24)
    spots = places(model)
    shares = [[row for row in range(30) if row % 3 == rank] for rank in range(3)]

    def gathered(number: int) -> Kronecker:
        gatherer = Kronecker(exact_values=True, rank=3)
        gatherer._side = lambda width: RunningSecondMoment(width, 3)  # type: ignore[method-assign]
        order = [[row] for row in shares[number]]
        for found in jacobian_module.slopes(model, rows, spots, exact_roots, order=order):
            gatherer.add(found.parts)
        return gatherer

    ranks = [gathered(number) for number in range(3)]
    parts = [one.tensors() for one in ranks]
    for one in ranks:
        one.restore(parts[0])
        one.join(parts[1:])
        one.next_pass()
    first, *others = (one.basis() for one in ranks)
    for other in others:
        assert all(torch.equal(*pair) for pair in zip(first.right, other.right, strict=True))


@pytest.mark.parametrize("fault", ["scores", "gradients"])
def test_modes_are_given_back_while_an_exception_lives(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = adapted(3), Rows(6, 3)
    spots = places(model)
    model.train()
    if fault == "scores":
        with torch.no_grad():
            spots[0].layer.weight.fill_(math.nan)
    else:
        monkeypatch.setattr(
            jacobian_module, "_product", lambda place, *_: torch.full((6, *place.shape), math.inf).double()
        )
    caught = []
    try:
        fit_laplace(model, rows, spots, precision=1.0, say=hush)
    except RunError as error:
        caught.append(error)
    assert ("gradients" in caught[0].what) == (fault == "gradients")
    assert all(module.training for module in model.modules())
    assert all(not module._forward_hooks for module in model.modules())
    assert all(not value.requires_grad for value in model.parameters())


def test_it_works_inside_inference_mode() -> None:
    model, rows = adapted(3), Rows(6, 3)
    spots = places(model)
    with torch.inference_mode():
        inside = fit_laplace(model, rows, spots, precision=1.0, say=hush).predict(model, rows, spots)
    outside = fit_laplace(model, rows, spots, precision=1.0, say=hush).predict(model, rows, spots)
    torch.testing.assert_close(inside.covariance, outside.covariance)


def test_a_row_s_answer_does_not_depend_on_the_rows_beside_it() -> None:
    mean = torch.tensor(
        [[0.5, 0.1, -torch.inf, -torch.inf], [0.2, 0.4, 0.1, 0.0], [0.3, 0.0, 0.2, -torch.inf]]
    )
    root = vectors(4, 4, seed=3)
    covariance = torch.zeros(3, 4, 4, dtype=torch.float64)
    for line, count in enumerate((2, 4, 3)):
        own = root[:, :count] - root[:, :count].mean(1, keepdim=True)
        covariance[line, :count, :count] = own.T @ own
    together = Predictive(mean, covariance).probabilities()
    for line, count in enumerate((2, 4, 3)):
        part = Predictive(mean[line : line + 1, :count], covariance[line : line + 1, :count, :count])
        torch.testing.assert_close(together[line, :count], part.probabilities()[0])
        assert (together[line, count:] == 0).all()


def test_exact_in_float32_keeps_small_curvature() -> None:
    """1,200 rows whose gradients lie mostly along a few directions: what is small is not rounding."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.exp(-0.02 * torch.arange(1500)).double() * 10
    rows = torch.randn(1200, 1500, generator=generator, dtype=torch.float64) * scale
    gatherer = Full(1500, 1200)
    for part in rows.float().split(100):
        gatherer.add([part[:, None, None]])
    basis = gatherer.basis()
    probe = torch.randn(5, 1500, generator=generator, dtype=torch.float64)
    for precision in (10.0, 0.1, 1e-3):
        whole = torch.linalg.inv(rows.T @ rows + precision * torch.eye(1500).double())
        wanted = ((probe @ whole) * probe).sum(1)
        projected = basis.project([probe.float()[:, None, None]]).double()[:, 0]
        rest = (probe.square().sum(1) - projected.square().sum(1)).clamp(min=0)
        found = (projected.square() / (basis.values + precision)).sum(1) + rest / precision
        torch.testing.assert_close(found, wanted, rtol=5e-3, atol=0)


@pytest.mark.parametrize("precision", [10.0, 1.0, 0.1])
def test_a_sketch_neither_shrinks_nor_widens(precision: float) -> None:
    """Variances along rows and far from them, on average over sketches."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(150, 2000, generator=generator, dtype=torch.float64) * 0.3
    far = torch.randn(6, 2000, generator=generator, dtype=torch.float64)
    probe = torch.cat([rows[:6], far])
    gram = rows @ rows.T
    inner = torch.linalg.solve(gram + precision * torch.eye(150).double(), rows @ probe.T)
    wanted = (probe.square().sum(1) - (inner * (rows @ probe.T)).sum(0)) / precision
    ratios = []
    for seed in range(12):
        gatherer = Full(2000, 10**9, length=512, memory=0, seed=seed)
        gatherer.add([rows[:, None, None]])
        basis = gatherer.basis()
        own = basis.precision(precision)
        projected = basis.project([probe[:, None, None]])[:, 0]
        rest = basis.products([probe[:, None, None]])[:, 0, 0] - projected.square().sum(1)
        found = (projected.square() / (basis.values + own)).sum(1) + rest / own
        ratios.append(found / wanted)
    mean = torch.stack(ratios).mean(0)
    torch.testing.assert_close(mean[6:], torch.ones(6).double(), rtol=0.1, atol=0)
    assert float(mean[:6].mean()) == pytest.approx(1.0, abs=0.35)


def _share(rank: int, port: int, folder: str, grade: Any) -> None:
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        model, rows = adapted(3), Rows(11, 3)
        spots = places(model)
        found = fit_laplace(model, rows, spots, grade=grade, precision=1.0, say=hush)
        sure = found.predict(model, rows, spots)
        torch.save({"covariance": sure.covariance, "likelihood": found.log_likelihood}, f"{folder}/{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("grade", ["exact", "ekfac"])
def test_two_processes_find_what_one_does(grade: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes.spawn(_share, (port, str(tmp_path), grade), nprocs=2)  # type: ignore[no-untyped-call]
    model, rows = adapted(3), Rows(11, 3)
    spots = places(model)
    alone = fit_laplace(model, rows, spots, grade=grade, precision=1.0, say=hush)
    wanted = alone.predict(model, rows, spots).covariance
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["covariance"], wanted, rtol=1e-9, atol=1e-12)
        assert found["likelihood"] == pytest.approx(alone.log_likelihood)
