"""Ways of being sure, side by side."""

from typing import Any

import numpy as np
import pytest

import pegbox
from pegbox.errors import UsageError
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


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ways": ()}, "no way to compare"), ({"ways": ("tempurature",)}, "no way"), ({"passes": 1}, "too few")],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        calibrate(fit(base_of("llama"), "closed-form", ROWS), ROWS, TEST, **options)


def test_strict_json() -> None:
    import json

    solved = fit(base_of("llama"), "closed-form", ROWS, say=hush)
    found = calibrate(solved, ROWS, TEST, ways=("map", "exact"), resamples=5)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["ways"].keys() == {"map", "exact"}
