"""Estimates of memory and time: what they must agree with, and how they must move."""

import gc
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pegbox
from estimate_toy import MACHINE, MEASURED
from four_bit_toy import wide_folder
from pegbox.comparison import Estimator, estimate
from pegbox.comparison import _estimate as module
from pegbox.comparison._calibration import Calibration
from pegbox.comparison._case import Case, Fitted
from pegbox.comparison._memory import solve_bytes, weights_bytes
from pegbox.comparison._packed import Packed, packable
from pegbox.comparison._profile import Asked
from pegbox.comparison._seconds import Course
from pegbox.comparison._speed import Line
from pegbox.errors import InputError, UsageError
from pegbox.methods import Attached, build, methods
from pegbox.training import Settings
from pegbox.tuning import Training
from tiny import tiny_base
from tuning_toy import checksum, hush, rows_of, task_of

LENGTHS = [20] * 100
MIB = 2**20


@pytest.fixture(autouse=True)
def _attached_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long attaching takes is measured, and differs from run to run."""
    monkeypatch.setattr("pegbox.comparison._profile.time", SimpleNamespace(perf_counter=lambda: 0.0))


def case(name: str, lengths: Sequence[int] = LENGTHS, **options: Any) -> Case:
    base, method = tiny_base("llama"), build(name, options)
    asked = Asked.of(base, base.prepare(task_of()), method)
    return Case(MEASURED, base, asked, lengths, len(lengths), 16)


def trained(name: str, lengths: Sequence[int] = LENGTHS, *, training: Any = None, **options: Any) -> Fitted:
    return case(name, lengths, **options).trained(Training(**(training or {})))


# How estimates move


def test_more_rows_longer_texts_and_more_epochs_take_longer() -> None:
    one = trained("lora")
    rows, texts = trained("lora", LENGTHS * 3), trained("lora", [40] * 100)
    epochs = trained("lora", training={"epochs": 16})
    assert rows.seconds - MACHINE.begin > 2.5 * (one.seconds - MACHINE.begin)
    assert rows.flops == pytest.approx(3 * one.flops, rel=0.05)
    assert texts.seconds > one.seconds
    assert texts.flops > 2 * one.flops
    assert epochs.flops == pytest.approx(2 * one.flops, rel=1e-6)  # 8 by default
    assert trained("lora", training={"max_steps": 5}).seconds - MACHINE.begin < one.seconds / 4


def test_larger_ranks_longer_texts_and_larger_batches_take_more_memory() -> None:
    small, large = trained("lora"), trained("lora", rank=16)
    assert large.parameters == 2 * small.parameters
    assert large.adapter_bytes == 2 * small.adapter_bytes
    assert large.memory > small.memory
    assert trained("lora", [40] * 100).memory > small.memory
    wide = Case(MEASURED, tiny_base("llama"), case("lora").asked, LENGTHS, 100, 64).trained(Training())
    assert wide.memory > small.memory


def test_full_fine_tuning_holds_a_copy_with_its_moments() -> None:
    base, full, lora = tiny_base("llama"), trained("full"), trained("lora")
    assert full.parameters == base.parameters
    assert full.memory - lora.memory > 11 * base.parameters
    assert full.kept == 4 * base.parameters
    assert full.adapter_bytes == weights_bytes(base.model)


def test_recomputed_activations_cost_time_and_save_memory() -> None:
    plain = trained("lora", [200] * 100)
    again = trained("lora", [200] * 100, training={"gradient_checkpointing": True})
    assert again.memory < plain.memory
    assert again.seconds > plain.seconds
    assert again.flops > 1.2 * plain.flops


def test_a_head_runs_the_trunk_once_and_learns_from_what_it_kept() -> None:
    head, lora = trained("head"), trained("lora")
    assert head.flops < lora.flops / 4
    assert head.seconds - MACHINE.begin < (lora.seconds - MACHINE.begin) / 2
    assert trained("head", training={"trunk_cache": "off"}).flops > 4 * head.flops


def test_streaming_bounds_the_memory_of_the_closed_form() -> None:
    many = [20] * 30_000
    whole = case("closed-form", many, streaming=False).solved()
    assert case("closed-form", many).solved().memory < whole.memory  # streams beyond 20,000 rows
    assert solve_bytes(100, 64, 2) < solve_bytes(200, 64, 2) < solve_bytes(200, 128, 2)


def test_the_course_of_a_run_is_that_of_the_engine() -> None:
    settings = Settings(learning_rate=1e-3, epochs=3, batch_size=8, evaluations_per_epoch=2)
    course = Course.of(settings, [10] * 100, batch=8, held_out=True)
    # 15 of 100 rows are held out, and 85 make eleven batches.
    assert (sum(rows for rows, _ in course.train), len(course.train)) == (85, 11)
    assert sum(rows for rows, _ in course.valid) == 15
    assert (course.steps, course.epochs, course.evaluations, course.checkpoints) == (33, 3.0, 6, 6)
    alone = Course.of(settings, [10] * 39, batch=8, held_out=False)
    assert (alone.evaluations, alone.checkpoints, sum(rows for rows, _ in alone.train)) == (0, 3, 39)


def test_a_line_never_starts_below_the_origin() -> None:
    assert Line.through([(1.0, 3.0), (3.0, 5.0)]) == Line(2.0, 1.0)
    assert Line.through([(1.0, 1.0), (2.0, 4.0)]) == Line(0.0, 2.0)
    assert Line.through([(2.0, 4.0), (2.0, 4.0)]) == Line(0.0, 2.0)
    assert Line.through([(1.0, 5.0), (4.0, 4.0)]) == Line(0.0, 1.0)


# What they must agree with


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    return Estimator(tiny_base("llama"), task_of(), rows_of(60), seconds=2.0)


@pytest.mark.parametrize("name", sorted(set(methods()) - {"qlora"}))
def test_every_method_has_an_estimate(estimator: Estimator, name: str) -> None:
    base, method = tiny_base("llama"), build(name)
    found = estimator.costs(method)
    assert found.feasible, found.reason
    assert found.memory is not None
    assert found.memory > weights_bytes(base.model)
    assert found.seconds is not None
    assert found.seconds >= 0
    assert found.answer_seconds is not None
    assert found.answer_seconds > 0
    if isinstance(method, Attached):
        asked = Asked.of(base, base.prepare(task_of()), method)
        assert found.parameters == method.parameters(asked.base, asked.prompt)
        assert found.seconds > 0


@pytest.mark.parametrize("name", ["lora", "closed-form", "head", "full"])
def test_what_would_be_saved_is_as_large_as_what_is_saved(
    estimator: Estimator, name: str, tmp_path: Any
) -> None:
    tuned = pegbox.fit(
        tiny_base("llama"), task_of(), name, rows=rows_of(60), training=Training(max_steps=1), say=hush
    )
    tuned.save(tmp_path / "out")
    size = pegbox.tuning.adapter_bytes(tmp_path / "out")
    # A header of names and shapes comes with it, of some 100 bytes a tensor.
    assert estimator.costs(name).adapter_bytes == pytest.approx(size, rel=0.05, abs=6000)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each call to measure, which is not made."""
    calls: list[int] = []

    def measure(*_: Any, rows: int, **__: Any) -> Calibration:
        calls.append(rows)
        return MEASURED

    monkeypatch.setattr(module.Calibration, "measured", measure)
    return calls


