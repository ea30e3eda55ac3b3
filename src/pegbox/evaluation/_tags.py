from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pegbox.errors import InputError
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._estimate import Estimate, Floats, percentile_interval, wilson
from pegbox.evaluation._json import plain, read_estimate, reading
from pegbox.evaluation._scores import ClassScores

FORMAT = "pegbox.tag-scores/1"
_PARTS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class TagScores:
    """How well entities are found.

    Args:
        rows: Sentences scored.
        words: Words in them.
        metrics: precision, recall and f1 over all entities (micro), macro_f1 over the types, token_accuracy.
        per_type: Scores of each entity type; support counts its gold entities.
        seconds: Wall-clock time of the run that is described.
    """

    rows: int
    words: int
    metrics: dict[str, Estimate]
    per_type: dict[str, ClassScores]
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        return {"format": FORMAT, **plain(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TagScores:
        """Read what `to_json` wrote.

        Raises:
            InputError: not that format, or a part is missing.
        """
        with reading(values, FORMAT, "a file of tag scores", "scores"):
            per_type = {
                name: ClassScores(
                    **{key: read_estimate(part[key]) for key in _PARTS}, support=part["support"]
                )
                for name, part in values["per_type"].items()
            }
            metrics = {name: read_estimate(part) for name, part in values["metrics"].items()}
            return cls(values["rows"], values["words"], metrics, per_type, values["seconds"])

    def __str__(self) -> str:
        lines = [f"{'sentences':<14} {self.rows:,}", f"{'words':<14} {self.words:,}"]
        lines += [f"{name:<14} {estimate}" for name, estimate in self.metrics.items()]
        if self.seconds is not None:
            lines.append(f"{'seconds':<14} {self.seconds:.1f}")
        width = max(len("type"), *(len(name) for name in self.per_type)) if self.per_type else 4
        head = f"{'type':<{width}}  {'precision':<20}  {'recall':<20}  {'F1':<20}  entities"
        lines += ["", head]
        lines += [
            f"{name:<{width}}  {part.precision!s:<20}  {part.recall!s:<20}  {part.f1!s:<20}  "
            f"{part.support:>8,}"
            for name, part in self.per_type.items()
        ]
        return "\n".join(lines)


def score_tags(
    predicted: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]],
    *,
    types: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> TagScores:
    """Entity-level precision, recall and F1 by seqeval, with 95 % bootstrap intervals over sentences.

    An entity counts as found when its type, first and last word are all right. Entities are read as conlleval
    reads them (seqeval's default mode); of well-formed BIO tags its strict mode reads the same. macro_f1 is
    the mean over the types that occur in gold or predictions. Intervals are percentiles over resampled
    sentences; where all resamples agree, Wilson's stands in for precision, recall and token accuracy.

    Args:
        predicted: BIO tags of each sentence's words.
        gold: The right tags, as many.
        types: Types to list, also those that do not occur.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        InputError: No sentences, or predictions of another length.
    """
    _check(predicted, gold)
    names = sorted({*types, *_types(predicted), *_types(gold)})
    hits, found, wanted = _counts(predicted, gold, names)
    right, words = _words(predicted, gold)

    def replicates(weights: Floats) -> Floats:
        per_type = [weights @ part for part in (hits, found, wanted)]
        whole = [part.sum(1, keepdims=True) for part in per_type]
        ratios = [tag_ratios(*parts) for parts in (whole, per_type)]
        accuracy = (weights @ right / (weights @ words))[:, None, None]
        return np.concatenate([ratios[0], ratios[1], np.repeat(accuracy, 3, axis=2)], axis=1)

    samples = bootstrap(replicates, len(gold), resamples=resamples, seed=seed)
    counts = [(hits[:, i].sum(), found[:, i].sum(), wanted[:, i].sum()) for i in range(len(names))]
    points = _by_seqeval(predicted, gold, names)
    per_type = {name: _estimates(points[name], samples[:, 1 + i], *counts[i]) for i, name in enumerate(names)}
    overall = _estimates(points[""], samples[:, 0], *(part.sum() for part in (hits, found, wanted)))
    metrics = {part: getattr(overall, part) for part in _PARTS}
    metrics["macro_f1"] = _macro(list(per_type.values()), samples[:, 1:-1, 2])
    accuracy = percentile_interval(float(right.sum() / words.sum()), samples[:, -1, 0])
    metrics["token_accuracy"] = _or_wilson(accuracy, right.sum(), words.sum())
    return TagScores(len(gold), int(words.sum()), metrics, per_type)


def tag_counts(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]
) -> tuple[Floats, Floats, Floats]:
    """Right, predicted and gold entities of each sentence, each (sentences,).

    Raises:
        InputError: No sentences, or predictions of another length.
    """
    _check(predicted, gold)
    hits, found, wanted = _counts(predicted, gold, sorted({*_types(predicted), *_types(gold)}))
    return hits.sum(1), found.sum(1), wanted.sum(1)


