from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pegbox.evaluation._calibration import MassError, place
from pegbox.evaluation._estimate import Floats

# Floor of the gold label's probability in the log-loss: a zero costs 27.6 nats, not infinity.
EPSILON = 1e-12
BINS = 15


@dataclass(frozen=True)
class Answers:
    """Checked answers of one system.

    Args:
        probabilities: ``(rows, labels)``, rows summing to one.
        gold: Label indices ``(rows,)``.
    """

    probabilities: Floats
    gold: NDArray[np.int64]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Most probable label ``(rows,)``; of equals the first."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def correct(self) -> Floats:
        """1 where the prediction is right, else 0, ``(rows,)``."""
        return (self.predicted == self.gold).astype(np.float64)

    @cached_property
    def confidence(self) -> Floats:
        """Probability of the predicted label ``(rows,)``."""
        return self.probabilities.max(axis=1)

    @cached_property
    def nll(self) -> Floats:
        """Negative log-probability of the gold label in nats ``(rows,)``, clipped at `EPSILON`."""
        return -np.log(np.maximum(self.probabilities[np.arange(len(self.gold)), self.gold], EPSILON))

    @cached_property
    def brier(self) -> Floats:
        """Squared distance to the one-hot gold label, 0 to 2, ``(rows,)`` (Brier 1950)."""
        own = self.probabilities[np.arange(len(self.gold)), self.gold]
        return (self.probabilities**2).sum(axis=1) - 2 * own + 1


def point_metrics(answers: Answers) -> dict[str, float]:
    """Every metric of the whole sample, by name; by scikit-learn where it has it."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

    gold, labels = answers.gold, answers.probabilities.shape[1]
    clipped = np.clip(answers.probabilities, EPSILON, 1.0)
    ones = np.ones((1, len(gold)))
    metrics = {
        "accuracy": accuracy_score(gold, answers.predicted),
        "macro_f1": f1_score(gold, answers.predicted, average="macro", zero_division=0.0),
        "nll": log_loss(gold, clipped, labels=np.arange(labels)),
        "brier": answers.brier.mean(),
        "ece": MassError(answers.confidence, answers.correct, BINS)(ones)[0],
        "ece_width": np.abs(ones @ _width_gaps(answers)).sum() / len(gold),
    }
    if labels == 2:
        both = 0 < gold.sum() < len(gold)
        metrics["auroc"] = roc_auc_score(gold, answers.probabilities[:, 1]) if both else np.nan
    return {name: float(value) for name, value in metrics.items()}


class Replicates:
    """Every metric on weighted rows, for `bootstrap`.

    Calling it with weights ``(chunk, rows)`` gives ``(chunk, columns)``; `columns` names them: metrics by
    name, then ``(label index, "precision" | "recall" | "f1")``. Undefined numbers are NaN.
    """

    def __init__(self, answers: Answers) -> None:
        labels = answers.probabilities.shape[1]
        means = np.column_stack([answers.correct, answers.nll, answers.brier])
        self.sums = np.hstack([means, _width_gaps(answers)])
        self.counts = _counting(answers)
        self.mass = MassError(answers.confidence, answers.correct, BINS)
        self.ranks = Ranks(answers.probabilities[:, 1], answers.gold) if labels == 2 else None
        self.columns: list[str | tuple[int, str]] = [
            "accuracy",
            "nll",
            "brier",
            "ece_width",
            "ece",
            "macro_f1",
        ]
        if self.ranks:
            self.columns.append("auroc")
        self.columns += [(label, part) for part in ("precision", "recall", "f1") for label in range(labels)]

    def __call__(self, weights: Floats) -> Floats:
        sums = weights @ self.sums / weights.shape[1]
        width = np.abs(sums[:, 3:]).sum(axis=1)
        precision, recall, f1 = self._per_class(weights)
        columns = [sums[:, :3], width[:, None], self.mass(weights)[:, None], _mean_known(f1)[:, None]]
        if self.ranks:
            columns.append(self.ranks(weights)[:, None])
        return np.hstack([*columns, precision, recall, f1])

    def _per_class(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        hits, support, predicted = np.split((self.counts @ weights.T).T, 3, axis=1)
        return _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted)


class Ranks:
    """Area under the ROC curve of weighted rows, ties counted half; NaN where a class has no weight.

    Args:
        scores: ``(rows,)``, larger for label 1.
        gold: 0 or 1, ``(rows,)``.
    """

    def __init__(self, scores: Floats, gold: NDArray[np.int64]) -> None:
        self.order = np.argsort(scores, kind="stable")
        ranked = scores[self.order]
        self.first = np.flatnonzero(np.r_[True, ranked[1:] > ranked[:-1]])
        self.positive = gold[self.order].astype(np.float64)

    def __call__(self, weights: Floats) -> Floats:
        """Areas ``(chunk,)`` for weights ``(chunk, rows)``."""
        ranked = weights[:, self.order]
        positive = ranked * self.positive
        negative = ranked - positive
        if len(self.first) < len(self.order):
            positive = np.add.reduceat(positive, self.first, axis=1)
            negative = np.add.reduceat(negative, self.first, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        wins = np.einsum("cr,cr->c", positive, below)
        return _ratio(wins, positive.sum(axis=1) * negative.sum(axis=1))


def _width_gaps(answers: Answers) -> Floats:
    """``(rows, BINS)``: accuracy minus confidence of each row, in the column of its equal-width bin."""
    gaps = np.zeros((len(answers.gold), BINS))
    rows = np.arange(len(answers.gold))
    gaps[rows, place(answers.confidence, BINS, "width")] = answers.correct - answers.confidence
    return gaps


def _counting(answers: Answers):  # type: ignore[no-untyped-def]  # SciPy ships no types
    """Sparse ``(3 labels, rows)`` of ones: hits, gold and predicted rows of each label."""
    from scipy.sparse import csr_array

    rows, labels = answers.probabilities.shape
    hits = np.flatnonzero(answers.correct)
    row = np.r_[hits, np.arange(rows), np.arange(rows)]
    column = np.r_[answers.gold[hits], answers.gold + labels, answers.predicted + 2 * labels]
    return csr_array((np.ones(len(row)), (column, row)), shape=(3 * labels, rows))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


def _mean_known(values: Floats) -> Floats:
    """Mean over the labels that occur (at least one always does), ``(chunk, labels)`` to ``(chunk,)``."""
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
