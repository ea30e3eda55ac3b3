import math

import numpy as np
import pytest

from pegbox.errors import UsageError
from pegbox.evaluation import calibration_error, reliability, score
from pegbox.evaluation._calibration import MassError, calibrated_errors
from pegbox.evaluation._estimate import basic_interval


def binary(confidence: list[float]) -> np.ndarray:
    return np.array([[share, 1 - share] for share in confidence])


def slow_error(table: np.ndarray, gold: np.ndarray, bins: int, scheme: str) -> float:
    """The definition, row by row in plain Python."""
    rows = []
    for line, answer in zip(table.tolist(), gold.tolist(), strict=True):
        top = max(line)
        rows.append((top, 1.0 if line.index(top) == answer else 0.0))
    groups: dict[int, list[tuple[float, float]]] = {}
    for top, right in rows:
        if scheme == "mass":
            where = bins * sum(other < top for other, _ in rows) // len(rows)
        else:
            where = next(i for i in range(bins) if i / bins < top <= (i + 1) / bins)
        groups.setdefault(where, []).append((top, right))
    total = 0.0
    for group in groups.values():
        total += abs(math.fsum(right for _, right in group) - math.fsum(top for top, _ in group))
    return total / len(rows)


def test_equal_width_by_hand() -> None:
    # Bins of 0.25: (0.5, 0.75] holds 0.6 (right) and 0.7 (wrong): |1 - 1.3| = 0.3;
    # (0.75, 1] holds 0.8 (right) and 0.9 (right): |2 - 1.7| = 0.3. Together 0.6 over 4 rows.
    table, gold = binary([0.6, 0.7, 0.8, 0.9]), [0, 1, 0, 0]
    assert calibration_error(table, gold, bins=4, scheme="width") == pytest.approx(0.15, abs=1e-12)


def test_equal_mass_by_hand() -> None:
    # Three bins of two: {.55, .6} one right |1 - 1.15|, {.7, .8} both right |2 - 1.5|,
    # {.9, .95} one right |1 - 1.85|: (0.15 + 0.5 + 0.85) / 6 = 0.25.
    table = binary([0.9, 0.55, 0.8, 0.6, 0.95, 0.7])
    assert calibration_error(table, [0, 0, 0, 1, 1, 0], bins=3) == pytest.approx(0.25, abs=1e-12)
    found = reliability(table, [0, 0, 0, 1, 1, 0], bins=3)
    assert [part.count for part in found.bins] == [2, 2, 2]
    assert [part.accuracy for part in found.bins] == [0.5, 1.0, 0.5]
    assert [part.confidence for part in found.bins] == pytest.approx([0.575, 0.75, 0.925])
    # Wilson with 1 of 2 by scipy.stats.binomtest(1, 2).proportion_ci(method="wilson").
    assert (found.bins[0].low, found.bins[0].high) == pytest.approx((0.0945312, 0.9054688), abs=1e-6)


def test_an_edge_belongs_to_the_lower_bin() -> None:
    # 0.6 is 9/15 exactly: right-closed bins put it below 0.61. In one bin the two would give
    # |1 - 1.21| / 2 = 0.105.
    table, gold = binary([0.6, 0.61]), [0, 1]
    assert calibration_error(table, gold, scheme="width") == pytest.approx((0.4 + 0.61) / 2, abs=1e-12)


@pytest.mark.parametrize("scheme", ["mass", "width"])
@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("rows", [1, 7, 100, 333])
@pytest.mark.parametrize("coarse", [False, True])
def test_equals_the_slow_definition(scheme: str, labels: int, rows: int, coarse: bool) -> None:
    generator = np.random.default_rng(rows + labels)
    table = generator.dirichlet(np.ones(labels), size=rows)
    if coarse:
        table = np.eye(labels)[table.argmax(axis=1)] * generator.choice([0.25, 0.5, 0.75], (rows, 1))
        table += (1 - table.sum(axis=1, keepdims=True)) / labels
    gold = generator.integers(labels, size=rows)
    found = calibration_error(table, gold, scheme=scheme)  # type: ignore[arg-type]
    # The same float64 terms in another order.
    assert found == pytest.approx(slow_error(table, gold, 15, scheme), abs=1e-12)


