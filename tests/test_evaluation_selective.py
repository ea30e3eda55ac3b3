"""Risk against coverage, and what uncertainty tells: slow definitions, cases by hand, scikit-learn."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pegbox.errors import InputError, UsageError
from pegbox.evaluation import (
    RiskCoverage,
    Undefined,
    _separation,
    error_auroc,
    ood_auroc,
    risk_coverage,
    uncertainties,
    wilson,
)
from pegbox.evaluation._selective import COVERAGES, _Areas


def rows_of(count: int, seed: int, coarse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainties, and hits that are rarer where it is high; coarse ones take about seven values."""
    dice = np.random.default_rng(seed)
    doubt = dice.normal(size=count)
    right = dice.random(count) > 1 / (1 + np.exp(1.5 - 1.2 * doubt))
    return (np.round(doubt) if coarse else doubt), right


def area_in_order(right: Any) -> float:
    """Geifman and El-Yaniv 2017: the mean over k of the share wrong of the first k."""
    wrong = [1 - int(one) for one in right]
    return sum(sum(wrong[:k]) / k for k in range(1, len(wrong) + 1)) / len(wrong)


def slow_area(doubt: np.ndarray, right: np.ndarray) -> float:
    """The same in the mean over every order of the rows that sorts them by uncertainty."""
    sorting = [
        order
        for order in itertools.permutations(range(len(doubt)))
        if all(doubt[a] <= doubt[b] for a, b in itertools.pairwise(order))
    ]
    return sum(area_in_order(right[list(order)]) for order in sorting) / len(sorting)


def test_numbers_by_hand() -> None:
    # By rising doubt: right, wrong, right, right. Risks 0, 1/2, 1/3, 1/4: their mean is 13/48. The ideal
    # order has risks 0, 0, 0, 1/4: 1/16 = 3/48.
    found = risk_coverage([0.4, 0.1, 0.2, 0.3], [True, True, False, True], resamples=20)
    assert found.thresholds == (0.1, 0.2, 0.3, 0.4)
    assert found.answered == (1, 2, 3, 4)
    assert found.wrong == (0, 1, 1, 1)
    assert found.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert found.risk.tolist() == [0.0, 1 / 2, 1 / 3, 1 / 4]
    assert found.aurc.value == pytest.approx(13 / 48, abs=1e-15)
    assert found.excess.value == pytest.approx(10 / 48, abs=1e-15)


def test_equally_uncertain_rows_enter_together() -> None:
    found = risk_coverage([0.2, 0.1, 0.2, 0.2], [False, True, True, False], resamples=20)
    assert (found.thresholds, found.answered, found.wrong) == ((0.1, 0.2), (1, 4), (0, 2))
    # Two wrong of three tied: on average 2/3 of a wrong answer per row: risks 0, (2/3)/2, (4/3)/3, 2/4.
    assert found.aurc.value == pytest.approx((0 + 1 / 3 + 4 / 9 + 1 / 2) / 4, abs=1e-15)
    # Half of the rows cannot be answered without all of the tied ones.
    assert found.covering(0.5).coverage == 1.0
    assert found.covering(0.25).coverage == 0.25


@pytest.mark.parametrize("seed", range(12))
def test_the_area_is_the_mean_over_orders_of_ties(seed: int) -> None:
    dice = np.random.default_rng(seed)
    doubt, right = dice.integers(3, size=7) / 10, dice.random(7) < 0.6
    found = risk_coverage(doubt, right, resamples=2)
    # Rounding alone: fewer than 7! terms of order one in float64.
    assert found.aurc.value == pytest.approx(slow_area(doubt, right), abs=1e-12)
    ideal = area_in_order(sorted(right, reverse=True))
    assert found.excess.value == pytest.approx(slow_area(doubt, right) - ideal, abs=1e-12)


@pytest.mark.parametrize("coarse", [False, True])
def test_every_point_is_a_count(coarse: bool) -> None:
    doubt, right = rows_of(200, seed=1, coarse=coarse)
    found = risk_coverage(doubt, right, resamples=2)
    assert found.thresholds == tuple(sorted(set(doubt.tolist())))
    for threshold, answered, wrong in zip(found.thresholds, found.answered, found.wrong, strict=True):
        kept = doubt <= threshold
        assert (answered, wrong) == (kept.sum(), (kept & ~right).sum())
    for wanted, row in zip(COVERAGES, found.table, strict=True):
        enough = [one for one in found.thresholds if (doubt <= one).mean() >= wanted]
        assert row == found.at(min(enough))


