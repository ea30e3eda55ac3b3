import dataclasses
import json
import math
import time
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from pegbox.errors import InputError, UsageError
from pegbox.evaluation import Estimate, Scores, score, wilson
from pegbox.evaluation._metrics import Answers, Replicates, point_metrics

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def world(rows: int, labels: int, seed: int, sharpness: float = 1.0) -> tuple[Floats, Ints]:
    """Probabilities whose gold labels are drawn from them, then sharpened: calibrated at sharpness 1."""
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.normal(size=(rows, labels))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gold = (truth.cumsum(axis=1) < generator.random((rows, 1))).sum(axis=1).clip(max=labels - 1)
    claimed = np.exp(sharpness * logits)
    return claimed / claimed.sum(axis=1, keepdims=True), gold


def names(labels: int) -> list[str]:
    return [f"label {number}" for number in range(labels)]


HAND = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
HAND_GOLD = np.array([0, 1, 1, 0])


def test_four_rows_computed_by_hand() -> None:
    # Predicted 0 0 1 0, so three of four right. nll: -(ln .9 + ln .4 + ln .8 + ln .7) / 4.
    # Brier: 2 (0.1^2 + 0.6^2 + 0.2^2 + 0.3^2) / 4. Label 0: tp 2, fp 1, fn 0; label 1: tp 1, fp 0, fn 1.
    # AUROC: gold-1 scores 0.4, 0.8 against 0.1, 0.3: all four pairs in order.
    found = score(HAND, HAND_GOLD, ["no", "yes"])
    values = {name: estimate.value for name, estimate in found.metrics.items()}
    assert values["accuracy"] == 0.75
    assert values["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2, abs=1e-15)
    assert values["nll"] == pytest.approx(-math.log(0.9 * 0.4 * 0.8 * 0.7) / 4, abs=1e-15)
    assert values["brier"] == pytest.approx(0.25, abs=1e-15)
    assert values["auroc"] == 1.0
    assert found.confusion == ((2, 0), (1, 1))
    no, yes = found.per_class["no"], found.per_class["yes"]
    assert (no.precision.value, no.recall.value, no.support) == (pytest.approx(2 / 3), 1.0, 2)
    assert (yes.precision.value, yes.recall.value, yes.f1.value) == (1.0, 0.5, pytest.approx(2 / 3))


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_weighted_metrics_equal_scikit_learn_on_repeated_rows(labels: int) -> None:
    # An independent road: repeat each row as often as drawn and let point_metrics (scikit-learn) score that.
    # Coarse probabilities make ties. Both roads add the same float64 numbers in another order: 1e-12.
    table, gold = world(60, labels, seed=labels)
    table = np.round(table * 8) + 0.5
    table /= table.sum(axis=1, keepdims=True)
    weights = np.random.default_rng(5).multinomial(60, np.full(60, 1 / 60), size=20)
    answers = Answers(table, gold)
    replicates = Replicates(answers)
    found = replicates(weights.astype(np.float64))
    for line, counts in zip(found, weights, strict=True):
        again = np.repeat(np.arange(60), counts)
        want = point_metrics(Answers(table[again], gold[again]))
        got = {name: value for name, value in zip(replicates.columns, line, strict=True) if name in want}
        assert got == pytest.approx(want, abs=1e-12, nan_ok=True)


def test_weighted_class_scores_equal_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    table, gold = world(25, 4, seed=3)
    weights = np.random.default_rng(6).multinomial(25, np.full(25, 1 / 25), size=30)
    answers = Answers(table, gold)
    found = Replicates(answers)(weights.astype(np.float64))[:, -12:]
    for line, counts in zip(found, weights, strict=True):
        want = precision_recall_fscore_support(
            gold, answers.predicted, labels=range(4), sample_weight=counts, zero_division=np.nan
        )
        assert line == pytest.approx(np.concatenate(want[:3]), abs=1e-12, nan_ok=True)


def test_a_zero_probability_costs_the_stated_floor() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score([[1.0, 0.0], [1.0, 0.0]], [0, 1], ["a", "b"])
    assert found.metrics["nll"].value == pytest.approx(-math.log(1e-12) / 2, rel=1e-12)


def test_intervals_cover_the_truth_and_are_seeded() -> None:
    # Nominal 95 %. With 120 trials the share of covering intervals has a standard error of 0.02, and
    # 0.88 lies 3.5 of them below. The truth is measured on 200,000 rows.
    truth = {name: estimate.value for name, estimate in _metrics(200_000, 0, resamples=1).items()}
    hits = dict.fromkeys(truth, 0)
    for seed in range(1, 121):
        for name, estimate in _metrics(150, seed).items():
            hits[name] += estimate.low - 1e-3 <= truth[name] <= estimate.high + 1e-3
    assert {name: count for name, count in hits.items() if count < 0.88 * 120} == {}
    assert _metrics(150, 1) == _metrics(150, 1)


def _metrics(rows: int, seed: int, resamples: int = 300) -> dict[str, Estimate]:
    table, gold = world(rows, 2, seed)
    return score(table, gold, names(2), resamples=resamples, seed=seed % 7).metrics


def test_a_calibrated_model_is_not_called_miscalibrated_and_a_sharp_one_is() -> None:
    # At 2.5 % one-sided, more than 4 of 40 alarms have a chance below 0.4 %.
    alarms = sum(score(*world(300, 3, seed), names(3)).metrics["ece"].low > 0 for seed in range(40))
    assert alarms <= 4
    sharp = score(*world(2000, 3, 1, sharpness=3.0), names(3)).metrics["ece"]
    assert sharp.low > 0.1


def test_all_right_still_has_room_for_error() -> None:
    table = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1))
    found = score(table, [0, 1] * 10, ["a", "b"])
    # Wilson with 20 of 20: n / (n + z^2) = 20 / 23.84.
    assert found.metrics["accuracy"].value == 1.0
    assert found.metrics["accuracy"].low == pytest.approx(20 / (20 + 1.959964**2), abs=1e-6)
    assert found.metrics["accuracy"].high == 1.0
    recall_low = 10 / (10 + 1.959964**2)
    f1_low = 2 * recall_low / (1 + recall_low)
    assert found.per_class["a"].recall.low == pytest.approx(recall_low, abs=1e-6)
    assert found.per_class["a"].f1.low == pytest.approx(f1_low, abs=1e-6)
    assert found.metrics["macro_f1"].low == pytest.approx(1 - (1 - f1_low) * math.sqrt(2) / 2, abs=1e-6)
    assert found.metrics["auroc"].low == pytest.approx(recall_low, abs=1e-6)
    wrong = score(table, [1, 0] * 10, ["a", "b"]).metrics
    assert (wrong["accuracy"].low, wrong["accuracy"].value) == (0.0, 0.0)
    assert wrong["accuracy"].high > 0.1
    assert wrong["macro_f1"].high > 0.1


