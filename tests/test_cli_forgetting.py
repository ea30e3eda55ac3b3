"""Forgetting and replay on the command line: right calls and wrong calls."""

import json
from pathlib import Path

import pytest

from cli_toy import run, write_rows
from pegbox.cli import main
from pegbox.evaluation import Forgetting, Scores
from tiny import TEXT, tiny_folder

FIT = ["--holdout", "0", "--no-cache", "--training.epochs", "1", "--training.precision", "float32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of two tasks and general text."""
    folder = tmp_path_factory.mktemp("forgetting")
    write_rows(folder / "rows.csv")
    (folder / "general.txt").write_text("\n\n".join(TEXT[:4]), "utf-8")
    # Names whose first tokens differ, so that words can be derived of them.
    lines = [f"The kettle {at} and the tea,{'yes' if at % 3 else 'no'}" for at in range(12)]
    (folder / "other.csv").write_text("text,label\n" + "\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def tuned(place: Path) -> Path:
    out = place / "tuned"
    arguments = ["fit", place / "rows.csv", "--model", tiny_folder("llama", "causal"), "--method", "lora"]
    arguments += ["--out", out, "--replay", place / "general.txt", "--replay-ratio", "0.25", *FIT]
    assert main(list(map(str, arguments))) == 0
    return out


def test_fit_replays_and_keeps_note_of_it(tuned: Path) -> None:
    kept = json.loads((tuned / "pegbox.json").read_text("utf-8"))["details"]["replay"]
    assert (kept["source"], kept["ratio"]) == ("general.txt", 0.25)
    assert kept["windows"] > 0


def test_evaluate_shows_what_was_forgotten(
    tuned: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, other = place / "general.txt", place / "other.csv"
    code, out, told = run(
        capsys, "evaluate", tuned, place / "rows.csv", "--forgetting", text, "--also", other, "--no-cache"
    )
    assert code == 0
    shown = " ".join(out.split())
    assert "forgetting" in shown
    assert "base, bits per byte" in shown
    assert "change, adapter off 0 exactly" in shown
    assert "accuracy on" in shown
    assert "4 documents of general text" in told
    assert "documents were replayed in training" in told


def test_evaluate_writes_it_beside_the_scores(
    tuned: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scores.json"
    options = ["--also", f"{place / 'other.csv'},{place / 'rows.csv'}", "--format", "json", "--no-cache"]
    code, out, _ = run(
        capsys, "evaluate", tuned, place / "rows.csv", "--forgetting", place / "general.txt",
        *options, "--out", file,
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found == json.loads(file.read_text("utf-8"))
    assert Scores.from_json(found).rows == 40
    broken = Forgetting.from_json(found["forgetting"])
    assert (broken.documents, broken.off) == (4, 0.0)
    assert [also.rows for also in broken.also] == [12, 40]


@pytest.mark.parametrize("flags", [[], ["--forgetting", "off"]])
def test_without_the_flags_nothing_is_new(
    tuned: Path, place: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    code, out, _ = run(
        capsys, "evaluate", tuned, place / "rows.csv", "--format", "json", "--no-cache", *flags
    )
    assert code == 0
    assert "forgetting" not in json.loads(out)


def test_auto_on_an_unknown_base_says_what_to_give(
    tuned: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, told = run(
        capsys,
        "evaluate",
        tuned,
        place / "rows.csv",
        "--forgetting",
        "auto",
        "--format",
        "json",
        "--no-cache",
    )
    assert code == 0
    assert "forgetting" not in json.loads(out)
    assert "forgetting is not measured" in told
    assert ".txt" in told


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--forgetting", "genral.txt"], "did you mean"),
        (["--forgetting", "nothing.txt"], "expected: a .txt file, a folder of them, a table (.csv"),
        (["--forgetting", "nothing.pdf"], "there is no such file"),
        (["--also", "missing.csv"], "There is no such file"),
        (["--also", "rows.csv,missing.csv"], "There is no such file"),
        (["--forgeting", "auto"], "--forgetting"),
    ],
)
def test_wrong_calls_of_evaluate_are_one_clear_error(
    tuned: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    what: str,
) -> None:
    monkeypatch.chdir(place)
    code, out, told = run(capsys, "evaluate", tuned, "rows.csv", *options)
    assert (code, out) == (2, "")
    assert what in told


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--replay-ratio", "0.5"], "there is no text to replay a share of"),
        (["--replay", "general.txt", "--replay-ratio", "1"], "is no share (--replay-ratio 1)"),
        (["--replay", "nothing.txt"], "a folder of them, a table (.csv"),
        (["--replay", "general.txt", "--replay-ratio", "half"], "--replay-ratio"),
        (["--replay", "genral.txt"], "did you mean 'general.txt'"),
        (["--replay", "auto"], "nobody knows what"),
        (["--replay", "general.txt", "--method", "closed-form"], "replay text (--replay general.txt)"),
        (["--replay", "general.txt", "--method", "head"], "a head stands in place of the output layer"),
        (
            ["--replay", "general.txt", "--readout", "head"],
            "said by (--replay general.txt with --readout head)",
        ),
    ],
)
def test_wrong_calls_of_fit_are_one_clear_error_and_leave_nothing(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    what: str,
) -> None:
    monkeypatch.chdir(place)
    arguments = ["fit", "rows.csv", "--model", tiny_folder("llama", "causal"), "--out", tmp_path / "out"]
    method = [] if "--method" in options else ["--method", "lora"]
    code, out, told = run(capsys, *arguments, *method, *options, *FIT)
    assert (code, out) == (2, "")
    assert what in told
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_is_told_why_nothing_can_be_measured(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "encoder"
    arguments = ["fit", place / "rows.csv", "--model", tiny_folder("bert", "encoder"), "--out", out]
    assert run(capsys, *arguments, "--holdout", "0", "--no-cache")[0] == 0
    code, shown, told = run(
        capsys, "evaluate", out, place / "rows.csv", "--forgetting", place / "general.txt", "--no-cache"
    )
    assert (code, shown) == (2, "")
    assert "without an output layer says nothing of any token" in told