@pytest.mark.parametrize("coarse", [False, True])
def test_the_order_of_rows_does_not_matter(coarse: bool) -> None:
    doubt, right = rows_of(120, seed=2, coarse=coarse)
    order = np.random.default_rng(0).permutation(120)
    # Not the values alone: intervals too are drawn from the rows in an order of their own.
    assert risk_coverage(doubt, right, resamples=50) == risk_coverage(
        doubt[order], right[order], resamples=50
    )
    first = error_auroc(doubt, right, resamples=50)
    assert first == error_auroc(doubt[order], right[order], resamples=50)
    outside = doubt + 1
    assert ood_auroc(doubt, outside, resamples=50) == ood_auroc(doubt[order], outside[order], resamples=50)


def test_only_the_order_of_uncertainties_matters() -> None:
    doubt, right = rows_of(100, seed=3)
    plain, bent = risk_coverage(doubt, right, resamples=50), risk_coverage(np.exp(doubt), right, resamples=50)
    assert (plain.aurc, plain.excess) == (bent.aurc, bent.excess)
    assert error_auroc(doubt, right, resamples=50) == error_auroc(np.exp(doubt), right, resamples=50)


@pytest.mark.parametrize("coarse", [False, True])
def test_weighted_rows_equal_repeated_rows(coarse: bool) -> None:
    doubt, right = rows_of(60, seed=4, coarse=coarse)
    order = np.argsort(doubt)
    doubt, right = doubt[order], right[order]
    first = np.flatnonzero(np.r_[True, np.diff(doubt) > 0])
    weights = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=20)
    found = _Areas(first, (~right).astype(float))(weights.astype(float))
    for (area, excess), counts in zip(found, weights, strict=True):
        again = risk_coverage(np.repeat(doubt, counts), np.repeat(right, counts), resamples=1)
        assert (area, excess) == pytest.approx((again.aurc.value, again.excess.value), abs=1e-12)


def test_right_before_wrong_has_no_excess_and_the_reverse_the_most() -> None:
    right = np.arange(50) < 40
    best = risk_coverage(np.arange(50.0), right, resamples=50)
    assert best.excess.value == 0.0
    assert best.excess.high == pytest.approx(0.0, abs=1e-12)
    assert best.aurc.value == pytest.approx(area_in_order(right), abs=1e-12)
    # Ties within right and within wrong cost nothing.
    tied = risk_coverage(~right, right, resamples=2)
    assert tied.aurc.value == pytest.approx(best.aurc.value, abs=1e-12)
    assert tied.excess.value == pytest.approx(0.0, abs=1e-12)
    # By rounding 3 right of 7 would be 3e-17 better than the ideal.
    assert risk_coverage(np.arange(7), np.arange(7) < 3, resamples=2).excess.value == 0.0
    worst = risk_coverage(-np.arange(50.0), right, resamples=50)
    assert worst.aurc.value == pytest.approx(area_in_order(sorted(right)), abs=1e-12)
    assert worst.excess.value == pytest.approx(worst.aurc.value - best.aurc.value, abs=1e-12)
    assert worst.excess.low > best.aurc.high


def test_an_uncertainty_that_is_the_same_everywhere_has_the_risk_as_its_area() -> None:
    _, right = rows_of(90, seed=5)
    found = risk_coverage(np.full(90, 0.3), right, resamples=20)
    assert found.aurc.value == pytest.approx(1 - right.mean(), abs=1e-12)
    assert [row.coverage for row in found.table] == [1.0] * len(COVERAGES)


def test_a_threshold_answers_what_is_at_most_as_uncertain() -> None:
    found = risk_coverage([0.1, 0.2, 0.2, 0.4], [True, True, False, False], resamples=20)
    at = found.at(0.2)
    assert (at.threshold, at.coverage, at.answered, at.wrong) == (0.2, 0.75, 3, 1)
    assert at.risk.value == 1 / 3
    assert (at.risk.low, at.risk.high) == wilson(1, 3)
    assert found.at(0.39).answered == 3
    assert found.at(math.inf).answered == 4
    nothing = found.at(0.0999)
    assert (nothing.coverage, nothing.answered, nothing.wrong) == (0.0, 0, 0)
    assert math.isnan(nothing.risk.value)
    assert math.isnan(nothing.risk.high)
    with pytest.raises(UsageError, match=r"(?s)threshold is NaN.*infinity answers all"):
        found.at(math.nan)
    for coverage in (0.0, 1.01, math.nan):
        with pytest.raises(UsageError, match=r"(?s)coverage is .*above 0 and at most 1"):
            found.covering(coverage)


