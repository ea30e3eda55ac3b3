from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from pegbox.errors import InputError
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._estimate import Estimate, Floats, percentile_interval
from pegbox.evaluation._json import plain, read_estimate, reading
from pegbox.evaluation._paired import Paired, compare
from pegbox.evaluation._scores import score

FORMAT = "pegbox.forgetting/1"
_PLAIN, _ESTIMATES = ("source", "documents", "bytes", "off", "kind"), ("before", "after", "change")
# Where nothing was turned both answers are the base's own: there is nothing to test.
UNTURNED = "none: nothing was turned"
BitsKind = Literal["bits per byte", "masked bits per byte"]


@dataclass(frozen=True)
class Also:
    """Accuracy on another labelled task, asked of the base and of the tuned model in the same words.

    Args:
        name: What the task is called, usually its file.
        rows: Rows that were asked.
        before: Accuracy of the base.
        after: Accuracy of the tuned model.
        difference: After minus before, with the paired test; below zero is forgotten.
    """

    name: str
    rows: int
    before: Estimate
    after: Estimate
    difference: Paired

    @property
    def unturned(self) -> bool:
        """Whether nothing was turned, so that the difference is exactly zero."""
        return self.difference.test == UNTURNED

    def __str__(self) -> str:
        gap = "exactly 0, nothing was turned" if self.unturned else self.difference
        return f"{self.before} before, {self.after} after: {gap}"


