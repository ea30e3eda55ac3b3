"""Runs under several seeds: what rows and seeds leave uncertain, and paired tests of such runs."""

from typing import Any

import numpy as np
import pytest

from pegbox.errors import InputError, UsageError
from pegbox.evaluation import (
    class_sample,
    compare,
    compare_several,
    holm,
    score,
    score_tags,
    several,
    tag_sample,
)


def answers(rows: int, strength: float, seed: int, gold: Any) -> Any:
    """Probabilities of two labels that are right more often the larger ``strength`` is."""
    generator = np.random.default_rng(seed)
    margin = strength * (2 * gold - 1) + generator.normal(size=rows)
    yes = 1 / (1 + np.exp(-2 * margin))
    return np.column_stack([1 - yes, yes])


def gold_of(rows: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(2, size=rows)


def test_one_run_is_what_score_says() -> None:
    gold = gold_of(120)
    table = answers(120, 0.7, 1, gold)
    found = several([class_sample(table, gold)], resamples=500, seed=3)
    whole = score(table, gold, ["no", "yes"], resamples=500, seed=3).metrics
    for name in ("accuracy", "nll", "brier", "macro_f1", "ece", "auroc"):
        assert found[name].value == pytest.approx(whole[name].value, abs=1e-12)
        assert found[name].low == pytest.approx(whole[name].low, abs=1e-9)
        assert found[name].high == pytest.approx(whole[name].high, abs=1e-9)


def test_an_interval_ends_where_the_metric_ends() -> None:
    gold = gold_of(40)
    runs = []
    for wrong in (0, 4):
        right = np.where(np.arange(40) < wrong, 1 - gold, gold)
        runs.append(class_sample(np.column_stack([0.9 - 0.8 * right, 0.1 + 0.8 * right]), gold))
    found = several(runs, resamples=500)
    # Two runs that are so far apart stretch the resamples past 1.
    assert found["accuracy"].high == 1
    assert found["macro_f1"].high == 1
    assert found["nll"].low >= 0


def test_one_run_of_tags_is_what_score_tags_says() -> None:
    gold = [["B-X", "I-X", "O"], ["O", "B-Y", "O"], ["B-X", "O", "O"]] * 5
    said = [["B-X", "I-X", "O"], ["O", "B-X", "O"], ["O", "O", "B-Y"]] * 5
    found = several([tag_sample(said, gold)], resamples=400, seed=1)
    whole = score_tags(said, gold, resamples=400, seed=1).metrics
    for name in ("precision", "recall", "f1"):
        assert found[name].value == pytest.approx(whole[name].value)
        assert found[name].low == pytest.approx(whole[name].low)


def test_a_sentence_s_part_in_f1_has_f1_as_its_mean_and_is_its_influence() -> None:
    gold = [["B-X", "O"], ["B-Y", "B-X"], ["O", "O"], ["O", "B-X"]]
    said = [["B-X", "O"], ["B-X", "B-X"], ["B-Y", "O"], ["O", "O"]]
    sample = tag_sample(said, gold)
    assert sample.per_row["f1"].mean() == pytest.approx(sample.values["f1"])
    weights = np.ones((1, 4))
    weights[0, 1] += 1e-6
    slope = (sample.statistic(weights)[0, 2] - sample.values["f1"]) / 1e-6
    # The derivative by one row's weight is (its part - F1) / rows.
    assert (sample.per_row["f1"][1] - sample.values["f1"]) / 4 == pytest.approx(slope, abs=1e-5)


def test_a_row_s_part_in_macro_f1_has_it_as_its_mean_and_is_its_influence() -> None:
    gold = np.array([0, 0, 1, 2, 2, 1, 0])  # label 3 never occurs
    said = np.array([0, 1, 1, 0, 2, 2, 0])
    sample = class_sample(np.eye(4)[said], gold)
    part, whole = sample.per_row["macro_f1"], sample.values["macro_f1"]
    assert part.mean() == pytest.approx(whole)
    for row in range(7):
        weights = np.ones((1, 7))
        weights[0, row] += 1e-6
        slope = (sample.alone("macro_f1")(weights)[0, 0] - whole) / 1e-6
        assert (part[row] - whole) / 7 == pytest.approx(slope, abs=1e-5)


def test_four_rows_that_differ_are_no_proof_of_macro_f1() -> None:
    """The bootstrap alone would call this a winner; McNemar's p of four rows is 0.125."""
    gold = np.arange(200) % 2
    wrong = np.arange(200) < 20
    better = wrong & (np.arange(200) >= 4)
    runs = [[class_sample(np.eye(2)[np.where(part, 1 - gold, gold)], gold)] for part in (better, wrong)]
    assert compare_several(*runs, metric="macro_f1").p > 0.05


def test_answers_that_are_alike_are_not_known_to_be_equal() -> None:
    gold = gold_of(40)
    run = class_sample(answers(40, 0.7, 1, gold), gold)
    found, alone = compare_several([run], [run]), answers(40, 0.7, 1, gold)
    assert found.difference == compare(alone, alone, gold).difference
    assert found.difference.low < 0 < found.difference.high
    assert found.p == 1


def test_runs_that_differ_widen_the_interval() -> None:
    gold = gold_of(400)
    alike = [class_sample(answers(400, 0.8, 1, gold), gold)] * 3
    unlike = [class_sample(answers(400, strength, 1, gold), gold) for strength in (0.3, 0.8, 1.6)]
    narrow, wide = several(alike)["accuracy"], several(unlike)["accuracy"]
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    one = several(alike[:1])["accuracy"]
    assert narrow.high - narrow.low == pytest.approx(one.high - one.low, abs=1e-12)


def test_the_interval_covers_rows_and_seeds() -> None:
    """Systems whose true accuracy varies with the seed: about 95 % of the intervals hold its mean."""
    generator = np.random.default_rng(7)
    hits = 0
    for _ in range(100):
        gold = np.zeros(200, dtype=int)
        runs = []
        for _ in range(4):
            share = np.clip(0.8 + 0.04 * generator.normal(), 0, 1)
            wrong = (generator.random(200) > share).astype(float)
            runs.append(class_sample(np.column_stack([1 - wrong, wrong]), gold))
        found = several(runs, resamples=200)["accuracy"]
        hits += found.low <= 0.8 <= found.high
    # 95 expected, three binomial standard deviations are 7, and four seeds are few.
    assert hits >= 84


def test_the_paired_test_finds_a_difference_and_no_other() -> None:
    gold = gold_of(500)
    weak = [class_sample(answers(500, 0.4, seed, gold), gold) for seed in range(3)]
    strong = [class_sample(answers(500, 1.2, 10 + seed, gold), gold) for seed in range(3)]
    found = compare_several(strong, weak)
    assert found.difference.low > 0.1
    assert found.p < 0.01
    same = compare_several(weak, weak)
    assert same.difference.value == 0
    assert same.p > 0.5


@pytest.mark.slow
def test_false_alarms_are_no_more_than_promised() -> None:
    """Two systems of the same true accuracy under three seeds each."""
    generator = np.random.default_rng(11)
    alarms = 0
    for _ in range(100):
        gold = gold_of(150, int(generator.integers(1 << 30)))
        a, b = (
            [class_sample(answers(150, 0.6, int(generator.integers(1 << 30)), gold), gold) for _ in range(3)]
            for _ in range(2)
        )
        alarms += compare_several(a, b, resamples=200).p < 0.05
    # 5 expected of a test that keeps its level; 11 is three standard deviations more.
    assert alarms <= 11


def test_few_rows_that_differ_are_no_proof() -> None:
    """Five rows of 1,000 differ, all one way: McNemar's exact p is 2 / 32, a bare bootstrap's 0.01."""
    gold = np.zeros(1000, dtype=int)
    one, other = np.zeros(1000), np.zeros(1000)
    other[:5] = 1
    a, b = (np.column_stack([1 - wrong, wrong]) for wrong in (one, other))
    found = compare_several([class_sample(a, gold)], [class_sample(b, gold)])
    assert compare(a, b, gold).p == pytest.approx(2 / 32)
    assert found.p == pytest.approx(2 / 32, abs=0.02)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_wrong_use_is_told() -> None:
    gold = gold_of(20)
    short = class_sample(answers(20, 1, 0, gold), gold)
    long = class_sample(answers(30, 1, 0, gold_of(30)), gold_of(30))
    with pytest.raises(InputError, match="20 and 30 rows"):
        several([short, long])
    with pytest.raises(InputError, match="20 and 30 rows"):
        compare_several([short], [long])
    with pytest.raises(InputError, match="no runs"):
        several([])
    with pytest.raises(UsageError, match="did you mean 'accuracy'"):
        compare_several([short], [short], metric="acuracy")
