import math
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from pegbox.evaluation._estimate import Floats
from pegbox.evaluation._nlg._measure import Measure, Measured, MissingError, Texts, divide, library
from pegbox.evaluation._nlg._ngrams import Gram, counts

_ORDERS = 5
# The penalty is a half where the prediction has two thirds of the reference's words (Doddington 2002).
_BETA = math.log(0.5) / math.log(1.5) ** 2


def nist(texts: Texts) -> Measured:
    """NIST-5 by nltk over lower-cased 13a tokens, 0 upwards.

    Each row's best reference is taken anew for each order, as nltk does.
    Source: Doddington 2002, Automatic Evaluation of Machine Translation Quality, equation 3.

    Raises:
        MissingError: a library is not installed, or no text is long enough for n-grams of five words.
    """
    scorer = library("nltk.translate.nist_score")
    predictions, references = texts.tokens
    if max(len(own) for own in predictions) < _ORDERS:
        raise MissingError(f"no prediction has the {_ORDERS} words that NIST-{_ORDERS} needs")
    if not any(own for row in references for own in row):
        raise MissingError("all references are empty")
    table = _table(predictions, references)
    if not table[:, -2].sum():
        raise MissingError("the references that count are empty")
    value = scorer.corpus_nist(references, predictions, n=_ORDERS)
    return Measured({"nist": Measure(float(value), partial(_of_weighted, table))})


def _of_weighted(table: Floats, weights: Floats) -> Floats:
    """NIST of weighted rows ``(chunk,)``; NaN where no n-gram of an order is drawn.

    Args:
        table: Information matched and n-grams of each order, reference words, words, ``(rows, 12)``.
        weights: ``(chunk, rows)``.
    """
    sums = weights @ table
    precision = divide(sums[:, :_ORDERS], sums[:, _ORDERS:-2]).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        short = np.minimum(sums[:, -1] / sums[:, -2], 1.0)
        return precision * np.where(short > 0, np.exp(_BETA * np.log(short) ** 2), 0.0)


def _table(predictions: list[list[str]], references: list[list[list[str]]]) -> Floats:
    told = _information(references)
    rows = []
    for own, row in zip(predictions, references, strict=True):
        grams = [counts(own, order) for order in range(1, _ORDERS + 1)]
        best = [_best(grams[order - 1], row, order, told) for order in range(1, _ORDERS + 1)]
        matched = [information for information, _ in best]
        totals = [sum(part.values()) for part in grams]
        rows.append([*matched, *totals, sum(words for _, words in best), _ORDERS * len(own)])
    return np.array(rows, dtype=np.float64)


def _best(
    grams: Counter[Gram], row: list[list[str]], order: int, told: dict[Gram, float]
) -> tuple[float, int]:
    """Most information matched by one reference, and its number of words; of equals the longest."""
    return max(
        (sum(told[gram] * count for gram, count in (grams & counts(own, order)).items()), len(own))
        for own in row
    )


def _information(references: Sequence[list[list[str]]]) -> dict[Gram, float]:
    """Bits that the last word of each n-gram of the references tells (Doddington 2002, equation 2)."""
    seen: Counter[Gram] = Counter()
    words = 0
    for row in references:
        for own in row:
            words += len(own)
            for order in range(1, _ORDERS + 1):
                seen.update(counts(own, order))
    return {
        gram: math.log2((seen[gram[:-1]] if gram[:-1] else words) / count) for gram, count in seen.items()
    }
