"""Ways of being sure, side by side."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import pegbox
from pegbox.data import Conversations, Examples, Message
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import build
from pegbox.tuning import calibrate
from tuning_toy import base_of, checksum, fit, hush, rows_of

QUICK = pegbox.Training(epochs=2, learning_rate=1e-2)
ROWS, VALID, TEST = rows_of(30), rows_of(20, seed=50), rows_of(40, seed=7)


def tuned_of(kind: str = "causal", **options: Any) -> pegbox.Tuned:
    base = base_of("bert" if kind == "encoder" else "llama", kind)
    return fit(base, build("lora", options), ROWS, training=QUICK, valid=VALID)


def test_each_way_is_what_it_says() -> None:
    tuned = tuned_of(dropout=0.2)
    before = checksum(tuned.module)  # type: ignore[arg-type]
    ways = ("map", "temperature", "dropout", "ensemble", "exact")
    found = calibrate(
        tuned, ROWS, TEST, valid=VALID, ood=rows_of(15, seed=9), ways=ways, members=2, passes=4,
        training=QUICK, resamples=50,
    )  # fmt: skip
    assert [way.name for way in found.ways] == list(ways)
    assert (found.rows, found.valid, found.outside, found.left_out) == (40, 20, 15, {})
    assert checksum(tuned.module) == before  # type: ignore[arg-type]
    assert not any(part.training for part in tuned.module.modules())  # type: ignore[union-attr]
    plain = tuned.probabilities(TEST)
    np.testing.assert_array_equal(found["map"].probabilities, plain)
    gold = np.array(tuned.prompt.task.gold(TEST))
    assert found["map"].scores.metrics["nll"].value == pytest.approx(
        -np.log(plain[np.arange(40), gold]).mean()
    )
    hot = float(found["temperature"].note.removeprefix("temperature "))
    logits = tuned.logits(TEST).double() / hot
    np.testing.assert_allclose(found["temperature"].probabilities, logits.softmax(1), atol=5e-3)
    other = fit(tuned.base, tuned.method, ROWS, training=QUICK, valid=VALID, seed=1)
    np.testing.assert_allclose(
        found["ensemble"].probabilities, (plain + other.probabilities(TEST)) / 2, atol=1e-6
    )
    sure = tuned.with_posterior(ROWS, valid=VALID)
    np.testing.assert_allclose(found["exact"].probabilities, sure.probabilities(TEST), atol=1e-6)
    assert np.abs(found["dropout"].probabilities - plain).max() > 1e-4
    for way in found.ways:
        np.testing.assert_allclose(way.probabilities.sum(1), 1)
        assert way.ood_auroc is not None
        assert (way.against_map is None) == (way.name == "map")


def test_dropout_is_the_same_again_and_leaves_the_random_numbers_alone() -> None:
    import torch

    tuned = tuned_of(dropout=0.3)
    torch.manual_seed(3)
    first = calibrate(tuned, ROWS, TEST, valid=VALID, ways=("dropout",), passes=2, resamples=5)
    drawn = torch.rand(1)
    second = calibrate(tuned, ROWS, TEST, valid=VALID, ways=("dropout",), passes=2, resamples=5)
    np.testing.assert_array_equal(first["dropout"].probabilities, second["dropout"].probabilities)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


def test_what_cannot_work_is_left_out_with_its_reason() -> None:
    solved = fit(base_of("llama"), "closed-form", ROWS)
    ways = ("map", "temperature", "dropout", "ensemble", "exact", "kron")
    found = calibrate(solved, ROWS, TEST, ways=ways, resamples=5)
    assert [way.name for way in found.ways] == ["map", "exact"]
    assert found.left_out.keys() == {"temperature", "dropout", "ensemble", "kron"}
    assert "held-out rows" in found.left_out["temperature"]
    assert "frozen features" in found.left_out["dropout"]
    assert "the same under every seed" in found.left_out["ensemble"]


def joined(*parts: Examples) -> Examples:
    texts = tuple(text for part in parts for text in part.fields["text"])
    labels = tuple(label for part in parts for label in part.labels or ())
    return Examples("joined", {"text": texts}, labels, tuple(range(1, len(texts) + 1)))


def heard(tuned: pegbox.Tuned) -> tuple[pegbox.Tuned, list[str]]:
    lines: list[str] = []
    return replace(tuned, say=lines.append), lines


def test_nothing_is_chosen_on_test_rows() -> None:
    tuned = tuned_of()
    both = joined(TEST, VALID.select(range(3)))
    for options in ({"valid": VALID}, {}):
        rows = ROWS if options else joined(ROWS, VALID)
        for ways in (("map", "temperature"), ("kron",), ("ensemble",)):
            with pytest.raises(InputError, match="3 of 43 test rows are among the held-out rows") as error:
                calibrate(tuned, rows, both, ways=ways, resamples=5, **options)
            assert "joined, rows 41, 42, 43" in str(error.value)
            assert error.value.exit_code == 2
    # Where nothing is chosen, held-out rows are rows like others.
    assert calibrate(tuned, ROWS, both, valid=VALID, ways=("map",), resamples=5).rows == 43
    solved = fit(base_of("llama"), "closed-form", ROWS)
    assert calibrate(solved, ROWS, VALID, valid=VALID, ways=("map", "exact"), resamples=5).rows == 20


def test_rows_that_were_tuned_on_are_told_once() -> None:
    tuned, lines = heard(tuned_of())
    test, valid = joined(TEST, ROWS.select(range(5))), joined(VALID, ROWS.select(range(10, 14)))
    calibrate(tuned, ROWS, test, valid=valid, ways=("map", "temperature", "diag", "kron"), resamples=5)
    assert lines.count("joined: 5 of 45 rows were among the training rows") == 1
    (told,) = [line for line in lines if "held-out rows were tuned on" in line]
    assert told == (
        "joined: 4 of 24 held-out rows were tuned on: the temperature will be too low and the precision "
        "too high"
    )
    assert len(lines) == len(set(lines))
    unknown, lines = heard(replace(tuned, training_rows=frozenset()))
    calibrate(unknown, ROWS, test, ways=("map",), resamples=5)
    assert "joined: 5 of 45 rows were among the training rows" in lines


@pytest.mark.slow
def test_no_two_members_of_an_ensemble_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[pegbox.Tuned] = []
    own = pegbox.tuning._fit.fit

    def watched(*arguments: Any, **options: Any) -> pegbox.Tuned:
        fitted.append(own(*arguments, **options))
        return fitted[-1]

    base = base_of("llama")
    tuned, lines = heard(fit(base, "lora", ROWS, training=QUICK, valid=VALID, seed=2))
    monkeypatch.setattr("pegbox.tuning._fit.fit", watched)
    options: dict[str, Any] = {"ways": ("ensemble",), "members": 3, "resamples": 5, "valid": VALID}
    calibrate(tuned, ROWS, TEST, training=QUICK, seed=1, **options)
    assert [model.details["seed"] for model in fitted] == [3, 4]
    answers = [model.logits(TEST) for model in (tuned, *fitted)]
    assert all(float((left - right).abs().max()) > 1e-6 for left, right in combinations(answers, 2))
    assert not any("default settings" in line for line in lines)


@pytest.mark.slow
def test_default_training_of_members_is_told() -> None:
    tuned, lines = heard(tuned_of())
    calibrate(tuned, ROWS, TEST, valid=VALID, ways=("map", "ensemble"), members=3, resamples=5)
    told = [line for line in lines if "default settings" in line]
    assert told == [
        "ensemble: further members are trained with the default settings unless training is given; "
        "this model was trained otherwise: 2 epochs instead of 8"
    ]


def test_map_is_without_the_posterior_in_use() -> None:
    tuned = tuned_of()
    solved = fit(base_of("llama"), "closed-form", ROWS)
    for plain, sure in (
        (tuned, tuned.with_posterior(ROWS, valid=VALID, curvature="diag")),
        (solved, solved.with_posterior()),
    ):
        assert np.abs(sure.probabilities(TEST) - plain.probabilities(TEST)).max() > 1e-4
        found = calibrate(sure, ROWS, TEST, valid=VALID, ways=("map", "temperature", "exact"), resamples=5)
        np.testing.assert_array_equal(found["map"].probabilities, plain.probabilities(TEST))
        again = calibrate(plain, ROWS, TEST, valid=VALID, ways=("map", "temperature", "exact"), resamples=5)
        for way in again.ways:
            np.testing.assert_array_equal(found[way.name].probabilities, way.probabilities)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": ()}, "no way to compare"),
        ({"ways": ("tempurature",)}, "no way"),
        ({"ways": ("map", "exact", "map")}, "'map' is named more than once"),
        ({"passes": 1}, "too few"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        calibrate(fit(base_of("llama"), "closed-form", ROWS), ROWS, TEST, **options)


def test_a_model_that_writes_is_refused_before_any_row_is_read() -> None:
    said = ((Message("user", "Say A."), Message("assistant", "A")),) * 3
    rows = Conversations("toy chats", said, (("A",),) * 3, (1, 2, 3))
    task = pegbox.Generate(columns={"instruction": "instruction", "output": "output"})
    tuned = pegbox.fit(base_of("llama"), task, "lora", rows=rows, training=QUICK, say=hush)
    with pytest.raises(CapabilityError, match="one answer per row, and this task has none") as caught:
        calibrate(tuned, "nowhere.csv", "nowhere.csv")
    assert "pegbox evaluate" in caught.value.fix


def test_strict_json() -> None:
    import json

    solved = fit(base_of("llama"), "closed-form", ROWS, say=hush)
    found = calibrate(solved, ROWS, TEST, ways=("map", "exact"), resamples=5)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["ways"].keys() == {"map", "exact"}
