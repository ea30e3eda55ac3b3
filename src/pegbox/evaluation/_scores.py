import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pegbox.errors import UsageError
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._calibration import Reliability, Scheme, calibrated_errors, reliability
from pegbox.evaluation._estimate import Estimate, Floats, basic_interval, percentile_interval, wilson
from pegbox.evaluation._flips import Flips, flips
from pegbox.evaluation._inputs import read_gold, read_labels, read_probabilities
from pegbox.evaluation._metrics import BINS, Answers, Replicates, point_metrics


@dataclass(frozen=True)
class ClassScores:
    """How well one label is found.

    Args:
        precision: Share of the rows predicted as it that are it; undefined when never predicted.
        recall: Share of its rows that were found; undefined when it has none.
        f1: Harmonic mean of both; undefined when neither gold nor predicted.
        support: Gold rows.
    """

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


@dataclass(frozen=True)
class Scores:
    """Everything measured about one system on one set of rows.

    Args:
        rows: Rows scored.
        labels: Label names, in the order of the probability columns.
        metrics: accuracy, macro_f1, nll, brier, ece, ece_width and, for two labels, auroc (of the second).
        per_class: Scores of each label by name.
        confusion: Row counts; gold label down, predicted label across.
        reliability: Equal-mass bins of the predicted label's probability.
        flips: What changed from the base, when its answers were given.
        seconds: Wall-clock time of the run that is described.
    """

    rows: int
    labels: tuple[str, ...]
    metrics: dict[str, Estimate]
    per_class: dict[str, ClassScores]
    confusion: tuple[tuple[int, ...], ...]
    reliability: Reliability
    flips: Flips | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        from pegbox.evaluation._json import encode_scores

        return encode_scores(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: not that format, or a part is missing.
        """
        from pegbox.evaluation._json import decode_scores

        return cls(**decode_scores(values))

    def __str__(self) -> str:
        from pegbox.evaluation._text import scores_text

        return scores_text(self)


def score(
    probabilities: ArrayLike,
    gold: ArrayLike,
    labels: Sequence[str],
    *,
    base: ArrayLike | None = None,
    in_training: ArrayLike | None = None,
    distance: ArrayLike | None = None,
    numbers: Sequence[int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Measure a classifier's probabilities against gold labels, with 95 % bootstrap intervals.

    The predicted label is the most probable one, of equals the first. Zero probabilities are raised to
    1e-12 in nll. brier is the sum over labels (0 to 2). macro_f1 is the mean over the labels that occur in
    gold or predictions. Rows that sum to one within 1e-3 are divided by their sum.

    Intervals are percentiles over resampled rows; a resample in which a number is undefined is left out of
    its interval. ece and ece_width take the basic interval instead (see `basic_interval`). Where all
    resamples agree (accuracy 1.0) the bootstrap knows nothing and these stand in: Wilson for accuracy,
    precision, recall and, through tp / (tp + fp + fn), F1; MOVER over the labels for macro_f1; Wilson with
    the rows of the rarer class for an auroc of 0 or 1. With a single row, nll, brier
    and the calibration errors have none.

    Args:
        probabilities: ``(rows, labels)``, rows summing to one.
        gold: Gold label indices ``(rows,)``.
        labels: Label names in column order.
        base: Probabilities of the base on the same rows ``(rows, labels)``, for the flips.
        in_training: True for rows that were trained on ``(rows,)``, to split the flips.
        distance: Distance of each row to its nearest training row ``(rows,)``, to place the flips.
        numbers: What each row is called ``(rows,)``, for the flips; by default its index counted from 0.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        InputError: arrays that cannot be scored or do not belong together.
        UsageError: label names that do not fit, no resamples, or flip details without ``base``.
    """
    table = read_probabilities(probabilities)
    names = read_labels(labels, table.shape[1])
    answers = Answers(table, read_gold(gold, *table.shape))
    if base is None and not (in_training is None and distance is None and numbers is None):
        raise UsageError("in_training, distance and numbers describe flips, and no base was given",
                         fix="pass base=, the base's probabilities on the same rows")  # fmt: skip
    changed = None
    if base is not None:
        changed = flips(
            base, table, answers.gold, in_training=in_training, distance=distance, numbers=numbers
        )
    confusion = _confusion(answers)
    replicates = Replicates(answers)
    samples = bootstrap(replicates, len(table), resamples=resamples, seed=seed)
    columns = dict(zip(replicates.columns, samples.T, strict=True))
    per_class = _per_class(answers, confusion, columns)
    return Scores(
        rows=len(table),
        labels=names,
        metrics=_metrics(answers, columns, per_class, seed),
        per_class=dict(zip(names, per_class, strict=True)),
        confusion=tuple(tuple(int(count) for count in line) for line in confusion),
        reliability=reliability(table, answers.gold, bins=BINS),
        flips=changed,
    )


def _confusion(answers: Answers) -> NDArray[np.int64]:
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(answers.gold, answers.predicted, labels=np.arange(answers.probabilities.shape[1]))


def _per_class(
    answers: Answers, confusion: NDArray[np.int64], columns: dict[str | tuple[int, str], Floats]
) -> list[ClassScores]:
    from sklearn.metrics import precision_recall_fscore_support

    labels = range(len(confusion))
    points = precision_recall_fscore_support(
        answers.gold, answers.predicted, labels=list(labels), zero_division=np.nan
    )
    found = []
    for label in labels:
        hits, support = int(confusion[label, label]), int(confusion[label].sum())
        predicted = int(confusion[:, label].sum())
        trials = {"precision": predicted, "recall": support, "f1": support + predicted - hits}
        parts = {
            name: _proportion(float(points[place][label]), columns[label, name], hits, trials[name])
            for place, name in enumerate(trials)
        }
        parts["f1"] = _f1_interval(parts["f1"], columns[label, "f1"])
        found.append(ClassScores(**parts, support=support))
    return found


def _metrics(
    answers: Answers, columns: dict[str | tuple[int, str], Floats], per_class: list[ClassScores], seed: int
) -> dict[str, Estimate]:
    rows = len(answers.gold)
    metrics = {}
    for name, value in point_metrics(answers).items():
        samples = columns[name]
        if name == "accuracy":
            metrics[name] = _proportion(value, samples, answers.correct.sum(), rows)
        elif name == "macro_f1":
            metrics[name] = _macro(value, samples, [part.f1 for part in per_class])
        elif name == "auroc":
            metrics[name] = _auroc(value, samples, int(min(answers.gold.sum(), rows - answers.gold.sum())))
        elif rows == 1:
            metrics[name] = Estimate(value, math.nan, math.nan)
        elif name in ("ece", "ece_width"):
            scheme: Scheme = "mass" if name == "ece" else "width"
            noise = calibrated_errors(
                answers.confidence, scheme, bins=BINS, resamples=len(samples), seed=seed
            )
            metrics[name] = basic_interval(value, samples, noise)
        else:
            metrics[name] = percentile_interval(value, samples)
    return metrics


def _proportion(value: float, samples: Floats, successes: float, trials: float) -> Estimate:
    found = percentile_interval(value, samples)
    if math.isnan(value) or not found.zero_width:
        return found
    return Estimate(value, *wilson(successes, trials))


def _auroc(value: float, samples: Floats, rarer: int) -> Estimate:
    """Percentiles; for a perfect ranking Wilson with the rows of the rarer class.

    The variance of an area A is at most A (1 - A) / min(positives, negatives) (Birnbaum and Klose 1957).
    """
    if value not in (0.0, 1.0):
        return percentile_interval(value, samples)
    return Estimate(value, *wilson(value * rarer, rarer))


def _f1_interval(found: Estimate, samples: Floats) -> Estimate:
    """Turn a Wilson interval of tp / (tp + fp + fn) = J into one of F1 = 2 J / (1 + J)."""
    if math.isnan(found.value) or not percentile_interval(found.value, samples).zero_width:
        return found
    return Estimate(found.value, 2 * found.low / (1 + found.low), 2 * found.high / (1 + found.high))


def _macro(value: float, samples: Floats, parts: list[Estimate]) -> Estimate:
    """Percentiles; where they coincide, MOVER on the labels' intervals (Zou and Donner 2008)."""
    found = percentile_interval(value, samples)
    if not found.zero_width:
        return found
    known = [part for part in parts if not math.isnan(part.value)]
    down = math.hypot(*(part.value - part.low for part in known)) / len(known)
    up = math.hypot(*(part.high - part.value for part in known)) / len(known)
    return Estimate(value, max(value - down, 0.0), min(value + up, 1.0))
