"""fit, predict and evaluate: what is told, what is refused, what nobody may touch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pegbox
from pegbox.data import Examples, split, text_key
from pegbox.errors import CapabilityError, InputError, RunError, UsageError
from pegbox.methods import FewShot, LoRA
from pegbox.tasks import text_keys
from pegbox.training import Settings, resumed_by
from pegbox.tuning import base_alone
from pegbox.tuning._seen import row_digests
from tuning_toy import LABELS, base_of, checksum, fit, folder_of, hush, rows_of, same_parts, task_of

QUICK = pegbox.Training(epochs=2, precision="float32")


def texts(*values: str, labels: tuple[str, ...] | None = None) -> Examples:
    return Examples("toy.csv", {"text": values}, labels, tuple(range(1, len(values) + 1)))


def told_by(method: Any, rows: Examples, **options: Any) -> tuple[pegbox.Tuned, list[str]]:
    told: list[str] = []
    return fit(base_of("llama"), method, rows, say=told.append, **options), told


def test_rows_held_out_for_early_stopping_are_told() -> None:
    tuned, told = told_by("lora", rows_of(60), training=QUICK)
    assert "9 of 60 training rows held out for early stopping (seed 0)" in told
    assert tuned.cost.rows == 51
    assert len(tuned.training_rows) == 51
    assert tuned.details["history"]["best_valid_loss"] is not None


def test_few_rows_are_all_trained_on() -> None:
    tuned, told = told_by("lora", rows_of(20), training=QUICK)
    assert "20 rows are too few to hold some out for early stopping: all epochs are run" in told
    assert tuned.cost.rows == 20


def test_a_class_with_one_text_stops_the_hold_out_not_the_fit() -> None:
    rows = rows_of(50)
    rare = Examples(rows.source, rows.fields, (*["bad"] * 49, "fine"), rows.numbers)
    tuned, told = told_by("lora", rare, training=pegbox.Training(max_steps=1, precision="float32"))
    assert any(line.startswith("no rows held out for early stopping, all epochs are run") for line in told)
    assert tuned.cost.rows == 50


def test_own_validation_rows_are_used_as_they_are() -> None:
    tuned, told = told_by("lora", rows_of(50), training=QUICK, valid=rows_of(10, seed=1))
    assert not any("held out" in line for line in told)
    assert tuned.cost.rows == 50
    other = fit(base_of("llama"), "lora", rows_of(50), training=QUICK, valid=rows_of(12, seed=2))
    assert tuned.details["history"]["valid_losses"] != other.details["history"]["valid_losses"]


@pytest.mark.parametrize("method", ["zero-shot", "few-shot", "closed-form", "lora"])
def test_rows_that_cannot_be_learnt_from_are_refused(method: str) -> None:
    base = base_of("llama")
    with pytest.raises(InputError, match="there are no rows to tune on"):
        fit(base, method, texts())
    with pytest.raises(InputError, match="no training row has the label 'fine'") as error:
        fit(base, method, texts("a", "b", labels=("bad", "bad")))
    assert "at least one row of each of bad, fine" in str(error.value)
    with pytest.raises(InputError, match="these rows have no labels"):
        fit(base, method, texts("a", "b"))
    with pytest.raises(InputError, match="the label 'badd' is unknown to the task") as error:
        fit(base, method, texts("a", "b", "c", labels=("bad", "badd", "fine")))
    assert "toy.csv, row 2" in str(error.value)
    assert "did you mean 'bad'?" in str(error.value)
    with pytest.raises(InputError, match="these rows have no labels"):
        fit(base, method, rows_of(8), valid=texts("a"))


def test_wrong_use_is_told_before_any_work() -> None:
    with pytest.raises(UsageError, match="there is no method 'lor'") as error:
        fit(base_of("llama"), "lor", rows_of(8))
    assert "did you mean 'lora'?" in str(error.value)
    with pytest.raises(UsageError, match="is no method"):
        fit(base_of("llama"), LoRA, rows_of(8))
    with pytest.raises(UsageError, match="there is nothing to resume from") as error:
        fit(base_of("llama"), "lora", rows_of(8), resume=True)
    assert "pass folder=" in str(error.value)
    with pytest.raises(UsageError, match="batch_size is 0"):
        fit(base_of("llama"), "lora", rows_of(8), training=pegbox.Training(batch_size=0))
    with pytest.raises(UsageError, match="training has no option 'epoch'") as error:
        pegbox.Training.of({"epoch": 3})
    assert "did you mean 'epochs'?" in str(error.value)


def test_the_engines_settings_can_be_reached() -> None:
    given = {
        "warmup": 0.1,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "gradient_clip": 0.5,
        "evaluations_per_epoch": 3,
        "gradient_checkpointing": True,
    }
    settings, plain = (pegbox.Training.of(values).settings(LoRA(), 5) for values in (given, {}))
    assert {name: getattr(settings, name) for name in given} == given
    default = Settings(learning_rate=1e-3)
    assert {name: getattr(plain, name) for name in given} == {name: getattr(default, name) for name in given}
    with pytest.raises(UsageError, match=r"warmup is 2"):
        fit(base_of("llama"), "lora", rows_of(8), training=pegbox.Training(warmup=2))


def test_settings_of_the_engine_reach_the_training() -> None:
    rows = rows_of(20)
    plain, slow, thrifty = (
        fit(base_of("llama"), "lora", rows, training=replace(QUICK, **options))
        for options in ({}, {"warmup": 0.9}, {"gradient_checkpointing": True})
    )
    assert not same_parts(plain.module, slow.module)
    # Recomputed activations are the same numbers.
    np.testing.assert_allclose(thrifty.probabilities(rows), plain.probabilities(rows), atol=1e-5)


def test_colliding_words_are_scored_whole_by_zero_shot_only() -> None:
    base, rows = base_of("llama"), rows_of(12)
    task = task_of(label_words=("yes", "yes yes"))
    for method in ("closed-form", "lora"):
        with pytest.raises(
            CapabilityError, match="two label words begin with the same token: 'yes' and 'yes yes'"
        ):
            fit(base, method, rows, task=task)
    tuned = fit(base, "zero-shot", rows, task=task)
    whole = tuned.logits(rows)
    assert whole.shape == (12, 2)
    # A longer word that begins with the other can only be less probable.
    assert (whole[:, 1] < whole[:, 0]).all()
    assert tuned.evaluate(rows, resamples=5).rows == 12


def test_too_long_texts_are_told_once() -> None:
    long = "the kettle was great and the tea was hot " * 30
    rows = rows_of(44)
    column = (long, *rows.fields["text"][1:30], long + "!", *rows.fields["text"][31:])
    rows = Examples(rows.source, {"text": column}, rows.labels, rows.numbers)
    for method in ("closed-form", "lora", "zero-shot"):
        tuned, told = told_by(method, rows, training=QUICK)
        lines = [line for line in told if "shortened" in line]
        assert lines == ["toy rows: 2 of 44 texts shortened to fit the context (rows 1, 31)"], method
        tuned.evaluate(rows, resamples=5)
        tuned.predict(rows)
        assert [line for line in told if "shortened" in line] == lines, method
        tuned.predict(replace(rows, source="other rows"))
        assert [line for line in told if "shortened" in line][1:] == [
            "other rows: 2 of 44 texts shortened to fit the context (rows 1, 31)"
        ], method
    with pytest.raises(InputError, match="2 texts are longer than the context"):
        fit(base_of("llama"), "closed-form", rows, too_long="error")


def test_flips_are_told_inside_and_outside_the_training_rows() -> None:
    rows = rows_of(40, noise=0.0)
    tuned = fit(base_of("llama"), "closed-form", rows)
    other = rows_of(20, seed=5, noise=0.0)
    both = Examples(
        "both",
        {"text": (*(" ".join(text.upper().split()) for text in rows.fields["text"]), *other.fields["text"])},
        rows.labels + other.labels,
        tuple(range(60)),
    )
    scores = tuned.evaluate(both, resamples=5)
    base = base_alone(tuned).probabilities(both).argmax(1)
    gold = np.array(tuned.prompt.task.gold(both))
    now = tuned.probabilities(both).argmax(1)
    mended = (base != gold) & (now == gold)
    flips = scores.flips
    # Case and spacing do not make a row another one.
    inside, outside = flips.wrong_to_right.inside.rows, flips.wrong_to_right.outside.rows
    assert list(inside) == list(np.flatnonzero(mended[:40])) != []
    assert list(outside) == list(40 + np.flatnonzero(mended[40:])) != []
    assert flips.wrong_to_right.outside.distance.median > 0


def test_flips_are_called_by_the_row_numbers_of_the_file(tmp_path: Path) -> None:
    rows = rows_of(60, noise=0.0)
    lines = [f"{text},{label}" for text, label in zip(rows.fields["text"], rows.labels, strict=True)]
    lines[2] = ",bad"  # row 3 has no text and is dropped
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    first = fit(base_of("llama"), "closed-form", rows)
    found = first.read(path, on_bad="drop")
    assert found.numbers == (1, 2, *range(4, 61))
    parts = split(found, fractions={"train": 0.5, "test": 0.5})
    tuned = fit(base_of("llama"), "closed-form", parts["train"])
    for held in (parts["test"], found):
        gold, now = np.array(tuned.prompt.task.gold(held)), tuned.probabilities(held).argmax(1)
        mended = (base_alone(tuned).probabilities(held).argmax(1) != gold) & (now == gold)
        scores = tuned.evaluate(held, resamples=5)
        assert list(scores.flips.wrong_to_right.all.rows) == list(np.array(held.numbers)[mended]) != []
        assert list(np.flatnonzero(mended)) != list(scores.flips.wrong_to_right.all.rows)
    assert tuned.evaluate(path, resamples=5, on_bad="drop").flips == scores.flips


def overlaps(told: list[str]) -> list[str]:
    return [line for line in told if "among the training" in line or "stopping point" in line]


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_rows_that_were_tuned_on_are_told(kind: str) -> None:
    base = base_of(*("llama",) if kind == "causal" else ("bert", "encoder"))
    rows, other, told = rows_of(20), rows_of(8, seed=5), []
    tuned = fit(base, "closed-form", rows, say=told.append)
    tuned.evaluate(other, resamples=5)
    assert overlaps(told) == []
    mixed = (*rows.fields["text"][:3], *other.fields["text"])
    tuned.evaluate(texts(*mixed, labels=rows.labels[:3] + other.labels), resamples=5)
    assert overlaps(told) == ["toy.csv: 3 of 11 rows were among the training rows"]


def test_one_text_in_other_characters_is_the_same_text() -> None:
    """Full-width letters are the same by NFKC, ß and ss by case folding; .lower() alone knows neither."""
    rows = texts("Die Straße was broke", "great tea", labels=("bad", "fine"))
    twins = texts("ＤＩＥ strasse  was broke", "great tea!", labels=("bad", "fine"))
    assert [row_digests(rows)[i] == row_digests(twins)[i] for i in range(2)] == [True, False]
    assert text_keys(rows)[0] == text_keys(twins)[0] == text_key(twins.texts[0])
    groups = split(texts(*rows.fields["text"], *twins.fields["text"]), fractions={"a": 0.5, "b": 0.5})
    assert any({1, 3} <= set(part.numbers) for part in groups.values())
    told: list[str] = []
    fit(base_of("llama"), "closed-form", rows, say=told.append).evaluate(twins, resamples=5)
    assert overlaps(told) == ["toy.csv: 1 of 2 rows were among the training rows"]


def test_rows_that_stopped_the_training_are_told_and_kept(tmp_path: Path) -> None:
    rows, told, again = rows_of(60), [], []
    tuned = fit(base_of("llama"), "lora", rows, training=QUICK, say=told.append)
    tuned.evaluate(rows, resamples=5)
    wanted = [
        "toy rows: 51 of 60 rows were among the training rows",
        "toy rows: 9 of 60 rows chose the stopping point",
    ]
    assert overlaps(told) == wanted
    saved = tuned.save(tmp_path / "saved")
    pegbox.Tuned.load(saved, say=again.append).evaluate(rows, resamples=5)
    assert overlaps(again) == wanted
    meta = json.loads((saved / "pegbox.json").read_text())
    del meta["validation_rows"]
    (saved / "pegbox.json").write_text(json.dumps(meta))
    again.clear()
    pegbox.Tuned.load(saved, say=again.append).evaluate(rows, resamples=5)
    assert overlaps(again) == wanted[:1]
    (saved / "pegbox.json").write_text(json.dumps({**meta, "validation_rows": 3}))
    with pytest.raises(InputError, match="the file lacks validation_rows"):
        pegbox.Tuned.load(saved)


def test_zero_shot_flips_nothing_and_asks_the_base_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from pegbox.tuning import _answers

    rows, calls = rows_of(10), []
    extract = _answers.extract
    monkeypatch.setattr(_answers, "extract", lambda *a, **o: calls.append(1) or extract(*a, **o))
    for method in ("zero-shot", "closed-form"):
        tuned = fit(base_of("llama"), method, rows)
        calls.clear()
        scores = tuned.evaluate(rows, resamples=5)
        assert len(calls) == 1
        alone = base_alone(tuned).probabilities(rows)
        if method == "zero-shot":
            assert scores.flips.wrong_to_right.all.rows == scores.flips.right_to_wrong.all.rows == ()
            assert np.array_equal(alone, tuned.probabilities(rows))


def test_few_shot_is_compared_with_the_base_without_demonstrations() -> None:
    rows = rows_of(20)
    tuned = fit(base_of("llama"), FewShot(per_class=1), rows)
    zero = fit(base_of("llama"), "zero-shot", rows)
    assert np.array_equal(base_alone(tuned).probabilities(rows), zero.probabilities(rows))
    assert not np.allclose(tuned.probabilities(rows), zero.probabilities(rows))


def test_an_encoder_has_no_base_answer_to_flip() -> None:
    assert (
        fit(base_of("bert", "encoder"), "closed-form", rows_of(20)).evaluate(rows_of(8), resamples=5).flips
        is None
    )


def test_rows_of_one_class_can_be_evaluated() -> None:
    tuned = fit(base_of("llama"), "closed-form", rows_of(40, noise=0.0))
    rows = rows_of(20, seed=2, noise=0.0).select(range(0, 20, 2))
    assert set(rows.labels) == {"bad"}
    scores = tuned.evaluate(rows, resamples=20)
    assert scores.rows == 10
    assert scores.per_class["fine"].support == 0
    assert np.isnan(scores.metrics["auroc"].value)
    assert json.dumps(scores.to_json(), allow_nan=False)
    with pytest.raises(InputError, match="there are no rows to evaluate on"):
        tuned.evaluate(texts())
    with pytest.raises(InputError, match="these rows have no labels"):
        tuned.evaluate(texts("a"))


def test_evaluating_changes_nothing_and_tuning_never_sees_the_test_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pegbox.tuning._shapes import classify

    seen: list[str] = []
    encode = classify.encode
    monkeypatch.setattr(
        classify,
        "encode",
        lambda base, prompt, rows, **o: seen.extend(rows.fields["text"]) or encode(base, prompt, rows, **o),
    )
    train, test = rows_of(60), rows_of(30, seed=8)
    for method in ("closed-form", "lora"):
        tuned = fit(base_of("llama"), method, train, training=QUICK)
        before = checksum(tuned.module)
        scores = tuned.evaluate(test, resamples=5)
        assert checksum(tuned.module) == before
        assert not tuned.training_rows & fit(base_of("llama"), "zero-shot", test).training_rows
        seen = seen[: len(seen) - len(test)]
        again = fit(base_of("llama"), method, train, training=QUICK)
        assert same_parts(tuned.module, again.module)
        assert again.evaluate(test, resamples=5).metrics == scores.metrics
        assert not set(seen) & set(test.fields["text"])


def test_predictions_are_rows_of_the_probabilities() -> None:
    tuned = fit(base_of("llama"), "closed-form", rows_of(45, 3), 3)
    rows = rows_of(5, 3, seed=3)
    found = tuned.predict(list(rows.fields["text"]))
    table = tuned.probabilities(rows)
    for row, prediction in zip(table, found, strict=True):
        assert list(prediction.probabilities) == list(LABELS[:3])
        assert prediction.probability == row.max() == prediction.probabilities[prediction.label]
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
        assert 0 < prediction.deviation < 0.5
    assert found == tuned.predict(rows)
    assert tuned.predict([]) == []
    with pytest.raises(UsageError, match="predict takes several texts") as error:
        tuned.predict("a text")
    assert "write predict([text])" in str(error.value)


def test_pairs_are_predicted_as_pairs() -> None:
    rows = rows_of(20)
    pairs = Examples(
        "pairs",
        {"premise": rows.fields["text"], "claim": rows.fields["text"][::-1]},
        rows.labels,
        rows.numbers,
    )
    task = pegbox.Classify(labels=LABELS[:2], fields=("premise", "claim"), label_words=("yes", "maybe"))
    tuned = fit(base_of("llama"), "closed-form", pairs, task=task)
    assert tuned.predict([("the tea was hot", "the tea was great")])[0].label in LABELS
    with pytest.raises(InputError, match="columns text"):
        tuned.predict(rows)


def test_answers_that_are_not_finite_are_an_error() -> None:
    base = pegbox.load(folder_of("llama", "causal"))
    tuned = fit(base, "zero-shot", rows_of(8))
    with torch.no_grad():
        base.model.model.norm.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(RunError, match="3 of 3 answers are not finite numbers") as error:
        tuned.predict(rows_of(3))
    assert "toy rows, first in row 1" in str(error.value)
    assert "float32" in str(error.value)


def test_a_task_with_its_own_rows_and_a_base_by_name() -> None:
    rows = rows_of(16)
    tuned = pegbox.fit(folder_of("llama", "causal"), task_of().with_rows(rows), say=hush)
    assert tuned.method.name == "closed-form"
    assert tuned.cost.rows == 16


def test_similar_demonstrations_of_the_task_hold_for_tuning_too() -> None:
    rows = rows_of(24)
    shown = FewShot(per_class=1, selection="similar")
    task = fit(base_of("llama"), shown, rows_of(6, seed=4)).prompt.task
    tuned = fit(base_of("llama"), "closed-form", rows, task=task)
    features = pegbox.models.extract(
        tuned.base, tuned.prompt, pegbox.models.encode(tuned.base, tuned.prompt, rows)
    ).hidden
    torch.testing.assert_close(tuned.features, features)


def test_a_run_folder_belongs_to_one_fit(tmp_path: Path) -> None:
    options: dict[str, Any] = {"folder": tmp_path / "run", "training": QUICK}
    base, rows = base_of("llama"), rows_of(20)
    first = fit(base, "lora", rows, **options)
    assert same_parts(fit(base, "lora", rows, resume=True, **options).module, first.module)
    swapped = Examples(rows.source, rows.fields, rows.labels[::-1], rows.numbers)
    for changed in (
        {"rows": swapped, "named": "training rows differ"},
        {"method": LoRA(alpha=4), "named": "method differs (alpha was 16, is 4)"},
        {"base": base_of("llama", seed=1), "named": "base differs"},
        {"task": task_of(label_words=("no", "yes")), "named": "task differs"},
        {"seed": 3, "named": "seed differs (was 0, is 3)"},
        {"base": replace(base, context=64), "named": "max_length differs (was 256, is 64)"},
        {"base": replace(base, pooling="cls"), "named": "pooling differs (was mean, is cls)"},
        {
            "base": pegbox.load(folder_of("llama", "causal"), dtype="bfloat16"),
            "named": "number format differs (was torch.float32, is torch.bfloat16)",
        },
        {"too_long": "error", "named": "too_long differs (was shorten, is error)"},
    ):
        use: dict[str, Any] = {"base": base, "method": "lora", "rows": rows, **changed}
        named = use.pop("named")
        with pytest.raises(UsageError) as refused:
            fit(**use, resume=True, **options)
        assert f"the checkpoints belong to another fit: {named}" == refused.value.what
    # A refused call leaves the folder to the fit that began there.
    assert same_parts(fit(base, "lora", rows, resume=True, **options).module, first.module)


def test_an_interrupted_fit_without_a_folder_says_that_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from pegbox.tuning import _fit

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_fit, "train", interrupted)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        fit(base_of("llama"), "lora", rows_of(20), say=told.append)
    assert told[-1] == "the checkpoints are removed: to be able to resume, pass folder="
    with resumed_by("--resume"), pytest.raises(KeyboardInterrupt):
        fit(base_of("llama"), "lora", rows_of(20), say=told.append)
    assert told[-1] == "the checkpoints are removed: the next call begins afresh"


def test_a_tuned_model_names_itself_in_a_few_lines() -> None:
    shown = repr(fit(base_of("llama"), "lora", rows_of(20), training=pegbox.Training(max_steps=1)))
    # Neither the modules' trees nor the digests of the rows; those alone are 20 x 20 characters.
    assert "LoRA(rank=8" in shown
    assert "Linear" not in shown
    assert len(shown) < 1000


def test_a_rate_for_a_head_that_is_not_there_is_told() -> None:
    told: list[str] = []
    training = replace(QUICK, head_learning_rate=1e-2)
    words = fit(base_of("llama"), "lora", rows_of(8), training=training, say=told.append)
    assert "head_learning_rate is not used: label words answer, and no head is new" in told
    assert same_parts(words.module, fit(base_of("llama"), "lora", rows_of(8), training=QUICK).module)
    told.clear()
    base = base_of("bert", "encoder")
    head = fit(base, "lora", rows_of(8), training=training, say=told.append)
    assert not any("head_learning_rate" in line for line in told)
    assert not same_parts(head.module, fit(base, "lora", rows_of(8), training=QUICK).module)
