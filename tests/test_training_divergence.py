import math
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pegbox.errors import RunError, UsageError
from pegbox.training import Settings, recover, train
from pegbox.training._divergence import Watch
from training_toy import Regression, Rows, quiet, same_bits, tiny_model, trained

FACTOR = Settings(learning_rate=1e-3).divergence
CALM = Settings(learning_rate=5e-3, epochs=8, batch_size=8, precision="float32", checkpoint_every=1)


def first_alarm(losses: list[float], factor: float = FACTOR) -> int | None:
    watch = Watch()
    for step, loss in enumerate(losses, start=1):
        watch.note(loss)
        if watch.exploded(factor):
            return step
    return None


def noisy(count: int, spread: float, seed: int, end: float = 0.3, start: float = 0.7) -> list[float]:
    """Losses that fall from ``start`` to ``end`` and scatter log-normally, as those of small batches do."""
    draw = random.Random(seed)
    fall = [end + (start - end) * math.exp(-5 * step / count) for step in range(count)]
    return [value * draw.lognormvariate(0, spread) for value in fall]


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_scatter_is_no_divergence(spread: float, seed: int) -> None:
    assert first_alarm(noisy(600, spread, seed)) is None


def test_single_spikes_are_no_divergence() -> None:
    losses = noisy(300, 0.2, seed=0)
    for step in range(50, 300, 7):
        losses[step] *= 1000
    assert first_alarm(losses) is None


def test_a_loss_near_zero_may_multiply() -> None:
    # Rows learnt by heart: from 0.0001 to 0.05 nats is 500 times as much and harms nobody.
    assert first_alarm([0.7, 0.6, 0.4] + [1e-4] * 50 + [0.05] * 50) is None


def test_a_loss_that_comes_back_to_where_it_began_has_not_exploded() -> None:
    assert first_alarm([7.0, 6.5, 6.0] + [1.0] * 50 + [6.9] * 50) is None


@pytest.mark.parametrize("at", [6, 20, 200])
def test_an_explosion_is_seen_within_some_steps(at: int) -> None:
    losses = noisy(at, 0.2, seed=1) + [0.7 * 1.5**step for step in range(60)]
    found = first_alarm(losses)
    assert found is not None
    # 0.7 * 1.5^n passes any first loss after some steps; then more than half of thirty losses must be above.
    assert at < found <= at + 20
    assert first_alarm(losses, factor=0) is None


def test_the_limit_by_hand() -> None:
    watch = Watch()
    for loss in (2.0, 1.0, 3.0, 1.0, 1.0, 8.0, 1.0, 1.0, 1.0):
        watch.note(loss)
        assert watch.limit(4.0) == math.inf, "too few losses to tell"
    watch.note(1.0)
    assert watch.lowest == 1.0  # the median of 2, 3, 8 and seven times 1
    assert watch.limit(4.0) == 4.0  # 4 * 1
    assert watch.limit(2.0) == 3.0  # the largest of the first five
    watch = Watch(first=[0.1] * 5, recent=[0.1] * 30, lowest=0.1)
    assert watch.limit(3.0) == 1.1  # lowest + 1
    assert not watch.suspect(3.0)
    watch.note(1.2)
    assert watch.suspect(3.0)
    assert not watch.exploded(3.0)


class Exploding(Rows):
    """Each loss is multiplied by thirty from call ``at`` on."""

    def __init__(self, count: int, at: int) -> None:
        super().__init__(count)
        self.at, self.calls = at, 0

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        total, count = super().loss(model, batch)
        self.calls += 1
        return (30 * total if self.calls >= self.at else total), count


def test_an_explosion_stops_the_run_and_gives_the_last_good_parameters(tmp_path: Path) -> None:
    """Checkpoints are due at each step; none of those after the explosion began replaces a good one."""
    model = tiny_model()
    with pytest.raises(RunError) as caught:
        train(model, Exploding(32, at=13), settings=CALM, folder=tmp_path, say=quiet)
    message = str(caught.value)
    assert "training diverged: the training loss rose from 0." in message
    assert re.search(r"expected: at most 2\.\d+\n", message)  # three times the lowest, some 0.67
    assert "lower learning_rate (now 0.005)" in message
    assert f"the last good checkpoint is {tmp_path / 'checkpoint-12'}" in message
    stored = load_file(tmp_path / "checkpoint-12" / "parameters.safetensors")
    assert same_bits(trained(model), stored)
    fresh = tiny_model()
    assert recover(fresh, tmp_path) == 12
    assert same_bits(trained(fresh), stored)


def test_the_best_by_validation_comes_back(tmp_path: Path) -> None:
    model = tiny_model()
    settings = replace(CALM, checkpoint_every=3, evaluations_per_epoch=4, patience=0)
    with pytest.raises(RunError) as caught:
        train(model, Exploding(32, at=13), settings=settings, folder=tmp_path, valid=Rows(16, 1), say=quiet)
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    fresh = tiny_model()
    best = recover(fresh, tmp_path)
    assert best in steps
    assert f"checkpoint-{best}" in str(caught.value)
    assert same_bits(trained(model), trained(fresh))


def test_a_rate_far_too_high_stops_the_run(tmp_path: Path) -> None:
    """Squared errors of a linear map under steps of 30 grow from 0.8 to hundreds."""
    settings = replace(CALM, learning_rate=30.0, epochs=20, gradient_clip=0, warmup=0.1)
    with pytest.raises(RunError, match="training diverged: the training loss rose from"):
        train(nn.Linear(5, 1), Regression(), settings=settings, folder=tmp_path, say=quiet)


class Uneven(Rows):
    """Losses that scatter from batch to batch by a factor of up to forty."""

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        total, count = super().loss(model, batch)
        return total * (0.1, 0.3, 1.0, 4.0)[int(batch["input_ids"].sum()) % 4], count


def test_a_fluctuating_run_ends(tmp_path: Path) -> None:
    history = train(tiny_model(), Uneven(96), settings=CALM, folder=tmp_path, say=quiet)
    losses = [loss for _, loss in history.train_losses]
    assert max(losses) > 10 * min(losses), "the losses scatter, or this test shows nothing"
    assert history.steps == 96


def test_off_and_on_again(tmp_path: Path) -> None:
    """What stops for an explosion may be resumed with the rule switched off: nothing else depends on it."""
    with pytest.raises(RunError):
        train(tiny_model(), Exploding(32, at=13), settings=CALM, folder=tmp_path / "on", say=quiet)
    off = replace(CALM, divergence=0)
    resumed, whole = tiny_model(), tiny_model()
    rows = Exploding(32, at=1)  # the first call after the resume is the 13th
    history = train(resumed, rows, settings=off, folder=tmp_path / "on", resume=True, say=quiet)
    assert (history.resumed_from, history.steps) == (12, 32)
    train(whole, Exploding(32, at=13), settings=off, folder=tmp_path / "off", say=quiet)
    assert same_bits(trained(resumed), trained(whole))


def test_nothing_to_recover(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no intact checkpoint"):
        recover(tiny_model(), tmp_path)
    train(tiny_model(), Rows(8), settings=replace(CALM, max_steps=1), folder=tmp_path, say=quiet)
    with pytest.raises(UsageError, match="the checkpoint is of other parameters than the model trains"):
        recover(torch.nn.Linear(2, 2), tmp_path)
