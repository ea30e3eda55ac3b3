import itertools
import math

import numpy as np
import pytest

from pegbox.errors import InputError, UsageError
from pegbox.evaluation import bootstrap, compare, flips, score


def answers(right: list[int]) -> np.ndarray:
    """Rows whose gold label is 0: probability 0.8 on it where right, else 0.2."""
    return np.array([[0.8, 0.2] if one else [0.2, 0.8] for one in right])


def test_mcnemar_is_the_exact_binomial_on_discordant_rows() -> None:
    # a alone right on 8 rows, b alone on 1: two-sided 2 (C(9,0) + C(9,1)) / 2^9 = 20 / 512.
    a = answers([1] * 8 + [0] + [1] * 21)
    b = answers([0] * 8 + [1] + [1] * 21)
    found = compare(a, b, np.zeros(30, dtype=int))
    assert found.p == pytest.approx(20 / 512, abs=1e-12)
    assert found.difference.value == pytest.approx(7 / 30, abs=1e-12)
    assert found.difference.low < 7 / 30 < found.difference.high
    assert found.test == "exact McNemar"
    assert str(found) == f"+0.233 [{found.difference.low:+.3f}, {found.difference.high:+.3f}], p = 0.039"


def test_equal_systems_do_not_differ_but_the_interval_is_not_a_point() -> None:
    a = answers([1, 0] * 10)
    found = compare(a, a, np.zeros(20, dtype=int))
    assert found.p == 1.0
    # No discordant row in 20: each kind is at most z^2 / (20 + z^2) by Wilson.
    top = 1.959964**2 / (20 + 1.959964**2)
    assert (found.difference.low, found.difference.high) == pytest.approx((-top, top), abs=1e-6)
    assert compare(a, a, np.zeros(20, dtype=int), metric="nll").p == 1.0


def test_the_permutation_test_approaches_full_enumeration() -> None:
    generator = np.random.default_rng(0)
    gold = generator.integers(2, size=10)
    a, b = generator.dirichlet([2, 1], size=10), generator.dirichlet([1, 1], size=10)
    own = np.arange(10), gold
    gaps = np.log(b[own]) - np.log(a[own])
    sums = [abs(np.dot(signs, gaps)) for signs in itertools.product([1, -1], repeat=10)]
    exact = np.mean(np.array(sums) >= abs(gaps.sum()) - 1e-12)
    found = compare(a, b, gold, metric="nll", resamples=20_000)
    # Monte-Carlo standard error is at most 0.5 / sqrt(20000) = 0.0035; four of them.
    assert found.p == pytest.approx(exact, abs=0.014)
    assert found.difference.value == pytest.approx(gaps.mean(), abs=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "nll", "brier"])
def test_p_values_are_valid_under_the_null(metric: str) -> None:
    # Two systems of the same kind: p < 0.05 in at most 5 % of 200 trials, with a standard error of 1.5 %;
    # 0.11 is four of them above.
    alarms = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        a, b = generator.dirichlet([1, 1], size=(2, 40))
        alarms += compare(a, b, generator.integers(2, size=40), metric=metric, resamples=199).p < 0.05
    assert alarms / 200 < 0.11


def test_a_difference_that_is_there_is_found_and_is_seeded() -> None:
    generator = np.random.default_rng(1)
    gold = generator.integers(2, size=400)
    good = np.where(np.eye(2)[gold] == 1, 0.7, 0.3)
    poor = generator.dirichlet([1, 1], size=400)
    for metric, sign in (("accuracy", 1), ("nll", -1), ("brier", -1)):
        found = compare(good, poor, gold, metric=metric, seed=3)
        assert found.p < 0.001
        assert str(found).endswith("p < 0.001")
        assert sign * found.difference.low > 0
        assert sign * found.difference.high > 0
        assert found == compare(good, poor, gold, metric=metric, seed=3)


def test_bad_comparisons_are_named() -> None:
    a = answers([1, 0, 1])
    with pytest.raises(InputError, match=r"differ in shape: a \(3, 2\), b \(2, 2\)"):
        compare(a, a[:2], [0, 0, 0])
    with pytest.raises(UsageError, match=r"(?s)no paired test for metric 'acuracy'.*did you mean 'accuracy'"):
        compare(a, a, [0, 0, 0], metric="acuracy")
    one = compare(a[:1], a[1:2], [0], metric="nll")
    assert math.isnan(one.difference.low)