def test_wilson_agrees_with_scipy() -> None:
    from scipy.stats import binomtest

    for successes, trials in [(0, 9), (9, 9), (3, 7), (50, 1000)]:
        want = binomtest(successes, trials).proportion_ci(method="wilson")
        assert wilson(successes, trials) == pytest.approx((want.low, want.high), abs=1e-12)
    assert all(math.isnan(end) for end in wilson(0, 0))


def test_absent_labels_are_undefined_not_zero() -> None:
    found = score([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [0, 1, 1], ["a", "b", "c"])
    assert math.isnan(found.per_class["c"].precision.value)
    assert math.isnan(found.per_class["c"].f1.value)
    assert str(found.per_class["c"].recall) == "n/a"
    # a: 2/3, b: 2/3; c occurs nowhere and does not count.
    assert found.metrics["macro_f1"].value == pytest.approx(2 / 3, abs=1e-15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_sided = score(HAND, [0, 0, 0, 0], ["no", "yes"])
    assert math.isnan(one_sided.metrics["auroc"].value)


def test_one_row_has_a_value_and_an_honest_interval() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score([[0.9, 0.1]], [0], ["a", "b"])
    assert (found.metrics["accuracy"].value, found.metrics["accuracy"].high) == (1.0, 1.0)
    assert found.metrics["accuracy"].low == pytest.approx(1 / (1 + 1.959964**2), abs=1e-6)
    assert math.isnan(found.metrics["nll"].low)
    assert str(found.metrics["nll"]) == "0.105"


def test_json_is_strict_and_round_trips_exactly() -> None:
    table, gold = world(50, 3, 0)
    base, _ = world(50, 3, 1)
    table[:, 2] = 0.0
    table /= table.sum(axis=1, keepdims=True)
    found = score(
        table,
        np.minimum(gold, 1),
        ["a", "ü", "c"],
        base=base,
        in_training=np.arange(50) < 20,
        distance=np.arange(50) / 7,
    )
    found = dataclasses.replace(found, seconds=1.25)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Scores.from_json(json.loads(text)) == found
    assert json.dumps(Scores.from_json(json.loads(text)).to_json()) == text
    assert Scores.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "else"}, "not a file of scores"),
        ({"metrics": {"accuracy": 3}}, "wrong kind"),
        ({"confusion": 7}, "wrong kind"),
    ],
)
def test_foreign_json_is_refused(change: dict, message: str) -> None:
    values = score(HAND, HAND_GOLD, ["no", "yes"]).to_json()
    with pytest.raises(InputError, match=message):
        Scores.from_json({**values, **change})
    del values["rows"]
    with pytest.raises(InputError, match=r"lack a part .key 'rows'"):
        Scores.from_json(values)


