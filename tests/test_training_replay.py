"""Replay: which rows a step replays, what they weigh, and that a resume goes on to the same bits."""

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pegbox.errors import InputError, UsageError
from pegbox.training import History, Replay, Settings, replayed_indices, train
from pegbox.training._rehearsal import Rehearsal
from training_toy import Grouped, Rows, gradients, quiet, same_bits, tiny_model, told, trained

# 93 rows in batches of 8, two to a step: 6 steps an epoch, so a step learns 15.5 rows on average.
SETTINGS = Settings(
    learning_rate=1e-2, epochs=2, batch_size=8, accumulation=2, checkpoint_every=4, precision="float32"
)
COUNT = 93
VALID = Rows(24, seed=1)


class Killed(BaseException):
    """Stands for a signal that nobody handles."""


class General(Rows):
    """Rows to replay: row i has 1, 2 or 3 answers, and indices count on without end."""

    def __init__(self, count: int = 20, *, die_at: int = 0, limit: int | None = None) -> None:
        super().__init__(count, seed=5, answers=[1 + at % 3 for at in range(count)])
        self.seen: list[list[int]] = []
        self.die_at, self.limit, self.calls = die_at, limit, 0

    def __len__(self) -> int:
        return len(self.ids)

    def answers_of(self, index: int) -> int:
        return self.answers[index % len(self)]

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        self.seen.append(list(indices))
        return super().collate([index % len(self) for index in indices])

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if self.calls == self.die_at:
            raise Killed()
        if self.limit is not None and len(batch["input_ids"]) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().loss(model, batch)


class Replayed:
    """As the engine wants it, whose method ``answers`` is an attribute of the toy rows."""

    def __init__(self, rows: General) -> None:
        self.rows = rows
        self.lengths = rows.lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    def answers(self, index: int) -> int:
        return self.rows.answers_of(index)


def replay(ratio: float, rows: General | None = None, name: str = "") -> Replay:
    return Replay(Replayed(General() if rows is None else rows), ratio, name)  # type: ignore[arg-type]


def rehearsal(ratio: float, per_step: float, count: int = 20, **options: Any) -> Rehearsal:
    found = {"at_once": 8, "seed": 3, "say": quiet, **options}
    return Rehearsal(replay(ratio, General(count)), per_step, **found)


def run(
    folder: Path, plan: Replay | None, settings: Settings = SETTINGS, dropout: float = 0.1, **options: Any
) -> tuple[dict[str, Tensor], History]:
    model = tiny_model(dropout=dropout)
    options = {"rows": Rows(COUNT), "valid": VALID, "say": quiet, **options}
    history = train(model, options.pop("rows"), settings=settings, folder=folder, replay=plan, **options)
    return trained(model), history


# Which rows


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("per_step", [16.0, 15.5, 1.0])
def test_the_share_of_replayed_rows_is_the_ratio(ratio: float, per_step: float) -> None:
    plan = rehearsal(ratio, per_step)
    counts = [0 if (part := plan.portion(step)) is None else len(part.indices) for step in range(400)]
    learnt = 400 * per_step
    assert abs(sum(counts) / (learnt + sum(counts)) - ratio) <= 1 / learnt
    # Spread evenly: no step is more than a row away from its share.
    rate = per_step * ratio / (1 - ratio)
    assert max(abs(count - rate) for count in counts) < 1
    assert sum(counts) == plan.rows_by(400)


