"""The command line on wrong input and broken surroundings: one clear error, nothing of the user's lost."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from cli_toy import FIT, run, write_rows
from pegbox.cli import main
from pegbox.cli._inputs import check_inputs
from pegbox.errors import UsageError
from pegbox.tuning._claim import claimed
from tiny import tiny_folder

LORA = ["--method", "lora", "--training.epochs", "1", "--holdout", "0", "--no-cache"]


@pytest.fixture(scope="module")
def model() -> Path:
    return tiny_folder("llama", "causal")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "reviews.csv", rows=12)


@pytest.fixture(scope="module")
def tuned(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    assert main(["fit", str(data), "--model", str(model), "--out", str(out), *FIT]) == 0
    return out


def test_a_foreign_folder_beside_the_output_survives_a_solver(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "o-run" / "notes.txt"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    code, _, told = run(capsys, "fit", data, "--model", model, "--out", tmp_path / "o", *FIT)
    assert code == 0, told
    assert foreign.read_text() == "mine"


def test_lora_refuses_a_foreign_folder_for_its_checkpoints(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "o-run" / "checkpoint-5" / "model.bin"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    code, _, told = run(capsys, "fit", data, "--model", model, "--out", tmp_path / "o", *LORA)
    assert code == 2
    assert "taken by something else" in told
    assert "o-run" in told
    assert "text column" not in told, "refused before any work"
    assert foreign.read_text() == "mine"
    assert not (tmp_path / "o").exists()


def test_lora_clears_its_own_checkpoints_and_no_file_put_beside_them(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "o-run"
    place.mkdir()
    (place / "fit.json").write_text("{}")
    (place / "notes.txt").write_text("mine")
    code, _, told = run(capsys, "fit", data, "--model", model, "--out", tmp_path / "o", *LORA)
    assert code == 0, told
    assert [path.name for path in place.iterdir()] == ["notes.txt"]


def test_a_wrong_setting_of_the_engine_leaves_no_folder(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fit", data, "--model", model, "--out", tmp_path / "o", *LORA, "--training.precision", "bf61"]
    code, _, told = run(capsys, *call)
    assert code == 2, told
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_use_found_late_leaves_no_run_folder(tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        with claimed(folder, {"seed": "0"}, resume=False):
            assert (folder / "fit.json").is_file()
            raise UsageError("the settings differ")

    with pytest.raises(UsageError, match="settings differ"):
        refuse(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_wrong_use(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    code, out, told = run(capsys, "check", data, "--out", tmp_path / "file" / "y.json")
    assert (code, out) == (2, "")
    assert f"--out {tmp_path / 'file' / 'y.json'}" in told
    code, out, told = run(capsys, "check", data, "--out", tmp_path)
    assert (code, out) == (2, "")
    assert "this is a folder" in told


def test_an_output_that_only_the_system_refuses_is_wrong_use(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, _, told = run(capsys, "check", data, "--out", tmp_path / "x" / "y.json")
    assert code == 2
    assert "cannot be used: No such file or directory" in told
    assert "--out" in told


def test_a_full_disk_is_a_failed_run_that_names_the_file(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    code, _, told = run(capsys, "check", data, "--out", tmp_path / "y.json")
    assert code == 1
    assert f"No space left on device ({tmp_path / 'y.json'})" in told
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_as_safetensors_tells_it(
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    code, _, told = run(capsys, "fit", data, "--model", model, "--out", tmp_path / "o", *FIT)
    assert code == 1
    assert f"No space left on device ({tmp_path / 'o'})" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this platform has no /dev/full")
def test_a_full_standard_output_is_told_once(data: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pegbox", "check", str(data)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left on device (standard output)" in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr


def test_standard_input_that_is_not_utf8(
    tuned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("tea\ncaf\xe9\n".encode("latin-1"))))
    code, out, told = run(capsys, "predict", tuned, "--no-cache")
    assert (code, out) == (2, "")
    assert "not UTF-8 text (standard input, line 2)" in told


def test_a_data_set_that_comes_as_a_script(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found reviews.py")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    code, _, told = run(capsys, "check", "someone/reviews")
    assert code == 2
    assert "no longer supported, but found reviews.py (someone/reviews[train])" in told


def empty(folder: Path) -> Path:
    """A file that is there and cannot be read."""
    (folder / "empty.csv").touch()
    return folder / "empty.csv"


WRONG_EVALUATIONS = {
    "picture": (["--reliability", "x.pdf"], "cannot draw a '.pdf' file", "x.png"),
    "resamples": (["--resamples", "0"], "--resamples 0", "at least 1"),
    "seed": (["--seed", "-1"], "--seed -1", "at least 0"),
    "output": (["--out", "."], "this is a folder", "--out ."),
}


@pytest.mark.parametrize("name", WRONG_EVALUATIONS)
def test_evaluate_checks_its_options_before_any_work(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options, *expected = WRONG_EVALUATIONS[name]
    # There is no such folder and no row in the file: what is told first is what was looked at first.
    code, out, told = run(capsys, "evaluate", tmp_path / "nowhere", empty(tmp_path), *options)
    assert (code, out) == (2, "")
    assert all(part in told for part in expected), told


@pytest.mark.parametrize("options", [["--seed", "-1"], ["--holdout", "1"]])
def test_fit_checks_its_options_before_any_work(
    options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, told = run(capsys, "fit", empty(tmp_path), "--out", tmp_path / "o", *options)
    assert code == 2
    assert " ".join(options) in told.replace("1.0", "1")


def test_demo_checks_its_options_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pegbox import models

    def loaded(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(models, "load", loaded)
    code, _, told = run(capsys, "demo", "--out", tmp_path / "demo", "--seed", "-1")
    assert code == 2
    assert "the number is too small (--seed -1)" in told
    (tmp_path / "file").touch()
    code, _, told = run(capsys, "demo", "--out", tmp_path / "file", "--overwrite")
    assert code == 2
    assert "the file cannot be written" in told


def test_scores_are_printed_even_if_their_file_cannot_be_written(
    tuned: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    code, out, _ = run(
        capsys, "evaluate", tuned, data, "--format", "json", "--out", tmp_path / "s.json", "--no-cache"
    )
    assert code == 1
    assert json.loads(out)["rows"] == 12


def test_no_line_is_told_twice(
    tuned: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "semicolons.csv"
    lines = [
        f"The tea {n} was {word};{label}"
        for n, word, label in ((1, "hot", "positive"), (2, "bad", "negative"))
    ]
    path.write_text("text;label\n" + "\n\n".join(lines * 3) + "\n")
    calls = {
        "fit": ["fit", path, "--test", path, "--model", model, "--out", tmp_path / "o", *FIT],
        "predict": ["predict", tuned, path, "--no-cache"],
        "check": ["check", path],
    }
    for name, call in calls.items():
        capsys.readouterr()
        assert main([str(part) for part in call]) == 0
        streams = capsys.readouterr()
        told = (streams.out if name == "check" else streams.err).splitlines()
        assert sum("separated by semicolon" in line for line in told) == (2 if name == "fit" else 1), name
        assert len(told) == len(set(told)), told


def test_predict_replaces_the_answers_of_an_earlier_prediction(
    tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    assert run(capsys, "predict", tuned, data, "--out", first, "--no-cache")[0] == 0
    code, _, told = run(capsys, "predict", tuned, first, "--out", second, "--no-cache")
    assert code == 0
    assert "replaced by the new answers: predicted, probability, deviation, p(negative), p(positive)" in told
    assert second.read_text() == first.read_text()


def test_a_model_that_cannot_be_reached(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = run(capsys, "check", data, "--model", "nosuchmodel")
    assert code == 2
    assert "check the name and the connection" in told
    assert "save the tokenizer" not in told


WRONG_CONFIGURATIONS = {
    "unknown key": ("modl: etude\n", "unknown key 'modl'", "did you mean 'model'?"),
    "empty": ("", "holds no options by name", "model: etude"),
    "no YAML": ("model: [etude\n", "is no YAML", "line 1"),
    "wrong type": ("seed: many\n", "wrong value for --seed (--seed many)", "a whole number"),
    "no text": (
        "revision: 1234567\n",
        "wrong value for --revision",
        "in quotes in the file: revision: '...'",
    ),
    "what YAML makes of off": ("revision: off\n", "wrong value for --revision (--revision False)", "quotes"),
    "no mapping": ("options: 3\n", "wrong value for --options", "--options.rank 4"),
}


@pytest.mark.parametrize("name", WRONG_CONFIGURATIONS)
def test_wrong_configurations_give_one_clear_error(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, *expected = WRONG_CONFIGURATIONS[name]
    path = tmp_path / "run.yaml"
    path.write_text(content)
    code, _, told = run(capsys, "fit", data, "--out", tmp_path / "o", "--config", path)
    assert code == 2
    assert all(part in told for part in expected), told
    assert (f"(--config {path})" in told) == (name in ("unknown key", "no YAML", "empty")), told
    assert "Union" not in told
    assert "typing" not in told
    assert [item.name for item in tmp_path.iterdir()] == ["run.yaml"]


def test_a_configuration_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = run(capsys, "fit", "--config", tmp_path / "nope.yaml")
    assert code == 2
    assert f"there is no such configuration file (--config {tmp_path / 'nope.yaml'})" in told


def test_a_word_that_a_masked_model_cannot_say(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masked = tiny_folder("roberta", "masked")
    words = "positive=extraordinarily,negative=terrible"
    call = ["fit", data, "--model", masked, "--out", tmp_path / "o", "--label-words", words, *FIT]
    code, _, told = run(capsys, *call)
    assert code == 2
    assert "extraordinarily" in told
    assert "token" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["closed-form", "lora"])
def test_label_words_that_share_their_first_token(
    method: str, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "positive=greatly,negative=greatness"
    call = ["fit", data, "--model", model, "--out", tmp_path / "o", "--label-words", words, "--no-cache"]
    code, _, told = run(capsys, *call, "--method", method, "--holdout", "0")
    assert code == 2, told
    assert "greatly" in told
    assert "greatness" in told
    assert "first token" in told
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_that_is_no_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"x")
    code, _, told = run(capsys, "fit", data, "--model", folder, "--out", tmp_path / "o")
    assert code == 2
    assert "this folder is no model" in told
    assert "photos" in told
    assert "cat.jpg" in told


def test_a_truncated_base(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    code, _, told = run(capsys, "fit", data, "--model", copy, "--out", tmp_path / "o")
    assert code == 2
    assert "damaged or truncated" in told
    assert "model.safetensors" in told


def test_a_label_column_without_a_label(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d.csv"
    path.write_text("text,label\nfine tea,\nbad tea,\n")
    for bad in ("error", "drop"):
        code, _, told = run(
            capsys, "fit", path, "--text", "text", "--label", "label", "--on-bad-rows", bad,
            "--model", model, "--out", tmp_path / "o",
        )  # fmt: skip
        assert code == 2
        assert "d.csv" in told
        assert "label" in told
        assert "rows 1, 2" in told


# The last file of the folder is the model card: all others are written when the process is killed.
KILLED_IN_SAVE = """
import sys, time
import pegbox.tuning._saving as saving
def slow(*_):
    print("saving", flush=True)
    time.sleep(600)
