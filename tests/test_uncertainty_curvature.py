"""Curvature, covariance and evidence against the matrices spelt out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pegbox.errors import RunError
from pegbox.uncertainty import Place, fit_laplace, places
from pegbox.uncertainty import _fit as fit_module
from pegbox.uncertainty import _jacobian as jacobian_module
from pegbox.uncertainty._diag import side_by_side
from pegbox.uncertainty._full import Full
from tuning_toy import hush
from uncertainty_toy import Options, Rows, adapted, curvature, jacobian

GRADES = ("exact", "kron", "ekfac", "diag")


def centred(slopes: Tensor) -> Tensor:
    return slopes - slopes.mean(0, keepdim=True)


def covariance(model: Any, rows: Any, spots: list[Place], precision: float, fitted: Any) -> list[Tensor]:
    whole = curvature(model, fitted, spots)
    inverse = torch.linalg.inv(whole + precision * torch.eye(len(whole), dtype=torch.float64))
    found = []
    for index in range(len(rows)):
        slopes = centred(jacobian(model, rows, spots, index))
        found.append(slopes @ inverse @ slopes.T)
    return found


CASES = {
    "two labels": (2, Rows(12, 2), Rows(5, 2, seed=9)),
    "five labels": (5, Rows(12, 5), Rows(5, 5, seed=9)),
    "options": (1, Options(9), Options(5, seed=9)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["rows", "matrix", "few numbers"])
def test_exact_is_the_whole_matrix(case: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Covariance and evidence to 1e-8, whichever of the equal ways memory decides for."""
    labels, rows, others = CASES[case]
    model = adapted(labels)
    spots = places(model)
    if way != "rows":
        length = 8 if way == "matrix" else 10_000
        memory = 0 if way == "matrix" else 1 << 27

        def narrow(numbers: int, expected: int, **options: Any) -> Full:
            if way == "matrix":  # as if there were more gradients than numbers
                return Full(numbers, numbers + 1, length=numbers, memory=memory, **options)
            return Full(numbers, expected, length=length, memory=memory, **options)

        monkeypatch.setattr(fit_module, "Full", narrow)
    found = fit_laplace(model, rows, spots, precision=0.7, say=hush)
    sure = found.predict(model, others, spots)
    for index, wanted in enumerate(covariance(model, others, spots, 0.7, rows)):
        own = sure.covariance[index][: len(wanted), : len(wanted)]
        torch.testing.assert_close(own, wanted, rtol=1e-8, atol=1e-10)
    whole = curvature(model, rows, spots)
    for precision in (0.01, 0.7, 30.0):
        numbers = len(whole)
        shifted = whole + precision * torch.eye(numbers, dtype=torch.float64)
        distance = sum(float(spot.values().square().sum()) for spot in spots)
        wanted_evidence = (
            found.log_likelihood
            - 0.5 * precision * distance
            + 0.5 * numbers * math.log(precision)
            - 0.5 * float(torch.linalg.slogdet(shifted).logabsdet)
        )
        assert found.evidence.at(precision) == pytest.approx(wanted_evidence, rel=1e-8)


def test_the_log_likelihood_is_that_of_the_labels() -> None:
    model, rows = adapted(3), Rows(10, 3)
    spots = places(model)
    with torch.no_grad():
        scores = rows.scores(model, rows.collate(range(10)))
    wanted = scores.log_softmax(1)[torch.arange(10), rows.gold].sum()
    assert fit_laplace(model, rows, spots, precision=1.0, say=hush).log_likelihood == pytest.approx(
        float(wanted)
    )


def test_rows_whose_logits_are_no_numbers_are_named() -> None:
    nan, inf = math.nan, math.inf
    scores = torch.tensor([[0.0, 1.0], [nan, 0.0], [1.0, -inf], [inf, 0.0]])
    with pytest.raises(RunError, match=r"\(rows 4, 8\)"):
        jacobian_module._check(scores, [0, 7, 2, 3])
    jacobian_module._check(scores[[0, 2]], [0, 2])


