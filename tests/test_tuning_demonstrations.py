"""Several draws of demonstrations, and tuning with demonstrations in the context."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pegbox
from pegbox.data import Examples
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import FewShot
from pegbox.tasks import Classify, demonstration, random_draws, random_others, random_per_class, text_keys
from pegbox.tuning._demonstrate import DrawnRows, drawn_rows, shown
from pegbox.tuning._shapes import Work
from tuning_toy import LABELS, base_of, fit, folder_of, hush, rows_of, task_of

QUICK = pegbox.Training(epochs=2, precision="float32", patience=0)
KINDS = [("llama", "causal"), ("roberta", "masked"), ("t5", "encoder-decoder")]
ONE = pegbox.Demonstrate(per_class=1, draws=3)
SIMILAR = pegbox.Demonstrate(per_class=1, selection="similar")
# Of three draws or one prediction in float32: batches differ, so sums are taken in another order.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def work_of(plan: pegbox.Demonstrate, base: pegbox.Base | None = None, **options: Any) -> Work:
    base = base or base_of("llama")
    values = {"seed": 0, "too_long": "shorten", "cache": None, "say": hush, **options}
    return Work(base, base.prepare(task_of()), demonstrate=plan, **values)


def repeated(rows: Examples) -> Examples:
    """The rows, and each once more in capitals."""
    texts = (*rows.fields["text"], *(text.upper() for text in rows.fields["text"]))
    labels = (*(rows.labels or ()), *(rows.labels or ()))
    return Examples(rows.source, {"text": texts}, labels, tuple(range(1, len(texts) + 1)))


# Several draws


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_several_draws_average_the_probabilities_of_each(architecture: str, kind: str) -> None:
    rows, test = rows_of(20), rows_of(9, seed=1)
    tuned = fit(base_of(architecture, kind), FewShot(per_class=2, draws=3), rows)
    draws = tuned.prompt.draws
    assert [len(draw.task.demonstrations) for draw in draws] == [4, 4, 4]
    single = [replace(tuned, prompt=draw).probabilities(test) for draw in draws]
    assert np.abs(single[0] - single[1]).max() > 1e-4
    found = tuned.probabilities(test)
    np.testing.assert_allclose(found, np.mean(single, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
    predicted = [list(item.probabilities.values()) for item in tuned.predict(test)]
    np.testing.assert_array_equal(predicted, found)
    gold = np.array(task_of().gold(test))
    assert tuned.evaluate(test).metrics["accuracy"].value == pytest.approx((found.argmax(1) == gold).mean())


def test_the_first_draw_is_that_of_one_draw() -> None:
    rows = rows_of(20)
    many = fit(base_of("llama"), FewShot(per_class=2, draws=4), rows, seed=7)
    one = fit(base_of("llama"), FewShot(per_class=2), rows, seed=7)
    assert many.prompt.draws[0] == one.prompt
    texts = [tuple(item.fields["text"] for item in draw.task.demonstrations) for draw in many.prompt.draws]
    assert len(set(texts)) == 4
    again = random_draws(rows, LABELS[:2], 2, 4, seed=7)
    assert [list(draw.task.demonstrations) for draw in many.prompt.draws] == again
    assert again[0] == random_per_class(rows, LABELS[:2], 2, seed=7)


def test_draws_of_whole_words_are_averaged_too() -> None:
    task = task_of(label_words=("great hotel", "great screen"))
    tuned = fit(base_of("llama"), FewShot(per_class=1, draws=2), rows_of(12), task=task)
    single = [replace(tuned, prompt=draw).probabilities(rows_of(5)) for draw in tuned.prompt.draws]
    np.testing.assert_allclose(tuned.probabilities(rows_of(5)), np.mean(single, axis=0), rtol=1e-12)


@pytest.mark.parametrize(("architecture", "kind"), KINDS[:2])
def test_all_draws_are_saved(architecture: str, kind: str, tmp_path: Path) -> None:
    tuned = fit(base_of(architecture, kind), FewShot(per_class=1, draws=3), rows_of(20))
    tuned.save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "task.json").read_text())
    assert saved["draws"] == 3
    assert len(saved["demonstrations"]) == 6
    loaded = pegbox.Tuned.load(tmp_path / "out", say=hush)
    assert loaded.prompt.task == tuned.prompt.task
    np.testing.assert_array_equal(loaded.probabilities(rows_of(5)), tuned.probabilities(rows_of(5)))


def test_a_task_of_an_earlier_version_has_one_draw() -> None:
    saved = task_of().to_json()
    del saved["draws"]
    assert Classify.from_json(saved) == task_of()


def test_draws_that_cannot_be_are_refused() -> None:
    for draws in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match="draws"):
            FewShot(draws=draws)
        with pytest.raises(UsageError, match="invalid demonstrations: draws is"):
            pegbox.Demonstrate(draws=draws)
    with pytest.raises(UsageError, match="1 with the most similar ones"):
        FewShot(selection="similar", draws=2)
    with pytest.raises(UsageError, match="the most similar rows are always the same ones"):
        pegbox.Demonstrate(selection="similar", draws=2)
    shown_rows = random_per_class(rows_of(8), LABELS[:2], 2, seed=0)
    for options in ({"draws": 3}, {"draws": 0}, {"draws": 2, "similar": 1}):
        with pytest.raises(InputError, match="the demonstrations cannot be divided into draws"):
            task_of(demonstrations=shown_rows, **options)
    with pytest.raises(InputError, match="draws 2 of 0 demonstrations"):
        task_of(draws=2)
    prompt = base_of("llama").prepare(task_of(demonstrations=shown_rows, draws=2))
    with pytest.raises(UsageError, match="cannot stand before one question"):
        prompt.encode(rows_of(3))


# Which rows are shown


@pytest.mark.parametrize("per_class", [1, 2])
def test_no_row_sees_itself_or_its_duplicate(per_class: int) -> None:
    rows = repeated(rows_of(10, 2))
    keys, labels = text_keys(rows), rows.labels or ()
    for draw in range(5):
        others = random_others(rows, LABELS[:2], per_class, seed=1, draw=draw)
        for row, chosen in enumerate(others):
            assert keys[row] not in {keys[index] for index in chosen}
            assert len(set(chosen)) == 2 * per_class
            assert Counter(labels[index] for index in chosen) == dict.fromkeys(LABELS[:2], per_class)


def test_others_differ_by_row_draw_and_seed_and_are_drawn_among_some() -> None:
    rows = rows_of(40)
    first = random_others(rows, LABELS[:2], 2, seed=0)
    assert first == random_others(rows, LABELS[:2], 2, seed=0)
    assert first != random_others(rows, LABELS[:2], 2, seed=1)
    assert first != random_others(rows, LABELS[:2], 2, seed=0, draw=1)
    assert len({tuple(chosen) for chosen in first}) > 30
    some = set(range(10))
    assert {
        index for chosen in random_others(rows, LABELS[:2], 2, seed=0, among=some) for index in chosen
    } <= some


def test_too_few_rows_to_show_are_named() -> None:
    rows = rows_of(8).select([0, 1, 2, 4, 6])  # one row of 'fine'
    with pytest.raises(
        InputError, match="too few rows of the label 'fine' to show 1 to each other row"
    ) as error:
        fit(base_of("llama"), "lora", rows, demonstrations=ONE, training=QUICK)
    assert "at least 2 different texts of each label" in str(error.value)
    doubled = repeated(rows_of(2))  # two rows of each label with one text
    for plan in (ONE, SIMILAR):
        with pytest.raises(InputError, match="1 different texts"):
            fit(base_of("llama"), "lora", doubled, demonstrations=plan, training=QUICK)


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_what_the_model_reads_while_it_trains_never_holds_the_row_itself(
    architecture: str, kind: str
) -> None:
    base, rows = base_of(architecture, kind), repeated(rows_of(8))
    work = shown(work_of(ONE, base), rows)
    made = drawn_rows(work, [rows, rows_of(4, seed=9)])[0]
    assert isinstance(made, DrawnRows)
    texts = set()
    for epoch in range(4):
        made.begin_epoch(epoch)
        batch = made.collate(list(range(len(rows))))
        read = tuple(base.tokenizer.decode(ids).lower() for ids in batch["input_ids"])
        for text, (own,) in zip(read, rows.texts, strict=True):
            # Not in a demonstration: the text itself stands there once, as the question.
            assert text.count(own.lower()) == 1
        texts.add(read)
    assert len(texts) == 3  # the fourth epoch reads what the first did


def test_the_rows_of_one_epoch_are_trained_as_if_they_were_encoded_alone() -> None:
    base, rows = base_of("llama"), rows_of(8)
    work = shown(work_of(ONE), rows)
    made = drawn_rows(work, [rows])[0]
    made.begin_epoch(1)  # type: ignore[attr-defined]
    with torch.no_grad():
        loss, count = made.loss(base.model, made.collate(list(range(8))))
    others = random_others(rows, LABELS[:2], 1, seed=0, draw=1)
    expected = 0.0
    for row, chosen in enumerate(others):
        prompt = base.prepare(task_of()).with_demonstrations([demonstration(rows, index) for index in chosen])
        one = rows.select([row])
        tuned = pegbox.fit(base, task_of(), "zero-shot", rows=rows, say=hush)
        found = replace(tuned, prompt=prompt).probabilities(one)
        expected -= float(np.log(found[0, task_of().gold(one)[0]]))
    assert int(count) == 8
    assert float(loss) == pytest.approx(expected, rel=1e-4)


# Tuning


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
@pytest.mark.parametrize("plan", [ONE, SIMILAR], ids=["random", "similar"])
def test_tuned_with_demonstrations_answers_the_same_after_loading(
    architecture: str, kind: str, plan: pegbox.Demonstrate, tmp_path: Path
) -> None:
    rows, test = rows_of(16), rows_of(7, seed=2)
    tuned = fit(base_of(architecture, kind), "lora", rows, demonstrations=plan, training=QUICK)
    task = tuned.prompt.task
    assert (task.draws, task.similar) == ((3, None) if plan is ONE else (1, 1))
    assert len(task.demonstrations) == (6 if plan is ONE else 16)
    found = tuned.probabilities(test)
    if plan is ONE:
        single = [replace(tuned, prompt=draw).probabilities(test) for draw in tuned.prompt.draws]
        np.testing.assert_allclose(found, np.mean(single, axis=0), rtol=1e-12)
    without = replace(tuned, prompt=tuned.prompt.with_demonstrations(()))
    assert np.abs(without.probabilities(test) - found).max() > 1e-4
    tuned.save(tmp_path / "out")
    loaded = pegbox.Tuned.load(tmp_path / "out", model=folder_of(architecture, kind), say=hush)
    np.testing.assert_allclose(loaded.probabilities(test), found, **CLOSE)


@pytest.mark.slow
def test_a_fresh_process_answers_the_same(tmp_path: Path) -> None:
    rows, text = rows_of(16), "The hotel was great great and tea."
    tuned = fit(base_of("llama"), "lora", rows, demonstrations=ONE, training=QUICK)
    tuned.save(tmp_path / "out")
    code = (
        "import sys, pegbox\n"
        "tuned = pegbox.Tuned.load(sys.argv[1])\n"
        "print(repr(tuned.predict([sys.argv[2]])[0].probability))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out"), text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(tuned.predict([text])[0].probability, rel=1e-5)


def test_demonstrations_change_what_is_learnt_and_the_seed_decides() -> None:
    rows = rows_of(16)
    plans = [None, ONE, ONE, SIMILAR]
    first, *others = (
        fit(base_of("llama"), "lora", rows, demonstrations=plan, training=QUICK).details["history"][
            "train_losses"
        ]
        for plan in plans
    )
    assert others[0] == others[1]
    assert first != others[0] != others[2]


def test_validation_rows_are_no_demonstrations() -> None:
    rows = rows_of(60)
    tuned = fit(base_of("llama"), "lora", rows, demonstrations=SIMILAR, training=QUICK)
    pool = {item.fields["text"] for item in tuned.prompt.task.demonstrations}
    assert len(pool) == tuned.cost.rows == 51
    assert tuned.details["history"]["best_valid_loss"] is not None


def test_fewer_demonstrations_and_long_rows_are_told() -> None:
    base = pegbox.load(folder_of("llama", "causal"), max_length=150)
    rows = rows_of(12)
    long = replace(rows, fields={"text": (rows.fields["text"][0] * 4, *rows.fields["text"][1:])})
    told: list[str] = []
    plan = pegbox.Demonstrate(per_class=3, draws=2)
    tuned = fit(base, "lora", long, demonstrations=plan, training=QUICK, say=told.append)
    count = len(tuned.prompt.task.demonstrations) // 4
    assert 1 <= count < 3
    assert f"{count} instead of 3 demonstrations per class: the context holds 150 tokens" in told
    assert "1 training rows are too long to be shown as demonstrations: the context holds 150 tokens" in told
    with pytest.raises(CapabilityError, match="one demonstration per class does not fit into the context"):
        fit(pegbox.load(folder_of("llama", "causal"), max_length=40), "lora", rows, demonstrations=ONE)


def test_a_killed_run_goes_on_with_the_draw_of_its_epoch(tmp_path: Path) -> None:
    rows = rows_of(16)
    whole = pegbox.Training(epochs=3, precision="float32", batch_size=4, checkpoint_every=2)
    options = {"demonstrations": ONE, "training": whole}
    straight = fit(base_of("llama"), "lora", rows, folder=tmp_path / "a", **options)
    from pegbox.training import _engine

    steps = 0
    plain = _engine.Engine.training_step

    def broken(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 7:  # in the second epoch, after the checkpoint of step 6
            raise KeyboardInterrupt
        return plain(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_engine.Engine, "training_step", broken)
        with pytest.raises(KeyboardInterrupt):
            fit(base_of("llama"), "lora", rows, folder=tmp_path / "b", **options)
    resumed = fit(base_of("llama"), "lora", rows, folder=tmp_path / "b", resume=True, **options)
    test = rows_of(5, seed=3)
    np.testing.assert_array_equal(resumed.probabilities(test), straight.probabilities(test))


def test_the_trunk_is_cached_only_where_the_demonstrations_stay() -> None:
    told: list[str] = []
    training = replace(QUICK, trunk_cache="on")
    top = pegbox.LoRA(layers=1)
    with pytest.raises(CapabilityError, match="the demonstrations change from epoch to epoch"):
        fit(base_of("llama"), top, rows_of(16), demonstrations=ONE, training=training)
    fit(base_of("llama"), top, rows_of(16), demonstrations=SIMILAR, training=training, say=told.append)
    assert any("frozen layers below were run once" in line for line in told)


def test_where_demonstrations_cannot_be_shown() -> None:
    base, rows = base_of("llama"), rows_of(16)
    for method in ("closed-form", "zero-shot", "few-shot"):
        with pytest.raises(UsageError, match=f"{method} is not trained with demonstrations"):
            fit(base, method, rows, demonstrations=ONE)
    with pytest.raises(CapabilityError, match="demonstrations cannot be shown where no label word answers"):
        fit(base_of("bert", "encoder"), "lora", rows, demonstrations=ONE)
    own = task_of(demonstrations=random_per_class(rows, LABELS[:2], 1, seed=0))
    with pytest.raises(UsageError, match="the task has demonstrations of its own"):
        fit(base, "lora", rows, task=own, demonstrations=ONE)
    with pytest.raises(UsageError, match="demonstrations have no option 'draw'") as error:
        pegbox.Demonstrate.of({"draw": 2})
    assert "did you mean 'draws'?" in str(error.value)
    with pytest.raises(UsageError, match="selection is 'near', expected random or similar"):
        pegbox.Demonstrate(selection="near")  # type: ignore[arg-type]
    assert (pegbox.Demonstrate().draws, SIMILAR.draws) == (4, 1)


def test_the_command_line_tunes_with_demonstrations_and_searched_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pegbox.cli import main

    monkeypatch.chdir(tmp_path)
    rows = rows_of(24)
    lines = [f'"{text}",{label}' for (text,), label in zip(rows.texts, rows.labels or (), strict=True)]
    Path("rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    command = (
        f"fit rows.csv --model {folder_of('llama', 'causal')} --method lora --holdout 0 --no-cache".split()
    )
    quick = ["--training.max_steps", "1", "--training.precision", "float32"]
    shown_flags = ["--demonstrations.per_class", "1", "--demonstrations.draws", "2"]
    assert main([*command, "--out", "out", "--label-words", "auto", *quick, *shown_flags]) == 0
    assert "label words found on 24 training rows" in capsys.readouterr().err
    saved = json.loads(Path("out/task.json").read_text())
    assert (saved["draws"], len(saved["demonstrations"]), len(saved["label_words"])) == (2, 4, 2)
    assert main([*command, "--out", "other", "--demonstrations.shots", "1"]) == 2
    assert "demonstrations have no option 'shots'" in capsys.readouterr().err
