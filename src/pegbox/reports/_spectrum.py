from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.reports._figure import draw, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY = "#a8a8a8"
_NAMED = 12


def spectrum_diagram(values: Mapping[str, Sequence[float]], path: str | Path, title: str = "") -> Path:
    """Draw singular values against their number, one line per matrix, on a logarithmic scale.

    The same values give the same bytes with the same Matplotlib.

    Args:
        values: Singular values by matrix, largest first; matrices without change are left out.
        path: File to write, ``.png`` or ``.svg``; written whole or not at all.
        title: Line above the diagram.

    Returns:
        ``path``.

    Raises:
        UsageError: another suffix.
    """
    return draw(path, lambda: _figure(values, title))


def _figure(values: Mapping[str, Sequence[float]], title: str) -> "Figure":
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    drawn = {name: line for name, line in values.items() if line and line[0] > 0}
    for name, line in drawn.items():
        # What is smaller is rounding of the largest, and would stretch the scale.
        shown = [value for value in line if value > line[0] * 1e-6]
        label = name if len(drawn) <= _NAMED else None
        axes.plot(range(1, len(shown) + 1), shown, marker="o", markersize=3, linewidth=1, label=label)
    axes.set(xlabel="number", ylabel="singular value of the change", yscale="log" if drawn else "linear")
    axes.grid(color=_GREY, linewidth=0.5, alpha=0.5)
    if 0 < len(drawn) <= _NAMED:
        axes.legend(fontsize="x-small", frameon=False)
    axes.set_title(title, fontsize="medium", parse_math=False)
    return figure
