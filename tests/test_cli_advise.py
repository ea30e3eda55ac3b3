"""pegbox advise: what it prints and writes, wrong calls, and Ctrl-C."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli_toy import run, write_rows
from estimate_toy import MEASURED
from pegbox.cli import main
from pegbox.comparison import _estimate as estimates
from tiny import tiny_folder


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates.Calibration, "measured", lambda *_, **__: MEASURED)


@pytest.fixture(scope="module")
def model() -> Path:
    return tiny_folder("llama", "causal")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "reviews.csv", rows=60)


def test_it_prints_estimates_what_was_measured_and_a_recommendation(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "advice.json"
    code, printed, told = run(
        capsys,
        "advise",
        data,
        "--model",
        model,
        "--memory",
        "8GB",
        "--time",
        "1h30m",
        "--out",
        out,
        "--no-cache",
    )
    assert code == 0, told
    for part in (
        "estimates: memory",
        "lora",
        "measured on these rows",
        "closed-form",
        "begin with",
        "not sure:",
    ):
        assert part in printed
    assert "estimating by a few measured steps" in told
    content = json.loads(out.read_text("utf-8"))
    assert (content["memory"], content["seconds"]) == (8_000_000_000, 5400)
    assert content["method"] in printed


def test_json_alone_goes_to_standard_output(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--no-pilot", "--methods", "lora,closed-form", "--format", "json", "--no-cache"]
    code, printed, told = run(capsys, "advise", data, "--model", model, *options)
    assert code == 0, told
    content = json.loads(printed)
    assert content["pilot"] is None
    assert {offer["costs"]["method"] for offer in content["offers"]} == {"lora", "closed-form"}
    code, printed, told = run(capsys, "advise", data, "--model", model, *options, "--options.lora.rank", "2")
    assert code == 0, told
    smaller, before = (
        {offer["costs"]["method"]: offer["costs"]["parameters"] for offer in found["offers"]}
        for found in (json.loads(printed), content)
    )
    assert 4 * smaller["lora"] == before["lora"]
    assert smaller["closed-form"] == before["closed-form"]


def test_a_budget_that_nothing_meets_is_an_answer(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, told = run(
        capsys, "advise", data, "--model", model, "--memory", "1kB", "--no-pilot", "--no-cache"
    )
    assert code == 1
    assert "estimates: memory" in printed
    assert "no method fits: no method stays within the budgets" in printed
    assert "no method fits (--memory 1kB)" in told
    assert "allow more than --memory 1kB" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--memory", "8"], "'8' is no size (--memory 8)"),
        (["--memory", "lots"], "'lots' is no size"),
        (["--time", "soon"], "'soon' is no time (--time soon)"),
        (["--methods", "lorra"], "there is no method 'lorra'"),
        (["--methods", "bag-of-words,lora"], "bag-of-words is a baseline"),
        (["--methods", ""], "there is no method to choose from (--methods )"),
        (["--no-pilot", "--short-lora"], "(--short-lora with --no-pilot)"),
        (["--training.epoch", "3"], "training has no option 'epoch'"),
        (["--label", "verdict"], "verdict"),
        (["--options.lorra.rank", "4"], "options are given for 'lorra'"),
        (["--methods", "ia3", "--options.lora.rank", "4"], "options are given for 'lora'"),
        (["--options.lora.rnk", "4"], "did you mean 'rank'"),
        (["--seed", "-1"], "the number is too small (--seed -1)"),
        (["--budget", "10m"], "--budget"),
    ],
)
def test_wrong_calls_say_what_is_wrong(
    model: Path, data: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, found = run(capsys, "advise", data, "--model", model, "--no-cache", *options)
    assert code == 2
    assert told in found
    assert printed == ""


def test_the_output_is_checked_before_any_work(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = run(capsys, "advise", data, "--model", model, "--out", tmp_path)
    assert code == 2
    assert "a file is wanted, and this is a folder" in told
    assert "estimating" not in told


def test_ctrl_c_leaves_nothing_half_written(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "advice.json"
    out.write_text("old", "utf-8")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pegbox.comparison._advise.measure", stop)
    assert main(["advise", str(data), "--model", str(model), "--out", str(out), "--no-cache"]) == 130
    assert out.read_text("utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["advice.json"]
