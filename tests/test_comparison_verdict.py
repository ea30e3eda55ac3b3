"""Which rung is recommended, and in which words: no winner without a test that says so."""

from typing import Any

import numpy as np
import pytest

from pegbox.comparison import Cell, Rung, RungCost
from pegbox.comparison._verdict import Rule, _by, judged, verdict
from pegbox.evaluation import Estimate, Paired, Sample, class_sample, compare_several, score, several

ROWS = 400


def sample_of(accuracy: float, seed: int) -> Sample:
    """A classifier that has each of the rows right with a probability of ``accuracy``, drawn by ``seed``."""
    gold = np.zeros(ROWS, dtype=int)
    # One draw of the rows' difficulty, so that systems are right about much the same rows.
    hard = np.random.default_rng(0).random(ROWS) + 0.1 * np.random.default_rng(seed).normal(size=ROWS)
    wrong = (hard > np.quantile(hard, accuracy)).astype(float)
    return class_sample(np.column_stack([0.9 - 0.8 * wrong, 0.1 + 0.8 * wrong]), gold)


def rung_of(name: str, seconds: float, metrics: Any) -> Rung:
    """A rung whose time is all fit."""
    cost = RungCost(seconds, 0.0, 0, 0)
    cell = Cell(name, 0, score([[0.4, 0.6]], [1], ["no", "yes"], resamples=2), cost)
    return Rung(name, "", {}, (cell,), metrics, cost)


def ladder_of(*accuracies: float, seconds: Any = None) -> tuple[list[Rung], dict[str, list[Sample]]]:
    rungs, samples = [], {}
    for place, accuracy in enumerate(accuracies):
        name = f"rung {place}"
        samples[name] = [sample_of(accuracy, 10 * place + seed) for seed in range(2)]
        took = seconds[place] if seconds else 1.0
        rungs.append(rung_of(name, took, several(samples[name], resamples=50)))
    return rungs, samples


def decided(*accuracies: float, seconds: Any = None, worth: float = 0.01) -> Any:
    rungs, samples = ladder_of(*accuracies, seconds=seconds)
    return verdict(rungs, samples, Rule("accuracy", lower=False, worth=worth), ROWS)


def test_a_clear_gain_is_recommended() -> None:
    found = decided(0.5, 0.7, 0.9)
    assert found.rung.name == "rung 2"
    assert found.sentences[0].startswith("rung 2 is recommended: accuracy 0.900")
    assert "ahead of rung 1" in found.sentences[0]
    assert "costliest rung" in found.sentences[1]


def test_a_gain_within_chance_is_no_winner() -> None:
    found = decided(0.5, 0.8, 0.81)
    assert found.rung.name == "rung 1"
    assert "can be chance" in found.sentences[1]
    assert "no winner" in found.sentences[1]
    assert "rung 2" in found.sentences[1]


def test_a_clear_gain_that_costs_too_much_is_not_worth_it() -> None:
    found = decided(0.7, 0.8, seconds=(1, 10_000), worth=0.05)
    assert found.rung.name == "rung 0"
    assert "less than its cost needs" in found.sentences[1]
    assert decided(0.7, 0.8, seconds=(1, 10), worth=0.05).rung.name == "rung 1"


def test_a_worse_costlier_rung_changes_nothing() -> None:
    found = decided(0.8, 0.6, 0.7)
    assert found.rung.name == "rung 0"
    assert found.sentences[0].endswith("and nothing is cheaper.")
    assert "None of the 2 costlier rungs measured better" in found.sentences[1]


def test_the_cheapest_that_nothing_beats_even_when_neighbours_cannot_be_told_apart() -> None:
    """Each step is too small to be seen, all of them together are not."""
    found = decided(0.70, 0.73, 0.76, 0.79, 0.82)
    assert found.rung.name != "rung 0"
    rungs, samples = ladder_of(0.70, 0.73, 0.76, 0.79, 0.82)
    rule = Rule("accuracy", lower=False)
    climbed: list[Rung] = []
    for rung in rungs:
        climbed.append(judged(rung, climbed, samples, rule))
    assert climbed[0].worth is None
    assert climbed[1].against == "rung 0"