def test_gradients_are_those_of_finite_differences() -> None:
    model, rows = adapted(3), Rows(4, 3)
    spots = places(model)
    order = [[0, 1, 2, 3]]

    def every(scores: Tensor) -> Tensor:
        return torch.eye(3, dtype=torch.float64).expand(len(scores), 3, 3)

    (found,) = jacobian_module.slopes(model, rows, spots, every, order=order)
    flat, step, at = side_by_side(found.parts), 1e-6, 0
    batch = rows.collate(range(4))
    with torch.no_grad():
        for spot in spots:
            weight, bias = spot.layer.weight, spot.layer.bias
            for out in range(weight.shape[0]):
                for into in range(weight.shape[1] + (bias is not None)):
                    value = (
                        weight[out : out + 1, into : into + 1]
                        if into < weight.shape[1]
                        else bias[out : out + 1]
                    )
                    value += step
                    above = rows.scores(model, batch)
                    value -= 2 * step
                    below = rows.scores(model, batch)
                    value += step
                    torch.testing.assert_close(
                        flat[:, :, at], (above - below) / (2 * step), rtol=1e-6, atol=1e-8
                    )
                    at += 1
    assert at == flat.shape[2]


@pytest.mark.parametrize("grade", GRADES)
def test_batches_and_padding_change_nothing(grade: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = adapted(3), Rows(12, 3)
    spots = places(model)
    found = fit_laplace(model, rows, spots, grade=grade, precision=1.0, say=hush)
    one = found.predict(model, rows, spots)
    monkeypatch.setattr(jacobian_module, "NUMBERS_PER_BATCH", {"cpu": 1})
    monkeypatch.setattr(rows, "padding", 3)
    again = fit_laplace(model, rows, spots, grade=grade, precision=1.0, say=hush)
    two = again.predict(model, rows, spots)
    torch.testing.assert_close(one.covariance, two.covariance, rtol=1e-9, atol=1e-12)
    assert again.evidence.at(0.5) == pytest.approx(found.evidence.at(0.5), rel=1e-10)


@pytest.mark.parametrize("grade", GRADES)
def test_a_repeated_row_counts_twice(grade: Any) -> None:
    model, rows = adapted(3), Rows(8, 3)
    spots = places(model)
    twice = Rows(8, 3)
    twice.lengths = twice.lengths * 2
    twice._texts = twice._texts * 2
    twice.gold = torch.cat([twice.gold, twice.gold])
    one = fit_laplace(model, rows, spots, grade=grade, precision=1.0, say=hush)
    two = fit_laplace(model, twice, spots, grade=grade, precision=1.0, say=hush)
    values = [found.basis.values.sort(descending=True).values for found in (one, two)]
    kept = min(map(len, values))
    torch.testing.assert_close(values[1][:kept], 2 * values[0][:kept], rtol=1e-8, atol=1e-10)
    assert two.log_likelihood == pytest.approx(2 * one.log_likelihood)


def test_kron_is_exact_for_one_layer_one_token_and_one_label_distribution() -> None:
    """A head that starts at zero gives every row the same probabilities: the factors then are independent."""
    model, rows = adapted(3), Rows(9, 3, tokens=1)
    spots = places(model, "head")
    with torch.no_grad():
        for value in spots[0].layer.parameters():
            value.zero_()
    for grade in ("kron", "ekfac"):
        found = fit_laplace(model, rows, spots, grade=grade, precision=0.5, say=hush)  # type: ignore[arg-type]
        sure = found.predict(model, rows, spots)
        for index, wanted in enumerate(covariance(model, rows, spots, 0.5, rows)):
            torch.testing.assert_close(sure.covariance[index], wanted, rtol=1e-9, atol=1e-12)


def test_ekfac_has_the_curvature_s_own_moments_along_its_directions() -> None:
    model, rows = adapted(3), Rows(9, 3)
    spots = places(model)
    found = fit_laplace(model, rows, spots, grade="ekfac", precision=1.0, say=hush)
    whole = curvature(model, rows, spots)
    assert float(found.basis.values.sum()) == pytest.approx(float(whole.trace()), rel=1e-9)
    plain = fit_laplace(model, rows, spots, grade="kron", precision=1.0, say=hush)
    assert float(plain.basis.values.sum()) == pytest.approx(float(whole.trace()), rel=1e-9)


def test_diag_is_the_diagonal() -> None:
    model, rows = adapted(2), Rows(9, 2)
    spots = places(model)
    found = fit_laplace(model, rows, spots, grade="diag", precision=1.0, say=hush)
    torch.testing.assert_close(
        found.basis.values, curvature(model, rows, spots).diagonal(), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("grade", GRADES)
def test_drawn_weights_have_the_posterior_s_covariance(grade: Any) -> None:
    model, rows = adapted(2), Rows(9, 2)
    spots = places(model)
    found = fit_laplace(model, rows, spots, grade=grade, precision=2.0, say=hush)
    draws = found.draw(spots, 20_000, seed=3)
    flat = torch.cat([draws[spot.name].flatten(1) for spot in spots], 1)
    middle = torch.cat([spot.values().flatten() for spot in spots])
    torch.testing.assert_close(flat.mean(0), middle, rtol=0, atol=0.03)
    slopes = torch.stack([centred(jacobian(model, rows, spots, i))[0] for i in range(9)])
    drawn = ((flat - middle) @ slopes.T).var(0)
    sure = found.predict(model, rows, spots).covariance[:, 0, 0]
    torch.testing.assert_close(drawn, sure, rtol=0.05, atol=1e-3)


def test_mixed_roots_are_unbiased() -> None:
    model, rows = adapted(5), Rows(6, 5)
    spots = places(model)
    whole = float(curvature(model, rows, spots).trace())
    traces = [
        float(
            fit_laplace(
                model, rows, spots, grade="diag", precision=1.0, roots="mixed", seed=seed, say=hush
            ).basis.values.sum()
        )
        for seed in range(60)
    ]
    noise = torch.tensor(traces).std().item() / len(traces) ** 0.5
    assert sum(traces) / len(traces) == pytest.approx(whole, abs=4 * noise)


def test_a_sketch_keeps_covariances_within_its_error() -> None:
    model, rows = adapted(3, width=24, rank=8), Rows(40, 3, width=24)
    spots = places(model)
    exact = fit_laplace(model, rows, spots, precision=1.0, say=hush).predict(model, rows, spots).covariance
    gatherer = Full(sum(spot.size for spot in spots), 10**9, length=512, memory=0)
    assert gatherer.sketch is not None
    original = fit_module._gatherer
    try:
        fit_module._gatherer = lambda *_: gatherer  # type: ignore[assignment]
        found = fit_laplace(model, rows, spots, precision=1.0, say=hush)
    finally:
        fit_module._gatherer = original
    sure = found.predict(model, rows, spots).covariance
    error = (sure - exact).norm(dim=(1, 2)) / exact.norm(dim=(1, 2))
    assert float(error.mean()) < 0.2
    assert float(torch.linalg.eigvalsh(sure).min()) > -1e-9


def test_what_the_model_was_it_is_afterwards() -> None:
    model, rows = adapted(3), Rows(6, 3)
    spots = places(model)
    model.train()
    before = {name: (value.requires_grad, value.clone()) for name, value in model.named_parameters()}
    found = fit_laplace(model, rows, spots, grade="ekfac", say=hush)
    found.predict(model, rows, spots)
    assert all(module.training for module in model.modules())
    for name, value in model.named_parameters():
        assert (value.requires_grad, value.grad) == (before[name][0], None)
        assert torch.equal(value, before[name][1])
    assert all(not module._forward_hooks for module in model.modules())
