"""Learning curves: the fit against known laws, the intervals' parts, and equality with a real fit."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import pegbox
from pegbox.comparison import CurvePoint, LearningCurve, PowerLaw, learning_curve
from pegbox.comparison._frozen import Frozen
from pegbox.comparison._power_law import fit_power_laws, power_law
from pegbox.comparison._spread import FALLS, mean_losses, resampled, spread
from pegbox.comparison._subsets import checked_sizes, draws, measure
from pegbox.data import Examples, text_key
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.evaluation import Estimate
from pegbox.methods import ClosedForm
from pegbox.tasks import Choose, Tag
from tuning_toy import LABELS, base_of, fit, hush, rows_of, task_of

SIZES = (16, 23, 32, 45, 64, 91, 128, 181, 256)


def law(low: float, high: float, value: float = 0.0, *, rate: float = 1.0, spread: float = 0.0) -> PowerLaw:
    """A law by which 200 labels take off ``value`` over 100, with resamples from ``low`` to ``high``."""
    scales = [100 * 2 * part for part in np.linspace(low, high, 201)]
    replicates = tuple((0.1, scale, rate) for scale in scales)
    return PowerLaw(((0.1, 100 * 2 * value, rate),), spread, 9, replicates)


def curve_of(error: PowerLaw, rows: int = 100) -> LearningCurve:
    points = tuple(CurvePoint(n, Estimate(0.8, 0.7, 0.9), Estimate(0.5, 0.4, 0.6)) for n in (25, 50, 100))
    return LearningCurve("toy.csv", "toy", rows, 50, None, 10, 0, points, error, error, 1.5)


@pytest.mark.parametrize(("limit", "scale", "rate"), [(0.1, 1.0, 0.5), (0.0, 0.6, 0.2), (0.15, 0.0, 1.0)])
def test_a_known_law_is_found(limit: float, scale: float, rate: float) -> None:
    sizes = np.array(SIZES, dtype=np.float64)
    found = fit_power_laws(sizes, (limit + scale * sizes**-rate)[None], np.ones(len(sizes)))[0]
    predicted = found[0] + found[1] * 512 ** -found[2]
    # The rates tried lie 6 % apart, which moves the extrapolation by far less than a thousandth.
    assert abs(predicted - (limit + scale * 512**-rate)) < 1e-3


def test_a_curve_that_rises_is_flat_and_limits_stay_above_zero() -> None:
    sizes = np.array(SIZES, dtype=np.float64)
    rising, straight = 0.3 + sizes / 1000, 0.5 - 0.08 * np.log(sizes)
    found = fit_power_laws(sizes, np.stack([rising, straight]), np.ones(len(sizes)))
    assert found[0, 1] == 0.0
    assert found[0, 0] == pytest.approx(rising.mean())
    assert (found[:, 0] >= 0).all()


def test_a_curve_that_falls_late_is_not_taken_for_flat() -> None:
    """Nothing is learnt from less than 90 labels: a law of all sizes would foresee nothing."""
    sizes = np.array(SIZES, dtype=np.float64)
    losses = np.where(sizes < 90, 0.3, 0.3 * (sizes / 90) ** -0.4)
    dice = np.random.default_rng(0)
    table = losses[None, :, None] + dice.normal(scale=0.02, size=(10, 1, 200))
    found = power_law(SIZES, table, 10_000, resamples=300, seed=0).change(256, 512)
    true = 0.3 * ((512 / 90) ** -0.4 - (256 / 90) ** -0.4)
    _, scale, rate = fit_power_laws(sizes, losses[None], np.ones(len(sizes)))[0]
    whole = scale * (512**-rate - 256**-rate)
    assert abs(found.value - true) < abs(whole - true)
    # No size lies so far beyond the bend that the fits from there on would agree; luck has no part here.
    assert found.low < 0.95 * true


def test_resamples_vary_as_rows_and_repeats_do() -> None:
    dice = np.random.default_rng(0)
    rows, repeats = 400, 10
    table = np.broadcast_to(dice.normal(size=(1, 1, rows)), (repeats, 3, rows)).copy()
    # All repeats alike: what is left is the rows' share, sd / sqrt(rows).
    found = resampled(table, resamples=2000, seed=1)
    assert np.allclose(found.std(axis=0), table[0, 0].std() / rows**0.5, rtol=0.1)
    assert np.allclose(mean_losses(table), table.mean(axis=(0, 2)))
    # All rows alike: what is left is the repeats' share.
    table = np.broadcast_to(dice.normal(size=(repeats, 1, 1)), (repeats, 3, rows)).copy()
    found = resampled(table, resamples=2000, seed=1)
    assert np.allclose(found.std(axis=0), table[:, 0, 0].std() / repeats**0.5, rtol=0.1)


def test_rows_that_were_not_held_out_do_not_count() -> None:
    table = np.full((5, 2, 10), np.nan)
    for fold in range(5):
        table[fold, :, 2 * fold : 2 * fold + 2] = fold
    assert np.allclose(mean_losses(table), 2.0)
    found = resampled(table, resamples=500, seed=0)
    assert np.isfinite(found).all()
    assert abs(found.mean() - 2.0) < 0.1


@pytest.mark.parametrize("folds", [False, True])
def test_the_luck_of_a_draw_is_told_from_the_noise_of_rows(folds: bool) -> None:
    """Losses of a known law, with known luck of each subset and large noise of each row."""
    luck, rows, found = 3.0, 500, []
    for seed in range(20):
        dice = np.random.default_rng(seed)
        own = np.stack([dice.normal(scale=luck / n**FALLS, size=10) for n in SIZES], axis=1)
        table = own[:, :, None] + dice.normal(scale=0.5, size=(10, len(SIZES), rows))
        if folds:
            for repeat in range(10):
                out = np.arange(rows) % 5 != repeat % 5
                table[repeat, :, out] = np.nan
        found.append(spread(SIZES, table, 10_000) ** 2)
    # Each change holds the luck of both sizes: luck^2 (1 + 2^-1.5). Twenty curves of about five sizes and
    # nine degrees of freedom each leave some 10 % of the variance open, and rows that differ more.
    assert np.mean(found) ** 0.5 == pytest.approx(luck * (1 + 2**-1.5) ** 0.5, rel=0.2 if not folds else 0.35)


def test_intervals_hold_fit_and_luck() -> None:
    narrow, wide = law(0.02, 0.02, 0.02), law(0.02, 0.02, 0.02, spread=1.0)
    assert narrow.at(100).low == narrow.at(100).high == pytest.approx(0.14)
    found = wide.at(100)
    # Student's 97.5 % quantile with 9 degrees of freedom is 2.26; 201 draws know it to a tenth or so.
    assert found.high - found.value == pytest.approx(2.26 * 0.01**FALLS, rel=0.35)
    assert wide.at(100) == wide.at(100)
    assert wide.at(400).high - wide.at(400).value < found.high - found.value


def test_gain_and_accuracy_come_from_the_law() -> None:
    curve = curve_of(law(0.01, 0.03, 0.02))
    assert curve.gain().value == pytest.approx(0.02)  # from 0.04 to 0.02 over the limit
    assert curve.at(100).value == pytest.approx(1 - 0.14)
    assert curve.at(200).value - curve.at(100).value == pytest.approx(curve.gain().value)
    assert curve.gain(400).value > curve.gain().value
    assert curve.gain(metric="nll").value == pytest.approx(0.02)
    assert curve.at(100, "nll").value == pytest.approx(0.14)


def test_sentences_claim_no_more_than_the_interval() -> None:
    sure = curve_of(law(0.05, 0.07, 0.06))
    assert sure.sentence() == "twice the labels (200) would bring about +6.0 ± 1.0 points of accuracy"
    unsure = curve_of(law(0.02, 0.04, 0.03, spread=3.0))
    assert unsure.gain().low < 0
    assert unsure.sentence().endswith("points of accuracy, which cannot be told from nothing")
    flat = curve_of(law(0.0, 0.004, 0.002))
    assert flat.flat
    assert flat.sentence().endswith("points of accuracy: the curve is flat")


@pytest.mark.parametrize(
    ("more", "tuned", "said"),
    [
        ((0.05, 0.07, 0.06), (0.01, -0.01, 0.03), "Label more."),
        ((-0.01, 0.03, 0.01), (0.05, 0.03, 0.07), "Tune more."),
        ((0.001, 0.005, 0.003), (0.05, 0.03, 0.07), "Tune more."),  # sure, and too little to count
        ((0.05, 0.07, 0.06), (0.02, 0.01, 0.03), "Label more, although tuning helps too."),
        ((0.02, 0.03, 0.025), (0.09, 0.08, 0.10), "Tune more, although labels help too."),
        ((0.04, 0.06, 0.05), (0.05, 0.03, 0.07), "Both help, and about equally."),
        ((-0.01, 0.03, 0.01), (0.01, -0.01, 0.03), "Neither more labels nor more tuning is sure to help."),
    ],
)
def test_label_more_or_tune_more(
    more: tuple[float, float, float], tuned: tuple[float, float, float], said: str
) -> None:
    advice = curve_of(law(*more)).advice(Estimate(*tuned), "lora")
    assert advice.startswith(f"{said} Twice the labels (200) would bring about ")
    half = 100 * max(tuned[2] - tuned[0], tuned[0] - tuned[1])
    assert advice.endswith(f"lora brings {100 * tuned[0]:+.1f} ± {half:.1f} points over the closed form.")


def test_advice_without_a_tuned_method() -> None:
    assert curve_of(law(0.05, 0.07, 0.06)).advice().startswith("Labels still help. Twice the labels")
    assert curve_of(law(0.0, 0.004, 0.002)).advice().endswith("Try to tune more before labelling more.")
    unsure = curve_of(law(0.02, 0.04, 0.03, spread=3.0))
    assert unsure.advice().endswith("Try to tune more before labelling more.")


def test_the_largest_subset_equals_a_fit_to_all_rows() -> None:
    """Gemma caps its logits softly and Cohere scales them: neither may be forgotten."""
    for architecture in ("gemma2", "cohere", "llama"):
        base, rows, test = base_of(architecture), rows_of(24, 3), rows_of(18, 3, seed=9)
        task = task_of(3)
        frozen = Frozen.of(base, task, None, hush)
        known, asked = frozen.equations(rows), frozen.equations(test)
        found = measure(known, asked, draws(rows, len(test), 2, 0), (12, 24), frozen.finished)
        logits = fit(base, "closed-form", rows, 3).logits(test).double()
        own = -logits.log_softmax(1)[torch.arange(len(test)), asked.gold]
        assert np.allclose(found.nll[0, 1], own.numpy(), atol=1e-4)
        assert np.array_equal(found.error[0, 1], (logits.argmax(1) != asked.gold).double().numpy())
        assert np.array_equal(found.nll[0, 1], found.nll[1, 1])
        assert not np.array_equal(found.nll[0, 0], found.nll[1, 0])


def test_subsets_are_nested_and_never_scored_on() -> None:
    rows = rows_of(60, 3)
    for draw in draws(rows, None, 7, 0):
        assert not set(draw.order) & set(draw.held)
        assert set(draw.order) | set(draw.held) == set(range(60))
        labels = rows.labels or ()
        assert {labels[at] for at in draw.order[:3]} == set(LABELS[:3])
    held = [place for draw in draws(rows, None, 5, 0) for place in draw.held]
    assert sorted(held) == list(range(60))
    doubled = rows.select([*range(60), *range(60)])
    keys = [text_key(texts) for texts in doubled.texts]
    for draw in draws(doubled, None, 2, 0):
        assert not {keys[at] for at in draw.order} & {keys[at] for at in draw.held}


@pytest.mark.parametrize(
    ("architecture", "kind"), [("llama", "causal"), ("bert", "masked"), ("bert", "encoder")]
)
def test_a_curve_of_each_kind_of_model(architecture: str, kind: str) -> None:
    task, rows = task_of(2), rows_of(60)
    found = learning_curve(base_of(architecture, kind), task, rows=rows, repeats=4, resamples=50, say=hush)
    assert [point.labels for point in found.points] == [8, 12, 17, 24, 34, 48]
    assert (found.rows, found.tested, found.test_source, found.repeats) == (60, 60, None, 4)
    for point in found.points:
        assert point.accuracy.low <= point.accuracy.value <= point.accuracy.high
        assert point.nll.low <= point.nll.value <= point.nll.high
    assert LearningCurve.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    assert "twice the labels (120)" in found.sentence()


def test_a_curve_is_the_same_again_and_scores_on_given_rows() -> None:
    base, task, rows, test = base_of("llama"), task_of(3), rows_of(48, 3), rows_of(30, 3, seed=3)
    first, again = (
        learning_curve(base, task, rows=rows, test=test, repeats=3, resamples=30, seed=4, say=hush)
        for _ in range(2)
    )
    assert replace(first, seconds=0.0) == replace(again, seconds=0.0)
    assert (first.tested, first.test_source) == (30, "toy rows")
    assert first.points[-1].labels == 48
    other = learning_curve(base, task, rows=rows, test=test, repeats=3, resamples=30, seed=5, say=hush)
    assert other.points[0] != first.points[0]


def test_folds_of_a_single_row_leave_finite_numbers() -> None:
    """As when most labels have one text, which is in no fold."""
    dice = np.random.default_rng(0)
    table = np.full((2, len(SIZES), 2), np.nan)
    table[0, :, 0], table[1, :, 1] = dice.random((2, len(SIZES)))
    assert np.isfinite(spread(SIZES, table, 300))
    found = resampled(table, resamples=200, seed=0)
    # Two repeats and two rows are drawn so that they miss each other in one of eight cases.
    assert 150 < len(found) < 200
    assert np.isfinite(found).all()


def test_a_head_reads_the_plain_texts() -> None:
    task = replace(task_of(2), readout="head")
    found = learning_curve(base_of("llama"), task, rows=rows_of(40), repeats=2, resamples=20, say=hush)
    assert found.points[-1].labels == 32


def test_sizes_are_checked() -> None:
    assert checked_sizes(None, 256, 2, "x") == SIZES
    assert checked_sizes(None, 100_000, 2, "x")[-1] == 4096
    assert checked_sizes([4, 8, 16, 20], 20, 3, "x") == (4, 8, 16, 20)
    with pytest.raises(InputError, match=r"20 rows to learn from are too few(.|\n)*at least 23 for 2 labels"):
        checked_sizes(None, 20, 2, "x")
    for wrong in ([8, 8, 16, 20], [8, 16, 20], [2, 8, 16, 20], [8, 12, 16, 21]):
        with pytest.raises(UsageError, match="these are no sizes of a learning curve"):
            checked_sizes(wrong, 20, 3, "x")


def test_refusals_name_the_reason() -> None:
    base = base_of("llama")
    for task in (Choose(), Tag(types=("PER",))):
        with pytest.raises(CapabilityError, match="fits one output per label"):
            learning_curve(base, task, say=hush)
    with pytest.raises(InputError, match="no rows for a learning curve"):
        learning_curve(base, task_of(), say=hush)
    with pytest.raises(InputError, match="no training row has the label 'good'"):
        learning_curve(base, task_of(3), rows=rows_of(40), say=hush)
    with pytest.raises(UsageError, match="repeats is 1"):
        learning_curve(base, task_of(), rows=rows_of(40), repeats=1, say=hush)
    same = rows_of(4).select([0] * 20 + [1] * 20)
    with pytest.raises(InputError, match="none can be held out"):
        learning_curve(base, task_of(), rows=same, say=hush)
    with pytest.raises(InputError, match="not a learning curve"):
        LearningCurve.from_json({"format": "other"})
    with pytest.raises(InputError, match="lacks a part"):
        LearningCurve.from_json({"format": "pegbox.learning-curve/1"})


def test_more_rows_than_are_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.comparison._curve.MOST_ROWS", 40)
    said: list[str] = []
    found = learning_curve(
        base_of("llama"), task_of(), rows=rows_of(60), repeats=2, resamples=20, say=said.append
    )
    assert "learning curve: 40 of 60 rows are learnt from (seed 0)" in said
    assert found.rows == 60  # what twice the labels is counted from
    assert "(120)" in found.sentence()


def test_an_interval_of_a_law_that_holds_covers() -> None:
    """The whole chain on made-up losses: the true change lies in the interval about as often as it says."""
    hits = 0
    for seed in range(60):
        dice = np.random.default_rng(seed)
        sizes = np.array(SIZES, dtype=np.float64)
        lucky = (
            0.1
            + 1.2 * sizes**-0.7
            + np.stack([dice.normal(scale=0.2 / n**FALLS, size=10) for n in SIZES], axis=1)
        )
        table = lucky[:, :, None] + dice.normal(scale=0.3, size=(1, 1, 300))
        found = power_law(SIZES, table, 10_000, resamples=200, seed=seed).change(256, 512)
        true = 1.2 * (512**-0.7 - 256**-0.7) - dice.normal(scale=0.2 / 256**FALLS)
        hits += found.low <= true <= found.high
    # Of 60 intervals that hold it with 95 %, 52 or more do in 99 % of all cases (binomial).
    assert hits >= 52


@pytest.mark.slow
def test_doubling_the_labels_of_the_world_is_foreseen() -> None:
    """Fit on 128 reviews, foresee 256: ten draws of a held-back domain, scored by the true probabilities."""
    from pegbox.models.etude import world

    base, task = pegbox.load("etude"), task_of(template="{text} It was {answer}.")
    task = replace(task, labels=world.LABELS)
    made = world.reviews("hotels", rows=2860, seed=5)
    rows = Examples(
        "hotels", {"text": tuple(r.text for r in made)}, tuple(r.label for r in made), range_of(made)
    )
    truth = torch.tensor([[r.probabilities[label] for label in world.LABELS] for r in made[2560:]])
    frozen = Frozen.of(base, task, None, hush)
    every = frozen.equations(rows)
    asked = every.part(range(2560, 2860))

    def accuracy(places: range) -> float:
        logits = ClosedForm().solution(every.part(places)).logits(asked.features, asked.logits)
        return float(truth.gather(1, logits.argmax(1, keepdim=True)).mean())

    inside = 0
    for start in range(0, 2560, 256):
        mine = rows.select(range(start, start + 128))
        curve = learning_curve(base, task, rows=mine, resamples=200, say=hush)
        real = accuracy(range(start, start + 256)) - accuracy(range(start, start + 128))
        inside += curve.gain().low <= real <= curve.gain().high
    # Of 10 intervals that hold it with 95 %, 8 or more do in 98.8 % of all cases (binomial).
    assert inside >= 8


def range_of(rows: list[Any]) -> tuple[int, ...]:
    return tuple(range(1, len(rows) + 1))
