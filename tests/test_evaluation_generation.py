"""Scores of generated text: the frame, exact match, likelihood, records, and which metrics suit what."""

import json
import math
import subprocess
import sys

import pytest

from pegbox.errors import InputError, UsageError
from pegbox.evaluation import (
    TEXT_METRICS,
    GenerationScores,
    SqlTable,
    parse_record,
    score_texts,
    which_metrics,
)


def test_exact_match_takes_any_reference_and_forgives_spaces_at_the_ends() -> None:
    scores = score_texts(
        [" a b\n", "c", "", "A"], [["x", "a b"], ["d"], [""], ["a"]], metrics=["exact_match"]
    )
    assert scores.rows == 4
    assert scores.metrics["exact_match"].value == 0.5
    assert scores.metrics["exact_match"].low < 0.5 < scores.metrics["exact_match"].high


def test_where_all_are_right_wilson_stands_in() -> None:
    scores = score_texts(["a"] * 5, [["a"]] * 5, metrics=["exact_match"])
    # Five of five by Wilson's score interval: 5 / (5 + 1.96^2).
    assert scores.metrics["exact_match"].low == pytest.approx(5 / (5 + 1.959964**2), abs=1e-6)
    assert scores.metrics["exact_match"].high == 1.0


def test_perplexity_and_bits_are_sums_over_sums() -> None:
    scores = score_texts(nats=[1.0, 5.0, 2.0], tokens=[1, 3, 2], sizes=[4, 10, 6])
    assert scores.rows == 3
    assert list(scores.metrics) == ["perplexity", "bits_per_byte"]
    assert scores.metrics["perplexity"].value == pytest.approx(math.exp(8 / 6))
    assert scores.metrics["bits_per_byte"].value == pytest.approx(8 / math.log(2) / 20)
    for estimate in scores.metrics.values():
        assert estimate.low < estimate.value < estimate.high


