from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pegbox.comparison._power_law import PowerLaw
from pegbox.errors import InputError
from pegbox.evaluation import Estimate, plain, read_estimate

FORMAT = "pegbox.learning-curve/1"
Metric = Literal["accuracy", "nll"]


@dataclass(frozen=True)
class CurvePoint:
    """What the closed form reaches with a number of labels.

    Args:
        labels: Training rows.
        accuracy: On held-out rows, mean over the repeats.
        nll: Log-loss there, in nats.
    """

    labels: int
    accuracy: Estimate
    nll: Estimate


@dataclass(frozen=True)
class LearningCurve:
    """How much the closed form gains from labels, measured on subsets and extrapolated.

    Args:
        source: Where the rows come from.
        base: The base's name.
        rows: Labelled rows there are to learn from.
        tested: Rows that it was scored on.
        test_source: Where they come from; ``None`` when they were held out of the same rows, fold by fold.
        repeats: Subsets of each size.
        seed: Seed of subsets, folds and resamples.
        points: Sizes measured, rising.
        error: Power law of 1 - accuracy.
        nll: Power law of the log-loss.
        seconds: Wall time.
    """

    source: str
    base: str
    rows: int
    tested: int
    test_source: str | None
    repeats: int
    seed: int
    points: tuple[CurvePoint, ...]
    error: PowerLaw
    nll: PowerLaw
    seconds: float

    def at(self, labels: int, metric: Metric = "accuracy") -> Estimate:
        """Accuracy or log-loss expected with a number of labels, with a 95 % interval."""
        if metric == "nll":
            return self.nll.estimate(labels)
        error = self.error.estimate(labels)
        return Estimate(1 - error.value, 1 - error.high, 1 - error.low)

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        values = {name: plain(getattr(self, name)) for name in self.__dataclass_fields__}
        return {"format": FORMAT, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LearningCurve:
        """Read what `to_json` wrote.

        Raises:
            InputError: Not that format, or a part is missing.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise InputError("not a learning curve", where="key 'format'", expected=f"'{FORMAT}'")
        given = {name: value for name, value in values.items() if name != "format"}
        try:
            given["points"] = tuple(
                CurvePoint(part["labels"], read_estimate(part["accuracy"]), read_estimate(part["nll"]))
                for part in given["points"]
            )
            given |= {name: PowerLaw.from_json(given[name]) for name in ("error", "nll")}
            return cls(**given)
        except KeyError as error:
            raise InputError("the learning curve lacks a part", where=f"key {error}") from error
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(f"the learning curve holds a part of the wrong kind: {error}") from error
