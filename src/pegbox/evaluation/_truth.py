from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._calibration import MassError, calibrated_errors
from pegbox.evaluation._estimate import Estimate, Floats, basic_interval, percentile_interval
from pegbox.evaluation._inputs import read_gold, read_pair
from pegbox.evaluation._json import plain, read_estimate, reading
from pegbox.evaluation._metrics import BINS, EPSILON

FORMAT = "pegbox.truth/1"


@dataclass(frozen=True)
class TruthScores:
    """Probabilities against the true ones, which only a made-up world tells.

    Args:
        rows: Rows scored.
        metrics: ``accuracy`` that is to be expected, and the ``best`` that any answer could have; ``error``,
            the mean over rows of how far p(predicted) lies from the true one; ``bias``, the same with its
            sign, above zero for over-confidence; ``binned``, the calibration error in bins of equally many
            rows with true probabilities in place of labels; ``ece``, the same bins with the labels drawn;
            ``nll`` that is to be expected, ``entropy`` of the truth, and ``kl``, their difference.
    """

    rows: int
    metrics: dict[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        return {"format": FORMAT, **plain(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TruthScores:
        """Read what `to_json` wrote.

        Raises:
            InputError: Not that format, or a part is missing.
        """
        with reading(values, FORMAT, "a file of scores against truth", "the scores"):
            metrics = {name: read_estimate(part) for name, part in values["metrics"].items()}
            return cls(values["rows"], metrics)

    def __str__(self) -> str:
        lines = [f"{'rows':<10} {self.rows:,}"]
        return "\n".join(lines + [f"{name:<10} {estimate}" for name, estimate in self.metrics.items()])


def score_truth(
    probabilities: ArrayLike, truth: ArrayLike, gold: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> TruthScores:
    """Measure probabilities against the true probabilities of the labels, with 95 % bootstrap intervals.

    A calibration error from labels asks whether rows of like confidence are right as often as they claim. The
    true one asks it of each row, and knows the answer: row errors of both signs do not cancel within a bin.
    So ``binned`` is at most ``error``, and ``ece`` differs from ``binned`` by the noise of the labels alone.

    Intervals resample rows. Those of ``ece`` and ``binned`` are the basic ones, see `basic_interval`; where
    the truth is known there is no noise of labels to make allowance for.

    Args:
        probabilities: The model's, ``(rows, labels)``, rows summing to one.
        truth: The true ones on the same rows, likewise.
        gold: Labels drawn from ``truth``, as indices ``(rows,)``.
        resamples: Number of bootstrap resamples.
        seed: Their seed.

    Raises:
        InputError: Arrays that cannot be scored or do not belong together.
    """
    table, exact = read_pair(probabilities, truth, ("probabilities", "truth"))
    answers = read_gold(gold, *table.shape)
    rows = np.arange(len(table))
    predicted, confidence = table.argmax(axis=1), table.max(axis=1)
    means = _per_row(table, exact, predicted, confidence)
    values = np.column_stack(list(means.values()))
    samples = bootstrap(lambda w: w @ values / len(rows), len(rows), resamples=resamples, seed=seed)
    metrics = {
        name: percentile_interval(float(column.mean()), draws)
        for name, column, draws in zip(means, values.T, samples.T, strict=True)
    }
    noise = calibrated_errors(confidence, "mass", bins=BINS, resamples=resamples, seed=seed)
    for name, right, made in (
        ("binned", exact[rows, predicted], np.zeros(1)),
        ("ece", (predicted == answers).astype(np.float64), noise),
    ):
        error = MassError(confidence, right, BINS)
        draws = bootstrap(error, len(rows), resamples=resamples, seed=seed)
        metrics[name] = basic_interval(float(error(np.ones((1, len(rows))))[0]), draws, made)
    return TruthScores(len(rows), {name: metrics[name] for name in _ORDER})


_ORDER = ("accuracy", "best", "error", "bias", "binned", "ece", "nll", "entropy", "kl")


def _per_row(table: Floats, exact: Floats, predicted: Any, confidence: Floats) -> dict[str, Floats]:
    """What is a mean over rows, (rows,) by name."""
    own = exact[np.arange(len(table)), predicted]
    nll = -(exact * np.log(np.maximum(table, EPSILON))).sum(axis=1)
    entropy = -(exact * np.log(np.maximum(exact, EPSILON))).sum(axis=1)
    return {
        "accuracy": own,
        "best": exact.max(axis=1),
        "error": np.abs(confidence - own),
        "bias": confidence - own,
        "nll": nll,
        "entropy": entropy,
        "kl": nll - entropy,
    }
