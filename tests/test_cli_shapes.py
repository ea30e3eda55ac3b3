"""The command line on tagged sentences and multiple choice."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from cli_toy import run, write_lines
from pegbox.cli import main
from tiny import save_tiny

TRAIN = ["--method", "lora", "--training.max_steps", "2", "--training.precision", "float32", "--no-cache"]
WORDS = (("staff", "B-PER"), ("said", "O"), ("the", "O"), ("hotel", "B-LOC"), ("screen", "I-LOC"))


def tagged(count: int = 12) -> list[dict[str, Any]]:
    rows = []
    for index in range(count):
        words = [*WORDS[: 2 + index % 4], (f"tea{index}", "O")]
        rows.append({"tokens": [word for word, _ in words], "tags": [tag for _, tag in words]})
    return rows


def asked(count: int = 12) -> list[dict[str, Any]]:
    return [
        {"question": f"What {i}?", "choices": ["tea", "a kettle", "no"][: 2 + i % 2], "answer": i % 2}
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llama"), "llama", "causal")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Data and a tuned model of each kind."""
    folder = tmp_path_factory.mktemp("shapes")
    for name, rows in (("tag", tagged()), ("choose", asked())):
        data = write_lines(folder / f"{name}.jsonl", rows)
        assert main(["fit", str(data), "--model", str(model), "--out", str(folder / name), *TRAIN]) == 0
    return folder


def test_fit_tells_the_kind_by_the_columns(
    place: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rows in (("tag", "sentences"), ("choose", "chance")):
        call = ["fit", place / f"{name}.jsonl", "--model", model, "--out", tmp_path / name, *TRAIN]
        code, out, told = run(capsys, *call)
        assert code == 0, told
        assert f"task {name} (guessed from the columns; override with --task)" in told
        assert "3 of 12 rows held out for evaluation" in told or "2 of 12 rows held out" in told
        assert rows in out
        assert json.loads((tmp_path / name / "task.json").read_text())["task"] == name
        assert json.loads((tmp_path / name / "scores.json").read_text())["rows"] in (2, 3)


def test_predict_writes_tags_and_entities(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "predict", place / "tag", place / "tag.jsonl")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["tokens"] for row in rows] == [row["tokens"] for row in tagged()]
    assert all(len(row["predicted"]) == len(row["tokens"]) for row in rows)
    for row in rows:
        starts = [at for at, tag in enumerate(row["predicted"]) if tag[:2] == "B-"]
        assert [entity["start"] for entity in row["entities"]] == starts
        assert all(set(e) == {"type", "start", "end", "text", "probability"} for e in row["entities"])


def test_predict_reads_sentences_of_standard_input(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"The staff said yes\n\nno\n")))
    code, out, told = run(capsys, "predict", place / "tag")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert rows[0]["tokens"] == ["The", "staff", "said", "yes"]
    assert rows[1]["predicted"] is None
    assert "no words (row 2)" in told
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"What?\n")))
    code, _, told = run(capsys, "predict", place / "choose")
    assert code == 2
    assert "this task needs options" in told


