import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import pegbox
from pegbox.errors import UsageError
from pegbox.evaluation import Estimate
from pegbox.methods import LoRA
from pegbox.tuning import _seeds
from pegbox.tuning._seeds import mean_interval, seed_folder
from training_toy import quiet
from tuning_toy import base_of, rows_of, task_of

QUICK = pegbox.Training(epochs=2, precision="float32", batch_size=8)
ROWS = rows_of(48)


def several(folder: Path | None = None, **options: object) -> pegbox.Seeds:
    options = {"seeds": (3, 1), "say": quiet, "training": QUICK, **options}
    return pegbox.fit_seeds(base_of("llama"), task_of(), LoRA(), rows=ROWS, folder=folder, **options)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pegbox.Seeds, Path]:
    folder = tmp_path_factory.mktemp("seeds")
    return several(folder), folder


def test_each_is_the_fit_of_its_seed(fitted: tuple[pegbox.Seeds, Path]) -> None:
    seeds, _ = fitted
    assert seeds.seeds == (3, 1)
    alone = pegbox.fit(base_of("llama"), task_of(), LoRA(), rows=ROWS, training=QUICK, seed=1, say=quiet)
    probe = rows_of(9, seed=5)
    assert np.array_equal(seeds.tuned[1].probabilities(probe), alone.probabilities(probe))
    assert not np.array_equal(seeds.tuned[0].probabilities(probe), alone.probabilities(probe))


def test_scores_of_each_and_their_mean(fitted: tuple[pegbox.Seeds, Path]) -> None:
    seeds, _ = fitted
    test = rows_of(40, seed=7)
    scores = seeds.evaluate(test, resamples=5)
    assert {"accuracy", "nll", "ece", "macro_f1"} <= scores.metrics.keys()
    each = [tuned.evaluate(test, resamples=5).metrics["nll"].value for tuned in seeds.tuned]
    assert [part.metrics["nll"].value for part in scores.scores] == each
    nll = scores.metrics["nll"]
    assert nll.value == pytest.approx(sum(each) / 2)
    # Two values: s / sqrt(2) is half their distance; t(0.975, 1) = 12.706 (tables of Student's t).
    assert nll.high - nll.value == pytest.approx(12.7062 * abs(each[0] - each[1]) / 2, rel=1e-4)
    stored = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert stored["seeds"] == [3, 1]
    assert stored["metrics"]["nll"]["value"] == nll.value
    assert [part["scores"]["metrics"]["nll"]["value"] for part in stored["each"]] == each
    assert str(scores).startswith("mean over 2 seeds, with the 95 % t-interval\naccuracy ")


def test_finished_seeds_are_not_trained_again(
    fitted: tuple[pegbox.Seeds, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, folder = fitted
    assert {path.name for path in folder.iterdir()} == {"seed-1", "seed-3"}
    monkeypatch.setattr("pegbox.training._engine.Engine.training_step", None)
    again = several(folder, resume=True)
    probe = rows_of(9, seed=5)
    for first, second in zip(seeds.tuned, again.tuned, strict=True):
        assert np.array_equal(first.probabilities(probe), second.probabilities(probe))
    with pytest.raises(TypeError):  # a third seed is trained, which it cannot be here
        several(folder, resume=True, seeds=(3, 1, 2))


def test_a_stopped_seed_goes_on_where_it_was(fitted: tuple[pegbox.Seeds, Path], tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    def stop(line: str) -> None:
        if line.startswith("seed 1"):
            raise Stop

    with pytest.raises(Stop):
        several(tmp_path, say=stop)
    assert seed_folder(tmp_path, 3).is_dir()
    lines: list[str] = []
    found = several(tmp_path, resume=True, say=lines.append)
    assert "seed 1 (2 of 2)" in lines
    probe = rows_of(9, seed=5)
    assert np.array_equal(found.tuned[1].probabilities(probe), fitted[0].tuned[1].probabilities(probe))


def test_the_typical_one_has_the_median_validation_loss(
    fitted: tuple[pegbox.Seeds, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = fitted[0].tuned[:1] * 5
    five = pegbox.Seeds((0, 1, 2, 3, 4), tuple(object() for _ in tuned))  # type: ignore[arg-type]
    losses = dict(zip(five.tuned, (0.9, 0.2, 0.5, 0.7, 0.4), strict=True))
    monkeypatch.setattr(_seeds, "_valid_loss", losses.get)
    assert five.typical is five.tuned[2]
    assert pegbox.Seeds((0, 1), five.tuned[:2]).typical is five.tuned[1], "the better of two"
    monkeypatch.setattr(_seeds, "_valid_loss", lambda _: None)
    assert five.typical is five.tuned[0]


def test_methods_without_gradients_have_seeds_too() -> None:
    seeds = pegbox.fit_seeds(base_of("llama"), task_of(), "few-shot", rows=ROWS, seeds=range(3), say=quiet)
    scores = seeds.evaluate(rows_of(20, seed=7), resamples=5)
    assert scores.seeds == (0, 1, 2)
    assert scores.metrics["nll"].low < scores.metrics["nll"].value < scores.metrics["nll"].high
    assert seeds.typical is seeds.tuned[0]


def test_the_interval_is_that_of_scipy() -> None:
    values = [0.81, 0.84, 0.79, 0.9]
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert mean_interval([0.5]) == Estimate(0.5, math.nan, math.nan)
    assert math.isnan(mean_interval([0.5, math.nan]).value)


def test_wrong_seeds() -> None:
    with pytest.raises(UsageError, match="there are no seeds"):
        several(seeds=())
    with pytest.raises(UsageError, match=r"a seed is given twice \(seeds \[1, 2, 1\]\)"):
        several(seeds=(1, 2, 1))
    with pytest.raises(UsageError, match="fit_seeds takes no seed"):
        several(seed=3)
