"""Bits per byte before and after, and accuracy on other tasks: points, intervals, JSON."""

import json
import math

import numpy as np
import pytest

from pegbox.errors import InputError
from pegbox.evaluation import Forgetting, compare, only_also, score_also, score_forgetting

SIZES = [10, 20, 5]
BEFORE = [7.0, 14.0, 3.0]
AFTER = [8.0, 13.0, 6.0]


def test_bits_are_nats_over_ln_2_and_all_bytes() -> None:
    found = score_forgetting(BEFORE, AFTER, SIZES, source="text")
    assert found.before.value == pytest.approx(24 / math.log(2) / 35, rel=1e-12)
    assert found.after.value == pytest.approx(27 / math.log(2) / 35, rel=1e-12)
    assert found.change.value == pytest.approx(3 / math.log(2) / 35, rel=1e-12)
    assert (found.documents, found.bytes, found.off) == (3, 35, None)


def test_one_byte_said_by_a_fair_coin_costs_one_bit() -> None:
    found = score_forgetting([math.log(2)], [8 * math.log(2)], [1], source="text")
    assert (found.before.value, found.after.value) == (1.0, 8.0)
    assert math.isnan(found.change.low)  # one document has no interval


def test_the_interval_of_the_change_is_paired() -> None:
    """Documents differ far more than the two models do; drawn together, only the latter counts."""
    dice = np.random.default_rng(0)
    sizes = dice.integers(50, 500, 200)
    before = sizes * dice.uniform(0.2, 2.0, 200)
    after = before + sizes * dice.normal(0.01, 0.02, 200)
    found = score_forgetting(before, after, sizes, source="text", resamples=500)
    wide = found.before.high - found.before.low
    narrow = found.change.high - found.change.low
    assert narrow < wide / 10
    assert found.change.low > 0  # 0.01 nats per byte, seven of its standard errors (0.02 / sqrt(200))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    dice = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        sizes = dice.integers(20, 200, 60)
        change = sizes * dice.normal(0.05, 0.1, 60)
        found = score_forgetting(
            sizes * 0.5, sizes * 0.5 + change, sizes, source="", resamples=200, seed=seed
        )
        held += found.change.low <= 0.05 / math.log(2) <= found.change.high
    # 95 % of 200 is 190, with a standard deviation of 3; percentiles undercover a little at 60 documents.
    assert 176 <= held <= 200


def test_where_nothing_was_turned_the_change_is_exactly_nothing() -> None:
    answers = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = score_also("other.csv", answers, answers, [0, 1, 1])
    gap = found.difference.difference
    assert found.unturned
    assert (gap.value, gap.low, gap.high, found.difference.p, found.rows) == (0.0, 0.0, 0.0, 1.0, 3)
    assert str(found).endswith("exactly 0, nothing was turned")
    kept = Forgetting.from_json(json.loads(json.dumps(only_also([found], "bits per byte").to_json())))
    assert kept.also == (found,)
    # Answers that only came out alike are not known to be equal on other rows.
    alike = score_also("other.csv", answers, answers.copy(), [0, 1, 1])
    assert not alike.unturned
    assert alike.difference.difference.low < 0 < alike.difference.difference.high


def test_a_model_that_did_not_change_has_a_change_of_exactly_nothing() -> None:
    found = score_forgetting(BEFORE, BEFORE, SIZES, source="text", off=BEFORE)
    assert (found.change.value, found.change.low, found.change.high, found.off) == (0.0, 0.0, 0.0, 0.0)
    other = score_forgetting(BEFORE, BEFORE, SIZES, source="text", off=[7.0, 14.0, 3.0000001])
    assert other.off is not None
    assert other.off > 0


def test_documents_of_which_nothing_was_asked_count_for_nothing() -> None:
    found = score_forgetting([7.0, 0.0], [8.0, 0.0], [10, 0], source="text")
    assert found.change.value == pytest.approx(1 / math.log(2) / 10, rel=1e-12)
    assert found.change.low == found.change.high == pytest.approx(found.change.value)


@pytest.mark.parametrize(
    ("before", "after", "sizes", "what"),
    [
        ([1.0], [1.0, 2.0], [1, 1], "before has shape"),
        ([1.0, 2.0], [1.0], [1, 1], "after has shape"),
        ([1.0], [1.0], [0], "0 bytes"),
        ([], [], [], "0 bytes"),
        ([1.0, math.nan], [1.0, 2.0], [1, 1], "before is not a finite number"),
        ([1.0, 2.0], [math.inf, 2.0], [1, 1], "after is not a finite number"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    before: list[float], after: list[float], sizes: list[int], what: str
) -> None:
    with pytest.raises(InputError, match=what):
        score_forgetting(before, after, sizes, source="text")


def also() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    gold = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    before = np.eye(2)[[0, 0, 1, 1, 1, 1, 1, 0]]  # six right
    after = np.eye(2)[[0, 1, 0, 0, 0, 1, 1, 0]]  # breaks rows 1, 3, 4, mends row 2
    return before, after, gold


def test_other_tasks_are_compared_row_by_row() -> None:
    before, after, gold = also()
    found = score_also("news.csv", before, after, gold)
    assert (found.rows, found.before.value, found.after.value) == (8, 0.75, 0.5)
    assert found.difference == compare(after, before, gold, resamples=1000)
    assert found.difference.difference.value == -0.25
    # Exact McNemar of 1 mended and 3 broken: 2 (1 + 4) / 2^4.
    assert found.difference.p == pytest.approx(0.625)


def test_json_gives_back_an_equal_object() -> None:
    extra = [score_also("news.csv", *also())]
    whole = score_forgetting(
        BEFORE, AFTER, SIZES, source="text", kind="masked bits per byte", off=BEFORE, also=extra
    )
    for found in (whole, only_also(extra, "bits per byte"), score_forgetting([1.0], [2.0], [3], source="x")):
        text = json.dumps(found.to_json(), allow_nan=False)
        assert Forgetting.from_json(json.loads(text)) == found


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"format": "pegbox.scores/1"}, "not a file of forgetting"),
        ({"before": None}, "wrong kind"),
        ({"also": [{}]}, "lacks a part"),
    ],
)
def test_other_json_is_refused(change: dict[str, object], what: str) -> None:
    stored = score_forgetting(BEFORE, AFTER, SIZES, source="text").to_json() | change
    with pytest.raises(InputError, match=what):
        Forgetting.from_json(stored)


def test_text_says_all_of_it() -> None:
    found = score_forgetting(
        BEFORE, AFTER, SIZES, source="text", off=BEFORE, also=[score_also("news.csv", *also())]
    )
    lines = str(found).split("\n")
    assert lines[0] == "general text   text: 3 documents, 35 bytes"
    assert lines[1].startswith("before         0.989 [")
    assert lines[3].startswith("change         +0.124 [")
    assert lines[4] == "adapter off    +0.000"
    assert lines[5].startswith("also news.csv  0.750 [")
    assert lines[5].endswith("p = 0.625")
    assert "before" in str(only_also(found.also, "bits per byte"))
    assert "general" not in str(only_also(found.also, "bits per byte"))
