"""One system under several seeds, and two such systems: what rows and seeds together leave uncertain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from pegbox.errors import InputError, UsageError, nearest
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._calibration import calibrated_errors
from pegbox.evaluation._estimate import Estimate, Floats, basic_interval, percentile_interval, wilson
from pegbox.evaluation._inputs import read_gold, read_probabilities
from pegbox.evaluation._metrics import BINS, Answers, Replicates, point_metrics
from pegbox.evaluation._paired import Paired, discordant, permutation
from pegbox.evaluation._tags import tag_counts, tag_ratios

_SHARES = ("accuracy", "macro_f1", "precision", "recall", "f1", "auroc")
# Between what a metric lies, whatever is resampled.
_RANGES = {**dict.fromkeys(_SHARES, (0.0, 1.0)), "brier": (0.0, 2.0), "nll": (0.0, math.inf)}


@dataclass(frozen=True, eq=False)
class Sample:
    """One run's answers on some rows, ready to be resampled.

    Args:
        rows: Number of rows.
        values: Each metric on all rows.
        statistic: Maps weights ``(chunk, rows)`` to the metrics ``(chunk, metrics)``, ordered as ``values``.
        per_row: What each row adds to a metric, ``(rows,)`` with the metric as its mean, where there is that.
        means: Metrics that are the weighted mean of those parts, which is quick to resample.
        calibrated: Draws calibration errors of a perfectly calibrated run by number and seed, where there are
            probabilities.
    """

    rows: int
    values: Mapping[str, float]
    statistic: Callable[[Floats], Floats] = field(repr=False)
    per_row: Mapping[str, Floats] = field(repr=False, default_factory=dict)
    means: frozenset[str] = frozenset()
    calibrated: Callable[[int, int], Floats] | None = field(default=None, repr=False)

    def alone(self, metric: str) -> Callable[[Floats], Floats]:
        """Maps weights ``(chunk, rows)`` to one metric ``(chunk, 1)``."""
        if metric in self.means:
            parts = self.per_row[metric][:, None]
            return lambda weights: weights @ parts / weights.shape[1]
        place = list(self.values).index(metric)
        return lambda weights: self.statistic(weights)[:, [place]]


def class_sample(probabilities: ArrayLike, gold: ArrayLike) -> Sample:
    """Make the sample of a classifier's probabilities.

    What a row adds to macro-F1 is its influence on it, as in `tag_sample`, averaged over the labels that
    occur.

    Args:
        probabilities: ``(rows, labels)``, rows summing to one.
        gold: Gold label indices ``(rows,)``.

    Raises:
        InputError: Arrays that cannot be scored.
    """
    table = read_probabilities(probabilities)
    answers = Answers(table, read_gold(gold, *table.shape))
    replicates = Replicates(answers)
    values = point_metrics(answers)
    columns = [replicates.columns.index(name) for name in values]

    def calibrated(resamples: int, seed: int) -> Floats:
        return calibrated_errors(answers.confidence, "mass", bins=BINS, resamples=resamples, seed=seed)

    means = {"accuracy": answers.correct, "nll": answers.nll, "brier": answers.brier}
    return Sample(
        rows=len(table),
        values=values,
        statistic=lambda weights: replicates(weights)[:, columns],
        per_row={**means, "macro_f1": _parts_of_macro_f1(answers)},
        means=frozenset(means),
        calibrated=calibrated,
    )


def tag_sample(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> Sample:
    """Make the sample of a tagger's BIO tags: precision, recall and F1 over all entities.

    What a sentence adds to F1 = 2 hits / (found + wanted) is its influence on it: with n sentences,
    F1 + n (2 hits_i - F1 (found_i + wanted_i)) / (found + wanted), whose mean is F1.

    Raises:
        InputError: No sentences, or predictions of another length.
    """
    hits, found, wanted = tag_counts(predicted, gold)
    ones = np.ones((1, len(gold)))

    def statistic(weights: Floats) -> Floats:
        return tag_ratios(*(weights @ part for part in (hits, found, wanted)))

    values = dict(zip(("precision", "recall", "f1"), map(float, statistic(ones)[0]), strict=True))
    total = float((found + wanted).sum())
    per_row = {}
    if total:
        f1 = values["f1"]
        per_row["f1"] = f1 + len(gold) * (2 * hits - f1 * (found + wanted)) / total
    return Sample(len(gold), values, statistic, per_row)


def several(runs: Sequence[Sample], *, resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Mean of each metric over runs under different seeds, with a 95 % interval over rows and seeds.

    Rows are drawn with replacement, the same for all runs, and so are the runs (Owen, The pigeonhole
    bootstrap, 2007). Drawing from n runs shows only (n - 1) / n of their variance, so the part that the runs
    add is stretched by sqrt(n / (n - 1)), and cut where the metric ends. A single run has the interval over
    rows alone.

    Args:
        runs: Samples of the same rows and metrics, at least one.
        resamples: Number of resamples.
        seed: Their seed.

    Raises:
        InputError: No runs, or runs on different numbers of rows.
    """
    samples = _replicates(runs, [run.statistic for run in runs], resamples, seed)
    found = {}
    for place, name in enumerate(runs[0].values):
        value = float(np.mean([run.values[name] for run in runs]))
        found[name] = _interval(name, value, samples[:, place], runs, seed)
    return found