@dataclass(frozen=True)
class Forgetting:
    """What tuning did to everything else that a model knew.

    Args:
        source: Where the general text comes from.
        documents: Documents scored; 0 where only other tasks were asked.
        bytes: UTF-8 bytes of the text scored.
        before: Bits per byte of the base.
        after: Bits per byte of the tuned model on the same text; all three undefined without documents.
        change: After minus before, over the same documents; above zero is forgotten.
        off: The change with the adapter switched off, measured; ``None`` where nothing can be switched off.
        kind: ``bits per byte`` of all tokens in order, or of masked tokens, which are asked all around.
        also: Other labelled tasks.
    """

    source: str
    documents: int
    bytes: int
    before: Estimate
    after: Estimate
    change: Estimate
    off: float | None
    kind: BitsKind
    also: tuple[Also, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        return {"format": FORMAT, **plain(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: not that format, or a part is missing.
        """
        with reading(values, FORMAT, "a file of forgetting", "forgetting"):
            parts: dict[str, Any] = {name: values[name] for name in _PLAIN}
            parts |= {name: read_estimate(values[name]) for name in _ESTIMATES}
            return cls(**parts, also=tuple(map(_also, values["also"])))

    def __str__(self) -> str:
        lines = []
        if self.documents:
            lines += [
                f"{'general text':<14} {self.source}: {self.documents:,} documents, {self.bytes:,} bytes",
                f"{'before':<14} {self.before} {self.kind}",
                f"{'after':<14} {self.after} {self.kind}",
                f"{'change':<14} {signed(self.change)}",
                f"{'adapter off':<14} {'-' if self.off is None else f'{self.off:+.3f}'}",
            ]
        return "\n".join([*lines, *(f"{f'also {part.name}':<14} {part}" for part in self.also)])


def signed(change: Estimate) -> str:
    """A difference with its interval, each number with its sign."""
    if math.isnan(change.value):
        return "n/a"
    if math.isnan(change.low):
        return f"{change.value:+.3f}"
    return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def score_forgetting(
    before: ArrayLike,
    after: ArrayLike,
    sizes: ArrayLike,
    *,
    source: str,
    kind: BitsKind = "bits per byte",
    off: ArrayLike | None = None,
    also: Sequence[Also] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> Forgetting:
    """Bits per byte of two models on the same documents, with 95 % intervals.

    Bits per byte are the nats of all documents, summed, over ln 2 and all their bytes, so that models with
    other tokenizers can be compared. Intervals are percentiles of a bootstrap over documents; it is paired,
    each drawn with what both models say of it, so that the change is far surer than either number.

    Args:
        before: Nats of each document under the base, summed over its tokens, ``(documents,)``.
        after: The same under the tuned model.
        sizes: UTF-8 bytes of what was scored of each document, ``(documents,)``.
        source: Where the documents come from.
        kind: What was summed.
        off: Nats under the tuned model with its adapter switched off; ``None`` where it has no switch.
        also: Other labelled tasks.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        InputError: no documents or bytes, other lengths, or numbers that are not finite.
    """
    whole = np.asarray(sizes, dtype=np.float64)
    parts = [_nats(name, part, whole) for name, part in (("before", before), ("after", after))]
    bits = [part / np.log(2) for part in parts]

    def replicates(weights: Floats) -> Floats:
        # A draw of documents without a byte scored says nothing.
        bytes_drawn = np.where((total := weights @ whole) > 0, total, np.nan)
        first, second = (weights @ part / bytes_drawn for part in bits)
        return np.stack([first, second, second - first], axis=1)

    samples = bootstrap(replicates, len(whole), resamples=resamples, seed=seed)
    first, second = (float(part.sum() / whole.sum()) for part in bits)
    points = (first, second, second - first)
    old, new, gap = (_interval(point, samples[:, at], len(whole)) for at, point in enumerate(points))
    silent = None if off is None else _nats("off", off, whole)
    gone = None if silent is None else float((silent - parts[0]).sum() / np.log(2) / whole.sum())
    return Forgetting(source, len(whole), int(whole.sum()), old, new, gap, gone, kind, tuple(also))


def only_also(also: Sequence[Also], kind: BitsKind) -> Forgetting:
    """Other tasks alone, without general text."""
    nothing = Estimate(math.nan, math.nan, math.nan)
    return Forgetting("none", 0, 0, nothing, nothing, nothing, off=None, kind=kind, also=tuple(also))


def score_also(
    name: str,
    before: ArrayLike,
    after: ArrayLike,
    gold: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Also:
    """Accuracy on another task before and after, with the exact McNemar test on the same rows.

    Args:
        name: What the task is called.
        before: Probabilities of the base ``(rows, labels)``.
        after: Probabilities of the tuned model on the same rows ``(rows, labels)``; ``before`` itself where
            nothing was turned, which changes exactly nothing.
        gold: Gold label indices ``(rows,)``.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        InputError: arrays that cannot be scored or do not belong together.
    """
    labels = [str(place) for place in range(np.asarray(before).shape[1])]
    first, second = (
        score(table, gold, labels, resamples=resamples, seed=seed).metrics["accuracy"]
        for table in (before, after)
    )
    if after is before:
        same = first.value
        difference = Paired(
            "accuracy", same, same, Estimate(0.0, 0.0, 0.0), 1.0, UNTURNED, np.asarray(before).shape[0]
        )
    else:
        difference = compare(after, before, gold, resamples=resamples, seed=seed)
    return Also(name, difference.rows, first, second, difference)


def _nats(name: str, values: ArrayLike, sizes: Floats) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != sizes.shape or sizes.ndim != 1 or not sizes.sum() > 0:
        raise InputError(
            f"{name} has shape {array.shape}, sizes {sizes.shape} with {sizes.sum():.0f} bytes",
            expected="one number per document, and at least one byte",
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InputError(
            f"{name} is not a finite number",
            where=f"document {row}, counted from 0",
            expected="finite losses",
            fix="load the model in another number format, such as float32",
        )
    return array


def _interval(value: float, samples: Floats, documents: int) -> Estimate:
    return percentile_interval(value, samples) if documents > 1 else Estimate(value, math.nan, math.nan)


def _also(part: dict[str, Any]) -> Also:
    paired = part["difference"]
    difference = Paired(**{**paired, "difference": read_estimate(paired["difference"])})
    return Also(
        part["name"], part["rows"], read_estimate(part["before"]), read_estimate(part["after"]), difference
    )
