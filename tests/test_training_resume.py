import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pegbox.errors import UsageError
from pegbox.training import History, Settings, _random, check_no_unfinished, resumed_by, train
from training_toy import Rows, same_bits, tiny_model, told, trained

# Two batches per step, six steps per epoch (the last with one batch of 8 and one of 5), dropout 0.1, and
# checkpoints in the middle of an epoch. Precision auto: bf16 where the processor has it.
SETTINGS = Settings(
    learning_rate=1e-2, epochs=3, batch_size=8, accumulation=2, checkpoint_every=4, weight_decay=0.01
)
COUNT = 93
VALID = Rows(24, seed=1)


class Killed(BaseException):
    """Stands for a signal that nobody handles."""


class Deadly(Rows):
    """Ends the run at one call of the loss: by a signal, or by an exception that nobody handles."""

    def __init__(self, at: int, by_signal: bool = False, error: type[BaseException] = Killed) -> None:
        super().__init__(COUNT)
        self.at, self.by_signal, self.error, self.calls = at, by_signal, error, 0

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if self.calls == self.at:
            if self.by_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            raise self.error
        return super().loss(model, batch)


def quiet(_: str) -> None:
    pass


def run(folder: Path, rows: Rows | None = None, resume: bool = False) -> tuple[dict[str, Tensor], History]:
    model = tiny_model()
    history = train(
        model, rows or Rows(COUNT), settings=SETTINGS, folder=folder, valid=VALID, resume=resume, say=quiet
    )
    return trained(model), history


def stop(folder: Path, at: int, resume: bool = False) -> None:
    with pytest.raises(Killed):
        run(folder, Deadly(at), resume=resume)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], History]:
    return run(tmp_path_factory.mktemp("whole"))


def lasting(history: History) -> dict[str, object]:
    """What must be equal after a resume: all but the clock, the memory and the mark of the resume."""
    drop = ("seconds", "examples_per_second", "peak_memory_bytes", "resumed_from")
    return {key: value for key, value in history.to_json().items() if key not in drop}


def test_the_same_run_twice_gives_the_same_bits(
    tmp_path: Path, whole: tuple[dict[str, Tensor], History]
) -> None:
    parameters, history = run(tmp_path)
    assert same_bits(parameters, whole[0])
    assert lasting(history) == lasting(whole[1])


def test_another_seed_gives_other_bits(tmp_path: Path, whole: tuple[dict[str, Tensor], History]) -> None:
    model = tiny_model()
    train(model, Rows(COUNT), settings=replace(SETTINGS, seed=1), folder=tmp_path, valid=VALID, say=quiet)
    assert not same_bits(trained(model), whole[0])


