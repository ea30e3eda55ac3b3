from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Literal

from pegbox.reports import _format
from pegbox.reports._cell import plain
from pegbox.reports._names import NAMES
from pegbox.reports._pareto import LOWER
from pegbox.reports._table import new_table
from pegbox.reports._words import MARKED, P_DECIDES, at_odds, fits

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from pegbox.comparison import Comparison, Rung

_MARK = "*"
# The longest name of a method, marked: with the other columns 80 characters.
_NAME = 20
# What stands beside the decisive metric: of probabilities, or else of entities.
_BESIDE = (("nll", "ece"), ("precision", "recall"))
_DECISIVE = ("accuracy", "f1")


def comparison_table(comparison: "Comparison") -> "RenderableType":
    """Rich table of the ladder, a line per rung, that fits a terminal of 80 columns.

    Below it stand the mark of the recommended rung and what was not climbed.

    Args:
        comparison: What was compared.
    """
    from rich.console import Group

    from pegbox.comparison import ANSWERS

    lines = [
        f"{_MARK} recommended: {MARKED}",
        f"seconds: of the fit and {ANSWERS:,} answers",
    ]
    if comparison.metric in LOWER:
        lines.append(f"{NAMES.get(comparison.metric, comparison.metric)}: less is better")
    lines += [part for part in (fits(comparison), P_DECIDES if at_odds(comparison.rungs) else "") if part]
    lines += [f"not climbed: {part.name} ({part.reason})" for part in comparison.skipped]
    return Group(_Ladder(comparison), plain("\n".join(lines)))


def rung_line(rung: "Rung", metric: str | None = None) -> str:
    """One plain line about a rung, to be printed when it is done.

    Args:
        rung: What was measured.
        metric: The decisive metric; by default that of the rung's difference, or else accuracy or F1.
    """
    name = metric or _decisive(rung)
    score = f"{NAMES.get(name, name)} {_format.interval(rung.metrics.get(name))}"
    parts = [score + (f" over {len(rung.cells)} seeds" if len(rung.cells) > 1 else "")]
    if rung.difference is not None:
        gap, p = _format.signed(rung.difference.difference), _format.p_value(rung.difference.p)
        parts.append(f"{gap} against {rung.against} ({p})")
    parts += [
        f"{_format.count(rung.cost.parameters)} parameters",
        f"{_format.duration(rung.cost.seconds)} to fit",
    ]
    return f"{rung.name}: {', '.join(parts)}"


@dataclass(frozen=True)
class _Ladder:
    """The table with intervals beside their numbers, or below them where that is too wide."""

    comparison: "Comparison"

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        wide = _table(self.comparison, " ")
        fits = console.measure(wide, options=options.update_width(999)).maximum <= options.max_width
        yield wide if fits else _table(self.comparison, "\n")


def _table(comparison: "Comparison", before_interval: str) -> "Table":
    metric, beside = comparison.metric, _beside(comparison)
    table = new_table(_title(comparison))
    heads = ["method", NAMES.get(metric, metric), "over the best\ncheaper", *map(_short, beside)]
    for place, head in enumerate([*heads, "params", "seconds"]):
        side: Literal["left", "right"] = "right" if place else "left"
        table.add_column(plain(head), justify=side, no_wrap=True)
    for rung in comparison.rungs:
        mark = _MARK if rung.name == comparison.recommended else ""
        cells = [
            fill(rung.name + mark, _NAME),
            _format.interval(rung.metrics.get(metric)).replace(" ", before_interval, 1),
            _difference(rung, before_interval),
            *(_format.value(rung.metrics.get(other)) for other in beside),
            _format.short_count(rung.cost.parameters),
            _format.seconds(rung.seconds),
        ]
        table.add_row(*map(plain, cells))
    return table


def _difference(rung: "Rung", before_interval: str) -> str:
    if rung.difference is None:
        return _format.NONE
    gap, _, ends = _format.signed(rung.difference.difference).partition(" ")
    first = f"{gap}, {_format.p_value(rung.difference.p)}"
    return f"{first}{before_interval}{ends}" if ends else first


def _title(comparison: "Comparison") -> str:
    unit = "sentences" if comparison.kind == "tag" else "rows"
    return f"{comparison.data.test_rows:,} test {unit}, 95 % intervals"


def _beside(comparison: "Comparison") -> list[str]:
    known = {name for rung in comparison.rungs for name in rung.metrics} - {comparison.metric}
    return next(([name for name in names if name in known] for names in _BESIDE if known & {*names}), [])


def _short(name: str) -> str:
    return {"ece": "ECE", "precision": "prec."}.get(name) or NAMES.get(name, name)


def _decisive(rung: "Rung") -> str:
    if rung.difference is not None:
        return rung.difference.metric
    return next((name for name in _DECISIVE if name in rung.metrics), next(iter(rung.metrics)))
