"""The command line as a user meets it: right calls, wrong calls, interrupted calls."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli_toy import FIT, heed_interrupts, run, write_rows
from pegbox.cli import main
from pegbox.errors import PegboxError
from tiny import save_tiny, tiny_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llama"), "llama", "causal")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llama"), "llama", "causal", seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "reviews.csv")


@pytest.fixture(scope="module")
def tuned(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    assert main(["fit", str(data), "--model", str(model), "--out", str(out), *FIT]) == 0
    return out


def test_fit_writes_a_folder_that_explains_itself(tuned: Path) -> None:
    files = {path.name for path in tuned.iterdir()}
    assert files == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "pegbox.json",
        "posterior.safetensors",
        "task.json",
    }
    assert json.loads((tuned / "task.json").read_text())["labels"] == ["negative", "positive"]
    assert not (tuned.parent / "out-run").exists()


def test_fit_holds_rows_out_and_reports(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, told = run(capsys, "fit", data, "--model", model, "--out", tmp_path / "o", "--no-cache")
    assert code == 0
    assert "8 of 40 rows held out for evaluation" in told
    assert "text column 'text', label column 'label'" in told
    assert "accuracy" in out
    assert "[" in out
    assert json.loads((tmp_path / "o" / "scores.json").read_text())["rows"] == 8


def test_predict_reads_csv_and_keeps_its_columns(
    tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "predict", tuned, data, "--no-cache")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 40
    assert rows[0]["label"] == "positive"
    assert abs(float(rows[0]["p(positive)"]) + float(rows[0]["p(negative)"]) - 1) < 1e-5
    assert float(rows[0]["deviation"]) > 0
    code, out, _ = run(capsys, "predict", tuned, data, "--out", tmp_path / "p.csv", "--no-cache")
    assert (code, out) == (0, "")
    assert list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text()))) == rows


def test_predict_writes_cells_that_are_no_text_as_json(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = {"text": "a fine day", "meta": {"a": True, "b": None}, "tags": ["x", "y"], "ok": True, "n": 3}
    (tmp_path / "rows.jsonl").write_text(json.dumps(cells) + "\n")
    code, out, told = run(capsys, "predict", tuned, tmp_path / "rows.jsonl", "--no-cache")
    assert code == 0, told
    row = next(csv.DictReader(io.StringIO(out)))
    assert {name: json.loads(row[name]) for name in ("meta", "tags", "ok", "n")} == {
        name: cells[name] for name in ("meta", "tags", "ok", "n")
    }


def test_predict_reads_lines_of_standard_input(
    tuned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"The tea was great.\n\nIt broke\n")))
    code, out, told = run(capsys, "predict", tuned, "--no-cache")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["predicted"] == "" for row in rows] == [False, True, False]
    assert "1 row" in told
    assert "2" in told


def test_other_columns_stand_for_those_of_the_task(
    tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = write_rows(tmp_path / "renamed.csv", columns=("review", "stars"))
    code, out, told = run(capsys, "predict", tuned, renamed, "--no-cache")
    assert (code, out) == (2, "")
    assert "There is no column 'text'" in told
    assert "stands for it with --text" in told
    code, out, told = run(capsys, "predict", tuned, renamed, "--text", "review", "--no-cache")
    assert code == 0, told
    same = run(capsys, "predict", tuned, data, "--no-cache")[1]
    assert out == same.replace("text,label", "review,stars", 1)
    call = ["evaluate", tuned, renamed, "--text", "review", "--format", "json", "--no-cache"]
    code, _, told = run(capsys, *call)
    assert code == 2
    assert "There is no column 'label'" in told
    assert "stands for it with --label" in told
    code, out, told = run(capsys, *call, "--label", "stars")
    assert code == 0, told
    scores = json.loads(run(capsys, "evaluate", tuned, data, "--format", "json", "--no-cache")[1])
    assert json.loads(out)["metrics"] == scores["metrics"]
    code, _, told = run(capsys, *call[:3], "--text", "review,stars", "--label", "stars")
    assert code == 2
    assert "text columns given: 2, those of the task: 1" in told


def test_predict_says_which_rows_have_no_answer(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nThe tea was hot,positive\n,negative\nIt broke,negative\n")
    code, _, told = run(capsys, "predict", tuned, path, "--out", tmp_path / "p.csv", "--no-cache")
    assert code == 0
    assert f"3 rows written to {tmp_path / 'p.csv'}, 2 answered (row 2 without text has empty cells)" in told


@pytest.mark.parametrize(
    ("sent", "options", "expected"),
    [
        (b"\n \n", [], "fix: send at least one line with text"),
        (b"", [], "standard input is empty"),
        (b"The tea\n", ["--text", "review"], "standard input has no columns"),
    ],
)
def test_standard_input_is_not_told_of_columns(
    sent: bytes,
    options: list[str],
    expected: str,
    tuned: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(sent)))
    code, out, told = run(capsys, "predict", tuned, "--no-cache", *options)
    assert (code, out) == (2, "")
    assert expected in told
    assert "--label" not in told


def test_evaluate_prints_text_or_json_and_draws(
    tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "r.svg"
    code, out, _ = run(capsys, "evaluate", tuned, data, "--format", "json", "--reliability", picture)
    assert code == 0
    scores = json.loads(out)
    assert scores["rows"] == 40
    assert picture.read_text().startswith("<?xml")
    code, out, _ = run(capsys, "evaluate", tuned, data)
    assert code == 0
    assert "accuracy" in out


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_encoder_decoders_from_a_file_to_predictions(
    architecture: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows = tiny_folder(architecture, "encoder-decoder"), tmp_path / "test.csv"
    write_rows(rows, 6)
    options = {
        "zero-shot": ["--label-words", "negative=no breakfast,positive=no tea"],  # alike to begin with
        "few-shot": ["--options.per_class", "1"],
        "closed-form": ["--options.penalty", "0.01", "--template", "{text}\nAnswer: {answer}"],
        "lora": ["--training.epochs", "1"],
    }
    for method, chosen in options.items():
        out = tmp_path / method
        arguments = ["--model", model, "--method", method, "--out", out, "--no-cache", *chosen]
        code, _, told = run(capsys, "fit", data, *arguments)
        assert code == 0, told
        code, printed, told = run(capsys, "predict", out, rows)
        assert code == 0, told
        predicted = list(csv.DictReader(io.StringIO(printed)))
        assert len(predicted) == 6
        assert {row["predicted"] for row in predicted} <= {"negative", "positive"}
        code, _, told = run(capsys, "evaluate", out, rows, "--no-cache")
        assert code == 0, told


def test_check_tells_duplicates_with_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    path = tmp_path / "d.csv"
    path.write_text("text,label\nfine tea,a\nbad tea,b\nfine  TEA,b\n")
    code, out, _ = run(capsys, "check", path, "--format", "json", "--model", model)
    assert code == 0
    found = {finding["kind"] for finding in json.loads(out)["findings"]}
    assert "conflicting-labels" in found


def test_configuration_file_and_flags(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"data: {data}\nmodel: {model}\nout: {tmp_path / 'a'}\noptions: {{penalty: 2.0}}\n"
        "holdout: 0\nno_cache: true\n"
    )
    code, _, told = run(capsys, "fit", "--config", config, "--out", tmp_path / "b")
    assert code == 0, told
    assert not (tmp_path / "a").exists()
    assert json.loads((tmp_path / "b" / "pegbox.json").read_text())["method"]["options"]["penalty"] == 2.0


def test_configuration_that_is_no_text_or_no_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_bytes(b"model: caf\xe9\n")
    code, _, told = run(capsys, "fit", "--config", tmp_path / "run.yaml")
    assert code == 2
    assert "the configuration file is not UTF-8 text" in told
    assert f"--config {tmp_path / 'run.yaml'}" in told
    code, _, told = run(capsys, "fit", "--config", tmp_path)
    assert code == 2
    assert f"the configuration is no file (--config {tmp_path})" in told


def test_column_names_with_commas_stand_in_double_quotes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('"Text, free",other,label\n' + "some words,more words,a\nothers,of them,b\n" * 3, "utf-8")
    code, out, _ = run(capsys, "check", path, "--text", '"Text, free", other', "--label", "label")
    assert code == 0
    assert "text columns 'Text, free', 'other'" in out


def test_methods_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "methods")
    assert code == 0
    assert all(name in out for name in ("zero-shot", "few-shot", "closed-form", "lora"))
    assert "\nzero-init-attention " in out
    assert "encoder-decoder" in out
    assert "…" not in out
    assert "K labels, d hidden width, r rank, V vocabulary, N rows" in out
    lines = out.splitlines()
    assert "  zero-shot: 0" in lines
    assert "  zero-shot: none" in lines
    assert any(line.startswith("  lora: rank, alpha") for line in lines)
    assert lines[0].rstrip().endswith("mergeable")


def test_a_method_is_described_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "methods", "lora")
    assert code == 0
    assert out.startswith("## lora\n\n- turns: low-rank products")
    assert "| rank | `8` | Rank of each product. |" in out
    code, _, told = run(capsys, "methods", "loraa")
    assert code == 2
    assert "did you mean 'lora'?" in told


@pytest.mark.parametrize("flag", ["", "--test", "--valid"])
def test_missing_files_are_told_before_any_library_is_loaded(flag: str, data: Path, tmp_path: Path) -> None:
    call = ["fit", *([str(data), flag] if flag else []), "nowhere.csv", "--out", "o"]
    code = f"import sys; from pegbox.cli import main; print(main({call!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "2 False\n"
    assert f"There is no such file ({flag} nowhere.csv)".replace("( ", "(") in done.stderr


def test_a_text_in_the_place_of_a_file_is_no_fault_of_the_system(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = run(capsys, "check", "Tea is good. " * 40)
    assert code == 2
    assert "There is no such file" in told


def test_yaml_words_for_the_trunk_cache_are_its_own(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fit", data, "--model", model, "--method", "lora", "--out", tmp_path / "o", *FIT[2:]]
    call += ["--training.max_steps", "1"]
    assert run(capsys, *call, "--training.trunk_cache", "off")[0] == 0
    assert run(capsys, *call, "--training.trunk_cache", "no_such", "--overwrite")[0] == 2


WRONG_CALLS = {
    "verb": (["fitt"], "no verb 'fitt'", "did you mean 'fit'?"),
    "option like none": (["check", "d.csv", "--bogus", "x"], "unknown option --bogus", "see pegbox check"),
    "option": (["fit", "d.csv", "--out", "o", "--mdel", "x"], "unknown option --mdel", "'--model'"),
    "no such file": (["fit", "nowhere.csv", "--out", "o"], "There is no such file", "check the path"),
    "no such test file": (
        ["fit", "DATA", "--out", "o", "--test", "nowhere.csv"],
        "There is no such file",
        "check the path",
    ),
    "revision of etude": (
        ["fit", "DATA", "--out", "o", "--revision", "v1"],
        "lies on the disk",
        "leave the revision out",
    ),
    "missing option": (["fit", "d.csv"], "required: out", "--help"),
    "value": (["fit", "d.csv", "--out", "o", "--dtype", "flot32"], "wrong value for --dtype", "float32"),
    "method": (["fit", "DATA", "--out", "o", "--method", "lorra"], "no method 'lorra'", "'lora'"),
    "method option": (
        ["fit", "DATA", "--out", "o", "--method", "lora", "--options.rnk", "4"],
        "no option 'rnk'",
        "'rank'",
    ),
    "training option": (
        ["fit", "DATA", "--out", "o", "--training.epoch", "4"],
        "no option 'epoch'",
        "'epochs'",
    ),
    "rank 0": (
        ["fit", "DATA", "--out", "o", "--method", "lora", "--options.rank", "0"],
        "rank is 0",
        "at least 1",
    ),
    "no file": (["fit", "nothing.csv", "--out", "o"], "no such file", "nothing.csv"),
    "no model": (["fit", "DATA", "--out", "o", "--model", "./nowhere"], "no such model folder", "./nowhere"),
    "no tuned folder": (["predict", "nowhere", "DATA"], "no such folder", "nowhere"),
    "label words": (["fit", "DATA", "--out", "o", "--label-words", "great"], "no label word", "label=word"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls_give_one_clear_error(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, what, help_text = WRONG_CALLS[name]
    code, out, told = run(capsys, *[data if part == "DATA" else part for part in arguments])
    assert code == 2
    assert out == ""
    assert "error: " in told
    assert what.lower() in told.lower()
    assert help_text in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


WRONG_FILES = {
    "empty": ("", "empty"),
    "header only": ("text,label\n", "no"),
    "one class": ("text,label\na b,x\nc d,x\n", "class"),
    "unlabelled": ("text,label\na b,x\nc d,\ne f,y\n", "label"),
    "misspelt column": ("text,lable\na b,x\nc d,y\n", "label"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_files_give_one_clear_error(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected = WRONG_FILES[name]
    path = tmp_path / "d.csv"
    path.write_text(content)
    code, _, told = run(
        capsys, "fit", path, "--text", "text", "--label", "label", "--model", model, "--out", tmp_path / "o"
    )
    assert code == 2
    assert expected in told
    assert "d.csv" in told
    assert {item.name for item in tmp_path.iterdir()} == {"d.csv"}


def test_wrong_encoding_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes("text,label\ncaf\xe9 bon,a\nth\xe9 froid,b\n".encode("cp1252"))
    code, _, told = run(capsys, "fit", path, "--model", model, "--out", tmp_path / "o")
    assert code == 2
    assert "UTF-8" in told


def test_wrong_prompts(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["fit", data, "--model", model, "--out", tmp_path / "o", "--no-cache"]
    faults = {
        ("--template", "{text} is good"): "no {answer} slot",
        ("--template", "{txt} is {answer}"): "unknown slot {txt}",
        ("--label-words", "positive=great,negative=great"): "stands for two labels",
        ("--label-words", "positive=great"): "no label word is given for 'negative'",
        ("--too-long", "error", "--max-length", "8"): "longer than the context",
    }
    for options, expected in faults.items():
        code, _, told = run(capsys, *call, *options)
        assert code == 2, told
        assert expected in told


def test_a_class_absent_from_the_training_rows(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    test = tmp_path / "t.csv"
    test.write_text("text,label\na b,positive\nc d,neutral\n")
    code, _, told = run(capsys, "fit", data, "--test", test, "--model", model, "--out", tmp_path / "o")
    assert code == 2
    assert "'neutral'" in told
    assert "row 2" in told


def test_adapter_of_another_base(
    tuned: Path, other: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = run(capsys, "predict", tuned, data, "--model", other)
    assert code == 2
    assert "made for another base" in told


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "posterior.safetensors"])
def test_truncated_files(
    name: str, tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tuned.iterdir():
        content = path.read_bytes()
        (copy / path.name).write_bytes(content[: len(content) // 2] if path.name == name else content)
    code, _, told = run(capsys, "predict", copy, data)
    assert code == 2
    assert "truncated" in told
    assert name in told


def test_an_existing_folder_is_not_touched(
    tuned: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in tuned.iterdir()}
    code, _, told = run(capsys, "fit", data, "--model", model, "--out", tuned)
    assert code == 2
    assert "--overwrite" in told
    assert before == {path.name: path.read_bytes() for path in tuned.iterdir()}


def lora_arguments(model: Path, data: Path, out: Path) -> list[str]:
    options = ["--method", "lora", "--training.epochs", "12", "--training.checkpoint_every", "1"]
    return [
        *("fit", str(data), "--model", str(model), "--out", str(out)),
        *("--holdout", "0", "--no-cache", *options, "--training.patience", "0"),
    ]


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_an_interrupted_fit_leaves_no_output_and_resumes(
    sent: signal.Signals, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = lora_arguments(model, data, out)
    process = subprocess.Popen(
        [sys.executable, "-m", "pegbox", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=heed_interrupts,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out-run").glob("checkpoint-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(sent)
    told = process.communicate()[1]
    assert process.returncode in (130, -signal.SIGKILL)
    assert "Traceback" not in told
    assert "interrupted" not in told.splitlines(), "the engine's own line says more"
    assert not out.exists()
    code, _, told = run(capsys, *arguments)
    assert code == 2
    assert "continue it with --resume" in told
    assert "remove the folder to start afresh" in told
    assert "text column" not in told, "refused before any work"
    code, _, told = run(capsys, *arguments, "--resume")
    assert code == 0, told
    assert "resum" in told.lower()
    assert (out / "adapter_model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.slow
def test_of_two_processes_one_saves_and_speaks(model: Path, data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "pegbox",
    ]
    command += ["fit", str(data), "--model", str(model), "--method", "lora", "--out", str(tmp_path / "out")]
    command += ["--training.epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("lora on") == 1
    assert done.stderr.count("saved in") == 1
    assert (tmp_path / "out" / "pegbox.json").exists()


def test_every_error_class_has_an_exit_code_that_scripts_can_trust() -> None:
    codes = {error.__name__: error.exit_code for error in PegboxError.__subclasses__()}
    assert codes == {"UsageError": 2, "RunError": 1}