# Of the 36 calls of the loss: in the first step (no checkpoint yet), in the middle of an accumulation, just
# after an epoch (13, 25), and in the last step.
@pytest.mark.parametrize(
    "at",
    [
        1,
        pytest.param(8, marks=pytest.mark.slow),
        13,
        pytest.param(20, marks=pytest.mark.slow),
        25,
        pytest.param(36, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_resumes_to_the_same_bits(
    tmp_path: Path, whole: tuple[dict[str, Tensor], History], at: int
) -> None:
    stop(tmp_path, at)
    parameters, history = run(tmp_path, resume=True)
    assert same_bits(parameters, whole[0])
    assert lasting(history) == lasting(whole[1])


def test_a_run_stopped_again_and_again_resumes_to_the_same_bits(
    tmp_path: Path, whole: tuple[dict[str, Tensor], History]
) -> None:
    stop(tmp_path, 11)
    stop(tmp_path, 12, resume=True)
    stop(tmp_path, 12, resume=True)
    parameters, history = run(tmp_path, resume=True)
    assert same_bits(parameters, whole[0])
    assert lasting(history) == lasting(whole[1])


CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_training_resume as here
from pegbox.training import _checkpoints

if sys.argv[4] == "write":
    def half(tensors, path):
        complete(tensors, path)
        if "checkpoint-12" in str(path):
            os.truncate(path, 40)
            os.kill(os.getpid(), signal.SIGKILL)
    complete, _checkpoints.save_file = _checkpoints.save_file, half
    here.run(here.Path(sys.argv[2]), resume=True)
else:
    here.run(here.Path(sys.argv[2]), here.Deadly(int(sys.argv[3]), by_signal=True))
"""


def child(folder: Path, at: int, how: str) -> int:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        CHILD,
        str(Path(__file__).parent),
        str(folder),
        str(at),
        how,
    ]
    return subprocess.run(command, timeout=120, check=False).returncode


def test_a_killed_process_resumes_to_the_same_bits(
    tmp_path: Path, whole: tuple[dict[str, Tensor], History]
) -> None:
    """Kill -9 in the middle of an accumulation of epoch 2, then in the middle of writing a checkpoint."""
    assert child(tmp_path, 17, "loss") == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*"))[-1] == "checkpoint-8"
    assert child(tmp_path, 0, "write") == -signal.SIGKILL
    assert not (tmp_path / "checkpoint-12").exists()
    parameters, history = run(tmp_path, resume=True)
    assert same_bits(parameters, whole[0])
    assert lasting(history) == lasting(whole[1])
    assert not list(tmp_path.glob(".checkpoint-*")), "what the killed process left is cleared away"
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("parameters.safetensors", "truncated"),
        ("checkpoint.json", "truncated"),
        ("random.safetensors", "missing"),
        ("optimizer.safetensors", "changed"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_used(
    tmp_path: Path, whole: tuple[dict[str, Tensor], History], name: str, damage: str
) -> None:
    stop(tmp_path, 26)
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.iterdir())
    newest, before = steps[-1], steps[-2]
    file = tmp_path / f"checkpoint-{newest}" / name
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    lines: list[str] = []
    model = tiny_model()
    history = train(
        model, Rows(COUNT), settings=SETTINGS, folder=tmp_path, valid=VALID, resume=True, say=lines.append
    )
    assert lines[0].startswith(f"the checkpoint of step {newest} is damaged ({name} is ")
    assert lines[1] == f"resuming from step {before} of 18"
    assert history.resumed_from == before
    assert same_bits(trained(model), whole[0])


def test_a_damaged_best_checkpoint_makes_those_that_need_it_unusable(tmp_path: Path) -> None:
    settings = replace(SETTINGS, evaluations_per_epoch=6, patience=0)
    flipped = Rows(24, flip=True)
    with pytest.raises(Killed):
        train(tiny_model(), Deadly(34), settings=settings, folder=tmp_path, valid=flipped, say=quiet)
    manifest = json.loads((tmp_path / "checkpoint-16" / "checkpoint.json").read_text())
    best = manifest["best_step"]
    assert best < 12, "the best step is an early one, or this test shows nothing"
    os.truncate(tmp_path / f"checkpoint-{best}" / "parameters.safetensors", 10)
    lines: list[str] = []
    train(
        tiny_model(),
        Rows(COUNT),
        settings=settings,
        folder=tmp_path,
        valid=flipped,
        resume=True,
        say=lines.append,
    )
    assert lines[0].startswith(f"the checkpoint of step 16 is damaged (its best checkpoint, of step {best}: ")
    assert told(lines)[-1].startswith("no checkpoint in ")


def test_interrupt_keeps_the_checkpoint_and_says_how_to_continue(
    tmp_path: Path, whole: tuple[dict[str, Tensor], History]
) -> None:
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(
            tiny_model(),
            Deadly(20, error=KeyboardInterrupt),
            settings=SETTINGS,
            folder=tmp_path,
            valid=VALID,
            say=lines.append,
        )
    newest = max(int(path.name.split("-")[1]) for path in tmp_path.iterdir())
    assert newest in (8, 9), "8 by checkpoint_every, 9 if its validation loss is the best"
    assert told(lines) == [
        f"interrupted after step 9 of 18: continue from step {newest} with --resume (resume=True), "
        f"checkpoints are in {tmp_path}"
    ]
    parameters, _ = run(tmp_path, resume=True)
    assert same_bits(parameters, whole[0])


@pytest.mark.parametrize(
    ("hint", "by"), [("--resume", "step 9 with --resume, checkpoints"), ("", "step 9, checkpoints")]
)
def test_who_started_a_run_says_how_it_is_resumed(tmp_path: Path, hint: str, by: str) -> None:
    lines: list[str] = []
    settings = replace(SETTINGS, checkpoint_every=1)
    deadly = Deadly(20, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt), resumed_by(hint):
        train(tiny_model(), deadly, settings=settings, folder=tmp_path, valid=VALID, say=lines.append)
    assert f"continue from {by}" in told(lines)[-1]
    with pytest.raises(UsageError, match=r"continue it with --resume, or"), resumed_by("--resume"):
        check_no_unfinished(tmp_path)


def test_interrupt_before_the_first_checkpoint(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(
            tiny_model(),
            Deadly(2, error=KeyboardInterrupt),
            settings=SETTINGS,
            folder=tmp_path,
            say=lines.append,
        )
    assert lines == [f"interrupted after step 0 of 18: no checkpoint yet, checkpoints are in {tmp_path}"]


def test_resume_without_a_checkpoint_starts_afresh_and_says_so(
    tmp_path: Path, whole: tuple[dict[str, Tensor], History]
) -> None:
    lines: list[str] = []
    model = tiny_model()
    history = train(
        model, Rows(COUNT), settings=SETTINGS, folder=tmp_path, valid=VALID, resume=True, say=lines.append
    )
    assert lines[0] == f"no checkpoint in {tmp_path}: starting afresh"
    assert history.resumed_from is None
    assert same_bits(trained(model), whole[0])


def test_an_unfinished_run_is_not_overwritten(tmp_path: Path) -> None:
    stop(tmp_path, 20)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError) as caught:
        run(tmp_path)
    assert re.search(r"the folder holds an unfinished run at step [89] \(", str(caught.value))
    assert "continue it with --resume (resume=True), or remove the folder to start afresh" in str(
        caught.value
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_finished_run_resumes_to_its_result_and_may_be_replaced(
    tmp_path: Path, whole: tuple[dict[str, Tensor], History]
) -> None:
    run(tmp_path)
    rows = Deadly(1)  # a single step of training would raise
    model = tiny_model()
    history = train(model, rows, settings=SETTINGS, folder=tmp_path, valid=VALID, resume=True, say=quiet)
    assert same_bits(trained(model), whole[0])
    assert lasting(history) == lasting(whole[1])
    parameters, history = run(tmp_path)
    assert history.resumed_from is None
    assert same_bits(parameters, whole[0])


def test_resume_with_another_run_names_what_differs(tmp_path: Path) -> None:
    stop(tmp_path, 20)
    other = replace(SETTINGS, learning_rate=2e-2, schedule="cosine")
    with pytest.raises(UsageError) as caught:
        train(tiny_model(), Rows(90), settings=other, folder=tmp_path, valid=VALID, resume=True, say=quiet)
    message = str(caught.value)
    assert "cannot resume: the run differs from the one in the checkpoint" in message
    assert "learning_rate was 0.01, is 0.02" in message
    assert "schedule was 'linear', is 'cosine'" in message
    assert "training rows was '93 rows, lengths" in message
    assert "is '90 rows, lengths" in message
    assert "batch_size" not in message
    assert "validation rows" not in message


def test_resume_with_other_trained_parameters_is_refused(tmp_path: Path) -> None:
    stop(tmp_path, 20)
    model = tiny_model()
    model.get_base_model().lm_head.requires_grad_(True)
    with pytest.raises(UsageError, match="trained parameters was '8 tensors"):
        train(model, Rows(COUNT), settings=SETTINGS, folder=tmp_path, valid=VALID, resume=True, say=quiet)


def test_the_loss_of_a_resumed_run_is_not_that_of_a_fresh_generator(tmp_path: Path) -> None:
    """Guards the tests above: without the stored random state the bits would differ."""
    stop(tmp_path / "a", 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_random, "restore", lambda _: torch.manual_seed(1234))
        changed, _ = run(tmp_path / "a", resume=True)
    unchanged, _ = run(tmp_path / "b")
    assert not same_bits(changed, unchanged)
