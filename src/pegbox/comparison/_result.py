from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.comparison._curve import LearningCurve
from pegbox.evaluation import Estimate, Forgetting, Paired, Scores, TagScores, plain, read_estimate, reading

if TYPE_CHECKING:
    from pegbox.models import Base

FORMAT = "pegbox.comparison/1"
# Answers that count towards what a rung costs, beside its fit.
ANSWERS = 1000


@dataclass(frozen=True)
class RungCost:
    """What one rung took under one seed, or the median over seeds.

    Args:
        seconds: Wall time of the fit, reading the training rows included.
        predict_seconds: Wall time of answering the test rows.
        parameters: Trained or solved parameters.
        adapter_bytes: Size of what was saved, in bytes; 0 where nothing was turned.
        peak_memory: Most resident memory in bytes (on CUDA: allocated), the base included; ``None`` where the
            system does not tell.
        flops: Estimated floating point operations of the fit.
        predict_flops: The same of one answer.
    """

    seconds: float
    predict_seconds: float
    parameters: int
    adapter_bytes: int
    peak_memory: int | None = None
    flops: float | None = None
    predict_flops: float | None = None


@dataclass(frozen=True)
class Cell:
    """One rung under one seed.

    Args:
        rung: Name of the rung.
        seed: The seed.
        scores: Its scores on the test rows.
        cost: What it took.
        forgetting: What it did to general text, where that was measured.
        folder: Where the tuned model lies, relative to the comparison's folder; ``None`` where none was kept.
        notes: What was told while it was fitted.
    """

    rung: str
    seed: int
    scores: Scores | TagScores
    cost: RungCost
    forgetting: Forgetting | None = None
    folder: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder: a method or baseline under all seeds.

    What is cheaper is told by :attr:`seconds`.

    Args:
        name: Its name.
        summary: What it turns, in a few words.
        options: The method's options; empty for baselines.
        cells: One per seed; one alone for what draws nothing at random.
        metrics: Mean of each metric over the seeds, with intervals over rows and seeds.
        cost: Medians over the seeds.
        against: Name of the best cheaper rung; ``None`` for the cheapest.
        difference: This rung minus that one, on the same rows.
        needed: The gain over it that this rung would have to show to be worth its cost.
        worth: Whether it has shown that; ``None`` for the cheapest.
        typical_seed: The seed whose scores are shown in detail: of the median of the decisive metric.
    """

    name: str
    summary: str
    options: Mapping[str, Any]
    cells: tuple[Cell, ...]
    metrics: Mapping[str, Estimate]
    cost: RungCost
    against: str | None = None
    difference: Paired | None = None
    needed: float | None = None
    worth: bool | None = None
    typical_seed: int = 0

    @property
    def seconds(self) -> float:
        """What it costs in time: to fit, and to answer `ANSWERS` rows."""
        return self.cost.seconds + ANSWERS * self.cost.predict_seconds / self.cells[0].scores.rows

    @property
    def typical(self) -> Cell:
        """The cell of :attr:`typical_seed`."""
        return next(cell for cell in self.cells if cell.seed == self.typical_seed)


@dataclass(frozen=True)
class Skipped:
    """A rung that was not climbed, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ChangedRow:
    """A test row whose answer differs between the base (or the best cheaper rung) and the recommended rung.

    Args:
        number: Its row number in the source.
        texts: Its texts.
        gold: The right answer.
        before: The other's answer.
        after: The recommended rung's answer.
    """

    number: int
    texts: tuple[str, ...]
    gold: str
    before: str
    after: str


@dataclass(frozen=True)
class WrongRow:
    """A test row that the recommended rung has wrong.

    Args:
        number: Its row number in the source.
        texts: Its texts.
        gold: The right answer.
        predicted: The rung's answer.
        probability: What it gave that answer; 1 for tags.
        own: What it gave the right answer; 0 for tags.
    """

    number: int
    texts: tuple[str, ...]
    gold: str
    predicted: str
    probability: float
    own: float


@dataclass(frozen=True)
class DataNote:
    """Which rows were used.

    Args:
        source: Where the training rows come from.
        train_rows: Their number.
        test_source: Where the test rows come from; ``None`` when they were held out of the same source.
        test_rows: Their number.
        labels: Training rows of each label; empty where there are no labels.
        test_digest: SHA-256 of the test rows' contents.
    """

    source: str
    train_rows: int
    test_source: str | None
    test_rows: int
    labels: Mapping[str, int]
    test_digest: str


@dataclass(frozen=True)
class BaseNote:
    """Which base was tuned."""

    name: str
    kind: str
    parameters: int
    fingerprint: str
    revision: str | None = None
    quantise: str | None = None

    @classmethod
    def of(cls, base: Base) -> BaseNote:
        """What there is to note of a base."""
        return cls(base.name, base.kind, base.parameters, base.fingerprint, base.revision, base.quantise)


