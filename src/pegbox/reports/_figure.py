from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox import _atomic
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")


def check_suffix(path: Path) -> None:
    """Raise UsageError for a file that cannot be drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"cannot draw a '{path.suffix}' file", where=str(path), expected=" or ".join(SUFFIXES)
        )


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, that draws without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure whole or not at all; the same figure gives the same bytes with the same Matplotlib."""
    import matplotlib

    kind = path.suffix.lower()
    content = io.BytesIO()
    # A date or a random id would make every file differ from the last.
    metadata: dict[str, Any] = {"Date": None} if kind == ".svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "pegbox", "svg.fonttype": "path"}):
        figure.savefig(content, format=kind[1:], dpi=150, metadata=metadata)
    return _atomic.write_bytes(path, content.getvalue())