def test_what_is_measured_is_measured_once(measured: list[int]) -> None:
    base, rows = pegbox.load(wide_folder("llama", "causal")), rows_of(40)
    assert estimate(base, task_of(), "lora", rows).feasible
    assert estimate(base, task_of(), "ia3", rows).feasible
    assert measured == [40]
    estimate(base, task_of(), "lora", rows_of(41))
    assert measured == [40, 41]


@pytest.mark.usefixtures("measured")
def test_what_was_measured_does_not_keep_the_base_in_memory() -> None:
    base = pegbox.load(wide_folder("llama", "causal"))
    gone = weakref.ref(base)
    estimate(base, task_of(), "lora", rows_of(40))
    del base
    gc.collect()
    assert gone() is None


def test_nothing_changes_on_the_base_and_no_random_number_is_drawn(estimator: Estimator) -> None:
    base = tiny_base("llama")
    before, state = checksum(base.model), torch.random.get_rng_state()
    estimator.costs("full")
    Calibration.measured(base, base.prepare(task_of()), [10] * 20, rows=20, batch_size=4, seconds=0.5)
    assert checksum(base.model) == before
    assert not any(value.requires_grad or value.grad is not None for value in base.model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


# What cannot be


@pytest.mark.usefixtures("measured")
def test_a_method_that_cannot_work_says_why() -> None:
    base = tiny_base("bert", "encoder")
    found = Estimator(base, task_of(), rows_of(40)).costs("zero-shot")
    assert not found.feasible
    assert found.reason.startswith("zero-shot cannot work on an encoder without an output layer (use closed")
    assert (found.seconds, found.memory, found.flops, found.parameters) == (None, None, None, None)


def test_options_that_do_not_fit_the_base_say_why(estimator: Estimator) -> None:
    found = estimator.costs(build("lora", {"layers": 9}))
    assert not found.feasible
    assert "layers is 9, and the model has 2 layers" in found.reason


def test_no_rows_and_unknown_methods_are_errors(estimator: Estimator) -> None:
    with pytest.raises(InputError, match="there are no rows to estimate for"):
        estimate(tiny_base("llama"), task_of(), "lora")
    with pytest.raises(InputError, match="there are no rows to estimate for"):
        Estimator(tiny_base("llama"), task_of(), rows_of(4).select([]))
    with pytest.raises(UsageError, match="there is no method 'lorra'"):
        estimator.costs("lorra")


def test_wrong_training_settings_are_an_error_and_no_reason() -> None:
    with pytest.raises(UsageError, match="batch_size is 0"):
        Estimator(tiny_base("llama"), task_of(), rows_of(40), training=Training(batch_size=0))


# 4 bits


def test_4_bits_need_a_wide_enough_model(estimator: Estimator) -> None:
    pytest.importorskip("bitsandbytes")
    found = estimator.costs("qlora")  # the tiny model is 32 wide, and blocks are 64
    assert not found.feasible
    assert "no linear layer has a multiple of 64 inputs" in found.reason


def test_a_base_in_4_bits_is_smaller_and_unpacking_takes_time() -> None:
    pytest.importorskip("bitsandbytes")
    base = pegbox.load(wide_folder("llama", "causal"))
    packed = Packed.measured(base, bf16=False)
    assert packed.weights == sum(layer.weight.numel() for layer in packable(base).values())
    asked = Asked.of(base, base.prepare(task_of()), build("qlora"))
    plain, small = (Case(MEASURED, base, asked, LENGTHS, 100, 16, part) for part in (None, packed))
    assert plain.trained(Training()).seconds <= small.trained(Training()).seconds
    assert small.loaded > small.base > plain.base - weights_bytes(base.model)


@pytest.mark.usefixtures("measured")
def test_without_bitsandbytes_4_bits_are_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "bitsandbytes" else 1)
    base = pegbox.load(wide_folder("llama", "causal"))
    found = Estimator(base, task_of(), rows_of(40)).costs("qlora")
    assert not found.feasible
    assert "4-bit weights need bitsandbytes" in found.reason