def test_each_pass_takes_every_row_once_in_another_order() -> None:
    plan = rehearsal(0.5, 7.0, count=20)
    found = [index for step in range(20) for index in (plan.portion(step) or pytest.fail("none")).indices]
    assert found == replayed_indices(20, 3, range(140))
    passes = [[index % 20 for index in found[at : at + 20]] for at in range(0, 140, 20)]
    assert all(sorted(part) == list(range(20)) for part in passes)
    assert [index // 20 for index in found] == [at // 20 for at in range(140)]
    assert len({tuple(part) for part in passes}) == 7
    assert replayed_indices(20, 4, range(20)) != replayed_indices(20, 3, range(20))


def test_the_weight_is_that_of_the_rows_and_answers_are_those_of_all_processes() -> None:
    alone = rehearsal(0.25, 16.0)
    parts = [rehearsal(0.25, 16.0, rank=rank, processes=2) for rank in (0, 1)]
    for step in range(5):
        whole, halves = alone.portion(step), [part.portion(step) for part in parts]
        assert whole is not None
        assert whole.weight == len(whole.indices) / 16
        assert sorted(index for half in halves if half for index in half.indices) == sorted(whole.indices)
        assert [half.answers for half in halves if half] == [whole.answers] * 2


def test_a_process_without_a_row_goes_through_the_motions_at_no_weight() -> None:
    # One row in each step: the second of two processes has none.
    parts = [rehearsal(0.5, 1.0, rank=rank, processes=2).portion(0) for rank in (0, 1)]
    assert [(part.indices == parts[0].indices, part.weight) for part in parts if part and parts[0]] == [
        (True, 1.0),
        (True, 0.0),
    ]


# What they weigh


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_the_gradient_is_that_of_both_means(tmp_path: Path, balance: str) -> None:
    settings = replace(SETTINGS, gradient_clip=0.0, max_steps=3, balance=balance)  # type: ignore[arg-type]
    general, rows = General(), Grouped(COUNT)
    batches: list[list[int]] = []
    model = tiny_model(dropout=0)
    collate = rows.collate
    rows.collate = lambda indices: (batches.append(list(indices)), collate(indices))[1]  # type: ignore[method-assign]
    with gradients() as seen:
        train(model, rows, settings=settings, folder=tmp_path, replay=replay(0.2, general), say=quiet)
    # The first step, before which the parameters are those of a fresh model.
    learnt, repeated = batches[:2], general.seen[0]
    assert len(repeated) == math.floor(15.5 * 0.25)
    fresh = tiny_model(dropout=0)
    weights = torch.ones(COUNT)
    if balance == "weights":
        counts = torch.bincount(torch.tensor(rows.groups)).float()
        weights = (COUNT / (2 * counts))[torch.tensor(rows.groups)]
    total, answers = torch.zeros(()), torch.zeros(())
    for indices in learnt:
        loss, count = rows.loss(fresh, {**collate(indices), "weights": weights[indices]})
        total, answers = total + loss, answers + count
    own, tokens = general.loss(fresh, general.collate(repeated))
    (total / answers + len(repeated) / 15.5 * own / tokens).backward()
    wanted = [value.grad for value in fresh.parameters() if value.requires_grad]
    assert len(seen[0]) == len(wanted)
    for value, found in zip(wanted, seen[0], strict=True):
        # Float32 sums in another order; a weight or a count that is off by one would differ by percents.
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-7)


def test_a_step_without_replayed_rows_is_the_plain_one(tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_steps=2, checkpoint_every=1)
    with gradients() as plain:
        run(tmp_path / "plain", None, settings, dropout=0)
    with gradients() as seen:
        # 15.5 * 0.04 / 0.96 = 0.65 rows a step: none in the first step, one in the second.
        run(tmp_path / "replayed", replay(0.04), settings, dropout=0)
    assert all(torch.equal(*pair) for pair in zip(plain[0], seen[0], strict=True))
    assert not all(torch.equal(*pair) for pair in zip(plain[1], seen[1], strict=True))


def test_training_and_validation_losses_are_those_of_the_rows_alone(tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_steps=1)
    _, plain = run(tmp_path / "plain", None, settings, dropout=0)
    _, found = run(tmp_path / "replayed", replay(0.5), settings, dropout=0)
    assert found.train_losses == plain.train_losses
    assert plain.replayed == 0
    assert found.replayed == 15


def test_a_replay_keeps_what_training_alone_would_lose(tmp_path: Path) -> None:
    """The replayed rows ask for the opposite label of the same texts: without them their loss only rises."""
    settings = replace(SETTINGS, epochs=3, patience=0)

    class Opposite(General):
        def __init__(self) -> None:
            super().__init__(40)
            self.labels = [1 - label for label in self.labels]

    losses = {}
    for name, plan in (("plain", None), ("replayed", replay(0.5, Opposite()))):
        model = tiny_model(dropout=0)
        train(model, Rows(COUNT), settings=settings, folder=tmp_path / name, replay=plan, say=quiet)
        rows = Opposite()
        with torch.no_grad():
            loss, count = rows.loss(model, rows.collate(range(40)))
        losses[name] = float(loss / count)
    assert losses["replayed"] < 0.9 * losses["plain"]


