from functools import partial

import numpy as np

from pegbox.evaluation._estimate import Floats
from pegbox.evaluation._nlg._measure import Measure, Measured, Texts, divide, library

_ORDERS = 4


def bleu(texts: Texts) -> Measured:
    """Corpus BLEU by sacrebleu with its defaults, 0 to 100: 13a tokens, case kept, ``exp`` smoothing.

    Source: Papineni et al. 2002; Post 2018, A Call for Clarity in Reporting BLEU Scores.

    Raises:
        MissingError: sacrebleu is not installed.
    """
    metric = library("sacrebleu.metrics.bleu").BLEU(effective_order=True)
    rows = []
    for own, references in zip(texts.predictions, texts.references, strict=True):
        found = metric.sentence_score(own, list(references))
        rows.append([found.sys_len, found.ref_len, *found.counts, *found.totals])
    table = np.array(rows, dtype=np.float64)
    whole = [int(number) for number in table.sum(axis=0)]
    value = metric.compute_bleu(
        whole[2 : 2 + _ORDERS], whole[2 + _ORDERS :], whole[0], whole[1], smooth_method="exp"
    ).score
    return Measured({"bleu": Measure(float(value), partial(_of_weighted, table))})


def _of_weighted(table: Floats, weights: Floats) -> Floats:
    """BLEU of weighted rows ``(chunk,)``, as sacrebleu's ``compute_bleu`` has it.

    Args:
        table: Lengths of prediction and closest reference, matches and n-grams of each order, ``(rows, 10)``.
        weights: ``(chunk, rows)``.
    """
    sums = weights @ table
    ours, theirs = sums[:, 0], sums[:, 1]
    matches, totals = sums[:, 2 : 2 + _ORDERS], sums[:, 2 + _ORDERS :]
    # Each order without a match counts as half, a quarter, ... of one match (mteval-v13a).
    smoothed = 0.5 ** np.cumsum((matches == 0) & (totals > 0), axis=1)
    precisions = divide(np.where(matches > 0, matches, smoothed), totals)
    with np.errstate(invalid="ignore", divide="ignore"):
        brevity = np.where(ours < theirs, np.exp(1 - theirs / ours), 1.0)
        scores = 100 * brevity * np.exp(np.log(precisions).mean(axis=1))
    return np.where((matches.any(axis=1)) & (totals > 0).all(axis=1), scores, 0.0)