def compare_several(
    a: Sequence[Sample],
    b: Sequence[Sample],
    *,
    metric: str = "accuracy",
    resamples: int = 2000,
    seed: int = 0,
) -> Paired:
    """Test whether two systems, each under one seed or several, differ on the same rows.

    The difference is that of the means over each system's runs. Its interval comes from resamples of the
    rows, the same for both, and of each system's runs, as in `several`; where no resample of the accuracy
    differs from another, from Wilson intervals as in `compare`. The p-value is the larger of two:
    from these resamples, 2 min(1 + those with a difference of at most 0, 1 + those of at least 0) /
    (1 + resamples), which knows of the seeds, but is too small where few rows differ; and, for metrics that
    are sums over rows, from random signs of the rows' differences (see `compare`), which is exact for the
    rows and knows nothing of the seeds.

    Args:
        a: Runs of the first system.
        b: Runs of the second, on the same rows.
        metric: One of the samples' metrics.
        resamples: Number of resamples.
        seed: Their seed.

    Raises:
        InputError: No runs, or runs on different numbers of rows.
        UsageError: A metric that the samples lack.
    """
    names = list(a[0].values) if a else []
    if metric not in names:
        raise UsageError(
            f"no paired test for metric '{metric}'", expected=", ".join(names), fix=nearest(metric, names)
        )
    # Those seeds differ, so that the runs of both are drawn independently; the rows are drawn by one seed.
    left, right = (
        _replicates(part, [run.alone(metric) for run in part], resamples, seed, runs_seed)[:, 0]
        for part, runs_seed in ((a, seed + 1), (b, seed + 2))
    )
    if a[0].rows != b[0].rows:
        raise _unlike(a[0].rows, b[0].rows)
    first, second = (float(np.mean([run.values[metric] for run in part])) for part in (a, b))
    gaps = left - right
    gaps = gaps[~np.isnan(gaps)]
    tails = [(gaps <= 0).sum(), (gaps >= 0).sum()]
    p = min(1.0, 2 * (1 + int(min(tails))) / (1 + len(gaps)))
    p = max(p, _by_signs(a, b, metric, resamples, seed))
    interval = percentile_interval(first - second, gaps)
    if metric == "accuracy" and interval.zero_width:
        interval = discordant(_row_gaps(a, b, metric))
    return Paired(metric, first, second, interval, p, "bootstrap of rows and seeds, signs of rows", a[0].rows)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of tests that are looked at together, in the order given.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _by_signs(a: Sequence[Sample], b: Sequence[Sample], metric: str, resamples: int, seed: int) -> float:
    """p-value of the rows' differences under random signs; 0 where the metric has no parts by row."""
    if not all(metric in run.per_row for run in (*a, *b)):
        return 0.0
    return permutation(_row_gaps(a, b, metric), resamples, seed)


def _row_gaps(a: Sequence[Sample], b: Sequence[Sample], metric: str) -> Floats:
    """Differences of the rows' parts of a metric, means over each system's runs, (rows,)."""
    left, right = (np.mean([run.per_row[metric] for run in part], axis=0) for part in (a, b))
    found: Floats = left - right
    return found


def _parts_of_macro_f1(answers: Answers) -> Floats:
    """What each row adds to macro-F1, (rows,) with it as their mean."""
    rows, labels = answers.probabilities.shape
    gold, predicted = answers.gold, answers.predicted
    counts = np.bincount(gold, minlength=labels) + np.bincount(predicted, minlength=labels)
    hits = np.bincount(gold[gold == predicted], minlength=labels)
    known = counts > 0
    f1 = np.divide(2 * hits, counts, out=np.zeros(labels), where=known)
    # A row counts for its gold label and for the one it was given.
    share = np.divide(rows, counts, out=np.zeros(labels), where=known)
    right = 2 * answers.correct * share[gold]
    moved = right - (f1 * share)[gold] - (f1 * share)[predicted]
    found: Floats = f1[known].mean() + moved / known.sum()
    return found


def _replicates(
    runs: Sequence[Sample],
    statistics: Sequence[Callable[[Floats], Floats]],
    resamples: int,
    seed: int,
    runs_seed: int = 0,
) -> Floats:
    """Metrics of resampled rows, averaged over resampled runs, (resamples, metrics)."""
    if not runs:
        raise InputError("there are no runs to compare", expected="at least one")
    rows = runs[0].rows
    for run in runs:
        if run.rows != rows:
            raise _unlike(rows, run.rows)
    # One seed draws the same rows for every run.
    table = np.stack([bootstrap(one, rows, resamples=resamples, seed=seed) for one in statistics])
    if len(runs) == 1:
        return table[0]
    generator = np.random.default_rng([runs_seed, len(runs)])
    drawn = generator.integers(len(runs), size=(resamples, len(runs)))
    shares = np.stack([(drawn == run).mean(1) for run in range(len(runs))])
    mean = table.mean(0)
    moved = np.einsum("nr,nrm->rm", shares, table) - mean
    return mean + math.sqrt(len(runs) / (len(runs) - 1)) * moved


def _interval(name: str, value: float, samples: Floats, runs: Sequence[Sample], seed: int) -> Estimate:
    rows = runs[0].rows
    if name in ("ece", "ece_width") and rows > 1 and runs[0].calibrated is not None:
        noise = np.mean([run.calibrated(len(samples), seed) for run in runs if run.calibrated], axis=0)
        return basic_interval(value, samples, noise)
    found = percentile_interval(value, samples)
    if name == "accuracy" and found.zero_width:
        return Estimate(value, *wilson(value * rows, rows))
    # The stretched part that the runs add can reach beyond what the metric can be.
    least, most = _RANGES.get(name, (-math.inf, math.inf))
    return Estimate(value, max(found.low, least), min(found.high, most))


def _unlike(first: int, second: int) -> InputError:
    return InputError(f"the runs have {first} and {second} rows", expected="the same rows in the same order")