def _check(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> None:
    if not gold or len(predicted) != len(gold):
        raise InputError(
            f"there are {len(predicted)} predictions and {len(gold)} sentences",
            expected="at least one sentence, and as many predictions",
        )
    for index, (left, right) in enumerate(zip(predicted, gold, strict=True)):
        if len(left) != len(right):
            raise InputError(
                f"{len(left)} tags are predicted for {len(right)} words",
                where=f"sentence {index}, counted from 0",
                expected="one tag per word",
            )


def _types(rows: Sequence[Sequence[str]]) -> set[str]:
    return {tag[2:] for tags in rows for tag in tags if tag != "O"}


def _entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    from seqeval.metrics.sequence_labeling import get_entities

    return set(get_entities(list(tags)))


def _counts(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[Floats, Floats, Floats]:
    """Right, predicted and gold entities, each (sentences, types)."""
    index = {name: place for place, name in enumerate(names)}
    tables = [np.zeros((len(gold), len(names))) for _ in range(3)]
    for row, (left, right) in enumerate(zip(predicted, gold, strict=True)):
        ours, theirs = _entities(left), _entities(right)
        for table, entities in zip(tables, (ours & theirs, ours, theirs), strict=True):
            for kind, _, _ in entities:
                table[row, index[kind]] += 1
    return tables[0], tables[1], tables[2]


def _words(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> tuple[Floats, Floats]:
    pairs = list(zip(predicted, gold, strict=True))
    right = [sum(a == b for a, b in zip(left, own, strict=True)) for left, own in pairs]
    return np.array(right, dtype=np.float64), np.array([len(own) for _, own in pairs], dtype=np.float64)


def _by_seqeval(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], names: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 of each type, and of all under the empty name, by the library."""
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    known = sorted({*_types(predicted), *_types(gold)})
    if not known:
        return dict.fromkeys(["", *names], (math.nan, math.nan, math.nan))
    rows = [list(tags) for tags in gold], [list(tags) for tags in predicted]
    micro = precision_recall_fscore_support(*rows, average="micro", zero_division=0)
    each = precision_recall_fscore_support(*rows, average=None, zero_division=0)
    found = dict.fromkeys(names, (math.nan, math.nan, math.nan))
    found |= {name: _three([part[i] for part in each[:3]]) for i, name in enumerate(known)}
    return found | {"": _three(micro)}


def _three(parts: Sequence[float]) -> tuple[float, float, float]:
    return float(parts[0]), float(parts[1]), float(parts[2])


def tag_ratios(hits: Floats, found: Floats, wanted: Floats) -> Floats:
    """Precision, recall and F1, (..., 3), of counts of one shape; undefined ones are NaN."""
    with np.errstate(invalid="ignore"):
        return np.stack([hits / found, hits / wanted, 2 * hits / (found + wanted)], axis=-1)


def _estimates(
    point: tuple[float, float, float], samples: Floats, hits: float, found: float, wanted: float
) -> ClassScores:
    trials = (found, wanted, found + wanted - hits)
    parts = {}
    for place, total in enumerate(trials):
        value = point[place] if total else math.nan
        estimate = _or_wilson(percentile_interval(value, samples[:, place]), hits, total)
        if place == 2 and estimate.low != percentile_interval(value, samples[:, 2]).low:
            # Wilson's interval is of tp / (tp + fp + fn) = J, and F1 = 2 J / (1 + J).
            low, high = (2 * end / (1 + end) for end in (estimate.low, estimate.high))
            estimate = Estimate(value, low, high)
        parts[_PARTS[place]] = estimate
    return ClassScores(**parts, support=int(wanted))


def _or_wilson(found: Estimate, successes: float, trials: float) -> Estimate:
    if math.isnan(found.value) or not found.zero_width:
        return found
    return Estimate(found.value, *wilson(float(successes), float(trials)))


def _macro(parts: Sequence[ClassScores], samples: Floats) -> Estimate:
    known = [place for place, part in enumerate(parts) if not math.isnan(part.f1.value)]
    if not known:
        return Estimate(math.nan, math.nan, math.nan)
    value = float(np.mean([parts[place].f1.value for place in known]))
    table = samples[:, known]
    seen = ~np.isnan(table)
    with np.errstate(invalid="ignore"):
        means = np.where(seen, table, 0.0).sum(1) / seen.sum(1)
    return percentile_interval(value, means)
