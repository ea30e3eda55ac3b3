import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pegbox.errors import RunError
from pegbox.training import Settings, _engine, train
from pegbox.training._memory import ran_out
from pegbox.training._portions import Portions
from training_toy import Grouped, Rows, gradients, quiet, same_bits, tiny_model, told, trained

# 93 rows in batches of 8, two to a step: 18 steps, the last of each epoch of one batch of 8 and one of 5.
SETTINGS = Settings(learning_rate=1e-2, epochs=3, batch_size=8, accumulation=2, precision="float32")
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB."


class Killed(BaseException):
    """Stands for a signal that nobody handles."""


class Limited(Grouped):
    """Memory runs out for more than ``limit`` rows, from call ``since`` of the loss on."""

    def __init__(self, limit: int, *, how: str = "forward", since: int = 1, die_at: int = 0) -> None:
        super().__init__(93)
        self.limit, self.how, self.since, self.die_at, self.calls = limit, how, since, die_at, 0
        self.shapes: list[int] = []

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if self.calls == self.die_at:
            raise Killed()
        rows = len(batch["input_ids"])
        short = self.calls >= self.since and rows > self.limit
        if short and self.how == "allocator":
            torch.empty(2**60, dtype=torch.uint8)
        if short and self.how == "forward":
            raise torch.OutOfMemoryError(CUDA)
        if not short:
            self.shapes.append(rows)
            return super().loss(model, batch)
        # In the backward pass of the lower layer, when the upper one has its gradients already.
        layer: Any = model.get_base_model().model.layers[0]  # type: ignore[operator]
        handle = layer.register_forward_hook(_break_backward)
        try:
            return super().loss(model, batch)
        finally:
            handle.remove()


def _break_backward(_: nn.Module, __: Any, out: Tensor) -> None:
    def run_out(_: Tensor) -> None:
        raise RuntimeError(CUDA)

    out.register_hook(run_out)


def run(
    folder: Path, rows: Rows, settings: Settings = SETTINGS, dropout: float = 0.1, **options: Any
) -> tuple[dict[str, Tensor], Any, list[str]]:
    lines: list[str] = []
    model = tiny_model(dropout=dropout)
    options = {"say": lines.append, **options}
    history = train(model, rows, settings=settings, folder=folder, **options)
    return trained(model), history, told(lines)


@pytest.mark.parametrize(
    "how",
    [
        "forward",
        pytest.param("backward", marks=pytest.mark.slow),
        pytest.param("allocator", marks=pytest.mark.slow),
    ],
)
def test_fewer_rows_at_once_give_the_same_steps(tmp_path: Path, how: str) -> None:
    with gradients() as expected:
        plain, history, lines = run(tmp_path / "plain", Limited(93), dropout=0)
    assert history.rows_at_once == 8
    assert lines == []
    rows = Limited(3, how=how)
    with gradients() as seen:
        halved, history, lines = run(tmp_path / "halved", rows, dropout=0)
    assert history.rows_at_once == 2
    longest = max(rows.lengths)
    assert lines == [
        f"out of memory at step 1 with {tried} rows of up to {longest} tokens: going on with {left} rows at "
        "once; batches and gradients stay the same"
        for tried, left in ((8, 4), (4, 2))
    ]
    assert len(seen) == len(expected) == history.steps == 18
    # Sums of two rows are added in another order than sums of eight: entries below 1, errors some 1e-8. Later
    # AdamW divides small differences by small moments: six steps in two processes stay within 1e-4, too.
    assert max(whole.abs().max() for whole in expected[0]) > 1e-3
    for ours, whole in zip(seen[0], expected[0], strict=True):
        torch.testing.assert_close(ours, whole, atol=1e-6, rtol=0)
    for name, value in plain.items():
        torch.testing.assert_close(halved[name], value, atol=1e-3, rtol=0)


def test_memory_that_runs_out_within_a_step_loses_no_step(tmp_path: Path) -> None:
    """The second batch of step 2 does not fit: the first, whose gradient is there already, is done again."""
    with gradients() as expected:
        run(tmp_path / "plain", Limited(93), dropout=0)
    rows = Limited(4, since=4)
    with gradients() as seen:
        _, _, lines = run(tmp_path / "halved", rows, dropout=0)
    assert len(lines) == 1
    assert lines[0].startswith("out of memory at step 2 with 8 rows")
    assert rows.shapes[:7] == [8, 8, 8, 4, 4, 4, 4]
    assert len(seen) == len(expected)
    for ours, whole in zip(seen[1], expected[1], strict=True):
        torch.testing.assert_close(ours, whole, atol=1e-6, rtol=0)


def test_a_repeated_step_draws_the_same_dropout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, _ = run(tmp_path / "halved", Limited(4, how="backward"))
    monkeypatch.setattr(_engine, "Portions", lambda _, **options: Portions(4, **options))
    expected, _, lines = run(tmp_path / "small", Limited(4))
    assert lines == []
    assert same_bits(found, expected)