saving.card = slow
from pegbox.cli import main
from pegbox.cli._inputs import check_inputs
main(sys.argv[1:])
"""


def test_a_kill_inside_save_leaves_no_output_and_the_next_run_clears_up(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    call = ["fit", str(data), "--model", str(model), "--out", str(out), *FIT]
    command = [sys.executable, "-c", KILLED_IN_SAVE, *call]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"saving\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    left = tmp_path / f".out.partial-{process.pid}"
    assert (left / "adapter_model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [left.name]
    for path in (*left.rglob("*"), left):
        os.utime(path, (1, 1))
    assert run(capsys, *call)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# Verb, options before the output, and the output that would have replaced what is read.
OVER_INPUTS = {
    "check": (["check", "rows.csv"], "--out", "rows.csv"),
    "check the test file": (["check", "rows.csv", "--test", "other.csv"], "--out", "other.csv"),
    "check by a link": (["check", "rows.csv"], "--out", "link.csv"),
    "evaluate": (["evaluate", "tuned", "rows.csv"], "--out", "rows.csv"),
    "evaluate another": (
        ["evaluate", "tuned", "rows.csv", "--also", "x.csv,other.csv"],
        "--out",
        "other.csv",
    ),
    "evaluate into its model": (["evaluate", "tuned", "rows.csv"], "--out", "tuned/task.json"),
    "rank into its model": (["rank", "tuned"], "--out", "tuned/adapter_config.json"),
    "the metrics of a policy": (
        ["ppo", "policy-metrics.jsonl", "--sft", "tuned", "--reward", "tuned"],
        "--out",
        "policy",
    ),
    "predict": (["predict", "tuned", "rows.csv"], "--out", "./rows.csv"),
    "a configuration": (["check", "rows.csv", "--config", "own.yaml"], "--out", "own.yaml"),
    "fit": (["fit", "work/rows.csv", "--overwrite"], "--out", "work"),
    "fit below": (["fit", "work/rows.csv", "--overwrite"], "--out", "work/../work"),
    "fit in place of its base": (["fit", "rows.csv", "--model", "tuned", "--overwrite"], "--out", "tuned"),
}


@pytest.mark.parametrize("name", OVER_INPUTS)
def test_what_is_read_is_not_written_over(
    name: str,
    tuned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tuned, "tuned")
    Path("work").mkdir()
    for place in ("rows.csv", "other.csv", "work/rows.csv"):
        write_rows(Path(place), rows=12)
    Path("own.yaml").write_text("format: json\n")
    Path("policy-metrics.jsonl").write_text('{"prompt": "Who?"}\n')
    Path("link.csv").symlink_to("rows.csv")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    given, flag, place = OVER_INPUTS[name]
    code, out, told = run(capsys, *given, flag, place)
    assert (code, out) == (2, "")
    assert "would be replaced, and " in told
    assert f"{flag} {Path(place)}" in told
    assert f"choose another {flag}" in told
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_results_in_a_models_folder_are_replaced(
    tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are no part of it, so that the same call may be made again."""
    own = shutil.copytree(tuned, tmp_path / "tuned")
    calls = [
        ["evaluate", own, data, "--resamples", "5", "--out", own / "mine.json"],
        ["rank", own, "--out", own / "ranks.json"],
        ["predict", own, data, "--out", own / "answers.csv"],
    ]
    for call in calls * 2:
        code, _, told = run(capsys, *call)
        assert code == 0, told
    assert json.loads((own / "mine.json").read_text())["format"].startswith("pegbox.")
    (own / "merged").mkdir()
    check_inputs("merge", {"tuned": own, "out": own / "merged", "overwrite": True})