# Interruption


@pytest.mark.parametrize("at", [2, 5, 9])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path: Path, at: int) -> None:
    whole, history = run(tmp_path / "whole", replay(0.3))
    with pytest.raises(Killed):
        run(tmp_path / "stopped", replay(0.3, General(die_at=at)))
    general = General()
    found, resumed = run(tmp_path / "stopped", replay(0.3, general), resume=True)
    assert same_bits(found, whole)
    assert resumed.train_losses == history.train_losses
    assert resumed.replayed == history.replayed > 0
    if at > 5:
        assert general.calls < history.steps  # it went on from a checkpoint


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        (replay(0.2), "replay was 'ratio 0.3"),
        (replay(0.3, General(30)), "30 rows"),
        (replay(0.3, name="other"), "(other)"),
        (None, "is None"),
    ],
)
def test_a_resume_with_another_replay_is_refused(tmp_path: Path, plan: Replay | None, what: str) -> None:
    with pytest.raises(Killed):
        run(tmp_path, replay(0.3, General(die_at=8)))
    with pytest.raises(UsageError, match="differs from the one in the checkpoint") as found:
        run(tmp_path, plan, resume=True)
    assert what in str(found.value)


def test_a_run_without_replay_cannot_be_resumed_with_one(tmp_path: Path) -> None:
    class Deadly(Rows):
        calls = 0

        def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            self.calls += 1
            if self.calls == 14:
                raise Killed()
            return super().loss(model, batch)

    with pytest.raises(Killed):
        run(tmp_path, None, rows=Deadly(COUNT))
    with pytest.raises(UsageError, match="replay was None"):
        run(tmp_path, replay(0.3), resume=True)


# Memory


def test_when_memory_runs_out_in_the_replay_the_step_is_done_again_with_fewer_rows(tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_steps=4)
    whole, _ = run(tmp_path / "whole", replay(0.4), settings, dropout=0)
    lines: list[str] = []
    general = General(limit=2)
    found, _ = run(tmp_path / "short", replay(0.4, general), settings, dropout=0, say=lines.append)
    # 10.3 rows a step, at most 8 at once: 8 are halved twice.
    assert [line.split(" of up to")[0] for line in told(lines)] == [
        "out of memory in the replay of step 1 with 8 rows",
        "out of memory in the replay of step 1 with 4 rows",
    ]
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_no_rows_to_replay_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no replayed rows"):
        run(tmp_path, replay(0.1, General(0)))


# Several processes


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import test_training_replay as here
here.once(sys.argv[2], batch_size=4)
"""


def once(folder: str, batch_size: int) -> None:
    """Train two epochs of 44 rows in batches of eight (over all processes), two to a step."""
    settings = Settings(
        learning_rate=1e-2, epochs=2, batch_size=batch_size, accumulation=2, precision="float32", patience=0
    )
    rows = Rows(44, answers=[1 + at % 3 for at in range(44)])
    # 14.7 * 0.1 / 0.9 = 1.6 rows a step: in some of them the second process has none of its own.
    train(tiny_model(dropout=0), rows, settings=settings, folder=folder, replay=replay(0.1), say=quiet)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed training")
def test_two_processes_replay_like_one(tmp_path: Path) -> None:
    once(str(tmp_path / "one"), batch_size=8)
    script = tmp_path / "child.py"
    script.write_text(CHILD, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(script), str(Path(__file__).parent), str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (
        load_file(tmp_path / name / "checkpoint-6" / "parameters.safetensors") for name in ("one", "two")
    )
    start = dict(tiny_model(dropout=0).named_parameters())
    for name, value in one.items():
        # Six steps of AdamW at 1e-2 move entries by up to 0.06; only the order of the additions differs.
        assert (value - start[name]).abs().max() > 0.01
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-4)
