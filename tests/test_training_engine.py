import json
import random
import re
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pegbox.errors import CapabilityError, InputError, RunError, UsageError
from pegbox.training import History, Settings, resolve_precision, train
from pegbox.training._batches import Buckets
from pegbox.training._run import _recomputes
from training_toy import Regression, Rows, gradients, quiet, same_bits, tiny_model, trained

PLAIN = Settings(learning_rate=5e-3, epochs=2, batch_size=8, precision="float32")


@pytest.mark.parametrize("answers", [[1] * 16, [1, 2, 3, 1, 1, 3, 2, 1, 1, 1, 2, 3, 3, 1, 2, 1]])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path, answers: list[int]) -> None:
    rows = Rows(16, answers=answers)
    found = {}
    for batch, parts in ((16, 1), (4, 4)):
        settings = Settings(
            learning_rate=1e-3,
            batch_size=batch,
            accumulation=parts,
            gradient_clip=0,
            max_steps=1,
            precision="float32",
        )
        with gradients() as seen:
            train(tiny_model(dropout=0), rows, settings=settings, folder=tmp_path / str(parts), say=quiet)
        found[parts] = seen[0]
    model = tiny_model(dropout=0)
    total, count = rows.loss(model, rows.collate(range(16)))
    (total / count).backward()
    direct = [value.grad for value in model.parameters() if value.requires_grad]
    assert int(count) == sum(answers)
    assert max(value.abs().max() for value in direct) > 1e-3
    for whole, parted, expected in zip(found[1], found[4], direct, strict=True):
        # Only the order of float32 additions differs: entries are below 1, so errors are some 1e-8.
        torch.testing.assert_close(whole, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(parted, expected, atol=1e-6, rtol=0)


def test_a_short_last_accumulation_counts_its_own_answers(tmp_path: Path) -> None:
    settings = Settings(
        learning_rate=1e-9, epochs=1, batch_size=4, accumulation=2, gradient_clip=0, precision="float32"
    )
    rows = Rows(10)
    sizes = [len(batch) for batch in Buckets(rows.lengths, 4, seed=0)]  # two steps: two batches, then one
    assert sorted(sizes) == [2, 4, 4]
    with gradients() as seen:
        train(tiny_model(dropout=0), rows, settings=settings, folder=tmp_path, say=quiet)
    assert len(seen) == 2
    model = tiny_model(dropout=0)
    total, _ = rows.loss(model, rows.collate(range(10)))
    total.backward()
    for first, second, value in zip(*seen, trained_gradients(model), strict=True):
        # The weighted means add up to the sum over all ten rows; the learning rate is next to nothing.
        total_gradient = (sizes[0] + sizes[1]) * first + sizes[2] * second
        torch.testing.assert_close(total_gradient, value, atol=1e-5, rtol=0)


def trained_gradients(model: nn.Module) -> list[Tensor]:
    return [value.grad for value in model.parameters() if value.requires_grad and value.grad is not None]


def test_clipping_bounds_the_gradient_of_the_mean(tmp_path: Path) -> None:
    settings = Settings(
        learning_rate=1e-3, batch_size=8, gradient_clip=0.01, max_steps=3, precision="float32"
    )
    with gradients() as seen:
        train(tiny_model(), Rows(24), settings=settings, folder=tmp_path, say=quiet)
    for step in seen:
        norm = torch.stack([value.norm() for value in step]).norm()
        assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_learns_and_returns_the_best_parameters(tmp_path: Path) -> None:
    model, valid = tiny_model(), Rows(40, seed=1)
    settings = Settings(learning_rate=1e-2, epochs=12, batch_size=8, precision="float32", patience=0)
    history = train(model, Rows(96), settings=settings, folder=tmp_path, valid=valid, say=quiet)
    assert history.steps == 12 * 12
    assert history.epochs == 12
    assert len(history.valid_losses) == 2 * 12
    # ln 2 = 0.693 is chance; the mean of the last epoch counts, as single batches hold few rows.
    late = [loss for step, loss in history.train_losses if step > 11 * 12]
    assert sum(late) / len(late) < 0.6
    assert history.best_valid_loss == min(loss for _, loss in history.valid_losses)
    assert (history.best_step, history.best_valid_loss) in history.valid_losses
    assert history.best_step < history.steps, "the last step is not the best one, or this test shows nothing"
    assert not model.training
    with torch.no_grad():
        total, count = valid.loss(model, valid.collate(range(40)))
    # One batch here and batches of 16 there: float32 sums in another order. Dropout would show as 1e-2.
    assert float(total / count) == pytest.approx(history.best_valid_loss, abs=1e-5)
    json.dumps(history.to_json())


def test_without_validation_rows_the_last_parameters_stay(tmp_path: Path) -> None:
    model = tiny_model()
    history = train(model, Rows(32), settings=PLAIN, folder=tmp_path, say=quiet)
    assert history.best_valid_loss is None
    assert history.best_step == history.steps == 8
    assert same_bits(trained(model), load_file(tmp_path / "checkpoint-8" / "parameters.safetensors"))


def test_stops_when_the_validation_loss_no_longer_falls(tmp_path: Path) -> None:
    settings = Settings(
        learning_rate=1e-2, epochs=30, batch_size=8, precision="float32", patience=2, warmup=0
    )
    # Validation rows with the labels swapped get worse the more is learnt.
    valid = Rows(40, flip=True)
    history = train(tiny_model(), Rows(40), settings=settings, folder=tmp_path, valid=valid, say=quiet)
    assert history.stopped_early
    assert history.steps < 150
    losses = [loss for _, loss in history.valid_losses]
    assert losses.index(min(losses)) == len(losses) - 1 - 2


def test_leaves_everything_else_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    frozen = {name: v.detach().clone() for name, v in model.named_parameters() if not v.requires_grad}
    flags = {name: v.requires_grad for name, v in model.named_parameters()}
    forward = model.forward
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, Rows(32), settings=PLAIN, folder=tmp_path / "run", valid=Rows(8), say=quiet)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert {name: v.requires_grad for name, v in model.named_parameters()} == flags
    assert all(torch.equal(frozen[name], dict(model.named_parameters())[name]) for name in frozen)
    assert all(value.grad is None for value in model.parameters())
    assert model.forward == forward
    assert model.config.use_cache is True
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert capfd.readouterr() == ("", "")