def test_likelihood_joins_predictions_and_says_what_it_lacks() -> None:
    scores = score_texts(["a"], [["a"]], metrics=["exact_match", "perplexity", "bits_per_byte"],
                         nats=[1.0], tokens=[2])  # fmt: skip
    assert scores.metrics["perplexity"].value == pytest.approx(math.exp(0.5))
    # One row says nothing about the spread.
    assert math.isnan(scores.metrics["perplexity"].low)
    assert scores.missing == {"bits_per_byte": "no numbers of sizes are given (pass sizes=)"}
    assert "no cross-entropies" in score_texts(["a"], [["a"]], metrics=["perplexity"]).missing["perplexity"]
    assert "no predictions" in score_texts(nats=[1.0], tokens=[1], metrics=["bleu"]).missing["bleu"]
    empty = score_texts(nats=[0.0], tokens=[0], sizes=[0])
    assert set(empty.missing) == {"perplexity", "bits_per_byte"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nats": [1.0, math.nan], "tokens": [1, 1]}, "nats are negative, NaN or infinite (row 1"),
        ({"nats": [1.0], "tokens": [1, 1]}, "tokens have shape (2,)"),
        ({"nats": [1.0], "tokens": [-1]}, "tokens are negative"),
        ({"nats": [9999.0], "tokens": [1]}, "more than 700 per token"),
        ({"nats": []}, "nats have shape (0,)"),
        ({"nats": ["a"]}, "nats are not an array of numbers"),
        ({}, "nothing to score"),
        ({"references": [["a"]]}, "no predictions"),
        ({"predictions": [], "references": []}, "0 predictions and 0 rows of references"),
        ({"predictions": ["a"], "references": None}, "1 predictions and 0 rows of references"),
        ({"predictions": ["a"], "references": [["a"], ["b"]]}, "1 predictions and 2 rows of references"),
        ({"predictions": ["a", "b"], "references": [["a"], []]}, "a row has no reference (row 1"),
        ({"predictions": ["a"], "references": ["a"]}, "a row's references are one text (row 0"),
        ({"predictions": [None], "references": [["a"]]}, "a prediction is of type NoneType (row 0"),
        ({"predictions": ["a"], "references": [[1]]}, "a reference is of type int (row 0"),
        ({"predictions": ["a"], "references": [["a"]], "records": []}, "0 records and 1 predictions"),
        ({"predictions": ["a"], "references": [["a"]], "nats": [1, 2]}, "nats have shape (2,)"),
    ],
)
def test_what_cannot_be_scored_is_refused(given: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        score_texts(**given)
    assert message in str(caught.value)


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'rouge_l'"):
        score_texts(["a"], [["a"]], metrics=["rougel"])
    with pytest.raises(UsageError, match="resamples is 0"):
        score_texts(["a"], [["a"]], metrics=["exact_match"], resamples=0)


def test_scores_survive_json_and_print_what_is_missing() -> None:
    scores = GenerationScores(
        2, score_texts(nats=[1.0, 2.0], tokens=[1, 1]).metrics, {"meteor": "no WordNet"}, 1.5, {"slots": 3}
    )
    again = GenerationScores.from_json(json.loads(json.dumps(scores.to_json(), allow_nan=False)))
    assert again == scores
    text = str(scores)
    for part in ("perplexity", "meteor", "missing: no WordNet", "slots", "seconds"):
        assert part in text
    with pytest.raises(InputError, match="not a file of generation scores"):
        GenerationScores.from_json({"format": "pegbox.scores/1"})
    broken = scores.to_json()
    del broken["counts"]
    with pytest.raises(InputError, match=r"scores lack a part \(key 'counts'\)"):
        GenerationScores.from_json(broken)
    with pytest.raises(InputError, match="part of the wrong kind"):
        GenerationScores.from_json(scores.to_json() | {"metrics": 3})


def test_the_same_seed_gives_the_same_interval() -> None:
    first, again, other = (
        score_texts(nats=[1.1**row for row in range(50)], tokens=range(1, 51), seed=own) for own in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_what_the_arguments_do_not_allow_is_not_tried_unless_it_is_named() -> None:
    tried = score_texts(["a b c d e f"] * 2, [["a b c d e f"]] * 2, resamples=5)
    names = set(tried.metrics) | set(tried.missing)
    assert names == set(TEXT_METRICS) - {"sql_match", "sql_execution", "slot_error_rate"}
    named = score_texts(["a"], [["a"]], metrics=["sql_match", "sql_execution", "slot_error_rate"])
    assert named.metrics == {}
    assert named.missing == {
        "sql_match": "no reference is an SQL query",
        "sql_execution": "no reference is an SQL query",
        "slot_error_rate": "no row has a record (pass records=)",
    }


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("name[Blue Spice], eatType[coffee shop]", {"name": "Blue Spice", "eatType": "coffee shop"}),
        ("name[Blue Spice]", {"name": "Blue Spice"}),
        ("priceRange[£20-25] , near[Café, Rouge]", {"priceRange": "£20-25", "near": "Café, Rouge"}),
        ("name: A | family friendly: yes", {"name": "A", "family friendly": "yes"}),
        ("name: A\nfood: B C\n", {"name": "A", "food": "B C"}),
        ("time: 10:30 | day: Monday", {"time": "10:30", "day": "Monday"}),
        ("Note: it rains", None),
        ("name: A | free text", None),
        ("name: A | name: B", None),
        ("name[]", None),
        ("see name[A]: it is good", None),
        ("this is a very long key: a | b: c", None),
        ("", None),
    ],
)
def test_records_are_read_and_prose_is_none(text: str, record: dict[str, str] | None) -> None:
    assert parse_record(text) == record


def test_which_metrics_follows_the_answers() -> None:
    query = [["SELECT a FROM data"]] * 3
    table = SqlTable("data", ("a",), (("x",),))
    assert which_metrics(query) == ("exact_match", "sql_match")
    assert which_metrics(query, tables=[table, table, None]) == ("exact_match", "sql_match", "sql_execution")
    assert which_metrics(query, tables=[table, None, None]) == ("exact_match", "sql_match")
    prose = [["With a garden and some six more words to tell."]] * 2
    assert which_metrics(prose) == ("exact_match", "rouge_l", "bleu")
    told = ("bleu", "nist", "meteor", "rouge_l", "cider", "slot_error_rate")
    assert which_metrics(prose, records=[{"name": "A"}] * 2) == told
    assert which_metrics(prose, records=[{"name": "A"}, None]) == ("exact_match", "rouge_l", "bleu")
    assert which_metrics([["yes"], ["no, not at all"], ["a b c d e f g"]]) == ("exact_match",)
    for names in (told, which_metrics(query, tables=[table] * 3)):
        assert set(names) <= set(TEXT_METRICS)


def test_no_library_of_the_extra_is_imported_before_it_is_asked() -> None:
    program = (
        "import sys, pegbox, pegbox.evaluation\n"
        "names = ['torch', 'sacrebleu', 'nltk', 'rouge_score']\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
