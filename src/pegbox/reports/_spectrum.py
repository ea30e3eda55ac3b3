import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pegbox import _atomic
from pegbox.errors import UsageError

_SUFFIXES = (".png", ".svg")
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
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    place = Path(path)
    kind = place.suffix.lower()
    if kind not in _SUFFIXES:
        raise UsageError(
            f"cannot draw a '{place.suffix}' file", where=str(place), expected=" or ".join(_SUFFIXES)
        )
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
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
    content = io.BytesIO()
    # A date or a random id would make every file differ from the last.
    metadata: dict[str, Any] = {"Date": None} if kind == ".svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "pegbox", "svg.fonttype": "path"}):
        figure.savefig(content, format=kind[1:], dpi=150, metadata=metadata)
    return _atomic.write_bytes(place, content.getvalue())
