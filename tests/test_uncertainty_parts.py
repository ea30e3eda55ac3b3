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

from pegbox.errors import InputError, UsageError
from pegbox.uncertainty import Evidence, Predictive, fit_laplace, fit_temperature, places
from pegbox.uncertainty import _fit as fit_module
from pegbox.uncertainty import _resume as resume_module
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
    # One more than the batches left tells how many answers a row has.
    assert len(asked) - before == 1 + 6 * passes - (stop - 2)
    assert not list(tmp_path.iterdir())
    torch.testing.assert_close(resumed.basis.values, whole.basis.values, rtol=1e-9, atol=1e-12)
    assert resumed.log_likelihood == pytest.approx(whole.log_likelihood)


def test_another_fit_does_not_take_up_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = adapted(3), Rows(6, 3)
    spots = places(model)
    monkeypatch.setattr(resume_module, "SECONDS", 0.0)
    monkeypatch.setattr(resume_module.Progress, "done", lambda _: None)
    one = fit_laplace(model, rows, spots, precision=1.0, folder=tmp_path, say=hush)
    other = adapted(3, seed=4)
    found = fit_laplace(other, rows, places(other), precision=1.0, folder=tmp_path, say=hush)
    fresh = fit_laplace(other, rows, places(other), precision=1.0, say=hush)
    torch.testing.assert_close(found.basis.values, fresh.basis.values)
    assert not torch.allclose(found.basis.values, one.basis.values)
    (left, _) = sorted(tmp_path.iterdir())
    left.write_bytes(left.read_bytes()[:50])
    fit_laplace(model, rows, spots, precision=1.0, folder=tmp_path, say=hush)


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