def test_validation_has_its_own_halving(tmp_path: Path) -> None:
    options = {"valid": Limited(93)}
    plain, expected, _ = run(tmp_path / "plain", Rows(93), **options)
    rows = Limited(5)
    halved, history, lines = run(tmp_path / "halved", Rows(93), valid=rows)
    assert [line.split(" of up")[0] for line in lines] == [
        "out of memory in validation with 16 rows",
        "out of memory in validation with 8 rows",
    ]
    assert max(rows.shapes) == 4
    assert history.rows_at_once == 8
    assert same_bits(halved, plain), "training does not see it, its dropout included"
    for (step, loss), (expected_step, expected_loss) in zip(
        history.valid_losses, expected.valid_losses, strict=True
    ):
        assert step == expected_step
        assert loss == pytest.approx(expected_loss, abs=1e-6)  # float32 sums in another order


@pytest.mark.parametrize("since", [1, pytest.param(14, marks=pytest.mark.slow)])
def test_a_resume_after_halving_goes_on_with_fewer_rows(tmp_path: Path, since: int) -> None:
    settings = replace(SETTINGS, checkpoint_every=2)
    whole, expected, _ = run(tmp_path / "whole", Limited(2, since=since), settings)
    assert expected.rows_at_once == 2
    with pytest.raises(Killed):
        run(tmp_path / "killed", Limited(2, since=since, die_at=60), settings)
    rows = Limited(2)
    found, history, lines = run(tmp_path / "killed", rows, settings, resume=True)
    assert len(lines) == 1
    assert lines[0].startswith("resuming from step ")
    assert max(rows.shapes) == 2
    assert history.rows_at_once == 2
    assert same_bits(found, whole)


@pytest.mark.parametrize("recompute", [pytest.param(False, marks=pytest.mark.slow), True])
def test_memory_for_no_row_at_all(tmp_path: Path, recompute: bool) -> None:
    rows = Limited(0)
    settings = replace(SETTINGS, gradient_checkpointing=recompute)
    lines: list[str] = []
    with pytest.raises(RunError) as caught:
        run(tmp_path, rows, settings, say=lines.append)
    assert len(told(lines)) == 3  # 8, 4, 2
    message = str(caught.value)
    assert f"out of memory with 1 row of up to {max(rows.lengths)} tokens at once (step 1)" in message
    assert "shorten the texts, or take a smaller model" in message
    assert ("set gradient_checkpointing" in message) is not recompute


def test_several_processes_are_told_what_to_lower() -> None:
    lines: list[str] = []
    portions = Portions(8, halving=False, lengths=[3] * 9, say=lines.append)
    assert list(portions.cut(range(9))) == [list(range(9))], "a batch with a row more stays whole"
    assert not portions.shrink(torch.OutOfMemoryError(CUDA), range(9), "")
    assert (portions.rows, lines) == (8, [])


def test_portions() -> None:
    def cut(rows: int, count: int) -> Sequence[list[int]]:
        return list(Portions(rows, halving=True, lengths=[1] * 9, say=quiet).cut(range(count)))

    assert cut(4, 5) == [[0, 1, 2, 3], [4]]
    assert cut(4, 4) == [[0, 1, 2, 3]]
    uneven = Portions(16, halving=True, lengths=[1] * 9, say=quiet)
    assert uneven.shrink(torch.OutOfMemoryError(CUDA), range(5), "")
    assert uneven.rows == 4, "8 would try the same five rows again"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (CUDA, True),
        ("MPS backend out of memory (MPS allocated: 1 GB)", True),
        ("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_messages_that_mean_no_memory(message: str, expected: bool) -> None:
    assert ran_out(RuntimeError(message)) is expected
    assert not ran_out(ValueError(message))


def test_the_cpu_allocators_own_error() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(caught.value)


CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_training_memory as here
here.Killed = lambda: os.kill(os.getpid(), signal.SIGKILL)
here.sampled(here.Path(sys.argv[2]), die_at=int(sys.argv[3]))
"""

SAMPLED = replace(SETTINGS, balance="sampling", checkpoint_every=4)


def sampled(folder: Path, *, die_at: int = 0) -> tuple[dict[str, Tensor], Any, list[str]]:
    return run(folder, Limited(4, since=20, die_at=die_at), SAMPLED)


@pytest.mark.slow
@pytest.mark.parametrize("die_at", [14, pytest.param(31, marks=pytest.mark.slow)])
def test_kill_nine_with_sampling_accumulation_and_too_little_memory(tmp_path: Path, die_at: int) -> None:
    """Killed within an accumulation of epoch 2, before and after the halving: the same bits in the end."""
    whole, expected, _ = sampled(tmp_path / "whole")
    folder = tmp_path / "killed"
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(Path(__file__).parent), str(folder)]
    assert subprocess.run([*command, str(die_at)], timeout=120, check=False).returncode == -signal.SIGKILL
    steps = [int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*")]
    assert max(steps) % 6, "the newest checkpoint is of the middle of an epoch"
    # What is left of `since` counts calls of this process: the halving comes at the same batch of the run.
    left = Limited(4, since=1 + max(0, 20 - 1 - 2 * max(steps)))
    found, history, lines = run(folder, left, SAMPLED, resume=True)
    assert lines[0] == f"resuming from step {max(steps)} of 18"
    assert history.train_losses == expected.train_losses
    assert history.rows_at_once == expected.rows_at_once == 4
    assert same_bits(found, whole)
