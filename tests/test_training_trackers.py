import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import pegbox
from pegbox.errors import UsageError
from pegbox.methods import LoRA
from pegbox.training import Settings, _trackers, trackers, train
from training_toy import Rows, quiet, tiny_model

FAKE = """
import json, pathlib

class SummaryWriter:
    def __init__(self, log_dir=None):
        self.file = pathlib.Path(log_dir) / "told.jsonl"
        self.file.parent.mkdir(parents=True)

    def add_scalar(self, key, value, step):
        with self.file.open("a") as lines:
            lines.write(json.dumps([key, value, step]) + "\\n")

    def add_text(self, *_):
        pass

    def flush(self):
        pass

    def close(self):
        pass
"""


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for tensorboardX; returns the folder it writes to."""
    package = tmp_path / "packages" / "tensorboardX"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # not the real one, where there is one
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    return tmp_path / "logs"


def test_a_tracker_is_told_the_losses_of_the_history(tmp_path: Path, writer: Path) -> None:
    settings = Settings(
        learning_rate=5e-3, epochs=2, batch_size=8, precision="float32", report_to="tensorboard"
    )
    history = train(
        tiny_model(), Rows(32), settings=settings, folder=tmp_path / "run", valid=Rows(8), say=quiet
    )
    told = [json.loads(line) for line in (writer / "told.jsonl").read_text().splitlines()]
    losses = {step: value for key, value, step in told if key == "train/loss"}
    # Rounded to four digits by transformers when it logs.
    assert losses == {step: pytest.approx(loss, abs=1e-4) for step, loss in history.train_losses}
    valid = [(step, value) for key, value, step in told if key == "eval/loss"]
    assert valid == [(step, pytest.approx(loss)) for step, loss in history.valid_losses]
    assert {path.name.split("-")[0] for path in (tmp_path / "run").iterdir()} == {"checkpoint"}


def test_none_tells_nobody(tmp_path: Path, writer: Path) -> None:
    settings = Settings(learning_rate=5e-3, max_steps=2, precision="float32")
    train(tiny_model(), Rows(32), settings=settings, folder=tmp_path / "run", say=quiet)
    assert not writer.exists()


def test_lists_of_trackers(writer: Path) -> None:  # noqa: ARG001
    assert trackers("none") == trackers("") == []
    assert trackers("tensorboard") == trackers(" tensorboard, ") == ["tensorboard"]


def test_an_unknown_tracker_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        trackers("tensorbord")
    assert "there is no tracker 'tensorbord' (report_to)" in str(caught.value)
    assert "did you mean 'tensorboard'?" in str(caught.value)
    assert "wandb" in str(caught.value)


def test_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trackers, "find_spec", lambda name: None if name == "wandb" else find_spec("json"))
    with pytest.raises(UsageError) as caught:
        trackers("mlflow,wandb")
    assert "not installed: what the tracker wandb needs (report_to)" in str(caught.value)
    assert "pip install wandb, or leave report_to out" in str(caught.value)
    settings = Settings(learning_rate=1e-3, report_to="wandb")
    with pytest.raises(UsageError, match="pip install wandb"):
        train(tiny_model(), Rows(8), settings=settings, folder=tmp_path, say=quiet)
    with pytest.raises(UsageError, match="pip install wandb"):
        pegbox.Training(report_to="wandb").settings(LoRA(), 0)
    assert not any(tmp_path.iterdir())


def test_each_name_is_one_of_transformers() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(_trackers._PACKAGES) <= set(INTEGRATION_TO_CALLBACK)


@pytest.mark.parametrize(
    ("shape", "decayed"),
    [((4, 3), True), ((2, 3, 4), True), ((7,), False), ((7, 1), False), ((1, 7), False), ((), False)],
)
def test_only_real_matrices_are_decayed(shape: tuple[int, ...], decayed: bool) -> None:
    from pegbox.training._optimizer import adamw

    value = torch.nn.Parameter(torch.ones(shape))
    optimizer = adamw([value], Settings(learning_rate=0.1, weight_decay=0.5))
    value.grad = torch.zeros(shape)
    optimizer.step()
    # Without a gradient a step multiplies by 1 - 0.1 * 0.5.
    torch.testing.assert_close(value.detach(), torch.full(shape, 0.95 if decayed else 1.0))
