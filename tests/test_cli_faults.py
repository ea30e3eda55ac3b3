"""The command line on wrong input and broken surroundings: one clear error, nothing of the user's lost."""

from pathlib import Path

import pytest

from pegbox.cli import main
from pegbox.errors import UsageError
from pegbox.tuning._claim import claimed
from test_cli import FIT, run, write_rows
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
