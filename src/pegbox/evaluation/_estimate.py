import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# 97.5 % quantile of the standard normal distribution, for two-sided 95 % intervals.
Z95 = 1.959963984540054
# A p-value below it is told as a difference, beside intervals of 95 %.
SIGNIFICANT = 0.05
_ZERO_WIDTH = 1e-12
# Numbers of one chunk of resamples: 1e6 float64 are 8 MB, small enough to stay near the processor.
CELLS = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    An undefined number (the precision of a label that was never predicted) is NaN here and null in JSON;
    so are the ends of an interval that cannot be known (one row).

    Args:
        value: The point estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        # One NaN object for all, so that estimates with undefined parts compare equal after a round trip.
        for name in ("value", "low", "high"):
            number = float(getattr(self, name))
            object.__setattr__(self, name, math.nan if math.isnan(number) else number)

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "n/a"
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def zero_width(self) -> bool:
        """Whether the interval is one point (up to rounding) or unknown."""
        return not self.high - self.low > _ZERO_WIDTH


def percentile_interval(value: float, samples: Floats) -> Estimate:
    """95 % percentile interval of bootstrap replicates ``samples`` (resamples,).

    Resamples in which the number is undefined (NaN: no row of the class was drawn) are left out.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    known = samples[~np.isnan(samples)]
    if math.isnan(value) or not known.size:
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def basic_interval(value: float, samples: Floats, noise: Floats) -> Estimate:
    """95 % basic (reflected) bootstrap interval for a calibration error.

    A calibration error sums absolute values, so noise makes it too large, and a resample of the sample
    larger still: percentiles would sit above the truth. Reflecting them about the estimate,
    ``[2 value - q97.5, 2 value - q2.5]``, takes most of that bias out. The result is cut at 0 and 1 and,
    where the bias outweighs the spread, stretched to contain the estimate. It starts at 0 whenever the
    estimate is no larger than the 97.5 % quantile of ``noise``: then nothing speaks against calibration.
    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 5.2.

    Args:
        value: The calibration error.
        samples: Its bootstrap replicates ``(resamples,)``.
        noise: Errors of a perfectly calibrated model on the same rows ``(resamples,)``.
    """
    mirrored = percentile_interval(value, samples)
    low, high = 2 * value - mirrored.high, 2 * value - mirrored.low
    if math.isnan(low):
        return mirrored
    if value <= np.quantile(noise, 0.975):
        low = 0.0
    return Estimate(value, min(max(low, 0.0), value), min(max(high, value), 1.0))


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """95 % score interval of a proportion; (NaN, NaN) without trials.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    if trials <= 0:
        return math.nan, math.nan
    share = successes / trials
    scale = 1 + Z95**2 / trials
    centre = (share + Z95**2 / (2 * trials)) / scale
    half = Z95 * math.sqrt(share * (1 - share) / trials + Z95**2 / (4 * trials**2)) / scale
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)
