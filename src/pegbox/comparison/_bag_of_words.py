from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pegbox.comparison._fitted import FittedBaseline, Floats
from pegbox.comparison._folds import folds, others
from pegbox.comparison._majority import check_rows
from pegbox.data import Examples, take
from pegbox.errors import CapabilityError
from pegbox.tasks import Choose, Classify, Task
from pegbox.training import tell

FOLDS = 5
# What is tried: inverse penalties of the logistic regression, and kinds of text features.
CS = (0.1, 1.0, 10.0, 100.0, 1000.0)
FEATURES = ("words", "words and characters")
# Where there can be no folds.
USUAL_C, USUAL_FEATURES = 10.0, FEATURES[0]
MOST_ROWS = 1500
_EPSILON = 1e-12
_ITERATIONS = 5000
_REFUSALS = {
    "Choose": "its classes are labels, and every question has options of its own",
    "Tag": "it counts the words of a whole text, and a tag belongs to one word in its place",
}


@dataclass(frozen=True)
class BagOfWords:
    """Logistic regression on TF-IDF of single words and pairs of words, by scikit-learn.

    Penalty, and whether runs of 2 to 5 characters within words are counted too, are chosen by the log-loss
    of stratified cross-validation on the training rows, with equal texts in one fold; of more than 1,500
    rows on a seeded sample. Two texts are two blocks of features, each with its own vocabulary. Source:
    Spärck Jones 1972 (IDF), with sublinear counts.
    """

    name: ClassVar[str] = "bag-of-words"
    summary: ClassVar[str] = "logistic regression on TF-IDF of words, by scikit-learn"

    def check(self, task: Task) -> None:
        """It answers classification alone."""
        if not isinstance(task, Classify):
            kind = type(task).__name__
            raise CapabilityError(
                f"bag-of-words fits no {kind.lower()} task: {_REFUSALS[kind]}",
                expected="a classification task",
                fix="use majority or longest-option" if isinstance(task, Choose) else "use majority",
            )

    def fit(
        self, task: Task, rows: Examples, *, seed: int = 0, say: Callable[[str], None] = tell
    ) -> FittedBaseline:
        """Choose by cross-validation and fit on all rows; see :class:`Baseline`."""
        started = time.perf_counter()
        self.check(task)
        assert isinstance(task, Classify)
        check_rows(rows)
        task.check_all_present(rows)
        gold = np.array(task.gold(rows))
        details = _chosen(task, rows, seed, say)
        model = _Model.fit(rows, gold, details["features"], details["C"])
        return FittedBaseline(
            self.name, task, model.probabilities, model.parameters, time.perf_counter() - started, details
        )


@dataclass(frozen=True, eq=False)
class _Model:
    """One vectoriser per text column, and a regression on their features side by side."""

    vectorizers: Sequence[Any]
    regression: Any

    @classmethod
    def fit(cls, rows: Examples, gold: NDArray[np.int64], features: str, C: float) -> _Model:
        vectorizers = [_vectorizer(features).fit(texts) for texts in rows.fields.values()]
        return cls(vectorizers, _regression(C).fit(_transformed(vectorizers, rows), gold))

    @property
    def parameters(self) -> int:
        return int(self.regression.coef_.size + self.regression.intercept_.size)

    def probabilities(self, rows: Examples) -> Floats:
        found: Floats = self.regression.predict_proba(_transformed(self.vectorizers, rows))
        return found


def _chosen(task: Classify, rows: Examples, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Features and C of least log-loss on held-out folds, and how they were chosen; told."""
    part = take(rows, MOST_ROWS, seed) if len(rows) > MOST_ROWS else rows
    gold = np.array(task.gold(part))
    parts = folds(part, FOLDS, seed)
    if not parts:
        say(f"bag-of-words: too few texts of a label to choose by, C {USUAL_C:g} on {USUAL_FEATURES}")
        return {"features": USUAL_FEATURES, "C": USUAL_C, "criterion": "usual"}
    losses = {features: _losses(part, gold, parts, features) for features in FEATURES}
    features = min(losses, key=lambda name: losses[name].min())
    place = int(losses[features].argmin())
    criterion = f"{len(parts)}-fold log-loss on {len(part):,} rows"
    loss = float(losses[features][place])
    say(f"bag-of-words: {features}, C {CS[place]:g} ({criterion}: {loss:.3f})")
    return {"features": features, "C": CS[place], "criterion": criterion, "loss": loss}


def _losses(rows: Examples, gold: NDArray[np.int64], parts: Sequence[Sequence[int]], features: str) -> Floats:
    """Mean log-loss of the held-out rows for each of :data:`CS`; the vocabulary too is the other folds'."""
    totals = np.zeros(len(CS))
    for held in parts:
        rest = others(len(rows), held)
        learning, asking = rows.select(rest), rows.select(held)
        vectorizers = [_vectorizer(features).fit(texts) for texts in learning.fields.values()]
        seen, asked = _rotated(_transformed(vectorizers, learning), _transformed(vectorizers, asking))
        regression = _regression(CS[0]).set_params(warm_start=True)
        for place, C in enumerate(CS):
            table = regression.set_params(C=C).fit(seen, gold[rest]).predict_proba(asked)
            own = table[np.arange(len(held)), gold[held]]
            totals[place] -= np.log(np.maximum(own, _EPSILON)).sum()
    losses: Floats = totals / sum(map(len, parts))
    return losses


def _rotated(seen: Any, asked: Any) -> tuple[Floats, Floats]:
    """Features in as many directions as there are rows to learn from, instead of one per n-gram.

    A regression with a squared penalty is the same in both, since its weights lie in the span of the rows;
    with thousands of n-grams it takes a tenth of the time.
    """
    squares, vectors = np.linalg.eigh((seen @ seen.T).toarray())
    kept = squares > squares[-1] * len(squares) * np.finfo(np.float64).eps
    scale = np.sqrt(squares[kept])
    return vectors[:, kept] * scale, (asked @ seen.T).toarray() @ vectors[:, kept] / scale


def _vectorizer(features: str) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    # Marks such as ! tell something too, and with them no text is without a token.
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    if features == "words":
        return words
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return FeatureUnion([("words", words), ("characters", characters)])


def _regression(C: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, max_iter=_ITERATIONS)


def _transformed(vectorizers: Sequence[Any], rows: Examples) -> Any:
    from scipy.sparse import hstack

    columns = rows.fields.values()
    return hstack([one.transform(texts) for one, texts in zip(vectorizers, columns, strict=True)]).tocsr()
