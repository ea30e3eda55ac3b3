"""Entity-level scores: a hand-computed example, intervals, what is undefined."""

import json
import math

import pytest

from pegbox.errors import InputError
from pegbox.evaluation import TagScores, score_tags

GOLD = [
    ["B-PER", "I-PER", "O", "B-LOC"],
    ["O", "B-LOC", "I-LOC", "O"],
    ["B-ORG", "B-PER", "O"],
]
FOUND = [
    ["B-PER", "I-PER", "O", "B-LOC"],  # both right
    ["O", "B-LOC", "O", "O"],  # too short: wrong, and one missed
    ["B-PER", "B-PER", "O"],  # wrong type, and one right
]


def test_numbers_equal_those_counted_by_hand() -> None:
    scores = score_tags(FOUND, GOLD, types=("MISC",), resamples=200)
    # 5 entities found, 5 in gold, 3 right: PER (0-1), LOC (3), PER (1).
    assert scores.metrics["precision"].value == pytest.approx(3 / 5)
    assert scores.metrics["recall"].value == pytest.approx(3 / 5)
    assert scores.metrics["f1"].value == pytest.approx(3 / 5)
    person, place = scores.per_type["PER"], scores.per_type["LOC"]
    assert (person.precision.value, person.recall.value) == (pytest.approx(2 / 3), 1.0)
    assert (place.precision.value, place.recall.value) == (0.5, 0.5)
    assert (person.support, place.support, scores.per_type["ORG"].support) == (2, 2, 1)
    assert scores.per_type["ORG"].f1.value == 0.0
    assert math.isnan(scores.per_type["ORG"].precision.value)
    assert math.isnan(scores.per_type["MISC"].f1.value)
    # Mean of F1 = 4/5 (PER), 1/2 (LOC) and 0 (ORG); MISC does not occur.
    assert scores.metrics["macro_f1"].value == pytest.approx((4 / 5 + 1 / 2) / 3)
    assert scores.metrics["token_accuracy"].value == pytest.approx(9 / 11)
    assert (scores.rows, scores.words) == (3, 11)
    for estimate in scores.metrics.values():
        assert estimate.low <= estimate.value <= estimate.high


def test_points_equal_seqeval_in_both_modes() -> None:
    from seqeval.metrics import f1_score, precision_score
    from seqeval.scheme import IOB2

    scores = score_tags(FOUND, GOLD, resamples=1)
    assert scores.metrics["precision"].value == precision_score(GOLD, FOUND)
    assert scores.metrics["f1"].value == f1_score(GOLD, FOUND, mode="strict", scheme=IOB2)


def test_a_perfect_answer_has_an_interval_and_scores_survive_json() -> None:
    scores = score_tags(GOLD, GOLD, resamples=50)
    # Five of five by Wilson's score interval: 5 / (5 + 1.96^2).
    assert scores.metrics["precision"].low == pytest.approx(5 / (5 + 1.959964**2), abs=1e-6)
    assert scores.metrics["f1"].high == 1.0
    again = TagScores.from_json(json.loads(json.dumps(scores.to_json(), allow_nan=False)))
    assert again == scores
    assert "token_accuracy" in str(scores)
    assert "PER" in str(scores)
    with pytest.raises(InputError, match="not a file of tag scores"):
        TagScores.from_json({"format": "pegbox.scores/1"})
    broken = scores.to_json()
    del broken["words"]
    with pytest.raises(InputError, match="scores lack a part"):
        TagScores.from_json(broken)


def test_nothing_to_find_is_undefined_not_wrong() -> None:
    scores = score_tags([["O", "O"]], [["O", "O"]], types=("PER",), resamples=10)
    assert math.isnan(scores.metrics["f1"].value)
    assert math.isnan(scores.metrics["macro_f1"].value)
    assert scores.metrics["token_accuracy"].value == 1.0
    json.dumps(scores.to_json(), allow_nan=False)


def test_predictions_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match="1 predictions and 2 sentences"):
        score_tags([["O"]], [["O"], ["O"]])
    with pytest.raises(InputError, match="1 tags are predicted for 2 words"):
        score_tags([["O"]], [["O", "O"]])
    with pytest.raises(InputError, match="0 predictions and 0 sentences"):
        score_tags([], [])
