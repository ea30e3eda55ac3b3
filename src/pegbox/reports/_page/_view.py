"""All that a report's page says, ready to be set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pegbox.reports import _format
from pegbox.reports._names import NAMES
from pegbox.reports._page import _answers, _ladder, _pictures, _rows, _side
from pegbox.reports._page._pictures import Picture
from pegbox.reports._page._rows import Group
from pegbox.reports._page._table import Table
from pegbox.reports._words import P_DECIDES, at_odds, fits

if TYPE_CHECKING:
    from pegbox.comparison import BaseNote, Comparison, PolicyRun


@dataclass(frozen=True)
class View:
    """The parts of the page that take some work; the rest is read from the comparison itself.

    Args:
        title: Data and base, in one line.
        facts: What was compared on what, as pairs of a name and a value.
        tables: The tables, by name; what does not apply is None.
        cost: The decisive metric against what a rung costs in time.
        reliability: Accuracy against confidence of the main rungs.
        curve: The learning curve, and what it says.
        skipped: Rungs that were not climbed, and why.
        changed: Rows answered otherwise, in groups.
        errors: Rows answered wrong.
        notes: What was told while each rung was fitted.
        remark: What must be said of intervals and p-values; empty where they agree.
        options: Each rung's options.
        configuration: Every option by its dotted name.
        label_counts: Training rows of each label.
        made_with: Machine, digests and versions.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    tables: Mapping[str, Table | None]
    cost: Picture
    reliability: tuple[Picture, ...]
    curve: tuple[Picture, str] | None
    skipped: tuple[tuple[str, str], ...]
    changed: tuple[Group, ...]
    errors: Group | None
    notes: tuple[tuple[str, tuple[str, ...]], ...]
    remark: str
    options: tuple[tuple[str, str], ...]
    configuration: tuple[tuple[str, str], ...]
    label_counts: tuple[tuple[str, str], ...]
    made_with: tuple[tuple[str, str], ...]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of them."""
        return (self.cost, *self.reliability, *(self.curve[:1] if self.curve else ()))


def view(comparison: Comparison) -> View:
    """Gather what the page says."""
    return View(
        title=f"{_file(comparison.data.source)} on {comparison.base.name}",
        facts=tuple(_facts(comparison)),
        tables={
            "ladder": _ladder.quality(comparison),
            "costs": _ladder.costs(comparison),
            "seeds": _ladder.seeds(comparison),
            "labels": _answers.per_label(comparison),
            "weakest": _answers.weakest(comparison),
            "confusion": _answers.confusion(comparison),
            "general": _side.general_text(comparison),
            "other_tasks": _side.other_tasks(comparison),
        },
        cost=_pictures.cost_picture(comparison),
        reliability=tuple(_pictures.reliability_pictures(comparison)),
        curve=_curve(comparison),
        skipped=tuple((part.name, part.reason) for part in comparison.skipped),
        changed=tuple(_rows.changed(comparison)),
        errors=_rows.errors(comparison),
        notes=tuple(_notes(comparison)),
        remark=f"{P_DECIDES[0].upper()}{P_DECIDES[1:]}." if at_odds(comparison.rungs) else "",
        options=tuple((rung.name, _settings(rung.options)) for rung in comparison.rungs if rung.options),
        configuration=tuple(flat(comparison.configuration)),
        label_counts=tuple((name, _format.count(rows)) for name, rows in comparison.data.labels.items()),
        made_with=tuple(_made_with(comparison)),
    )


def _file(source: str) -> str:
    """A file without its folder, of whichever system."""
    return re.split(r"[/\\]", source.rstrip("/\\"))[-1]


def _curve(comparison: Comparison) -> tuple[Picture, str] | None:
    """The learning curve and what it says."""
    curve = comparison.curve
    if curve is None:
        return None
    return _pictures.curve_picture(curve), comparison.advice or curve.advice()


def _facts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    data, base = comparison.data, comparison.base
    unit = "sentences" if comparison.kind == "tag" else "rows"
    yield "Recommended", comparison.recommended
    yield "Decided by", NAMES.get(comparison.metric, comparison.metric)
    yield "Tuned on", f"{data.train_rows:,} {unit} of {data.source}"
    yield "Tested on", f"{data.test_rows:,} {unit} {_held(comparison)}"
    yield "Base", f"{base.name}, {base.kind}, {base.parameters:,} parameters{in_bits(base)}"
    yield "Seeds", _seeds(comparison)
    yield "All fits and answers", _format.duration(comparison.seconds)
    yield "Finished", comparison.date or _format.NONE


def _seeds(comparison: Comparison) -> str:
    """Those that a rung was fitted under."""
    seeds = dict.fromkeys(cell.seed for rung in comparison.rungs for cell in rung.cells)
    told = ", ".join(map(str, sorted(seeds)))
    return f"{told}; {fits(comparison)}" if len(seeds) < len(comparison.seeds) else told


def _made_with(comparison: Comparison) -> Iterator[tuple[str, str]]:
    yield from ran_on(comparison)
    yield "test rows' SHA-256", comparison.data.test_digest
    yield from comparison.versions.items()


def ran_on(record: Comparison | PolicyRun) -> Iterator[tuple[str, str]]:
    """Machine and base."""
    base = record.base
    yield "machine", record.machine or _format.NONE
    yield "base's fingerprint", base.fingerprint
    if base.revision:
        yield "base's revision", base.revision


def _held(comparison: Comparison) -> str:
    source = comparison.data.test_source
    return "held out of the same source" if source is None else f"of {source}"


def in_bits(base: BaseNote) -> str:
    """In how many bits a base was, where it was packed."""
    return f", in {base.quantise}" if base.quantise else ""


def _notes(comparison: Comparison) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each line once, below the names of all fits that told it."""
    told: dict[str, list[str]] = {}
    for rung in comparison.rungs:
        for cell in rung.cells:
            name = f"{rung.name}, seed {cell.seed}" if len(rung.cells) > 1 else rung.name
            for line in dict.fromkeys(cell.notes):
                told.setdefault(line, []).append(name)
    groups: dict[tuple[str, ...], list[str]] = {}
    for line, names in told.items():
        groups.setdefault(tuple(names), []).append(line)
    yield from (("; ".join(names), tuple(lines)) for names, lines in groups.items())


def _settings(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {setting(value)}" for name, value in options.items())


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested options by their dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", setting(value)


def setting(value: Any) -> str:
    """A value as it is shown."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