def test_checkpoints_hold_the_trained_parameters_only_and_no_pickles(tmp_path: Path) -> None:
    model = tiny_model()
    train(model, Rows(32), settings=PLAIN, folder=tmp_path, say=quiet)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    for folder in tmp_path.iterdir():
        stored = load_file(folder / "parameters.safetensors")
        assert stored.keys() == trained(model).keys()
        assert all("lora_" in name for name in stored)


def test_two_newest_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    settings = Settings(
        learning_rate=1e-2, epochs=30, batch_size=8, precision="float32", patience=6, warmup=0
    )
    valid = Rows(40, flip=True)
    history = train(tiny_model(), Rows(40), settings=settings, folder=tmp_path, valid=valid, say=quiet)
    steps = sorted(int(path.name.split("-")[1]) for path in tmp_path.iterdir())
    assert len(steps) == 3
    assert steps[0] == history.best_step
    assert steps[-1] == history.steps


class Poisoned(Rows):
    """Turns the loss, or only its gradient, into something not finite at one call."""

    def __init__(self, count: int, at: int, gradient_only: bool = False) -> None:
        super().__init__(count)
        self.at, self.calls, self.gradient_only = at, 0, gradient_only

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        total, count = super().loss(model, batch)
        self.calls += 1
        if self.calls == self.at:
            # The root has an infinite derivative at zero: a finite value with a gradient that is not.
            return (total - total.detach()).sqrt() + 1 if self.gradient_only else total * float("nan"), count
        return total, count


@pytest.mark.parametrize("gradient_only", [False, True])
def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, gradient_only: bool) -> None:
    rows = Poisoned(32, at=6, gradient_only=gradient_only)
    with pytest.raises(RunError) as caught:
        train(tiny_model(), rows, settings=PLAIN, folder=tmp_path, say=quiet)
    message = str(caught.value)
    assert re.search(r"training diverged: training loss \S+, gradient norm \S+ \(step 6\)", message)
    assert "lower learning_rate (now 0.005)" in message
    assert "the last good checkpoint is" in message
    assert "checkpoint-4" in message
    stored = load_file(tmp_path / "checkpoint-4" / "parameters.safetensors")
    assert all(torch.isfinite(value).all() for value in stored.values())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_an_infinite_validation_loss_stops_too(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"validation loss nan \(step 2\)"):
        train(tiny_model(), Rows(32), settings=PLAIN, folder=tmp_path, valid=Poisoned(8, at=1), say=quiet)


class Broken(Rows):
    """Fails with a message of PyTorch's."""

    def __init__(self, message: str) -> None:
        super().__init__(32)
        self.message = message

    def loss(self, *_: Any) -> tuple[Tensor, Tensor]:
        raise RuntimeError(self.message)


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(model, Broken("shapes do not match"), settings=PLAIN, folder=tmp_path, say=quiet)
    assert not model.training
    assert model.config.use_cache is True


