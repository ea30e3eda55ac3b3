from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pegbox.evaluation._estimate import Estimate, Floats, percentile_interval, wilson
from pegbox.evaluation._records import SqlTable

INSTALL = "pip install 'pegbox[nlg]'"


class MissingError(Exception):
    """Why a metric cannot be computed here, and how to mend that; it never leaves the room."""


@dataclass(frozen=True)
class Texts:
    """What the metrics look at, checked.

    Args:
        predictions: One generated text per row.
        references: Right answers of each row, at least one.
        records: Slots that each row's text should tell, None where it has none.
        tables: Table that each row's query is about, None where it is not known.
    """

    predictions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    records: tuple[Mapping[str, str] | None, ...] | None = None
    tables: tuple[SqlTable | None, ...] | None = None

    @cached_property
    def tokens(self) -> tuple[list[list[str]], list[list[list[str]]]]:
        """Lower-cased 13a tokens of the predictions and of their references.

        Raises:
            MissingError: sacrebleu, whose tokeniser it is, is not installed.
        """
        cut = library("sacrebleu.tokenizers.tokenizer_13a").Tokenizer13a()
        texts = {text for texts in (self.predictions, *self.references) for text in texts}
        known = {text: cut(text.rstrip()).lower().split() for text in texts}
        references = [[known[text] for text in own] for own in self.references]
        return [known[text] for text in self.predictions], references


@dataclass(frozen=True)
class Measure:
    """One number of the whole sample, and how to compute it on resampled rows.

    Args:
        value: The number.
        statistic: Maps weights ``(chunk, rows)`` to the number under them ``(chunk,)``.
        trials: For a mean of values from 0 to 1: how many, so that Wilson's interval can stand in where all
            resamples agree; its variance is the largest that such a mean can have.
    """

    value: float
    statistic: Callable[[Floats], Floats]
    trials: float = math.nan

    def estimate(self, samples: Floats) -> Estimate:
        """The number with its 95 % interval, from replicates ``(resamples,)``."""
        found = percentile_interval(self.value, samples)
        if math.isnan(self.value) or not found.zero_width:
            return found
        if math.isnan(self.trials):
            return Estimate(self.value, math.nan, math.nan)
        return Estimate(self.value, *wilson(self.value * self.trials, self.trials))


@dataclass(frozen=True)
class Measured:
    """What one metric found: its numbers by name, and counts that explain them."""

    measures: dict[str, Measure]
    counts: dict[str, int] = field(default_factory=dict)


def mean(values: Sequence[float] | Floats, *, share: bool = True) -> Measure:
    """Mean of one value per row; ``share`` says that values lie between 0 and 1."""
    array = np.asarray(values, dtype=np.float64)
    trials = float(len(array)) if share else math.nan
    return Measure(float(array.mean()), lambda weights: weights @ array / len(array), trials)


def ratio(top: Floats, bottom: Floats, *, share: bool = False) -> Measure:
    """Sum over sum of two values per row; NaN where the lower sum is 0."""

    def statistic(weights: Floats) -> Floats:
        return divide(weights @ top, weights @ bottom)

    value = float(statistic(np.ones((1, len(top))))[0])
    return Measure(value, statistic, float(bottom.sum()) if share else math.nan)


def divide(top: Floats, bottom: Floats) -> Floats:
    """``top / bottom``, NaN where ``bottom`` is 0."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def library(name: str) -> Any:
    """Import a module of the extra ``nlg``.

    Raises:
        MissingError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = {"rouge_score": "rouge-score"}.get(name.split(".")[0], name.split(".")[0])
        raise MissingError(f"{package} is not installed: {INSTALL}") from error