def test_flips_by_direction_place_and_distance() -> None:
    eye = np.eye(3)
    gold = np.array([0, 0, 0, 0, 1, 1])
    base = eye[[0, 1, 1, 0, 1, 0]]
    tuned = eye[[1, 0, 2, 0, 2, 1]]
    inside = np.array([True, True, False, False, False, False])
    found = flips(base, tuned, gold, in_training=inside, distance=[0, 0, 3, 4, 8, 6])
    assert found.right_to_wrong.all.rows == (0, 4)
    assert found.wrong_to_right.all.rows == (1, 5)
    assert found.wrong_to_wrong.all.rows == (2,)
    assert (found.count, found.unchanged) == (5, 1)
    assert found.right_to_wrong.inside is not None
    assert found.right_to_wrong.outside is not None
    assert found.right_to_wrong.inside.rows == (0,)
    assert found.right_to_wrong.outside.rows == (4,)
    assert found.right_to_wrong.all.distance is not None
    assert (found.right_to_wrong.all.distance.mean, found.right_to_wrong.outside.distance.median) == (
        4.0,
        8.0,
    )
    assert found.wrong_to_wrong.inside.distance is None
    assert found.unchanged_distance.mean == 4.0
    assert str(found) == (
        "5 of 6 rows: +2 (1 in training) wrong to right, -2 (1 in training) right to wrong, "
        "1 (0 in training) wrong to wrong"
    )


def test_flips_are_called_by_their_row_numbers() -> None:
    base, tuned, numbers = answers([1, 1, 0]), answers([1, 0, 0]), [2, 7, 9]
    found = flips(base, tuned, [0, 0, 0], in_training=np.arange(3) == 1, numbers=numbers)
    assert found.right_to_wrong.all.rows == found.right_to_wrong.inside.rows == (7,)
    assert found.right_to_wrong.outside.rows == ()
    scores = score(tuned, [0, 0, 0], ["a", "b"], base=base, numbers=numbers, resamples=5)
    assert scores.flips.right_to_wrong.all.rows == (7,)
    for bad in ([2, 7], [0.5, 1.5, 2.5]):
        with pytest.raises(InputError, match="3 whole numbers, one per row"):
            flips(base, tuned, [0, 0, 0], numbers=bad)


def test_flips_without_a_mask_are_not_placed() -> None:
    found = flips(answers([1, 1]), answers([1, 0]), [0, 0])
    assert found.right_to_wrong.inside is None
    assert found.right_to_wrong.all.distance is None
    assert str(found) == "1 of 2 rows: 0 wrong to right, -1 right to wrong, 0 wrong to wrong"


def test_bad_flip_details_are_named() -> None:
    a = answers([1, 0])
    with pytest.raises(InputError, match="differ in shape: base"):
        flips(a, a[:1], [0, 0])
    with pytest.raises(InputError, match=r"(?s)shape \(2,\) of int64.*2 booleans"):
        flips(a, a, [0, 0], in_training=[0, 1])
    with pytest.raises(InputError, match=r"distance has shape \(1,\)"):
        flips(a, a, [0, 0], distance=[1.0])
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"negative or not a number .row 1"):
            flips(a, a, [0, 0], distance=[1.0, bad])


def test_bootstrap_weights_are_draws_with_replacement() -> None:
    weights = bootstrap(lambda drawn: drawn, 50, resamples=400, seed=1)
    assert weights.shape == (400, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert (weights == np.round(weights)).all()
    # A count is binomial(50, 1/50): mean 1, variance 0.98; over 20,000 draws both are known to about 0.01.
    assert weights.mean() == pytest.approx(1.0, abs=1e-12)
    assert weights.var() == pytest.approx(0.98, abs=0.05)
    assert (weights == bootstrap(lambda drawn: drawn, 50, resamples=400, seed=1)).all()
    assert (weights != bootstrap(lambda drawn: drawn, 50, resamples=400, seed=2)).any()
