"""pegbox compare: the ladder from the shell, wrong calls, and Ctrl-C in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cli_toy import heed_interrupts, run, write_rows
from comparison_toy import LADDER, comparison_of
from pegbox.cli._compare import _use
from pegbox.comparison import Comparison
from tiny import tiny_folder

FEW = ["--methods", "majority,bag-of-words,closed-form,lora", "--seeds", "2", "--forgetting", "off"]
QUICK = [*FEW, "--no-curve", "--training.max_steps", "4"]


@pytest.fixture(scope="module")
def model() -> Path:
    return tiny_folder("llama", "causal")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "reviews.csv", rows=60)


def test_a_ladder_its_report_and_what_comes_next(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compared"
    code, printed, told = run(
        capsys, "compare", data, "--model", model, "--out", out, *QUICK, "--options.lora.rank", "2"
    )
    assert code == 0, told
    assert "12 of 60 rows held out for evaluation (seed 0)" in told
    found = Comparison.from_json(json.loads((out / "comparison.json").read_text("utf-8")))
    assert [part for part in found.verdict if part.split()[0] in printed] == list(found.verdict)
    for line in ("template '{text} It was {answer}.' (derived", "label words"):
        assert told.count(line) == 1
        notes = [note for rung in found.rungs for cell in rung.cells for note in cell.notes]
        assert any(line in note for note in notes)
    for rung in found.rungs:
        assert f"{rung.name}: accuracy " in told
        assert rung.name in printed
    assert found.rung("lora").options["rank"] == 2
    assert found.command.startswith(f"pegbox compare {data} --model {model} ")
    assert any("rows" in line for line in found.findings)
    assert (out / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert f"the report is {out / 'report.html'}" in told
    before = (out / "cells" / "lora" / "seed-1" / "cell.json").stat()
    # One more method under the same protocol: what is there is read, not measured.
    more = [*QUICK, "--options.lora.rank", "2", "--methods", "majority,closed-form,lora,head"]
    code, _, told = run(capsys, "compare", data, "--model", model, "--out", out, *more)
    assert code == 0, told
    assert "training:" not in told.replace("head: training:", "")
    after = (out / "cells" / "lora" / "seed-1" / "cell.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    kept = sorted((out / "cells").glob("*/*/tuned"))
    code, printed, told = run(capsys, "predict", kept[0], data)
    assert code == 0, told
    assert len(printed.splitlines()) == 61


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "lorra"], "did you mean 'lora'"),
        (["--methods", "lora", "--options.lora.rnk", "4"], "did you mean 'rank'"),
        (["--methods", "lora", "--options.lora", "4"], "--options.lora.rank 4"),
        (
            ["--methods", "lora", "--options.lorra.rank", "4"],
            "'lorra', which is not climbed (--options.lorra)",
        ),
        (["--methods", "ia3", "--options.lora.rank", "4"], "fix: add lora to the methods, or leave"),
        (["--methods", "majority", "--options.majority.rank", "4"], "has no options (--options.majority)"),
        (["--methods", "majority,majority"], "(--methods majority,majority)"),
        (["--methods", ""], "there is nothing to compare (--methods )"),
        (["--worth", "-1"], "no such number (--worth -1)"),
        (["--patience", "-1"], "too small (--patience -1)"),
        (["--budget", "-5m"], "write --budget=-5m if it is meant so"),
        (["--budget"], "--budget wants a value"),
        (["--seeds", "0"], "how many, at least 1, or different seeds"),
        (["--seeds", "0,0"], "a seed is given twice (--seeds 0,0)"),
        (["--metric", "f1"], "(--metric f1)"),
        (["--metric", "f1"], "fix: leave it out for accuracy"),
        (["--budget", "soon"], "--budget soon"),
        (["--seeds", "zero"], "these are no seeds"),
        (["--holdout", "0"], "the share to hold out is no share"),
        (["--metric", "f2"], "the metric 'f2' cannot decide"),
        (["--test", "nowhere.csv"], "nowhere.csv"),
        (["--forgetting", "nowhere.txt"], "nowhere.txt"),
        (["--also", "nowhere.csv"], "nowhere.csv"),
        (["--methds", "lora"], "unknown option --methds"),
    ],
)
def test_wrong_calls_say_what_and_leave_nothing(
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    out = tmp_path / "compared"
    code, printed, told = run(capsys, "compare", data, "--model", model, "--out", out, *flags)
    assert code == 2
    assert message in told
    assert printed == ""
    assert not out.exists()


def test_a_recommended_baseline_is_no_model_to_predict_with() -> None:
    found = comparison_of(LADDER[:4], metric="brier")
    usable = min(found.rungs[2:], key=lambda rung: rung.metrics["brier"].value)
    bare = [replace(rung, cells=(replace(rung.cells[0], folder=None),)) for rung in found.rungs[:2]]
    found = replace(found, rungs=(*bare, *found.rungs[2:]), recommended="bag-of-words")
    first, second = _use(found, Path("out"))
    assert first.startswith("bag-of-words is a baseline, of which no model is kept")
    assert second == (
        f"the best that can be used is {usable.name} (brier {usable.metrics['brier']}): "
        f"pegbox predict {Path('out') / (usable.typical.folder or '')} FILE"
    )
    alone = replace(found, rungs=tuple(bare))
    assert len(_use(alone, Path("out"))) == 1
    assert _use(replace(found, recommended="closed-form"), Path("out"))[0].startswith(
        "to use the recommended"
    )


@pytest.mark.parametrize("flags", [["--metric", "f1"], ["--worth", "-1"], ["--methods", "lorra"], []])
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("pegbox.models.load", refuse)
    taken = tmp_path / "tuned"
    taken.mkdir()
    (taken / "README.md").write_text("a fit", "utf-8")
    out = taken if not flags else tmp_path / "compared"
    code, _, told = run(capsys, "compare", data, "--model", "nowhere", "--out", out, "--overwrite", *flags)
    assert code == 2, told
    assert "error: " in told
    assert flags or "holds no comparison" in told
    assert [path.name for path in taken.iterdir()] == ["README.md"]


def test_other_rows_in_the_same_folder_are_refused_and_can_replace(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compared"
    cheap = ["--methods", "majority,closed-form", "--no-curve", "--forgetting", "off"]
    assert run(capsys, "compare", data, "--model", model, "--out", out, *cheap)[0] == 0
    (out / "mine.txt").write_text("mine", "utf-8")
    other = write_rows(tmp_path / "other.csv", rows=40)
    code, _, told = run(capsys, "compare", other, "--model", model, "--out", out, *cheap)
    assert code == 2
    assert "test rows, training rows differ" in told
    assert run(capsys, "compare", other, "--model", model, "--out", out, *cheap, "--overwrite")[0] == 0
    found = Comparison.from_json(json.loads((out / "comparison.json").read_text("utf-8")))
    assert found.data.train_rows + found.data.test_rows == 40
    assert (out / "mine.txt").read_text("utf-8") == "mine"


def test_interrupted_it_goes_on_where_it_was(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compared"
    command = ["compare", str(data), "--model", str(model), "--out", str(out)]
    command += ["--methods", "majority,closed-form,lora", "--seeds", "1", "--forgetting", "off", "--no-curve"]
    command += ["--training.epochs", "30", "--training.patience", "0", "--training.checkpoint_every", "5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pegbox", *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ},
        preexec_fn=heed_interrupts,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(out.glob("work/*/checkpoint-*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    # compare has no --resume: the same command goes on by itself.
    assert "resume" not in told
    assert f"interrupted: the same call goes on from what is finished in {out}" in told
    assert (out / "cells" / "closed-form" / "seed-0" / "cell.json").is_file()
    assert not (out / "cells" / "lora").exists() or not list((out / "cells" / "lora").glob("seed-*"))
    assert not (out / "comparison.json").exists()
    code, _, told = run(capsys, *command)
    assert code == 0, told
    assert "resuming from step" in told
    assert not (out / "work").exists()