def test_where_every_answer_is_alike_the_interval_is_that_of_the_risk() -> None:
    doubt = np.arange(40) / 40
    good, bad = risk_coverage(doubt, np.ones(40, bool)), risk_coverage(doubt, np.zeros(40, bool))
    assert (good.aurc.value, good.aurc.low, good.aurc.high) == (0.0, 0.0, wilson(0, 40)[1])
    low = wilson(40, 40)[0]
    # The ideal order at risk r has the area r + (1 - r) ln(1 - r).
    ends = (low + (1 - low) * math.log(1 - low), 1.0)
    assert bad.aurc.value == 1.0
    assert (bad.aurc.low, bad.aurc.high) == pytest.approx(ends, abs=1e-12)
    for found in (good, bad):
        assert found.excess.value == 0.0
        assert math.isnan(found.excess.low)
    assert risk_coverage([0.5], [1], resamples=3).aurc.high == wilson(0, 1)[1]


def test_intervals_hold_the_numbers_of_many_rows() -> None:
    doubt, right = rows_of(300_000, seed=6)
    whole = risk_coverage(doubt, right, resamples=1)
    ranked = error_auroc(doubt, right, resamples=1).value
    hits = np.zeros(3, dtype=int)
    for seed in range(60):
        part = rows_of(250, seed=1000 + seed)
        found = risk_coverage(*part, resamples=300, seed=seed)
        errors = error_auroc(*part, resamples=300, seed=seed)
        numbers = ((found.aurc, whole.aurc.value), (found.excess, whole.excess.value), (errors, ranked))
        hits += [estimate.low <= true <= estimate.high for estimate, true in numbers]
    # 95 % of 60 is 57. Fewer than 51 come about once in 120 at a true 93 %, in four of five runs at 80 %.
    assert (hits >= 51).all(), hits


@pytest.mark.parametrize("coarse", [False, True])
def test_error_auroc_is_that_of_scikit_learn(coarse: bool) -> None:
    doubt, right = rows_of(300, seed=7, coarse=coarse)
    found = error_auroc(doubt, right, resamples=200)
    assert found.value == pytest.approx(roc_auc_score(~right, doubt), abs=1e-12)
    assert 0.5 < found.low < found.value < found.high < 1


def test_error_auroc_counts_pairs() -> None:
    # Wrong 0.5 against right 0.1, 0.5, 0.9: above one, tied with one: (1 + 1/2) / 3.
    assert error_auroc([0.5, 0.1, 0.5, 0.9], [0, 1, 1, 1], resamples=9).value == 0.5
    assert error_auroc([0.5, 0.1, 0.5, 0.4], [0, 1, 1, 1], resamples=9).value == pytest.approx(2.5 / 3)


def test_error_auroc_says_why_it_is_undefined() -> None:
    for right, reason in (([1, 1, 1], "of 3 answers none is wrong"), ([0, 0], "of 2 answers none is right")):
        found = error_auroc(np.arange(len(right)), right)
        assert isinstance(found, Undefined)
        assert math.isnan(found.value)
        assert math.isnan(found.low)
        assert found.reason == reason
        assert str(found) == f"n/a ({reason})"


def test_an_area_of_few_rows_has_the_interval_of_the_rarer_kind() -> None:
    right = np.arange(30) < 20
    assert (error_auroc(~right, right).low, error_auroc(~right, right).high) == wilson(10, 10)
    assert (ood_auroc([1, 2, 3], [0, 0, 0, 0]).low, ood_auroc([1, 2, 3], [0] * 4).high) == wilson(0, 3)
    # One wrong answer: resampling never moves it, and knows only how the right ones scatter around it.
    one = error_auroc(np.arange(30), np.arange(30) != 20)
    assert one.value == pytest.approx(20 / 29)
    assert (one.low, one.high) == pytest.approx(wilson(20 / 29, 1))
    assert ood_auroc([0.3] * 9, [0.3] * 5).low == wilson(2.5, 5)[0]


