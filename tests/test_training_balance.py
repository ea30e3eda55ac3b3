from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_sample_weight

import pegbox
from pegbox.errors import UsageError
from pegbox.methods import LoRA
from pegbox.training import WEIGHTS, Settings, train
from pegbox.training._balance import class_weights, drawn
from pegbox.training._batches import Buckets
from pegbox.tuning._label_rows import LabelRows
from training_toy import Grouped, Rows, gradients, quiet, tiny_model

GROUPS = np.array([0] * 70 + [1] * 20 + [5] * 10)
LENGTHS = np.random.default_rng(0).integers(3, 200, size=100).tolist()
PLAIN = Settings(learning_rate=1e-3, batch_size=16, max_steps=1, gradient_clip=0, precision="float32")


def test_weights_are_those_of_scikit_learn_and_one_on_average() -> None:
    weights = class_weights(GROUPS)
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", GROUPS), rtol=1e-6)  # float32
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    sums = [weights[value == GROUPS].sum() for value in (0, 1, 5)]
    assert sums == pytest.approx([100 / 3] * 3, rel=1e-5)


@pytest.mark.parametrize(("batch", "parts"), [(16, 1), (4, 4), (1, 16)])
def test_the_gradient_is_that_of_the_loss_weighted_by_hand(tmp_path: Path, batch: int, parts: int) -> None:
    rows = Grouped(16)
    counts = Counter(rows.groups)
    assert counts[0] > 2 * counts[1] > 0
    settings = replace(PLAIN, batch_size=batch, accumulation=parts, balance="weights")
    with gradients() as seen:
        train(tiny_model(dropout=0), rows, settings=settings, folder=tmp_path, say=quiet)
    model = tiny_model(dropout=0)
    total = torch.zeros(())
    for row in range(16):
        loss, _ = rows.loss(model, rows.collate([row]))
        total = total + loss / counts[rows.groups[row]]
    (total / 2).backward()  # each class counts one half
    direct = [value.grad for value in model.parameters() if value.requires_grad]
    assert max(value.abs().max() for value in direct) > 1e-4
    for value, expected in zip(seen[0], direct, strict=True):
        # Only the order of float32 additions differs: entries are below 1, so errors are some 1e-8.
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=0)


def test_the_validation_loss_is_not_weighted(tmp_path: Path) -> None:
    rows = Grouped(32)
    settings = replace(PLAIN, learning_rate=1e-9, balance="weights")
    history = train(tiny_model(), rows, settings=settings, folder=tmp_path, valid=rows, say=quiet)
    with torch.no_grad():
        total, count = rows.loss(tiny_model().eval(), rows.collate(range(32)))
    assert history.best_valid_loss == pytest.approx(float(total / count), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_classes_are_drawn_equally_often(seed: int) -> None:
    rows = drawn(GROUPS, np.random.default_rng(seed))
    assert len(rows) == 100
    assert sorted(Counter(GROUPS[rows].tolist()).values()) == [33, 33, 34]
    times = Counter(rows.tolist())
    assert {times[row] for row in range(70)} == {0, 1}
    assert {times[row] for row in range(70, 90)} == {1, 2}
    assert {times[row] for row in range(90, 100)} in ({3, 4}, {3})


def test_buckets_with_classes_drawn_equally_often() -> None:
    buckets = Buckets(LENGTHS, 8, seed=0, groups=GROUPS)
    epochs = []
    for epoch in range(6):
        buckets.epoch = epoch
        epochs.append(list(buckets))
    assert all(len(batches) == len(buckets) == 13 for batches in epochs)
    for batches in epochs:
        counts = Counter(int(GROUPS[row]) for batch in batches for row in batch)
        assert sorted(counts.values()) == [33, 33, 34]
        cost = [len(batch) * max(LENGTHS[row] for row in batch) for batch in batches]
        assert cost[0] == max(cost)
        padded, plain = sum(cost), sum(LENGTHS[row] for batch in batches for row in batch)
        assert padded < 1.5 * plain  # blocks of three batches only; batches at random pad to 1.8
    seen = {row for batches in epochs for batch in batches for row in batch}
    assert len(seen) > 95, "what one epoch leaves out, others draw"
    again = Buckets(LENGTHS, 8, seed=0, groups=GROUPS)
    again.epoch = 4
    assert list(again) == epochs[4] != epochs[3]


def test_two_processes_share_the_drawn_rows() -> None:
    both = [list(Buckets(LENGTHS, 4, seed=0, groups=GROUPS, rank=rank, processes=2)) for rank in (0, 1)]
    rows = [row for part in both for batch in part for row in batch]
    assert sorted(Counter(GROUPS[rows].tolist()).values()) == [33, 33, 34]


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_rows_without_classes_cannot_be_balanced(tmp_path: Path, balance: str) -> None:
    settings = replace(PLAIN, balance=balance)
    with pytest.raises(UsageError, match=r"these rows have no classes to balance \(balance '"):
        train(tiny_model(), Rows(8), settings=settings, folder=tmp_path, say=quiet)


def test_a_resume_with_another_balance_is_refused(tmp_path: Path) -> None:
    train(tiny_model(), Grouped(16), settings=PLAIN, folder=tmp_path, say=quiet)
    settings = replace(PLAIN, balance="sampling")
    with pytest.raises(UsageError, match="balance was 'none', is 'sampling'"):
        train(tiny_model(), Grouped(16), settings=settings, folder=tmp_path, resume=True, say=quiet)


def label_rows() -> tuple[LabelRows, torch.nn.Module]:
    from pegbox.models import encode
    from tuning_toy import base_of, rows_of, task_of

    base, rows = base_of("llama"), rows_of(12)
    prompt = base.prepare(task_of())
    encoded = encode(base, prompt, rows, too_long="shorten", cache=None, say=quiet)
    gold = prompt.task.gold(rows)
    return LabelRows(base, prompt, encoded, gold), base.model


def test_label_rows_take_weights() -> None:
    rows, model = label_rows()
    assert list(rows.groups) == rows.collate(range(12))["gold"].tolist()
    weights = torch.linspace(0.2, 3.0, 12)
    singles = [rows.loss(model, rows.collate([row]))[0].detach() for row in range(12)]
    loss, count = rows.loss(model, {**rows.collate(range(12)), WEIGHTS: weights})
    assert float(count) == pytest.approx(float(weights.sum()))
    by_hand = sum(float(weight * single) for weight, single in zip(weights, singles, strict=True))
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)  # rows alone and padded ones: float32
    assert rows.loss(model, rows.collate(range(12)))[1] == 12


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_fit_balances(balance: str) -> None:
    from tuning_toy import base_of, rows_of, task_of

    rows = rows_of(40)
    gold = task_of().gold(rows)
    rare = rows.select([at for at, label in enumerate(gold) if label == 0 or at % 5 == 0])
    share = Counter(task_of().gold(rare))
    assert share[0] > 2 * share[1] > 0
    told = {}
    for name in ("none", balance):
        training = pegbox.Training(epochs=4, precision="float32", balance=name, patience=0)
        tuned = pegbox.fit(
            base_of("llama"), task_of(), LoRA(), rows=rare, valid=rare, training=training, say=quiet
        )
        told[name] = tuned.probabilities(rare)[:, 1].mean()
        if name == "weights":
            nll = tuned.evaluate(rare, resamples=2).metrics["nll"].value
            assert tuned.details["history"]["best_valid_loss"] == pytest.approx(nll, abs=1e-4)
    assert told[balance] > told["none"], "the rare label gets more probability"
