"""Scores of generated text: what each metric says, how sure it is, and what could not be computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pegbox.errors import InputError, UsageError, nearest
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._estimate import Estimate, Floats
from pegbox.evaluation._json import plain, read_estimate, reading
from pegbox.evaluation._nlg._bleu import bleu
from pegbox.evaluation._nlg._cider import cider
from pegbox.evaluation._nlg._exact import exact_match
from pegbox.evaluation._nlg._likelihood import LIKELIHOOD, likelihood
from pegbox.evaluation._nlg._measure import Measured, MissingError, Texts
from pegbox.evaluation._nlg._meteor import meteor
from pegbox.evaluation._nlg._nist import nist
from pegbox.evaluation._nlg._rouge import rouge_l
from pegbox.evaluation._nlg._slots import slot_error_rate
from pegbox.evaluation._nlg._sql_match import sql_match
from pegbox.evaluation._nlg._sql_run import sql_execution
from pegbox.evaluation._nlg._sql_text import is_query
from pegbox.evaluation._records import SqlTable

FORMAT = "pegbox.generation-scores/1"

_MEASURES: dict[str, Callable[[Texts], Measured]] = {
    "exact_match": exact_match,
    "bleu": bleu,
    "nist": nist,
    "meteor": meteor,
    "rouge_l": rouge_l,
    "cider": cider,
    "sql_match": sql_match,
    "sql_execution": sql_execution,
    "slot_error_rate": slot_error_rate,
}
TEXT_METRICS = tuple(_MEASURES)


@dataclass(frozen=True)
class GenerationScores:
    """How good generated texts are.

    Args:
        rows: Texts scored.
        metrics: Each metric by name; units and ranges are in docs/generation.md.
        missing: Each metric that was wanted and not computed, with the reason and how to mend it.
        seconds: Wall-clock time of the run that is described.
        counts: Numbers that explain the metrics, such as the slots that could not be judged.
    """

    rows: int
    metrics: dict[str, Estimate]
    missing: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        return {"format": FORMAT, **plain(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GenerationScores:
        """Read what `to_json` wrote.

        Raises:
            InputError: not that format, or a part is missing.
        """
        with reading(values, FORMAT, "a file of generation scores", "scores"):
            metrics = {name: read_estimate(part) for name, part in values["metrics"].items()}
            parts = {name: dict(values[name]) for name in ("missing", "counts")}
            return cls(values["rows"], metrics, **parts, seconds=values["seconds"])

    def __str__(self) -> str:
        names = ["rows", *self.metrics, *self.counts, *self.missing]
        width = max(len(name) for name in names)
        lines = [f"{'rows':<{width}} {self.rows:,}"]
        lines += [f"{name:<{width}} {estimate}" for name, estimate in self.metrics.items()]
        lines += [f"{name:<{width}} {count:,}" for name, count in self.counts.items()]
        lines += [f"{name:<{width}} missing: {reason}" for name, reason in self.missing.items()]
        if self.seconds is not None:
            lines.append(f"{'seconds':<{width}} {self.seconds:.1f}")
        return "\n".join(lines)


def score_texts(
    predictions: Sequence[str] | None = None,
    references: Sequence[Sequence[str]] | None = None,
    *,
    metrics: Sequence[str] | None = None,
    records: Sequence[Mapping[str, str] | None] | None = None,
    tables: Sequence[SqlTable | None] | None = None,
    nats: ArrayLike | None = None,
    tokens: ArrayLike | None = None,
    sizes: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> GenerationScores:
    """Measure generated texts against references, with 95 % bootstrap intervals over rows.

    The value of each metric is its library's own number. For the interval each row's share of it (n-gram
    matches, lengths, errors) is kept once and summed over resampled rows; what belongs to the references as
    a whole, NIST's information and CIDEr's document frequencies, stays as it is. Intervals are percentiles.
    Where all resamples agree, Wilson's stands in for means of values from 0 to 1, and other metrics have
    none. Which metric is what, its unit and source: docs/generation.md.

    A metric whose library or data is not there is never replaced by another number: it is named in
    ``missing`` with the reason.

    Args:
        predictions: Generated texts ``(rows,)``; None to score only the likelihood of the gold answers.
        references: Right answers of each row, at least one; their number may differ.
        metrics: Names from `TEXT_METRICS`; None takes all that the arguments allow. perplexity and
            bits_per_byte are there whenever ``nats`` are.
        records: Slots that each row's text should tell, None for a row that has none; for slot_error_rate.
        tables: Table of each row's query, None where it is not known; for sql_execution.
        nats: Summed cross-entropy of each row's gold answer ``(rows,)``, natural logarithm.
        tokens: Tokens of the gold answers ``(rows,)``, for perplexity.
        sizes: UTF-8 bytes of the gold answers ``(rows,)``, for bits_per_byte.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        InputError: nothing to score, parts that do not belong together, or numbers that are none.
        UsageError: an unknown metric, or no resamples.
    """
    texts = _read(predictions, references, records, tables)
    wanted = _wanted(metrics, texts)
    if texts is None and nats is None:
        raise InputError("there is nothing to score", fix="pass predictions and references, or nats")
    known = None if texts is None else len(texts.predictions)
    likely, absent = ({}, {}) if nats is None else likelihood(nats, tokens, sizes, known)
    found: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    for name in wanted:
        if name in LIKELIHOOD and nats is not None:
            continue
        try:
            found[name] = _measure(name, texts)
        except MissingError as error:
            missing[name] = str(error)
    found, missing = found | likely, missing | absent
    rows = len(texts.predictions) if texts is not None else len(np.asarray(nats))
    estimates = _estimates(found, rows, resamples, seed)
    counts = {name: count for part in found.values() for name, count in part.counts.items()}
    return GenerationScores(rows, estimates, missing, counts=counts)


def _measure(name: str, texts: Texts | None) -> Measured:
    if name in LIKELIHOOD:
        raise MissingError("no cross-entropies are given (pass nats=)")
    if texts is None:
        raise MissingError("no predictions are given")
    return _MEASURES[name](texts)


def _estimates(found: dict[str, Measured], rows: int, resamples: int, seed: int) -> dict[str, Estimate]:
    measures = {name: one for part in found.values() for name, one in part.measures.items()}
    if not measures:
        return {}

    def replicates(weights: Floats) -> Floats:
        return np.stack([one.statistic(weights) for one in measures.values()], axis=1)

    samples = bootstrap(replicates, rows, resamples=resamples, seed=seed)
    pairs = zip(measures.items(), samples.T, strict=True)
    return {name: one.estimate(column) for (name, one), column in pairs}


def _wanted(metrics: Sequence[str] | None, texts: Texts | None) -> tuple[str, ...]:
    known = (*TEXT_METRICS, *LIKELIHOOD)
    for name in metrics or ():
        if name not in known:
            raise UsageError(
                f"no metric is called '{name}'", expected=", ".join(known), fix=nearest(name, known)
            )
    if metrics is not None:
        return tuple(dict.fromkeys(metrics))
    if texts is None:
        return ()
    queries = any(is_query(text) for own in texts.references for text in own)
    able = {
        "slot_error_rate": texts.records is not None,
        "sql_match": queries,
        "sql_execution": queries and texts.tables is not None,
    }
    return tuple(name for name in TEXT_METRICS if able.get(name, True))


def _read(
    predictions: Sequence[str] | None,
    references: Sequence[Sequence[str]] | None,
    records: Sequence[Mapping[str, str] | None] | None,
    tables: Sequence[SqlTable | None] | None,
) -> Texts | None:
    if predictions is None:
        if references is not None or records is not None or tables is not None:
            raise InputError("references, records or tables are given, and no predictions",
                             fix="pass predictions, or nats alone")  # fmt: skip
        return None
    if references is None or not predictions or len(predictions) != len(references):
        raise InputError(
            f"there are {len(predictions)} predictions and {len(references or ())} rows of references",
            expected="at least one prediction, and references for each",
        )
    for name, part in (("records", records), ("tables", tables)):
        if part is not None and len(part) != len(predictions):
            raise InputError(f"there are {len(part)} {name} and {len(predictions)} predictions",
                             expected="one per row, None where there is none")  # fmt: skip
    return Texts(
        tuple(_text(text, "prediction", row) for row, text in enumerate(predictions)),
        tuple(_references(own, row) for row, own in enumerate(references)),
        None if records is None else tuple(records),
        None if tables is None else tuple(tables),
    )


def _references(own: Sequence[str], row: int) -> tuple[str, ...]:
    if isinstance(own, str) or not own:
        raise InputError(
            "a row's references are one text" if isinstance(own, str) else "a row has no reference",
            where=f"row {row}, counted from 0",
            expected="a list of at least one text per row",
        )
    return tuple(_text(text, "reference", row) for text in own)


def _text(text: object, what: str, row: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"a {what} is of type {type(text).__name__}", where=f"row {row}, counted from 0",
                         expected="text")  # fmt: skip
    return text
