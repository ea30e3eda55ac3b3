"""pegbox fit --seeds: the same fit under several seeds, interrupted and resumed, for every kind of task."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import pegbox
from cli_toy import heed_interrupts, run, write_lines, write_rows
from pegbox.cli import main
from pegbox.cli._seeds import several_seeds
from pegbox.errors import UsageError
from pegbox.tuning import Tuned
from test_cli_shapes import asked, tagged
from tiny import tiny_folder

LORA = ["--method", "lora", "--no-cache", "--training.precision", "float32", "--training.batch_size", "8"]
QUICK = [*LORA, "--training.max_steps", "4"]


@pytest.fixture(scope="module")
def model() -> Path:
    return tiny_folder("llama", "causal")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "reviews.csv", rows=60)


def stored(out: Path, name: str = "seeds.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / name).read_text("utf-8"))
    return content


def without_seconds(content: Any) -> Any:
    """The same JSON values but for wall times, which no two runs share."""
    if isinstance(content, dict):
        return {name: without_seconds(value) for name, value in content.items() if name != "seconds"}
    return [without_seconds(value) for value in content] if isinstance(content, list) else content


def test_scores_of_all_seeds_on_the_same_rows_and_the_typical_one_saved(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, printed, told = run(
        capsys, "fit", data, "--model", model, "--out", out, *QUICK, "--seed", "4", "--seeds", "3"
    )
    assert code == 0, told
    assert "12 of 60 rows held out for evaluation (seed 4), the same for all seeds" in told
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    seeds = stored(out)
    assert seeds["seeds"] == [4, 5, 6]
    values = [part["scores"]["metrics"]["nll"]["value"] for part in seeds["each"]]
    assert len(set(values)) == 3
    nll = seeds["metrics"]["nll"]
    assert nll["value"] == pytest.approx(fmean(values))
    assert nll["low"] < nll["value"] < nll["high"]
    losses = seeds["best_valid_losses"]
    assert seeds["kept"] == seeds["seeds"][losses.index(sorted(losses)[1])], "the median of three"
    kept = seeds["seeds"].index(seeds["kept"])
    assert stored(out, "scores.json") == seeds["each"][kept]["scores"]
    assert Tuned.load(out).details["history"]["best_valid_loss"] == losses[kept]
    for seed in (4, 5, 6):
        assert any(line.split(" ")[0].rstrip(",") == str(seed) for line in printed.splitlines())
    assert f"{seeds['kept']}, kept" in printed
    assert f"{nll['value']:.3f}" in next(line for line in printed.splitlines() if line.startswith("mean"))
    assert f"{nll['high']:.3f}" in next(line for line in printed.splitlines() if line.startswith("95 % to"))


def test_the_first_of_several_is_the_fit_of_its_seed_alone(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fit", data, "--model", model, *QUICK]
    assert run(capsys, *call, "--out", tmp_path / "one")[0] == 0
    assert run(capsys, *call, "--out", tmp_path / "several", "--seeds", "0,3")[0] == 0
    first = stored(tmp_path / "several")["each"][0]
    assert first["seed"] == 0
    one = stored(tmp_path / "one", "scores.json")
    assert without_seconds(first["scores"]) == without_seconds(one)


@pytest.mark.parametrize(("name", "metric"), [("tag", "f1"), ("choose", "accuracy")])
def test_other_kinds_of_tasks(
    name: str, metric: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_lines(tmp_path / f"{name}.jsonl", tagged() if name == "tag" else asked())
    out = tmp_path / "out"
    call = ["fit", rows, "--model", model, "--out", out, *QUICK, "--seeds", "2", "--test", rows]
    code, printed, told = run(capsys, *call)
    assert code == 0, told
    assert "seed 0 is kept, the first, since there is no validation loss to choose by" in told
    assert stored(out)["metrics"].keys() >= {metric}
    assert stored(out)["best_valid_losses"] == [None, None]
    assert "mean" in printed
    assert run(capsys, "predict", out, rows)[0] == 0


def test_a_method_that_draws_nothing_says_so(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fit", data, "--model", model, "--no-cache", "--seeds", "2"]
    code, _, told = run(capsys, *call, "--out", tmp_path / "solved", "--options.penalty", "1.0")
    assert code == 0, told
    assert "closed-form draws nothing at random here" in told
    assert stored(tmp_path / "solved")["kept"] == 0
    code, _, told = run(capsys, *call, "--out", tmp_path / "shown", "--method", "few-shot")
    assert code == 0, told
    assert "draws nothing" not in told


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_run_stopped_in_its_second_seed_ends_as_if_it_had_not_been(
    sent: signal.Signals, model: Path, data: Path, tmp_path: Path
) -> None:
    def command(out: Path, *more: str) -> list[str]:
        call = [sys.executable, "-m", "pegbox", "fit", str(data), "--model", str(model), "--out", str(out)]
        length = ["--training.epochs", "8", "--training.checkpoint_every", "1", "--training.patience", "0"]
        return [*call, *LORA, *length, "--seeds", "0,1", *more]

    # One thread, or the order of sums, and with it the last bits, could differ.
    options: dict[str, Any] = {"text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    out, whole = tmp_path / "out", tmp_path / "whole"
    process = subprocess.Popen(
        command(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=heed_interrupts, **options
    )
    deadline = time.monotonic() + 240
    while not list((tmp_path / "out-run" / "seed-1").glob("checkpoint-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(sent)
    told = process.communicate()[1]
    assert process.returncode in (130, -signal.SIGKILL), told
    assert "Traceback" not in told
    assert not out.exists()
    again = subprocess.run(command(out), capture_output=True, **options)
    assert again.returncode == 2
    assert "unfinished run over several seeds (seed-0, seed-1)" in again.stderr
    assert "text column" not in again.stderr, "refused before any work"
    done = subprocess.run(command(out, "--resume"), capture_output=True, **options)
    assert done.returncode == 0, done.stderr
    first, _, second = done.stderr.partition("seed 1 (2 of 2)")
    assert "resuming from step 48 of 48" in first, "the finished seed is read back"  # 41 rows, 8 at once
    assert "resuming from step" in second
    assert "resuming from step 48" not in second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    unbroken = subprocess.run(command(whole), capture_output=True, **options)
    assert unbroken.returncode == 0, unbroken.stderr
    assert without_seconds(stored(out)) == without_seconds(stored(whole))
    weights = "adapter_model.safetensors"
    assert (out / weights).read_bytes() == (whole / weights).read_bytes()


WRONG = {
    "one": ("1", "one seed tells nothing about the others (--seeds 1)", "--seed says which"),
    "none": ("0", "these are no seeds (--seeds 0)", "at least 2"),
    "words": ("a,b", "these are no seeds (--seeds a,b)", "0,1,2"),
    "twice": ("2,3,2", "a seed is given twice (--seeds 2,3,2)", "different seeds"),
    "negative": ("2,-3", "a negative number is no seed (--seeds 2,-3)", "at least 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_seeds_give_one_clear_error(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, *expected = WRONG[name]
    (tmp_path / "empty.csv").touch()
    code, _, told = run(capsys, "fit", tmp_path / "empty.csv", "--out", tmp_path / "o", "--seeds", given)
    assert code == 2
    assert all(part in told for part in expected), told
    assert [path.name for path in tmp_path.iterdir()] == ["empty.csv"]


def test_several_seeds_need_rows_to_be_scored_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = run(capsys, "fit", data, "--out", tmp_path / "o", "--seeds", "2", "--holdout", "0")
    assert code == 2
    assert "--holdout 0 with --seeds" in told
    assert "--test FILE" in told


def test_a_wrong_setting_leaves_no_folder(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fit", data, "--model", model, "--out", tmp_path / "o", *QUICK, "--seeds", "2"]
    code, _, told = run(capsys, *call, "--training.precision", "bf61")
    assert code == 2, told
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_file_may_hold_them(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, given in (("number", "2"), ("listed", "5,9")):
        config = tmp_path / f"{name}.yaml"
        config.write_text(
            f"data: {data}\nmodel: {model}\nmethod: zero-shot\nseeds: {given}\nno_cache: true\n"
        )
        code, _, told = run(capsys, "fit", "--config", config, "--out", tmp_path / name)
        assert code == 0, told
    assert stored(tmp_path / "number")["seeds"] == [0, 1]
    assert stored(tmp_path / "listed")["seeds"] == [5, 9]


def test_seeds_are_counted_from_the_first_or_listed() -> None:
    assert several_seeds(None, first=2) is None
    assert several_seeds("3", first=2) == several_seeds(3, first=2) == (2, 3, 4)
    assert several_seeds("7, 1", first=2) == (7, 1)


def test_scores_of_other_seeds_are_not_saved(model: Path, data: Path, tmp_path: Path) -> None:
    task, held = pegbox.tuning.hold_out(pegbox.Classify.from_file(data), seed=1)
    base = pegbox.load(model)
    several = [pegbox.fit_seeds(base, task, "zero-shot", seeds=seeds) for seeds in ((0, 1), (0, 2))]
    scores = several[0].evaluate(held, resamples=5)
    assert scores.alike
    with pytest.raises(UsageError, match=r"scores are those of other seeds \(seeds \[0, 1\]\)"):
        several[1].save(tmp_path / "o", scores=scores)
    assert several[0].save(tmp_path / "o", scores=scores) == tmp_path / "o"
    assert stored(tmp_path / "o")["each"][0]["scores"]["rows"] == len(held)
    with pytest.raises(UsageError, match="not empty"):
        several[0].save(tmp_path / "o", scores=scores)


def test_help_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "--seeds SEEDS" in capsys.readouterr().out