class Watched(Rows):
    """Notes the precision and the mode that the loss is computed in."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.seen: set[tuple[bool, bool, torch.dtype]] = set()

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        weight = next(value for value in model.parameters() if value.requires_grad)
        product = (weight @ weight.T).dtype
        self.seen.add((model.training, torch.is_grad_enabled(), product))
        return super().loss(model, batch)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_precision_and_mode(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    rows, valid, model = Watched(32), Watched(8), tiny_model()
    settings = Settings(learning_rate=5e-3, epochs=1, batch_size=8, precision=precision)  # type: ignore[arg-type]
    train(model, rows, settings=settings, folder=tmp_path, valid=valid, say=quiet)
    assert rows.seen == {(True, True, dtype)}
    assert valid.seen == {(False, False, dtype)}
    assert {value.dtype for value in trained(model).values()} == {torch.float32}


def test_auto_precision_asks_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for avx, amx, expected in ((True, False, "bf16"), (False, True, "bf16"), (False, False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda value=avx: value)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda value=amx: value)
        assert resolve_precision("auto", cpu) == expected
        assert resolve_precision("float32", cpu) == "float32"


def test_gradient_checkpointing_changes_memory_not_gradients(tmp_path: Path) -> None:
    found = []
    for recompute in (False, True):
        model = tiny_model(dropout=0)
        settings = Settings(
            learning_rate=1e-3,
            batch_size=8,
            max_steps=1,
            precision="float32",
            gradient_checkpointing=recompute,
        )
        calls = []
        layer = model.get_base_model().model.layers[0].input_layernorm
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        with gradients() as seen:
            train(model, Rows(8), settings=settings, folder=tmp_path / str(recompute), say=quiet)
        found.append(seen[0])
        assert len(calls) == (2 if recompute else 1), "the layer runs again in the backward pass"
        assert not _recomputes(model)
    for kept, recomputed in zip(*found, strict=True):
        assert torch.equal(kept, recomputed)


def test_gradient_checkpointing_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    settings = Settings(learning_rate=1e-3, gradient_checkpointing=True)
    with pytest.raises(CapabilityError, match="Linear cannot recompute its activations"):
        train(nn.Linear(2, 2), Rows(8), settings=settings, folder=tmp_path, say=quiet)


def test_trains_any_module(tmp_path: Path) -> None:
    model = nn.Linear(5, 1)
    settings = Settings(
        learning_rate=0.05,
        epochs=60,
        batch_size=16,
        precision="float32",
        schedule="cosine",
        weight_decay=1e-4,
    )
    history = train(model, Regression(), settings=settings, folder=tmp_path, say=quiet)
    # The map exists (all weights 1/5), so the squared error goes to zero.
    assert history.train_losses[-1][1] < 1e-3
    torch.testing.assert_close(model.weight.detach(), torch.full((1, 5), 0.2), atol=0.02, rtol=0)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_warm_up_and_schedule(tmp_path: Path, schedule: Any) -> None:
    rates: list[float] = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    settings = Settings(
        learning_rate=1.0, epochs=5, batch_size=16, warmup=0.2, schedule=schedule, precision="float32"
    )
    train(nn.Linear(5, 1), Regression(), settings=settings, folder=tmp_path, say=quiet)
    handle.remove()
    assert len(rates) == 20
    assert rates[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]  # four steps of warm-up = 0.2 * 20
    if schedule == "constant":
        assert set(rates[4:]) == {1.0}
    else:
        assert all(later < earlier for earlier, later in pairwise(rates[4:]))
        assert rates[-1] < 0.07


def test_nothing_to_train(tmp_path: Path) -> None:
    model = tiny_model()
    model.requires_grad_(False)
    with pytest.raises(UsageError, match="the model has no trainable parameters"):
        train(model, Rows(8), settings=PLAIN, folder=tmp_path, say=quiet)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no training rows"):
        train(tiny_model(), Rows(0), settings=PLAIN, folder=tmp_path, say=quiet)
    with pytest.raises(InputError, match="there are no validation rows"):
        train(tiny_model(), Rows(8), settings=PLAIN, folder=tmp_path, valid=Rows(0), say=quiet)


def test_speed_and_memory_are_measured(tmp_path: Path) -> None:
    history: History = train(tiny_model(), Rows(32), settings=PLAIN, folder=tmp_path, say=quiet)
    assert 0 < history.seconds < 60
    # 64 rows were trained on in less than all the seconds, which count the checkpoints too.
    assert history.examples_per_second > 64 / history.seconds
    assert history.peak_memory_bytes > 50 * 2**20  # no Python process with PyTorch is smaller
