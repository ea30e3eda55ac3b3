"""What advise found, for the terminal."""

from typing import TYPE_CHECKING

from pegbox.reports import _format
from pegbox.reports._cell import plain
from pegbox.reports._table import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from pegbox.comparison import Advice


def offers_table(advice: "Advice") -> "Table":
    """Estimated memory and time of each method, and why it is left out where it is.

    Args:
        advice: What :func:`pegbox.comparison.advise` returned.
    """
    table = new_table("estimates: memory beyond what the process had, time at the most")
    for column in ("method", "memory", "fit", "1,000 answers", "parameters", ""):
        right = column not in ("method", "")
        table.add_column(column, justify="right" if right else "left", no_wrap=right or column == "method")
    for offer in advice.offers:
        costs = offer.costs
        begun = " ←" if costs.method == advice.method else ""
        table.add_row(
            plain(costs.method + begun, "bold" if begun else ""),
            _format.size(costs.memory),
            _format.duration(costs.seconds),
            _format.duration(costs.answer_seconds),
            _format.short_count(costs.parameters),
            plain(offer.left_out, "dim"),
        )
    return table


def pilot_table(advice: "Advice") -> "Table | None":
    """What was measured, or ``None`` where nothing was.

    Args:
        advice: What :func:`pegbox.comparison.advise` returned.
    """
    if advice.pilot is None or not advice.pilot.trials:
        return None
    table = new_table("measured on these rows")
    for column in ("tried", "accuracy", "NLL", "rows", "kept apart by"):
        table.add_column(column, justify="right" if column == "rows" else "left")
    for trial in advice.pilot.trials:
        table.add_row(
            plain(trial.name),
            _format.interval(trial.accuracy),
            _format.interval(trial.nll),
            _format.count(trial.rows),
            plain(trial.how),
        )
    return table