@pytest.mark.parametrize("sizes", [(200, 60), (60, 200), (50, 50)])
@pytest.mark.parametrize("coarse", [False, True])
def test_ood_auroc_is_that_of_scikit_learn(sizes: tuple[int, int], coarse: bool) -> None:
    dice = np.random.default_rng(8)
    inside, outside = dice.normal(size=sizes[0]), dice.normal(0.8, size=sizes[1])
    if coarse:
        inside, outside = np.round(inside), np.round(outside)
    found = ood_auroc(inside, outside, resamples=1000)
    gold = np.repeat([0, 1], sizes)
    assert found.value == pytest.approx(roc_auc_score(gold, np.r_[inside, outside]), abs=1e-12)
    # Resampled by another road: both sets on their own, the area by scikit-learn.
    slow = [
        roc_auc_score(gold, np.r_[dice.choice(inside, sizes[0]), dice.choice(outside, sizes[1])])
        for _ in range(300)
    ]
    # An end of 300 draws is known to 2.7 / sqrt(300) = 0.16 deviations, of 1,000 to 0.085: the width, 3.92 of
    # them, to sqrt(2) times both together, 0.25, or 6 %. Four times that.
    assert found.high - found.low == pytest.approx(np.ptp(np.quantile(slow, [0.025, 0.975])), rel=0.25)


def test_ood_auroc_counts_pairs_and_mirrors() -> None:
    # Outside 0.4 beats 0.1 and ties 0.4; 0.9 beats both: 3.5 of 4.
    assert ood_auroc([0.1, 0.4], [0.4, 0.9], resamples=9).value == 3.5 / 4
    assert ood_auroc([0.4, 0.9], [0.1, 0.4], resamples=9).value == 0.5 / 4


@pytest.mark.parametrize("sizes", [(30, 7), (7, 30)])
def test_each_set_keeps_its_size(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    class Watched(_separation.Ranks):
        def __call__(self, weights: np.ndarray) -> np.ndarray:
            seen.append(weights)
            return super().__call__(weights)

    monkeypatch.setattr(_separation, "Ranks", Watched)
    ood_auroc(np.arange(sizes[0]), np.arange(sizes[1]), resamples=20)
    weights = np.vstack(seen)
    assert len(weights) == 21
    assert (weights[:, : sizes[0]].sum(axis=1) == sizes[0]).all()
    assert (weights[:, sizes[0] :].sum(axis=1) == sizes[1]).all()


def test_both_sets_are_resampled_in_chunks_too() -> None:
    # 300,000 rows come three resamples at a time: were the small set's draws the same in each chunk, at most
    # three of them would differ, and so would the percentiles be of no more than that.
    dice = np.random.default_rng(9)
    inside = dice.normal(size=300_000)
    outside = np.array([-0.5, 0.0, 0.5, 1.0])
    found = ood_auroc(inside, outside, resamples=60)
    # The mean of four draws of the normal distribution function at those points has a standard deviation of
    # sd(0.31, 0.5, 0.69, 0.84) / 2 = 0.10: the central 95 % are some 0.39 wide.
    assert 0.25 < found.high - found.low < 0.5


def test_uncertainties_by_hand() -> None:
    table = [[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25], [0.2, 0.7, 0.1]]
    found = uncertainties(table)
    assert sorted(found) == ["confidence", "entropy"]
    assert found["confidence"] == pytest.approx([0.0, 2 / 3, 0.5, 0.3], abs=1e-15)
    entropies = [0.0, math.log(3), 1.5 * math.log(2), -sum(p * math.log(p) for p in (0.2, 0.7, 0.1))]
    assert found["entropy"] == pytest.approx(entropies, abs=1e-15)
    assert not np.signbit(found["entropy"]).any()


@pytest.mark.parametrize("scale", [1.0, 1.0003])
def test_uncertainties_do_not_know_the_order_of_labels(scale: float) -> None:
    # Rows that miss one a little are divided by their sum, whose last bit knows an order.
    table = np.random.default_rng(0).dirichlet(np.ones(5), size=200) * scale
    first, again = uncertainties(table), uncertainties(table[:, [3, 0, 4, 2, 1]])
    for name, values in first.items():
        # To the last bit: a difference would part rows that are equally uncertain.
        assert values.tolist() == again[name].tolist()
        assert values.shape == (200,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[0.5, 0.5], [0.7, 0.8]], r"(?s)do not sum to one.*row 1.*softmax"),
        ([[2.0, -1.0]], r"outside \[0, 1\]"),
        ([[0.5, np.nan]], "NaN or infinity"),
        ([0.5, 0.5], r"(?s)have shape \(2,\).*two dimensions"),
        (0.5, "two dimensions"),
        ([], "two dimensions"),
    ],
)
def test_bad_probabilities_are_named(table: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        uncertainties(table)


def test_a_curve_survives_json() -> None:
    doubt, right = rows_of(40, seed=10, coarse=True)
    for found in (risk_coverage(doubt, right, resamples=20), risk_coverage(doubt, np.ones(40), resamples=20)):
        text = json.dumps(found.to_json(), allow_nan=False)
        again = RiskCoverage.from_json(json.loads(text))
        assert json.dumps(again.to_json(), allow_nan=False) == text
        assert (again.thresholds, again.answered, again.wrong) == (
            found.thresholds,
            found.answered,
            found.wrong,
        )
        assert again.at(0.0) == found.at(0.0)
        assert str(again) == str(found)
    values = risk_coverage(doubt, right, resamples=20)
    assert RiskCoverage.from_json(values.to_json()) == values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pegbox.scores/1"}, r"(?s)not a risk-coverage curve.*pegbox\.risk_coverage/1"),
        ({"wrong": None}, "part of the wrong kind"),
        ({"thresholds": ["a"]}, "part of the wrong kind"),
        ({"aurc": 0.3}, "part of the wrong kind"),
        ({"wrong": [0]}, r"(?s)do not fit each other.*last of which answers all rows"),
        ({"answered": [1, 2, 4]}, "do not fit each other"),
        ({"thresholds": [], "answered": [], "wrong": []}, "do not fit each other"),
    ],
)
def test_another_file_is_refused(change: dict[str, Any], message: str) -> None:
    values = risk_coverage([0.1, 0.2, 0.3], [1, 0, 1], resamples=2).to_json()
    with pytest.raises(InputError, match=message):
        RiskCoverage.from_json({**values, **change})


