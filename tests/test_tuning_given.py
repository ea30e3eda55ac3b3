"""What users have at hand, given to the Python API: taken, or refused by one clear error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pegbox
from pegbox.errors import InputError, UsageError, check_whole, several
from pegbox.evaluation import calibration_error
from pegbox.tuning import calibrate, fit_seeds
from pegbox.uncertainty import Predictive
from tuning_toy import base_of, hush, rows_of, task_of

TEXTS = ["the room was good", "the room was bad"]


@pytest.fixture(scope="module")
def tuned() -> pegbox.Tuned:
    return pegbox.fit(base_of("llama"), task_of(), rows=rows_of(24), say=hush)


def test_a_table_is_not_asked_about_its_columns(tuned: pegbox.Tuned) -> None:
    from datasets import Dataset
    from pandas import DataFrame

    columns = {"text": TEXTS}
    for table in (columns, DataFrame(columns), Dataset.from_dict(columns)):
        with pytest.raises(UsageError, match=f"this is a {type(table).__name__}") as error:
            tuned.predict(table)  # type: ignore[arg-type]
        assert "predict(list(table['text']))" in str(error.value)
        with pytest.raises(UsageError, match=f"rows cannot be of the type {type(table).__name__}"):
            tuned.evaluate(table)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"a {type(table).__name__} cannot be read"):
            pegbox.Classify.from_file(table)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Not text but dict"):
        tuned.predict([{"text": text} for text in TEXTS])
    assert len(tuned.predict(DataFrame(columns)["text"].tolist())) == 2


def test_rows_to_tune_on_may_be_files(tmp_path: Path) -> None:
    rows = rows_of(24)
    lines = [f"{text},{label}" for text, label in zip(rows.fields["text"], rows.labels or (), strict=True)]
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n", "utf-8")
    options: dict[str, Any] = {"base": base_of("llama"), "task": task_of(), "say": hush}
    found = pegbox.fit(**options, rows=str(path))
    wanted = pegbox.fit(**options, rows=rows)
    assert torch.equal(found.logits(rows), wanted.logits(rows))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base": 3}, "base cannot be of the type int"),
        ({"training": {"epochs": 1}}, "training cannot be of the type dict"),
        ({"replay": "auto"}, "replay cannot be of the type str"),
        ({"demonstrations": 2}, "demonstrations cannot be of the type int"),
        ({"rows": [("a", "b")]}, "rows cannot be of the type list"),
        ({"valid": [("a", "b")], "method": "lora"}, "valid cannot be of the type list"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_fit_cannot_take_is_named(options: dict[str, Any], said: str) -> None:
    given = {"base": base_of("llama"), "task": task_of(), "rows": rows_of(12), "say": hush, **options}
    with pytest.raises(UsageError, match=said):
        pegbox.fit(**given)


def test_one_name_is_not_its_letters(tuned: pegbox.Tuned, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\ngood room,good\nbad room,bad\n", "utf-8")
    assert len(tuned.read(path, texts="text")) == 2
    with pytest.raises(UsageError, match="ways is the text"):
        calibrate(tuned, rows_of(12), rows_of(12), ways="map,exact")
    for name in ("labels", "fields", "label_words"):
        with pytest.raises(UsageError, match=f"{name} is the text 'ab'"):
            pegbox.Classify(**{"labels": ("bad", "good"), name: "ab"})


def posterior(**options: Any) -> Any:
    once = pegbox.Training(max_steps=1)
    tuned = pegbox.fit(base_of("llama"), task_of(), "lora", rows=rows_of(12), training=once, say=hush)
    return tuned.with_posterior(rows_of(12), prior_precision=1.0, curvature="kron", **options)


def seeds(tuned: pegbox.Tuned, given: Any) -> Any:
    return fit_seeds(tuned.base, task_of(), rows=rows_of(8), seeds=given, say=hush)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda _: posterior(rank=0), "rank is 0"),
        (lambda _: posterior(seed="a"), "seed is 'a'"),
        (lambda tuned: tuned.evaluate(rows_of(8), resamples=1.5), "resamples is 1.5"),
        (lambda tuned: tuned.evaluate(rows_of(8), seed=-1), "seed is -1"),
        (lambda tuned: seeds(tuned, 3), "seeds is 3, and not a list"),
        (lambda tuned: seeds(tuned, [0, "a"]), "seeds is 'a'"),
        (lambda _: calibration_error(np.full((4, 2), 0.5), [0, 1, 0, 1], bins=1.5), "bins is 1.5"),  # type: ignore[arg-type]
        (lambda _: Predictive(torch.zeros(1, 2), torch.zeros(1, 2, 2)).draws(-1), "count is -1"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(
    tuned: pegbox.Tuned, call: Callable[[pegbox.Tuned], Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        call(tuned)


def test_whole_numbers_and_lists_of_numpy_are_taken() -> None:
    check_whole(np.int64(3), 0, "seed")
    for value in (True, 1.0, None, "1", -1):
        with pytest.raises(UsageError, match="seed is"):
            check_whole(value, 0, "seed")
    assert several(np.arange(2), "seeds") == (0, 1)
    found = seeds(pegbox.fit(base_of("llama"), task_of(), rows=rows_of(24), say=hush), np.arange(2))
    assert found.evaluate(rows_of(8), resamples=5).to_json()["seeds"] == [0, 1]
    assert all(type(seed) is int for seed in found.seeds)
    assert several("text", "texts") == ("text",)


def test_a_cache_may_be_named_by_a_string(tmp_path: Path) -> None:
    assert pegbox.FeatureCache(str(tmp_path)).folder == tmp_path