def test_the_order_of_rows_does_not_matter() -> None:
    table = binary([0.7] * 10 + [0.9] * 10)
    gold = np.array([0, 1] * 10)
    order = np.random.default_rng(0).permutation(20)
    assert calibration_error(table, gold) == pytest.approx(
        calibration_error(table[order], gold[order]), abs=1e-15
    )
    assert [part.count for part in reliability(table, gold).bins] == [10, 10]


def test_perfect_confidence_and_perfect_answers_have_no_error() -> None:
    assert calibration_error(np.eye(3), [0, 1, 2]) == 0.0
    assert calibration_error(np.eye(3), [1, 2, 0]) == 1.0


def test_bad_use_is_named() -> None:
    with pytest.raises(UsageError, match="unknown binning scheme 'weight'"):
        calibration_error(binary([0.6]), [0], scheme="weight")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="bins is 0"):
        calibration_error(binary([0.6]), [0], bins=0)


@pytest.mark.parametrize("coarse", [False, True])
def test_weighted_rows_equal_repeated_rows(coarse: bool) -> None:
    # 60 rows in 15 bins: every fourth row sits exactly on an edge.
    generator = np.random.default_rng(4)
    table = generator.dirichlet(np.ones(3), size=60)
    if coarse:
        table = np.round(table * 6) + 1
        table /= table.sum(axis=1, keepdims=True)
    gold = generator.integers(3, size=60)
    weights = np.vstack([np.ones(60, dtype=int), generator.multinomial(60, np.full(60, 1 / 60), size=20)])
    correct = (table.argmax(axis=1) == gold).astype(float)
    found = MassError(table.max(axis=1), correct, 15)(weights.astype(float))
    for error, counts in zip(found, weights, strict=True):
        again = np.repeat(np.arange(60), counts)
        assert error == pytest.approx(calibration_error(table[again], gold[again]), abs=1e-12)
    metrics = score(table, gold, ["a", "b", "c"], resamples=2).metrics
    assert metrics["ece"].value == pytest.approx(calibration_error(table, gold), abs=1e-12)
    width = calibration_error(table, gold, scheme="width")
    assert metrics["ece_width"].value == pytest.approx(width, abs=1e-12)


def test_the_noise_of_a_calibrated_model_is_binomial() -> None:
    # One bin of 400 rows claiming 0.7: |B(400, 0.7) / 400 - 0.7| has mean sqrt(2 * 0.21 / (400 pi)) = 0.01828
    # by the normal approximation; 4,000 draws know it to 0.014 / sqrt(4000) = 0.0002, the approximation
    # errs by less than that.
    noise = calibrated_errors(np.full(400, 0.7), "mass", bins=15, resamples=4000, seed=0)
    assert noise.shape == (4000,)
    assert noise.mean() == pytest.approx(math.sqrt(2 * 0.21 / (400 * math.pi)), abs=0.001)


def test_the_interval_of_an_error_is_reflected_cut_and_stretched() -> None:
    # Quantiles of 0.10, 0.1001 .. 0.20 at 2.5 % and 97.5 %: 0.1025 and 0.1975.
    samples = np.linspace(0.10, 0.20, 1001)
    silent = np.zeros(100)
    found = basic_interval(0.14, samples, silent)
    assert (found.low, found.high) == pytest.approx((0.28 - 0.1975, 0.28 - 0.1025), abs=1e-12)
    biased = basic_interval(0.09, samples, silent)
    assert (biased.low, biased.high) == (0.0, 0.09)
    assert basic_interval(0.14, samples, np.full(100, 0.14)).low == 0.0
