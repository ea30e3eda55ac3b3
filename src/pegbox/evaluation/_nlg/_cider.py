import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from pegbox.evaluation._nlg._measure import Measured, MissingError, Texts, mean
from pegbox.evaluation._nlg._ngrams import Gram, counts

_ORDERS = 4
_SIGMA = 6.0
_SCALE = 10.0


@dataclass(frozen=True)
class _Vector:
    """tf-idf weights of each order, their norms, and the number of bigrams."""

    weights: list[dict[Gram, float]]
    norms: list[float]
    bigrams: int


def cider(texts: Texts) -> Measured:
    """CIDEr-D over lower-cased 13a tokens, 0 to 10; document frequencies are those of the references.

    Term frequencies are counts and lengths are compared in bigrams, as in the authors' ``CiderScorer``, whose
    numbers these are. It is computed here because the package that holds that scorer, pycocoevalcap, is a
    100 MB download with Java archives under the GPL.
    Source: Vedantam, Zitnick and Parikh 2015, equations 1, 3 and 4.

    Raises:
        MissingError: sacrebleu is not installed, or fewer than two rows: then every n-gram is in all of them.
    """
    rows = len(texts.references)
    if rows < 2:
        raise MissingError("with one row every n-gram is equally common and weighs nothing; it needs two")
    predictions, references = texts.tokens
    frequencies = _frequencies(references)
    idf = {gram: math.log(rows) - math.log(count) for gram, count in frequencies.items()}
    scores = []
    for own, row in zip(predictions, references, strict=True):
        ours = _vector(own, idf, math.log(rows))
        scores.append(sum(_similarity(ours, _vector(ref, idf, math.log(rows))) for ref in row) / len(row))
    return Measured({"cider": mean(_SCALE * np.array(scores), share=False)})


def _frequencies(references: list[list[list[str]]]) -> Counter[Gram]:
    """In how many rows' references each n-gram occurs."""
    found: Counter[Gram] = Counter()
    for row in references:
        found.update({gram for own in row for order in range(1, _ORDERS + 1) for gram in counts(own, order)})
    return found


def _vector(tokens: list[str], idf: dict[Gram, float], unseen: float) -> _Vector:
    terms = [counts(tokens, order) for order in range(1, _ORDERS + 1)]
    weights = [{gram: count * idf.get(gram, unseen) for gram, count in part.items()} for part in terms]
    norms = [math.sqrt(sum(value**2 for value in part.values())) for part in weights]
    return _Vector(weights, norms, max(len(tokens) - 1, 0))


def _similarity(ours: _Vector, theirs: _Vector) -> float:
    """Mean over the orders of the clipped cosine, times the Gaussian of the difference in length."""
    total = 0.0
    for order in range(_ORDERS):
        other = theirs.weights[order]
        product = sum(min(value, other.get(gram, 0.0)) * other.get(gram, 0.0)
                      for gram, value in ours.weights[order].items())  # fmt: skip
        norm = ours.norms[order] * theirs.norms[order]
        total += product / norm if norm else product
    return total / _ORDERS * math.exp(-((ours.bigrams - theirs.bigrams) ** 2) / (2 * _SIGMA**2))