@dataclass(frozen=True)
class Comparison:
    """Methods against each other under one protocol.

    Args:
        kind: ``classify``, ``choose`` or ``tag``.
        labels: The answers; for tags the entity types; for choices their places.
        data: Which rows.
        base: Which base.
        metric: The decisive metric.
        seeds: The seeds.
        rungs: What was climbed, the cheapest first.
        skipped: What was not, and why.
        recommended: Name of the cheapest rung that no costlier one beats and no cheaper one equals.
        verdict: Two sentences.
        rule: How a rung is judged and when the climb ends, in words.
        changed: Rows that the recommended rung answers otherwise than :attr:`changed_from`.
        changed_from: Name of the rung that they are compared with.
        errors: Rows that the recommended rung has wrong, the surest first.
        curve: Learning curve of the closed form, where it applies.
        advice: Whether to label more or to tune more, in a sentence or two; empty without a curve.
        findings: What the data doctor found, line by line.
        configuration: All options that the result depends on.
        command: How to repeat it.
        versions: Libraries and their versions.
        date: When it was finished, ISO 8601.
        machine: What it ran on, in words.
        seconds: Wall time of all fits and answers together, those of earlier calls included.
    """

    kind: str
    labels: tuple[str, ...]
    data: DataNote
    base: BaseNote
    metric: str
    seeds: tuple[int, ...]
    rungs: tuple[Rung, ...]
    skipped: tuple[Skipped, ...]
    recommended: str
    verdict: tuple[str, str]
    rule: str
    changed: tuple[ChangedRow, ...] = ()
    changed_from: str | None = None
    errors: tuple[WrongRow, ...] = ()
    curve: LearningCurve | None = None
    advice: str = ""
    findings: tuple[str, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    machine: str = ""
    seconds: float = 0.0

    def rung(self, name: str) -> Rung:
        """The rung of a name."""
        return next(rung for rung in self.rungs if rung.name == name)

    @property
    def best(self) -> Rung:
        """The recommended rung."""
        return self.rung(self.recommended)

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values (NaN becomes None); `from_json` gives back an equal object."""
        values = {item.name: plain(getattr(self, item.name)) for item in fields(self)}
        values["rungs"] = [_rung_json(rung) for rung in self.rungs]
        values["curve"] = None if self.curve is None else self.curve.to_json()
        return {"format": FORMAT, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Comparison:
        """Read what `to_json` wrote.

        Raises:
            InputError: not that format, or a part is missing.
        """
        with reading(values, FORMAT, "a file of a comparison", "the comparison"):
            return cls(**_read(values))

    def __str__(self) -> str:
        width = max(len(rung.name) for rung in self.rungs)
        lines = [
            f"{rung.name:{width}}  {rung.metrics[self.metric]}"
            + (f"  {rung.difference} against {rung.against}" if rung.difference else "")
            for rung in self.rungs
        ]
        return "\n".join([f"{self.metric} on {self.data.test_rows:,} test rows", *lines, *self.verdict])


def cell_json(cell: Cell) -> dict[str, Any]:
    """Strict JSON values of a cell."""
    values = {item.name: plain(getattr(cell, item.name)) for item in fields(cell)}
    values["scores"] = cell.scores.to_json()
    values["forgetting"] = None if cell.forgetting is None else cell.forgetting.to_json()
    return values


def read_cell(values: Mapping[str, Any]) -> Cell:
    """Read what :func:`cell_json` wrote."""
    given = dict(values)
    scores = given["scores"]
    kind: Any = TagScores if "per_type" in scores else Scores
    given["scores"] = kind.from_json(scores)
    given["cost"] = RungCost(**given["cost"])
    given["forgetting"] = None if given["forgetting"] is None else Forgetting.from_json(given["forgetting"])
    given["notes"] = tuple(given["notes"])
    return Cell(**given)


def _rung_json(rung: Rung) -> dict[str, Any]:
    values = {item.name: plain(getattr(rung, item.name)) for item in fields(rung)}
    return {**values, "cells": [cell_json(cell) for cell in rung.cells]}


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in values.items() if name != "format"}
    given["data"] = DataNote(**given["data"])
    given["base"] = BaseNote(**given["base"])
    given["rungs"] = tuple(map(_read_rung, given["rungs"]))
    given["skipped"] = tuple(Skipped(**part) for part in given["skipped"])
    given["changed"] = tuple(ChangedRow(**_texts(part)) for part in given["changed"])
    given["errors"] = tuple(WrongRow(**_texts(part)) for part in given["errors"])
    given["curve"] = None if given["curve"] is None else LearningCurve.from_json(given["curve"])
    for name in ("labels", "seeds", "verdict", "findings"):
        given[name] = tuple(given[name])
    return given


def _read_rung(values: Mapping[str, Any]) -> Rung:
    given = dict(values)
    given["cells"] = tuple(map(read_cell, given["cells"]))
    given["metrics"] = {name: read_estimate(part) for name, part in given["metrics"].items()}
    given["cost"] = RungCost(**given["cost"])
    difference = given["difference"]
    if difference is not None:
        given["difference"] = Paired(**{**difference, "difference": read_estimate(difference["difference"])})
    return Rung(**given)


def _texts(part: Mapping[str, Any]) -> dict[str, Any]:
    return {**part, "texts": tuple(part["texts"])}


def save_json(comparison: Comparison, path: Path) -> None:
    """Write a comparison to a JSON file, whole or not at all."""
    import json

    from pegbox._atomic import write_text

    content = json.dumps(comparison.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, content + "\n")