def test_text_shows_the_numbers_and_stays_narrow() -> None:
    table, gold = world(100, 12, 0)
    found = score(table, gold, ["a label whose name is much too long for a table", *names(11)])
    text = str(found)
    assert f"accuracy   {found.metrics['accuracy']}" in text
    assert "gold \\ predicted" in text
    assert "a label whose name is m…" in text
    assert "gold \\ predicted" not in str(score(*world(100, 13, 0), names(13)))


@pytest.mark.parametrize(
    ("table", "gold", "message"),
    [
        (np.zeros((0, 2)), [], "have no rows"),
        ([0.5, 0.5], [0], r"shape \(2,\)"),
        ([[1.0]], [0], r"1 column\(s\)"),
        ([[0.5, math.nan]], [0], "NaN or infinity .row 0, counted from 0"),
        ([[0.5, 0.5], [2.0, -1.0]], [0, 0], r"outside \[0, 1\] .row 1"),
        ([[0.5, 0.5], [0.5, 0.6]], [0, 0], "(?s)do not sum to one .row 1.*softmax"),
        ([["a", "b"]], [0], "not an array of numbers"),
        ([[0.5, 0.5], [0.5]], [0, 0], "not an array of numbers"),
        ([[0.5, 0.5]], [0, 1], r"gold has shape \(2,\), the probabilities have 1 rows"),
        ([[0.5, 0.5]] * 8, [0, 2, -1, 2, 2, 2, 2, 0], "(?s)row 1, 2, 3, 4, 5 and 1 more.*0 to 1"),
        ([[0.5, 0.5]], [0.0], "float64 values"),
    ],
)
def test_bad_arrays_are_named(table: object, gold: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(table, gold, ["a", "b"])  # type: ignore[arg-type]


def test_bad_use_is_named() -> None:
    with pytest.raises(UsageError, match="3 label names for probabilities with 2 columns"):
        score(HAND, HAND_GOLD, ["a", "b", "c"])
    with pytest.raises(UsageError, match="occur twice: a"):
        score(HAND, HAND_GOLD, ["a", "a"])
    with pytest.raises(UsageError, match="resamples is 0"):
        score(HAND, HAND_GOLD, ["a", "b"], resamples=0)
    with pytest.raises(UsageError, match="no base was given"):
        score(HAND, HAND_GOLD, ["a", "b"], in_training=np.ones(4, dtype=bool))


def test_half_precision_sums_are_accepted() -> None:
    table, gold = world(50, 5, 0)
    half = table.astype(np.float16)
    assert score(half, gold, names(5)).metrics["nll"].value == pytest.approx(
        score(table, gold, names(5)).metrics["nll"].value,
        rel=2e-3,  # float16 keeps 11 bits
    )


def test_a_large_set_is_scored_in_seconds() -> None:
    # About 1 s on one core; seven times that leaves room for a busy machine.
    table, gold = world(20_000, 6, 0)
    score(table[:10], gold[:10], names(6))
    began = time.perf_counter()
    score(table, gold, names(6))
    assert time.perf_counter() - began < 7
