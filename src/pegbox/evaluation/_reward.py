"""Scores of a reward model on pairs: accuracy, margins, calibration, length bias, and simple baselines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pegbox.errors import InputError
from pegbox.evaluation._bootstrap import bootstrap
from pegbox.evaluation._calibration import Bin, MassError, Reliability, _bin, calibrated_errors, place
from pegbox.evaluation._estimate import SIGNIFICANT, Estimate, Floats, basic_interval, percentile_interval
from pegbox.evaluation._json import _reliability, plain, read_estimate, reading
from pegbox.evaluation._metrics import BINS
from pegbox.evaluation._paired import Paired, _interval, permutation
from pegbox.evaluation._scores import _proportion

FORMAT = "pegbox.reward-scores/1"
MARGIN_BINS = 20
_STEPS = 40


@dataclass(frozen=True)
class Margins:
    """How far the rewards of chosen and rejected answers lie apart.

    Args:
        edges: Ends of equally wide bins of chosen less rejected reward, symmetric around 0, in nats.
        counts: Pairs in each; one fewer than the edges.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class RewardScores:
    """How well rewards tell preferred answers from others.

    Args:
        rows: Pairs scored.
        metrics: accuracy (a tie counts half), mean_margin, nll and ece of the probability that the chosen
            answer is better, accuracy_longer_chosen and accuracy_shorter_chosen (on pairs whose chosen answer
            is the longer or shorter one), prefers_longer (share of pairs of different length whose longer
            answer gets the higher reward), length_correlation (Spearman's, of reward and length of answers).
        baselines: The accuracy against that of ``longer wins``, ``shorter wins`` and ``chance`` on the same
            pairs.
        margins: Histogram of the margins.
        reliability: Equal-mass bins of the probability of the answer with the higher reward.
        counts: Pairs with ties of rewards, and pairs whose chosen answer is longer, shorter, as long.
        seconds: Wall-clock time of the run that is described.
    """

    rows: int
    metrics: dict[str, Estimate]
    baselines: dict[str, Paired]
    margins: Margins
    reliability: Reliability
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None

    # What a reliability diagram asks: between how many answers a confidence is divided.
    labels: ClassVar[tuple[str, ...]] = ("first", "second")

    @property
    def unbeaten(self) -> str:
        """The most accurate baseline that it is not surely more accurate than (p < 0.05); empty for none."""
        rivals = [(part.b, name) for name, part in self.baselines.items() if not _beats(part)]
        return max(rivals)[1] if rivals else ""

    def verdict(self) -> str:
        """Whether it has learnt more than lengths of answers, in a sentence that claims no more."""
        rival = self.unbeaten
        if not rival:
            return "It is more accurate than chance, and than preferring the longer or the shorter answer."
        told = (
            f"Its accuracy is not surely above that of {rival!r}, {self.baselines[rival].b:.3f} "
            f"({self.baselines[rival]})"
        )
        return f"{told}: nothing shows that it has learnt more than that."

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        return {"format": FORMAT, **plain(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RewardScores:
        """Read what `to_json` wrote.

        Raises:
            InputError: not that format, or a part is missing.
        """
        with reading(values, FORMAT, "a file of reward scores", "scores"):
            return cls(
                rows=values["rows"],
                metrics={name: read_estimate(part) for name, part in values["metrics"].items()},
                baselines={name: _paired(part) for name, part in values["baselines"].items()},
                margins=Margins(*(tuple(values["margins"][name]) for name in ("edges", "counts"))),
                reliability=_reliability(values["reliability"]),
                counts=dict(values["counts"]),
                seconds=values["seconds"],
            )

    def __str__(self) -> str:
        against = {f"against {name}": f"{part.b:.3f}, {part}" for name, part in self.baselines.items()}
        told = {
            "rows": f"{self.rows:,}",
            **{name: str(estimate) for name, estimate in self.metrics.items()},
            **against,
            **{name: f"{count:,}" for name, count in self.counts.items()},
            **({} if self.seconds is None else {"seconds": f"{self.seconds:.1f}"}),
        }
        width = max(map(len, told))
        return "\n".join(f"{name:<{width}} {value}" for name, value in told.items())


def _beats(part: Paired) -> bool:
    return part.p < SIGNIFICANT and part.difference.value > 0


@dataclass(frozen=True)
class _Pairs:
    """Rewards (rows, 2) and lengths (rows, 2) of chosen and rejected answers, and log-odds (rows,)."""

    rewards: Floats
    lengths: Floats
    margin: Floats

    @property
    def right(self) -> Floats:
        return _wins(self.margin)

    @property
    def longer(self) -> Floats:
        """1 where the chosen answer is the longer one, 0 where the shorter, a half where neither is."""
        return _wins(self.lengths[:, 0] - self.lengths[:, 1])

    @property
    def confidence(self) -> Floats:
        return 1 / (1 + np.exp(-np.abs(self.margin)))


def score_rewards(
    chosen: ArrayLike,
    rejected: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    *,
    margins: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> RewardScores:
    """Measure rewards of chosen and rejected answers, with 95 % bootstrap intervals over pairs.

    The probability that the chosen answer is better is the logistic function of the margin, chosen less
    rejected reward (Bradley and Terry 1952), so that a shift of all rewards changes nothing. Intervals are
    percentiles; where all resamples agree, shares take Wilson's; the calibration error takes the basic
    interval (see `score`). Ranks of the correlation are those of all answers and stay as they are in each
    resample.

    Args:
        chosen: Rewards of the chosen answers ``(rows,)``, in nats.
        rejected: Rewards of the rejected answers ``(rows,)``.
        chosen_lengths: Lengths of the chosen answers ``(rows,)``, in any unit.
        rejected_lengths: Lengths of the rejected answers ``(rows,)``.
        margins: Log-odds that the chosen answer is better ``(rows,)``, where they are averaged over a
            posterior; by default the differences of the rewards.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        InputError: no pairs, arrays of different lengths, or rewards that are not finite.
        UsageError: no resamples.
    """
    pairs = _read(chosen, rejected, chosen_lengths, rejected_lengths, margins)
    measures = _measures(pairs)

    def replicates(weights: Floats) -> Floats:
        return np.stack([measure(weights) for measure in measures.values()], axis=1)

    samples = bootstrap(replicates, len(pairs.margin), resamples=resamples, seed=seed)
    columns = dict(zip(measures, samples.T, strict=True))
    longer = pairs.longer
    return RewardScores(
        rows=len(longer),
        metrics=_metrics(pairs, measures, columns, seed),
        baselines={
            "longer wins": _against(pairs.right, longer, resamples, seed),
            "shorter wins": _against(pairs.right, 1 - longer, resamples, seed),
            "chance": _against(pairs.right, np.full(len(longer), 0.5), resamples, seed),
        },
        margins=_histogram(pairs.margin),
        reliability=_reliable(pairs.confidence, pairs.right),
        counts={
            "ties": int((pairs.margin == 0).sum()),
            "chosen_longer": int((longer == 1).sum()),
            "chosen_shorter": int((longer == 0).sum()),
            "same_length": int((longer == 0.5).sum()),
        },
    )


def _read(*given: ArrayLike | None) -> _Pairs:
    parts = [np.asarray(part, dtype=np.float64) for part in given if part is not None]
    shapes = {part.shape for part in parts}
    if len(shapes) != 1 or parts[0].ndim != 1 or not len(parts[0]):
        raise InputError(
            f"rewards and lengths have the shapes {', '.join(str(part.shape) for part in parts)}",
            expected="one number per pair in each, and at least one pair",
        )
    if not all(np.isfinite(part).all() for part in parts):
        bad = int(np.argmin(np.isfinite(np.stack(parts)).all(0)))
        raise InputError(
            "a reward or length is not a finite number",
            where=f"pair {bad}, counted from 0",
            expected="finite rewards",
            fix="tune again, with a lower learning rate",
        )
    chosen, rejected, *lengths = parts[:4]
    margin = parts[4] if len(parts) > 4 else chosen - rejected
    return _Pairs(np.stack([chosen, rejected], axis=1), np.stack(lengths, axis=1), margin)


def _wins(gaps: Floats) -> Floats:
    return (np.sign(gaps) + 1) / 2


_Measure = Callable[[Floats], Floats]


def _measures(pairs: _Pairs) -> dict[str, _Measure]:
    """Each metric as a function of weights (chunk, rows) to values (chunk,)."""
    right, margin, longer = pairs.right, pairs.margin, pairs.longer
    every = np.ones(len(right))
    agrees = np.where(longer == 1, right, 1 - right)
    return {
        "accuracy": _mean(right, every),
        "mean_margin": _mean(margin, every),
        "nll": _mean(np.logaddexp(0, -margin), every),
        "ece": MassError(pairs.confidence, right, BINS),
        "accuracy_longer_chosen": _mean(right, longer == 1),
        "accuracy_shorter_chosen": _mean(right, longer == 0),
        "prefers_longer": _mean(agrees, longer != 0.5),
        "length_correlation": _correlation(pairs.rewards, pairs.lengths),
    }


def _mean(values: Floats, among: NDArray[Any]) -> _Measure:
    """The mean of values over the rows that are among them; NaN where none was drawn."""
    inside = among.astype(np.float64)

    def measure(weights: Floats) -> Floats:
        count = weights @ inside
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = (weights @ (values * inside)) / np.where(count > 0, count, np.nan)
        return found

    return measure


def _correlation(rewards: Floats, lengths: Floats) -> _Measure:
    """Pearson's correlation of the ranks (Spearman 1904) over all answers."""
    from scipy.stats import rankdata

    one, other = (rankdata(part).reshape(part.shape) for part in (rewards, lengths))
    one, other = one - one.mean(), other - other.mean()
    sums = [part.sum(1) for part in (one, other, one * other, one * one, other * other)]

    def measure(weights: Floats) -> Floats:
        x, y, xy, xx, yy = (weights @ part / (2 * weights.shape[1]) for part in sums)
        spread = (xx - x * x) * (yy - y * y)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(spread > 1e-12, (xy - x * y) / np.sqrt(np.maximum(spread, 1e-300)), np.nan)

    return measure


def _metrics(
    pairs: _Pairs, measures: dict[str, _Measure], columns: dict[str, Floats], seed: int
) -> dict[str, Estimate]:
    rows, longer = len(pairs.margin), pairs.longer
    among = {
        "accuracy": np.full(rows, True),
        "accuracy_longer_chosen": longer == 1,
        "accuracy_shorter_chosen": longer == 0,
        "prefers_longer": longer != 0.5,
    }
    metrics = {}
    for name, measure in measures.items():
        value, samples = float(measure(np.ones((1, rows)))[0]), columns[name]
        if name in among:
            trials = int(among[name].sum())
            metrics[name] = _proportion(value, samples, value * trials if trials else 0, trials)
        elif rows == 1:
            metrics[name] = Estimate(value, math.nan, math.nan)
        elif name == "ece":
            noise = calibrated_errors(pairs.confidence, "mass", bins=BINS, resamples=len(samples), seed=seed)
            metrics[name] = basic_interval(value, samples, noise)
        else:
            metrics[name] = percentile_interval(value, samples)
    return metrics


def _against(right: Floats, other: Floats, resamples: int, seed: int) -> Paired:
    gaps = right - other
    return Paired(
        metric="accuracy",
        a=float(right.mean()),
        b=float(other.mean()),
        difference=_interval(gaps, "accuracy", resamples, seed),
        p=permutation(gaps, resamples, seed),
        test="paired permutation",
        rows=len(gaps),
    )


def _histogram(margin: Floats) -> Margins:
    most = float(np.abs(margin).max()) or 1.0
    counts, edges = np.histogram(margin, bins=MARGIN_BINS, range=(-most, most))
    return Margins(tuple(map(float, edges)), tuple(map(int, counts)))


def _reliable(confidence: Floats, right: Floats) -> Reliability:
    places = place(confidence, BINS, "mass")
    bins: tuple[Bin, ...] = tuple(
        _bin(confidence[places == one], right[places == one]) for one in np.unique(places)
    )
    counts = np.bincount(place(confidence, _STEPS, "width"), minlength=_STEPS)
    return Reliability("mass", bins, tuple(counts.tolist()))


def _paired(values: dict[str, Any]) -> Paired:
    return Paired(**{**values, "difference": read_estimate(values["difference"])})