def test_overwrite_replaces_no_folder_of_somebody_else(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, _, told = run(capsys, "fit", data, "--model", model, "--out", tmp_path, "--overwrite", *FIT)
    assert code == 2
    assert "holds something that Pegbox did not write" in told
    assert "pegbox.json" in told
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "tsv"])
def test_answers_go_into_no_file_that_is_named_as_another_format(
    suffix: str, tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"answers.{suffix}"
    code, _, told = run(capsys, "predict", tuned, data, "--out", out, "--no-cache")
    assert code == 2
    assert f"the answers are csv, and the file is named as {suffix}" in told
    assert f"fix: write --out {out.with_suffix('.csv')}" in told
    assert not list(tmp_path.iterdir())


def test_training_settings_of_a_solver_are_told_to_play_no_part(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fit", data, "--model", model, "--out", tmp_path / "o", *FIT]
    code, _, told = run(capsys, *call, "--training.epochs", "2")
    assert code == 0
    assert "closed-form takes no training steps, so --training.epochs plays no part" in told


@pytest.mark.parametrize("verb", ["fit", "sft", "reward"])
def test_training_settings_are_checked_before_the_file_is_read(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [verb, empty(tmp_path), "--out", tmp_path / "o", "--method", "lora"]
    code, _, told = run(capsys, *call, "--training.epochs", "many")
    assert code == 2
    assert "epochs is 'many', expected a number above 0" in told