def test_a_file_without_a_part_is_refused() -> None:
    values = risk_coverage([0.1, 0.2, 0.3], [1, 0, 1], resamples=2).to_json()
    del values["excess"]
    with pytest.raises(InputError, match=r"(?s)lacks a part.*'excess'"):
        RiskCoverage.from_json(values)
    with pytest.raises(InputError, match="not a risk-coverage curve"):
        RiskCoverage.from_json([1])  # type: ignore[arg-type]


def test_the_table_is_aligned() -> None:
    doubt, right = rows_of(20_000, seed=11)
    lines = str(risk_coverage(doubt, right, resamples=2)).splitlines()
    assert lines[0].startswith("rows       20,000, ")
    assert lines[1].startswith("AURC       0.1")
    table = lines[4:]
    assert len(table) == len(COVERAGES) + 1
    for name in ("at least", "coverage", "threshold", "answered", "wrong"):
        end = table[0].index(name) + len(name)
        assert all(line[end - 1] != " " and line[end] == " " for line in table), name
    assert [float(line.split()[0]) for line in table[1:]] == list(COVERAGES)


@pytest.mark.parametrize("measure", [risk_coverage, error_auroc])
@pytest.mark.parametrize(
    ("doubt", "right", "message"),
    [
        (
            [0.1, np.nan, np.inf],
            [1, 0, 1],
            r"(?s)uncertainty holds NaN or infinity.*row 1, 2, counted from 0",
        ),
        ([0.1, 0.2], [1, 0, 1], r"(?s)correct has shape \(3,\), the uncertainty has 2 rows.*\(2,\)"),
        ([0.1, 0.2], [[1, 0]], r"correct has shape \(1, 2\)"),
        ([], [], "uncertainty has no rows"),
        ([[0.1], [0.2]], [1, 0], r"(?s)uncertainty has shape \(2, 1\).*`uncertainties`"),
        (0.3, 1, r"uncertainty has shape \(\)"),
        ([0.1, 0.2], [1, 2], r"(?s)neither true nor false.*row 1, counted from 0.*True or 1"),
        ([0.1, 0.2], [1, np.nan], "neither true nor false"),
        (["a", "b"], [1, 0], "uncertainty are not an array of numbers"),
    ],
)
def test_bad_rows_are_named(measure: Any, doubt: Any, right: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(doubt, right)


def test_bad_sets_and_counts_are_named() -> None:
    with pytest.raises(InputError, match="outside has no rows"):
        ood_auroc([0.1], [])
    with pytest.raises(InputError, match=r"inside has shape \(1, 1\)"):
        ood_auroc([[0.1]], [0.2])
    with pytest.raises(InputError, match=r"(?s)outside holds NaN or infinity.*row 0"):
        ood_auroc([0.1], [np.nan])
    for measure in (risk_coverage, error_auroc):
        with pytest.raises(UsageError, match="resamples is 0"):
            measure([0.1, 0.2], [1, 1], resamples=0)
    with pytest.raises(UsageError, match="resamples is 0"):
        ood_auroc([0.1], [0.2], resamples=0)