def test_predict_writes_the_choice_and_its_probabilities(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.jsonl"
    code, _, told = run(capsys, "predict", place / "choose", place / "choose.jsonl", "--out", out)
    assert code == 0
    assert "12 rows written" in told
    code, _, told = run(
        capsys, "predict", place / "choose", place / "choose.jsonl", "--out", tmp_path / "p.csv"
    )
    assert code == 2
    assert "the answers are jsonl, and the file is named as csv" in told
    for line in out.read_text().splitlines():
        row = json.loads(line)
        assert row["predicted"] == row["choices"][row["predicted_index"]]
        assert len(row["probabilities"]) == len(row["choices"])
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == max(row["probabilities"])


def test_evaluate_scores_both(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["--format", "json", "--resamples", "20"]
    code, out, _ = run(capsys, "evaluate", place / "tag", place / "tag.jsonl", *call)
    assert code == 0
    assert set(json.loads(out)["metrics"]) == {"precision", "recall", "f1", "macro_f1", "token_accuracy"}
    code, out, _ = run(capsys, "evaluate", place / "choose", place / "choose.jsonl", *call)
    assert code == 0
    assert json.loads(out)["metrics"]["chance"]["value"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    code, out, _ = run(capsys, "evaluate", place / "tag", place / "tag.jsonl")
    assert "token accuracy" in out
    picture = tmp_path / "r.png"
    code, _, told = run(capsys, "evaluate", place / "tag", place / "tag.jsonl", "--reliability", picture)
    assert code == 2
    assert "tags have no reliability diagram" in told
    code, _, _ = run(
        capsys, "evaluate", place / "choose", place / "choose.jsonl", "--reliability", picture, *call
    )
    assert code == 0
    assert picture.stat().st_size > 0


def test_check_examines_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tagged(4)
    stray = {"tokens": ["a"], "tags": ["I-PER"]}
    data = write_lines(tmp_path / "t.jsonl", [*rows, rows[0], stray, {"tokens": ["a"], "tags": ["O", "O"]}])
    test = write_lines(tmp_path / "test.jsonl", [rows[1]])
    code, out, _ = run(capsys, "check", data, "--test", test, "--format", "json")
    assert code == 0
    found = {item["kind"]: item for item in json.loads(out)["findings"] if item["kind"] != "bad-rows"}
    bad = [item for item in json.loads(out)["findings"] if item["kind"] == "bad-rows"]
    assert [(item["severity"], item["rows"]) for item in bad] == [("error", [6]), ("error", [7])]
    assert found["exact-duplicates"]["rows"] == [1, 5]
    assert found["exact-leak"]["rows"] == [2]
    assert json.loads(out)["classes"] == {"PER": 5, "LOC": 2}
    questions = asked(4)
    data = write_lines(
        tmp_path / "c.jsonl", [*questions, {**questions[0], "answer": 1}, {**questions[1], "answer": 7}]
    )
    code, out, _ = run(capsys, "check", data, "--format", "json")
    assert code == 0
    found = {item["kind"]: item for item in json.loads(out)["findings"]}
    assert found["conflicting-labels"]["rows"] == [1, 5]
    assert found["bad-rows"]["rows"] == [6]
    assert "option-counts" in found


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        ([{"tokens": ["a", "b"], "tags": ["O"]}], [], "2 words and 1 tag (row 1)"),
        ([*tagged(2), {"tokens": ["a"], "tags": ["I-X"]}], [], "I-X continues no entity of its type (row 3)"),
        (
            [*asked(2), {"question": "q", "choices": ["x", "y"], "answer": 2}],
            [],
            "the answer 2 is none of 2 options",
        ),
        (tagged(3), ["--task", "choose"], "No column looks like the"),
        (asked(3), ["--task", "tag"], "No column holds lists of BIO tags"),
        (tagged(3), ["--label-words", "a=b,c=d"], "a tag task has no label words"),
        (tagged(3), ["--template", "{text} {answer}"], "a tag task has no template"),
        (tagged(12), ["--method", "closed-form"], "entities are found by a head on every token"),
        (asked(12), ["--method", "closed-form"], "every question has options of its own"),
    ],
)
def test_wrong_files_and_options_exit_2(
    rows: list[dict[str, Any]],
    options: list[str],
    expected: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_lines(tmp_path / "d.jsonl", rows)
    code, out, told = run(capsys, "fit", data, "--model", model, "--out", tmp_path / "o", *TRAIN, *options)
    assert (code, out) == (2, "")
    assert expected in told
    assert not (tmp_path / "o").exists()


def test_stray_tags_are_repaired_on_demand(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "d.jsonl", [*tagged(12), {"tokens": ["a"], "tags": ["I-PER"]}])
    call = ["fit", data, "--model", model, "--out", tmp_path / "o", *TRAIN, "--on-bad-rows", "repair"]
    code, _, told = run(capsys, *call)
    assert code == 0, told
    assert "1 I- tag that continued no entity made B- (row 13)" in told


def test_predict_keeps_columns_of_the_file(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column called index is a row's own number in many files."""
    data = write_lines(tmp_path / "own.jsonl", [{"index": 100 + i, **row} for i, row in enumerate(asked(3))])
    code, out, told = run(capsys, "predict", place / "choose", data)
    assert code == 0
    assert "replaced" not in told
    assert [json.loads(line)["index"] for line in out.splitlines()] == [100, 101, 102]


@pytest.mark.parametrize("kind", ["choose", "tag"])
def test_merge_measures_where_not_all_rows_have_an_answer(
    kind: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of two and of three options, and a word that vanishes: neither has a number to compare."""
    rows = [*tagged(4), {"tokens": ["tea", " "], "tags": ["O", "O"]}] if kind == "tag" else asked(4)
    data = write_lines(tmp_path / "rows.jsonl", rows)
    code, out, told = run(
        capsys, "merge", place / kind, "--out", tmp_path / "merged", "--data", data, "--format", "json"
    )
    assert code == 0, told
    made = json.loads(out)
    assert made["rows"] == len(rows)
    assert 0 <= made["mean_change"] <= made["max_change"] < 1e-4  # float32, see test_tuning_merge
    assert made["flipped"] == 0


@pytest.mark.parametrize("task", ["auto", "tag"])
def test_tags_as_class_numbers_are_named(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "numbers.jsonl", [{"tokens": ["a", "b"], "ner_tags": [0, 1]}] * 3)
    code, _, told = run(capsys, "check", data, "--task", task)
    assert code == 2
    assert "'ner_tags' holds class numbers: write their names instead" in told
