import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pegbox.errors import InputError
from pegbox.evaluation._calibration import Bin, Reliability
from pegbox.evaluation._estimate import Estimate
from pegbox.evaluation._flips import Distance, FlipGroup, FlippedRows, Flips

if TYPE_CHECKING:
    from pegbox.evaluation._scores import Scores

FORMAT = "pegbox.scores/1"


@contextmanager
def reading(values: object, format: str, what: str, whole: str) -> Iterator[None]:
    """Refuse another format, and turn what is missing or wrong in the values into one error.

    Args:
        values: What was read.
        format: What its ``format`` must be.
        what: What it is not, if it is another: ``a file of scores``.
        whole: What lacks a part, if one is missing: ``scores``.

    Raises:
        InputError: another format, or a part missing or of the wrong kind.
    """
    if not isinstance(values, Mapping) or values.get("format") != format:
        raise InputError(f"not {what}", where="key 'format'", expected=f"'{format}'")
    lacks, holds = ("lack", "hold") if whole.endswith("scores") else ("lacks", "holds")
    try:
        yield
    except KeyError as error:
        raise InputError(f"{whole} {lacks} a part", where=f"key {error}") from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{whole} {holds} a part of the wrong kind: {error}") from error


def encode_scores(scores: "Scores") -> dict[str, Any]:
    """Strict JSON values of ``scores``."""
    return {"format": FORMAT, **plain(scores)}


def decode_scores(values: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments of `Scores` from `encode_scores`.

    Raises:
        InputError: another format, or a part missing or of the wrong kind.
    """
    from pegbox.evaluation._scores import ClassScores

    with reading(values, FORMAT, "a file of scores", "scores"):
        return {
            "rows": values["rows"],
            "labels": tuple(values["labels"]),
            "metrics": {name: read_estimate(part) for name, part in values["metrics"].items()},
            "per_class": {
                name: ClassScores(
                    read_estimate(part["precision"]),
                    read_estimate(part["recall"]),
                    read_estimate(part["f1"]),
                    part["support"],
                )
                for name, part in values["per_class"].items()
            },
            "confusion": tuple(tuple(line) for line in values["confusion"]),
            "reliability": _reliability(values["reliability"]),
            "flips": _flips(values["flips"]),
            "seconds": values["seconds"],
        }


def plain(value: Any) -> Any:
    """Dataclasses, tuples and NaN as dicts, lists and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_estimate(values: Mapping[str, float | None]) -> Estimate:
    """Estimate of its strict JSON values, None for NaN."""
    ends = (math.nan if values[name] is None else values[name] for name in ("value", "low", "high"))
    return Estimate(*ends)  # type: ignore[arg-type]


def _reliability(values: dict[str, Any]) -> Reliability:
    bins = tuple(Bin(**part) for part in values["bins"])
    return Reliability(values["scheme"], bins, tuple(values["histogram"]))


def _flips(values: dict[str, Any] | None) -> Flips | None:
    if values is None:
        return None
    return Flips(
        rows=values["rows"],
        right_to_wrong=_group(values["right_to_wrong"]),
        wrong_to_right=_group(values["wrong_to_right"]),
        wrong_to_wrong=_group(values["wrong_to_wrong"]),
        unchanged_distance=_distance(values["unchanged_distance"]),
    )


def _group(values: dict[str, Any]) -> FlipGroup:
    inside, outside = values["inside"], values["outside"]
    return FlipGroup(
        _rows(values["all"]),
        None if inside is None else _rows(inside),
        None if outside is None else _rows(outside),
    )


def _rows(values: dict[str, Any]) -> FlippedRows:
    return FlippedRows(tuple(values["rows"]), _distance(values["distance"]))


def _distance(values: dict[str, float] | None) -> Distance | None:
    return None if values is None else Distance(**values)
