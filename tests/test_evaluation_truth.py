"""Probabilities against true ones: numbers by hand, and what labels alone can tell."""

import json

import numpy as np
import pytest

from pegbox.errors import InputError
from pegbox.evaluation import TruthScores, calibration_error, score_truth


def world(rows: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A model's probabilities, the true ones and labels drawn from them; sharper than 1 is over-confident."""
    dice = np.random.default_rng(seed)
    logits = dice.normal(scale=1.5, size=rows)
    true = 1 / (1 + np.exp(-logits))
    said = 1 / (1 + np.exp(-sharpness * logits))
    gold = (dice.random(rows) < true).astype(np.int64)
    return np.column_stack([1 - said, said]), np.column_stack([1 - true, true]), gold


def test_numbers_by_hand() -> None:
    said = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    true = np.array([[0.7, 0.3], [0.1, 0.9], [0.4, 0.6]])
    scores = score_truth(said, true, [0, 1, 0], resamples=5)
    found = {name: estimate.value for name, estimate in scores.metrics.items()}
    assert found["accuracy"] == pytest.approx((0.7 + 0.9 + 0.4) / 3)
    assert found["best"] == pytest.approx((0.7 + 0.9 + 0.6) / 3)
    assert found["error"] == pytest.approx((0.2 + 0.1 + 0.2) / 3)
    assert found["bias"] == pytest.approx((0.2 - 0.1 + 0.2) / 3)
    assert found["nll"] == pytest.approx(-(true * np.log(said)).sum() / 3)
    assert found["entropy"] == pytest.approx(-(true * np.log(true)).sum() / 3)
    assert found["kl"] == pytest.approx((true * np.log(true / said)).sum() / 3)
    assert found["ece"] == pytest.approx(calibration_error(said, [0, 1, 0]))


def test_the_truth_itself_has_no_error_though_labels_show_one() -> None:
    _, true, gold = world(400, seed=1)
    scores = score_truth(true, true, gold, resamples=100)
    for name in ("error", "bias", "binned", "kl"):
        assert scores.metrics[name].value == pytest.approx(0.0, abs=1e-12)
    assert scores.metrics["accuracy"].value == pytest.approx(scores.metrics["best"].value)
    assert scores.metrics["ece"].value > 0.02  # 15 bins of 27 rows: noise alone is about 0.06
    assert scores.metrics["ece"].low == 0.0


def test_over_confidence_has_a_sign_and_errors_cancel_in_bins_at_most() -> None:
    said, true, gold = world(1000, seed=2, sharpness=2.5)
    over = score_truth(said, true, gold, resamples=200).metrics
    assert over["bias"].low > 0
    assert over["binned"].value <= over["error"].value + 1e-12
    said, true, gold = world(1000, seed=2, sharpness=0.4)
    assert score_truth(said, true, gold, resamples=200).metrics["bias"].high < 0


def test_the_interval_of_the_binned_error_holds_that_of_many_rows() -> None:
    said, true, gold = world(200_000, seed=3, sharpness=1.6)
    whole = score_truth(said, true, gold, resamples=2).metrics
    hits = 0
    for seed in range(40):
        part = score_truth(*world(300, seed=100 + seed, sharpness=1.6), resamples=200).metrics
        hits += part["binned"].low <= whole["binned"].value <= part["binned"].high
        assert part["error"].low <= part["error"].value <= part["error"].high
    # Of 40 intervals that hold it with 95 %, 33 or more do in 99.8 % of all cases (binomial).
    assert hits >= 33


def test_scores_survive_json() -> None:
    scores = score_truth(*world(50, seed=4), resamples=20)
    assert TruthScores.from_json(json.loads(json.dumps(scores.to_json(), allow_nan=False))) == scores
    assert "binned" in str(scores)
    with pytest.raises(InputError, match="not a file of scores against truth"):
        TruthScores.from_json({"format": "other"})
    with pytest.raises(InputError, match="lack a part"):
        TruthScores.from_json({"format": "pegbox.truth/1", "rows": 3})


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    said, true, gold = world(10, seed=5)
    with pytest.raises(InputError, match=r"differ in shape: probabilities \(10, 2\), truth \(9, 2\)"):
        score_truth(said, true[:9], gold)
    with pytest.raises(InputError, match="truth do not sum to one"):
        score_truth(said, true / 2, gold)
