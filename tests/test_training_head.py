"""A new head learns at a rate of its own: groups, schedule, resume, and what is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pegbox.errors import RunError, UsageError
from pegbox.training import Settings, train
from pegbox.training._optimizer import adamw
from training_toy import Regression, Rows, quiet, same_bits, tiny_model, trained

SETTINGS = Settings(
    learning_rate=1e-3, head_learning_rate=1e-2, epochs=2, batch_size=8, checkpoint_every=3, weight_decay=0.01
)
VALID = Rows(16, seed=1)


class Stopped(BaseException):
    """Stands for a signal that nobody handles."""


class Deadly(Rows):
    """Ends the run at one call of the loss."""

    def __init__(self, at: int) -> None:
        super().__init__(40)
        self.at, self.calls = at, 0

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if self.calls == self.at:
            raise Stopped
        return super().loss(model, batch)


def parts() -> tuple[nn.Module, nn.Module]:
    """A model whose output layer is trained beside its adapter, and that layer."""
    model = tiny_model()
    head: nn.Module = model.get_base_model().lm_head
    head.requires_grad_(True)
    return model, head


def run(folder: Path, rows: Any = None, settings: Settings = SETTINGS, **options: Any) -> dict[str, Tensor]:
    model, head = parts()
    train(
        model, rows or Rows(40), settings=settings, folder=folder, valid=VALID, say=quiet,
        **{"head": head, **options},
    )  # fmt: skip
    return trained(model)


def test_groups_hold_everything_once_at_its_rate_and_decay() -> None:
    trunk, head = nn.Linear(4, 3), nn.Linear(3, 2)
    values = [*trunk.parameters(), *head.parameters()]
    groups = adamw(values, SETTINGS, [*head.parameters()]).param_groups
    found = [(group["lr"], group["weight_decay"], [v.shape for v in group["params"]]) for group in groups]
    assert found == [
        (1e-3, 0.01, [(3, 4)]),
        (1e-3, 0.0, [(3,)]),
        (1e-2, 0.01, [(2, 3)]),
        (1e-2, 0.0, [(2,)]),
    ]
    alike = adamw(values, replace(SETTINGS, head_learning_rate=None), [*head.parameters()]).param_groups
    assert [(group["lr"], len(group["params"])) for group in alike] == [(1e-3, 2), (1e-3, 2)]
    assert len(adamw(values, SETTINGS).param_groups) == 2


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_schedule_scales_all_groups_alike(tmp_path: Path, schedule: Any) -> None:
    rates: list[list[float]] = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1))
    settings = replace(SETTINGS, warmup=0.5, schedule=schedule, precision="float32")
    train(model, Regression(), settings=settings, folder=tmp_path, head=model[1], say=quiet)
    handle.remove()
    assert max(step[0] for step in rates) == 1e-3
    for trunk, bias, head in rates:  # the head's one row is a vector too
        assert trunk == bias
        assert head == pytest.approx(10 * trunk)


def test_the_head_moves_further(tmp_path: Path) -> None:
    """AdamW's first steps are about as long as the rate, whatever the gradient."""
    before = trained(parts()[0])
    step = replace(SETTINGS, max_steps=1, warmup=0, weight_decay=0.0, precision="float32")
    after = run(tmp_path, settings=step)
    moved = {name: float((after[name] - value).abs().max()) for name, value in before.items()}
    (head,) = [name for name in moved if "lm_head" in name]
    assert moved.pop(head) == pytest.approx(1e-2, rel=1e-2)
    assert max(moved.values()) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("at", [1, 5, 9])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path: Path, at: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "parts", Deadly(at))
    assert same_bits(run(tmp_path / "parts", resume=True), whole)


def test_another_rate_or_head_is_no_resume(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, Deadly(8))
    other = replace(SETTINGS, head_learning_rate=None)
    with pytest.raises(UsageError, match=r"head_learning_rate was 0\.01, is None"):
        run(tmp_path, settings=other, resume=True)
    with pytest.raises(UsageError, match=r"new head was '1 tensors .*', is None"):
        run(tmp_path, head=None, resume=True)


def test_a_run_without_a_rate_for_the_head_is_the_run_of_before(tmp_path: Path) -> None:
    """Also for checkpoints written before there was such a rate: nothing in what they say has changed."""
    plain = replace(SETTINGS, head_learning_rate=None)
    without = run(tmp_path / "without", settings=plain, head=None)
    assert same_bits(run(tmp_path / "with", settings=plain), without)
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", Deadly(8), settings=plain, head=None)
    assert same_bits(run(tmp_path / "stopped", settings=plain, resume=True), without)


def test_divergence_names_both_rates(tmp_path: Path) -> None:
    model, head = parts()
    with torch.no_grad():
        head.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(RunError) as caught:
        train(model, Rows(16), settings=SETTINGS, folder=tmp_path, head=head, say=quiet)
    assert "lower learning_rate (now 0.001) and head_learning_rate (now 0.01)" in str(caught.value)
