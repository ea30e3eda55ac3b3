"""pegbox laplace and calibrate as a stranger would use them."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pegbox.cli import main
from tuning_toy import folder_of, rows_of

KEPT = ("adapter_config.json", "adapter_model.safetensors", "pegbox.json", "scores.json", "task.json")
PLACE = [sys.executable, "-m", "pegbox"]


def write(path: Path, count: int, seed: int, *, labelled: bool = True) -> Path:
    rows = rows_of(count, seed=seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"] if labelled else ["text"])
        for text, label in zip(rows.fields["text"], rows.labels or (), strict=True):
            writer.writerow([text, label] if labelled else [text])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laplace")
    write(folder / "train.csv", 40, 0)
    write(folder / "test.csv", 30, 1)
    write(folder / "ood.csv", 12, 2, labelled=False)
    model = str(folder_of("llama", "causal"))
    for method in ("lora", "closed-form", "ia3"):
        command = ["fit", str(folder / "train.csv"), "--model", model, "--method", method, "--out"]
        assert main([*command, str(folder / method), *_training(method)]) == 0
    return folder


def _training(method: str) -> list[str]:
    return [] if method == "closed-form" else ["--training.epochs", "2"]


def test_a_posterior_beside_the_adapter(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = place / "lora"
    card = (lora / "README.md").read_text("utf-8")
    before = {path.name: path.read_bytes() for path in lora.iterdir() if path.name in KEPT}
    assert len(before) == len(KEPT)
    assert main(["laplace", str(lora), str(place / "train.csv"), "--curvature", "kron"]) == 0
    told = capsys.readouterr().err
    assert "were not tuned on: they choose the precision" in told
    assert "kron posterior of" in told
    assert {name: (lora / name).read_bytes() for name in KEPT} == before
    told = (lora / "README.md").read_text("utf-8")
    (line,) = set(told.splitlines()) - set(card.splitlines())
    assert line.startswith("- Probabilities: averaged over a Laplace posterior of all that was tuned (kron ")
    assert line.endswith("PEFT alone is without it, and so are scores below that were measured before.")
    assert json.loads((lora / "posterior.json").read_text("utf-8"))["curvature"] == "kron"
    assert not list(place.glob(".*curvature*"))

    (lora / "README.md").write_text(told.replace("contact:", "contact: me"), "utf-8")
    assert main(["laplace", str(lora), str(place / "train.csv"), "--prior-precision", "0.01"]) == 0
    now = (lora / "README.md").read_text("utf-8")
    assert now.count("- Probabilities: averaged over") == 1
    assert "prior precision 0.01, given" in now
    assert "contact: me" in now
    out = tmp_path / "answers.csv"
    command = ["predict", str(lora), str(place / "test.csv"), "--out", str(out), "--abstain-above", "0.3"]
    assert main(command) == 0
    answers = list(csv.DictReader(io.StringIO(out.read_text("utf-8"))))
    assert len(answers) == 30
    assert all(float(row["deviation"]) > 0 for row in answers)
    assert {(row["abstained"], float(row["probability"]) < 0.7) for row in answers} <= {
        ("yes", True),
        ("no", False),
    }
    marked = sum(row["abstained"] == "yes" for row in answers)
    assert f"30 answered, of which {marked} are marked abstained" in capsys.readouterr().err
    assert main(["evaluate", str(lora), str(place / "test.csv"), "--abstain-above", "0.3"]) == 0
    told = capsys.readouterr().out
    assert "answering only what is at least 0.7 sure" in told
    assert "AURC" in told


def test_a_closed_form_fit_needs_no_rows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laplace", str(place / "closed-form")]) == 0
    assert "own posterior is in use from now on" in capsys.readouterr().err


def test_ways_side_by_side(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, diagram = tmp_path / "found.json", tmp_path / "curves.svg"
    command = ["calibrate", *(str(place / name) for name in ("lora", "train.csv", "test.csv"))]
    command += ["--ood", str(place / "ood.csv"), "--ways", "map,temperature,dropout,ensemble,exact,diag"]
    command += ["--members", "2", "--training.epochs", "1", "--out", str(out), "--diagram", str(diagram)]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "dropout is left out: this model has no dropout" in shown.err
    assert all(len(line) <= 80 for line in shown.out.splitlines())
    found = json.loads(out.read_text("utf-8"))
    assert list(found["ways"]) == ["map", "temperature", "ensemble", "exact", "diag"]
    assert (found["rows"], found["outside"]) == (30, 12)
    assert list(found["left_out"]) == ["dropout"]
    assert found["ways"]["map"]["against_map"] is None
    assert 0 <= found["ways"]["exact"]["ood_auroc"]["value"] <= 1
    assert diagram.read_text("utf-8").lstrip().startswith("<?xml")


def test_rows_from_elsewhere_are_read_by_the_same_columns(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train.csv", "test.csv", "ood.csv"):
        content = (place / name).read_text("utf-8")
        (tmp_path / name).write_text(content.replace("text", "review", 1), "utf-8")
    command = [
        "calibrate",
        str(place / "closed-form"),
        *(str(tmp_path / n) for n in ("train.csv", "test.csv")),
    ]
    command += ["--ood", str(tmp_path / "ood.csv"), "--text", "review", "--ways", "map", "--format", "json"]
    assert main([*command, "--resamples", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["outside"] == 12


@pytest.mark.parametrize("verb", ["calibrate", "laplace", "merge"])
def test_rows_that_cannot_be_used_are_refused_or_left_out(
    verb: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.csv"
    content = (place / "train.csv").read_text("utf-8")
    row = content.splitlines()[1]
    bad.write_text(content.rstrip() + f"\n,{row.rpartition(',')[2]}\n", "utf-8")
    adapter, out = str(place / "lora"), str(tmp_path / "out")
    call = {
        "calibrate": ["calibrate", adapter, str(bad), str(place / "test.csv"), "--ways", "map"],
        "laplace": ["laplace", adapter, str(bad), "--out", out],
        "merge": ["merge", adapter, "--data", str(bad), "--out", out],
    }[verb]
    assert main(call) == 2
    assert "--on-bad-rows drop" in capsys.readouterr().err
    assert main([*call, "--on-bad-rows", "drop"]) == 0
    assert "1 row left out: empty text in column 'text' (row 41)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["laplace", "ia3", "train.csv"], "of the type IA3"),
        (["laplace", "lora"], "there are none"),
        (["laplace", "lora", "test.csv"], "tuned on none of these rows"),
        (["laplace", "lora", "train.csv", "--prior-precision", "0"], "this is no precision of a prior"),
        (["laplace", "lora", "train.csv", "--template", "{text}"], "brings its own template"),
        (["laplace", "lora", "train.csv", "--part", "head"], "the adapter has no head"),
        (["laplace", "missing", "train.csv"], "there is no such folder"),
        (["laplace", "lora", "missing.csv"], "missing.csv"),
        (["laplace", "closed-form", "--prior-precision", "1"], "whose prior is the penalty"),
        (["calibrate", "lora", "train.csv", "test.csv", "--ways", "exactt"], "no way 'exactt'"),
        (["calibrate", "lora", "train.csv", "test.csv", "--members", "1"], "too few"),
        (["calibrate", "lora", "train.csv", "test.csv", "--ways", "map,map"], "more than once"),
        (["calibrate", "lora", "train.csv", "train.csv"], "8 of 40 test rows are among the held-out rows"),
        (["predict", "lora", "test.csv", "--abstain-above", "2"], "no share"),
    ],
)
def test_wrong_use_is_one_clear_error(
    place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("lora", "ia3", "closed-form", "missing", "train.csv", "test.csv", "missing.csv")
    given = [str(place / word) if word in names else word for word in arguments]
    before = sorted(place.rglob("*"))
    assert main(given) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert sorted(place.rglob("*")) == before


def test_an_adapter_from_elsewhere_needs_a_folder_of_its_own(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (foreign / name).write_bytes((place / "lora" / name).read_bytes())
    model = str(folder_of("llama", "causal"))
    command = ["laplace", str(foreign), str(place / "train.csv"), "--model", model]
    assert main(command) == 2
    assert "no task of its own" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    assert main(["predict", str(tmp_path / "whole"), str(place / "test.csv")]) == 0
    assert "deviation" in capsys.readouterr().out


def test_what_cannot_be_calibrated_or_written_is_said_before_any_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pegbox.tuning import Tuned

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Tuned, "load", loaded)
    data = [str(place / name) for name in ("train.csv", "test.csv")]
    lora = str(place / "lora")
    for faulty in (["--ways", "sure"], ["--members", "1"], ["--passes", "0"], ["--training.epoch", "3"]):
        assert main(["calibrate", lora, *data, *faulty]) == 2
        assert "  fix: " in capsys.readouterr().err
    (tmp_path / "taken").write_text("mine", "utf-8")
    assert main(["laplace", lora, data[0], "--out", str(tmp_path / "taken"), "--overwrite"]) == 2
    assert f"the file cannot be written (--out {tmp_path / 'taken'}" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text("utf-8") == "mine"


def test_it_is_found_from_a_shell() -> None:
    done = subprocess.run([*PLACE, "laplace", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--prior_precision" in done.stdout or "--prior-precision" in done.stdout


@pytest.mark.slow
def test_two_processes_by_torchrun_write_one_posterior(place: Path, tmp_path: Path) -> None:
    import shutil

    for name in ("alone", "shared"):
        shutil.copytree(place / "lora", tmp_path / name, ignore=shutil.ignore_patterns("posterior*"))
    arguments = [str(place / "train.csv"), "--curvature", "ekfac", "--prior-precision", "2"]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "pegbox"]
    done = subprocess.run(
        [*run, "laplace", str(tmp_path / "shared"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("written to") == 1
    assert main(["laplace", str(tmp_path / "alone"), *arguments]) == 0
    one, two = (
        json.loads((tmp_path / name / "posterior.json").read_text("utf-8")) for name in ("alone", "shared")
    )
    assert two["log_evidence"] == pytest.approx(one["log_evidence"], rel=1e-5)
    assert two["log_likelihood"] == pytest.approx(one["log_likelihood"], rel=1e-5)
