"""The ladder: one protocol for all rungs, the rule by which it ends, and what a kill leaves behind."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pegbox
from comparison_runs import RUNGS, compared, finished
from pegbox.comparison import Comparison, Rung
from pegbox.comparison import _cell as cell_module
from pegbox.comparison._contest import Labels
from pegbox.comparison._store import Store
from pegbox.errors import InputError, UsageError
from pegbox.reports import write_report
from tuning_toy import base_of, folder_of, rows_of, task_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison, list[str]]:
    """A comparison, its folder, and what was told."""
    folder = tmp_path_factory.mktemp("comparison") / "out"
    told: list[str] = []
    found = compared(base_of("llama"), folder, say=told.append)
    return folder, found, told


def test_all_rungs_are_climbed_and_ranked_by_their_time(made: tuple[Path, Comparison, list[str]]) -> None:
    _, found, _ = made
    assert {rung.name for rung in found.rungs} == set(RUNGS)
    assert found.skipped == ()
    # What draws nothing at random is fitted once.
    assert [len(found.rung(name).cells) for name in RUNGS] == [1, 1, 1, 2, 2]
    times = [rung.cost.seconds + 1000 / 60 * rung.cost.predict_seconds for rung in found.rungs]
    assert times == sorted(times)
    assert times == pytest.approx([rung.seconds for rung in found.rungs])
    assert found.rungs[0].difference is None
    for place, rung in enumerate(found.rungs[1:], start=1):
        before = found.rungs[:place]
        assert rung.against == max(before, key=lambda one: one.metrics["accuracy"].value).name


def test_every_rung_is_scored_on_the_same_rows_as_by_hand(
    made: tuple[Path, Comparison, list[str]],
) -> None:
    folder, found, _ = made
    test = rows_of(60, seed=1)
    assert found.data.test_digest == test.digest()
    for name in ("zero-shot", "closed-form", "lora"):
        cell = found.rung(name).typical
        assert cell.scores.rows == 60
        loaded = pegbox.Tuned.load(folder / (cell.folder or ""), say=lambda _: None)
        assert loaded.evaluate(test).metrics["accuracy"] == cell.scores.metrics["accuracy"]


def test_the_answer_can_be_had_as_json(made: tuple[Path, Comparison, list[str]]) -> None:
    folder, found, _ = made
    stored = json.loads((folder / "comparison.json").read_text("utf-8"))
    assert Comparison.from_json(stored) == found
    del stored["rungs"][0]["cost"]
    with pytest.raises(InputError, match="lacks a part"):
        Comparison.from_json(stored)
    with pytest.raises(InputError, match="not a file of a comparison"):
        Comparison.from_json({"format": "another"})


def test_costs_are_told(made: tuple[Path, Comparison, list[str]]) -> None:
    _, found, _ = made
    lora, full = found.rung("lora"), found.rung("zero-shot")
    assert lora.cost.parameters > 0
    assert lora.cost.adapter_bytes > 4 * lora.cost.parameters
    assert lora.cost.flops is not None
    assert found.rung("closed-form").cost.flops is not None
    assert lora.cost.flops > found.rung("closed-form").cost.flops > 0
    assert full.cost.parameters == full.cost.adapter_bytes == 0
    if sys.platform == "linux":
        assert lora.cost.peak_memory is not None
        assert lora.cost.peak_memory > 0


def test_flips_and_errors_name_rows_of_the_source(made: tuple[Path, Comparison, list[str]]) -> None:
    _, found, _ = made
    test = rows_of(60, seed=1)
    texts = dict(zip(test.numbers, test.texts, strict=True))
    for row in (*found.changed, *found.errors):
        assert row.texts == texts[row.number]
    wrong = round(60 * (1 - found.best.typical.scores.metrics["accuracy"].value))
    assert len(found.errors) == wrong
    probabilities = [row.probability for row in found.errors]
    assert probabilities == sorted(probabilities, reverse=True)
    broken = [row for row in found.changed if row.before == row.gold]
    flips = found.best.typical.scores.flips
    assert flips is None or len(broken) == flips.right_to_wrong.count


def test_every_rung_but_the_base_has_flips_against_it(made: tuple[Path, Comparison, list[str]]) -> None:
    """Also majority, which is climbed before the base is asked."""
    _, found, _ = made
    rows = found.data.test_rows
    for rung in found.rungs:
        flips = rung.typical.scores.flips
        assert (flips is None) == (rung.name == "zero-shot")
    base, majority = found.rung("zero-shot").typical.scores, found.rung("majority").typical.scores
    right = [round(rows * part.metrics["accuracy"].value) for part in (base, majority)]
    assert majority.flips is not None
    flips = majority.flips
    assert right[0] + flips.wrong_to_right.count - flips.right_to_wrong.count == right[1]


def test_what_all_rungs_would_tell_is_told_once(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    rows = rows_of(8)
    lines = [f"{text},{label}" for (text,), label in zip(rows.texts, rows.labels or (), strict=True)]
    other.write_text("\n".join(["text,label", *lines]), "utf-8")
    told: list[str] = []
    methods = ("zero-shot", "closed-form")
    others: Any = {"also": [other], "forgetting": "off"}
    compared(base_of("llama"), tmp_path / "out", methods=methods, **others, say=told.append)
    assert sum("text column 'text'" in line for line in told) == 1


def test_progress_is_told_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.training._progress._QUIET_SECONDS", 0.0)
    told: list[str] = []
    found = compared(base_of("llama"), tmp_path, methods=("lora",), seeds=(0,), say=told.append)
    assert any("lora: training: step " in line for line in told)
    notes = found.rung("lora").typical.notes
    assert notes
    assert not any("training: step" in note for note in notes)


def test_going_on_measures_nothing_again(
    made: tuple[Path, Comparison, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found, _ = made

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(cell_module, "fit", refuse)
    before = finished(folder)
    again = compared(base_of("llama"), folder)
    assert again.rungs == found.rungs
    assert again.verdict == found.verdict
    assert finished(folder) == before


def test_another_protocol_in_the_folder_is_refused_by_name(
    made: tuple[Path, Comparison, list[str]],
) -> None:
    folder, _, _ = made
    before = finished(folder)
    with pytest.raises(UsageError, match="test rows differ"):
        compared(base_of("llama"), folder, test=rows_of(40, seed=2))
    with pytest.raises(UsageError, match="base differ"):
        compared(base_of("llama", seed=3), folder)
    with pytest.raises(UsageError, match="rank was 8, is 2"):
        compared(base_of("llama"), folder, options={"lora": {"rank": 2}})
    assert finished(folder) == before


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no comparison"):
        compared(base_of("llama"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_folder_without_a_comparison_is_not_replaced_either(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_text("a fit")
    with pytest.raises(UsageError, match="holds no comparison"):
        compared(base_of("llama"), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_model.safetensors"]


def test_replacing_takes_the_old_report_away_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    methods = ("majority", "zero-shot")
    write_report(compared(base_of("llama"), out, methods=methods), out)
    report = {
        "report.html",
        "ladder.md",
        "rungs.csv",
        "pictures",
        "comparison.json",
        "cells",
        "protocol.json",
    }
    assert {path.name for path in out.iterdir()} == report
    (out / "mine.txt").write_text("mine")

    def stop(*_: Any, **__: Any) -> None:
        raise UsageError("stopped")

    monkeypatch.setattr("pegbox.comparison._compare.climb_all", stop)
    with pytest.raises(UsageError, match="stopped"):
        compared(base_of("llama"), out, methods=methods, test=rows_of(40, seed=2), overwrite=True)
    assert {path.name for path in out.iterdir()} == {"mine.txt"}


def test_ctrl_c_before_the_first_cell_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pegbox.comparison._compare.climb_all", stop)
    with pytest.raises(KeyboardInterrupt):
        compared(base_of("llama"), tmp_path / "out", say=told.append)
    assert not (tmp_path / "out").exists()
    assert told[-1] == "interrupted before anything was finished: nothing is kept"


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    compared(base_of("llama"), tmp_path / "out", methods=("majority", "zero-shot"))
    place = tmp_path / "out" / "cells" / "zero-shot" / "seed-0"
    (place / "answers.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"only that rung is measured again"):
        compared(base_of("llama"), tmp_path / "out", methods=("majority", "zero-shot"))


def test_what_cannot_work_is_skipped_with_its_reason(tmp_path: Path) -> None:
    told: list[str] = []
    found = compared(
        base_of("bert", "encoder"),
        tmp_path / "out",
        methods=("majority", "zero-shot", "closed-form", "prefix"),
        seeds=(0,),
        say=told.append,
    )
    assert [part.name for part in found.skipped] == ["zero-shot"]
    assert "cannot work on an encoder" in found.skipped[0].reason
    assert any("zero-shot is not climbed" in line for line in told)


def test_nothing_that_works_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rung could be climbed"):
        compared(base_of("bert", "encoder"), tmp_path / "out", methods=("zero-shot", "few-shot"))
    assert not (tmp_path / "out").exists()


def test_the_climb_ends_when_patience_does(tmp_path: Path) -> None:
    found = compared(
        base_of("llama"),
        tmp_path / "out",
        methods=("majority", "ia3", "lora", "bottleneck"),
        seeds=(0,),
        worth=0.9,
        patience=2,
    )
    assert {rung.name for rung in found.rungs} == {"majority", "ia3", "lora"}
    assert [(part.name, part.reason) for part in found.skipped] == [
        ("bottleneck", "the 2 trained rungs before it were not worth their cost")
    ]
    everything = compared(
        base_of("llama"),
        tmp_path / "out",
        methods=("majority", "ia3", "lora", "bottleneck"),
        seeds=(0,),
        worth=0.9,
        patience=0,
    )
    assert {rung.name for rung in everything.rungs} == {"majority", "ia3", "lora", "bottleneck"}
    assert "All rungs are climbed" in everything.rule


def test_a_rung_with_nothing_cheaper_does_not_count_against_patience(tmp_path: Path) -> None:
    """What was not judged cannot have been not worth its cost."""
    found = compared(
        base_of("llama"), tmp_path / "out", methods=("ia3", "lora"), seeds=(0,), worth=0.9, patience=1
    )
    assert found.skipped == ()


def test_a_failure_before_the_first_cell_leaves_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise InputError("these rows are no good")

    with monkeypatch.context() as patch:
        patch.setattr(cell_module, "fit", fail)
        with pytest.raises(InputError, match="no good"):
            compared(base_of("llama"), tmp_path / "out", methods=("zero-shot",))
    assert not (tmp_path / "out").exists()


def test_what_is_replaced_leaves_no_result_behind(tmp_path: Path) -> None:
    compared(base_of("llama"), tmp_path / "out", methods=("majority",))
    store = Store(tmp_path / "out", Labels())
    store.claim({"format": "another"}, overwrite=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["protocol.json"]


def test_other_words_for_another_task_are_another_protocol(tmp_path: Path) -> None:
    for words, differs in ((("terrible", "great"), False), (("okay", "maybe"), True)):
        other = task_of(label_words=words).with_rows(rows_of(20, seed=5))
        how: dict[str, Any] = {"methods": ("majority",), "also": [other]}
        if differs:
            with pytest.raises(UsageError, match="other tasks differ"):
                compared(base_of("llama"), tmp_path / "out", **how)
        else:
            compared(base_of("llama"), tmp_path / "out", **how)


def test_a_spent_budget_leaves_rungs_out(tmp_path: Path) -> None:
    found = compared(
        base_of("llama"), tmp_path / "out", methods=("majority", "lora"), seeds=(0,), budget=1e-6
    )
    assert [rung.name for rung in found.rungs] == ["majority"]
    assert "budget" in found.skipped[0].reason


def test_forgetting_of_a_text_and_of_other_tasks(tmp_path: Path) -> None:
    (tmp_path / "general.txt").write_text("\n\n".join(f"The kettle {n} was okay tea." for n in range(30)))
    found = compared(
        base_of("llama"),
        tmp_path / "out",
        methods=("zero-shot", "lora"),
        seeds=(0,),
        forgetting=tmp_path / "general.txt",
        also=[task_of().with_rows(rows_of(20, seed=5))],
    )
    for rung in found.rungs:
        forgotten = rung.typical.forgetting
        assert forgotten is not None
        assert forgotten.bytes > 0
        assert forgotten.also[0].rows == 20
    assert found.rung("zero-shot").typical.forgetting.change.value == 0  # type: ignore[union-attr]
    assert found.rung("lora").typical.forgetting.off == 0  # type: ignore[union-attr]


def test_rungs_may_have_names_of_ones_own(tmp_path: Path) -> None:
    found = compared(
        base_of("llama"),
        tmp_path / "out",
        methods={"rank 1": pegbox.LoRA(rank=1), "rank 4": pegbox.LoRA(rank=4)},
        seeds=(0,),
    )
    one, four = found.rung("rank 1"), found.rung("rank 4")
    assert (one.options["rank"], four.options["rank"]) == (1, 4)
    assert four.cost.parameters == 4 * one.cost.parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("zero-shoot",)}, "did you mean 'zero-shot'"),
        ({"methods": ("lora", "lora")}, "named twice"),
        ({"methods": "lora"}, "pass a list"),
        ({"methods": ()}, "nothing to compare"),
        ({"options": {"head": {}}}, "not climbed"),
        ({"options": {"lora": {"rnk": 2}}}, "did you mean 'rank'"),
        ({"options": {"majority": {"k": 2}}}, "a baseline has no options"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"seeds": ()}, "no seeds"),
        ({"seeds": (1, 1)}, "a seed is given twice"),
        ({"worth": -1}, "0 or more"),
        ({"patience": -1}, "too small"),
        ({"budget": 0}, "no time"),
        ({"engine": "spark"}, "no engine"),
        ({"training": pegbox.Training(learning_rate=-1.0)}, "learning_rate"),
        ({"methods": {"A b": "lora", "a-b": "ia3"}}, "'A b' and 'a-b' would have the same folder"),
        ({"test": replace(rows_of(20), labels=None)}, "no labels"),
        ({"test": replace(rows_of(20), labels=("odd",) * 20)}, "'odd' is unknown"),
    ],
)
def test_wrong_use_is_told_before_any_work(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compared(base_of("llama"), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ten_kills_lose_no_finished_rung(tmp_path: Path, made: tuple[Path, Comparison, list[str]]) -> None:
    """Killed with -9 at ten random moments; what had been finished stays as it was, bit for bit."""
    _, whole, _ = made
    folder = tmp_path / "out"
    command = [sys.executable, str(Path(__file__).parent / "comparison_runs.py")]
    longest = whole.seconds / 4
    done = subprocess.run(
        [*command, str(folder_of("llama", "causal")), str(folder), "0", "10", str(longest)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == 10
    found = Comparison.from_json(json.loads((folder / "comparison.json").read_text("utf-8")))
    assert {rung.name for rung in found.rungs} == set(RUNGS)
    for rung in found.rungs:
        assert rung.metrics == whole.rung(rung.name).metrics, rung.name
    assert not (folder / "work").exists()


def rung_difference(rung: Rung) -> float:
    assert rung.difference is not None
    return rung.difference.difference.value


def test_the_difference_is_that_of_the_means(made: tuple[Path, Comparison, list[str]]) -> None:
    _, found, _ = made
    for rung in found.rungs[1:]:
        other = found.rung(rung.against or "")
        gap = rung.metrics["accuracy"].value - other.metrics["accuracy"].value
        assert rung_difference(rung) == pytest.approx(gap)
        mean = np.mean([cell.scores.metrics["accuracy"].value for cell in rung.cells])
        assert rung.metrics["accuracy"].value == pytest.approx(mean)


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "causal"), ("bert", "encoder")])
def test_entities_are_compared_by_their_f1(tmp_path: Path, architecture: str, kind: str) -> None:
    words = (("Ann", "met", "Bob"), ("tea", "was", "okay"), ("Bob", "broke", "tea"), ("okay", "Ann", "met"))
    tags = tuple(tuple("B-P" if word in ("Ann", "Bob") else "O" for word in row) for row in words)
    rows = pegbox.data.Sentences("toy sentences", words * 6, tags * 6, tuple(range(1, 25)))
    found = pegbox.compare(
        base_of(architecture, kind),
        pegbox.Tag(types=("P",)).with_rows(rows),
        ("majority", "closed-form", "head"),
        folder=tmp_path / "out",
        test=rows.select(range(8)),
        seeds=(0, 1),
        training=pegbox.Training(epochs=1),
        curve=False,
        forgetting="off",
        say=lambda _: None,
    )
    assert found.metric == "f1"
    assert found.rung("majority").metrics["f1"].value == 1
    assert found.recommended == "majority"
    assert [part.name for part in found.skipped] == ["closed-form"]
    cost = found.rung("head").cost
    assert cost.flops is not None
    assert cost.flops > 0