@pytest.mark.slow
def test_of_many_equal_rungs_none_is_recommended_by_luck() -> None:
    """Twelve systems that are equally good: the cheapest is recommended nearly always (Holm over eleven)."""
    wrong = 0
    for draw in range(20):
        generator = np.random.default_rng(draw)
        gold = np.zeros(200, dtype=int)
        rungs, samples = [], {}
        for place in range(12):
            miss = (generator.random(200) > 0.7).astype(float)
            name = f"rung {place}"
            samples[name] = [class_sample(np.column_stack([0.9 - 0.8 * miss, 0.1 + 0.8 * miss]), gold)]
            metrics = several(samples[name], resamples=20)
            rungs.append(rung_of(name, 1.0, metrics))
        found = verdict(rungs, samples, Rule("accuracy", lower=False), 200)
        wrong += found.rung.name != "rung 0"
    # One in 20 promised; four is more than three binomial standard deviations above.
    assert wrong <= 3


def test_a_rung_behind_a_cheaper_one_is_not_recommended_for_its_luck() -> None:
    """Seeds of the second differ so much that the third is not shown to beat it; the first is beaten."""
    rungs, samples = ladder_of(0.80, 0.75, 0.90)
    samples["rung 1"] = [sample_of(accuracy, 7) for accuracy in (0.5, 0.9)]
    rungs[1] = rung_of("rung 1", 1.0, several(samples["rung 1"], resamples=50))
    found = verdict(rungs, samples, Rule("accuracy", lower=False), ROWS)
    assert compare_several(samples["rung 2"], samples["rung 1"]).p > 0.05
    assert found.rung.name == "rung 2"
    assert "ahead of rung 0" in found.sentences[0]


def test_less_is_better_for_losses() -> None:
    rungs, samples = ladder_of(0.9, 0.6)
    rule = Rule("nll", lower=True)
    assert verdict(rungs, samples, rule, ROWS).rung.name == "rung 0"
    rungs, samples = ladder_of(0.6, 0.9)
    found = verdict(rungs, samples, rule, ROWS)
    assert found.rung.name == "rung 1"
    assert "log-loss" in found.sentences[0]
    gap = compare_several(samples["rung 1"], samples["rung 0"], metric="nll").difference
    assert gap.value < 0
    told = f"with a log-loss lower by {-gap.value:.3f} [{-gap.high:.3f}, {-gap.low:.3f}], p < 0.001"
    assert told in found.sentences[0]
    assert "+" not in found.sentences[0]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (-0.343, "with a Brier score lower by 0.343 [0.293, 0.393], p = 0.020"),
        (0.01, "with a Brier score higher by 0.010 [-0.040, 0.060], p = 0.020"),
    ],
)
def test_where_less_is_better_the_words_say_which_way(value: float, told: str) -> None:
    found = Paired("brier", 0.1, 0.2, Estimate(value, value - 0.05, value + 0.05), 0.02, "a test", 100)
    assert _by(found, Rule("brier", lower=True)) == told
    assert _by(found, Rule("accuracy", lower=False)) == f"by {found}"


@pytest.mark.parametrize(
    ("seconds", "cheaper", "needed"), [(1, 1, 0.01), (10, 1, 0.01), (100, 1, 0.02), (1, 100, 0.01)]
)
def test_the_gain_that_is_needed_by_hand(seconds: float, cheaper: float, needed: float) -> None:
    assert Rule("accuracy", lower=False).needed(seconds, cheaper) == pytest.approx(needed)


def test_the_rule_is_said_in_words() -> None:
    assert "1 points" not in str(Rule("accuracy", lower=False))
    assert "1 point of accuracy" in str(Rule("accuracy", lower=False))
    assert "0.02 of log-loss" in str(Rule("nll", lower=True, worth=0.02))
