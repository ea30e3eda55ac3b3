from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox import _atomic
from pegbox.errors import UsageError
from pegbox.reports._format import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Ink and grey of every picture; the one colour marks what is recommended, beside a shape that does so too.
INK, GREY, ACCENT = "#1a1a1a", "#a8a8a8", "#96400f"
SUFFIXES = (".png", ".svg")


def draw(path: str | Path, figure: Callable[[], Figure]) -> Path:
    """Write a figure whole or not at all; the same figure gives the same bytes with the same Matplotlib.

    Args:
        path: The file.
        figure: Makes the figure, once the file is one that can be drawn.

    Raises:
        UsageError: Another suffix than those of pictures.
    """
    place = Path(path)
    _check_suffix(place)
    return _atomic.write_bytes(place, _rendered(figure(), place.suffix.lower()[1:], "path"))


def _check_suffix(path: Path) -> None:
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


def entitle(figure: Figure, title: str) -> None:
    """Put a line above all of a figure, where there is one to put."""
    if title:
        figure.suptitle(legible(title), fontsize="medium", parse_math=False)


def svg_text(figure: Figure) -> str:
    """The figure as SVG whose words are text, in the font of whatever shows it, rather than outlines."""
    return _rendered(figure, "svg", "none").decode("utf-8")


def quiet(axes: Axes) -> None:
    """Take the frame down to a grey line on the left and below, over a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, which="both")
    axes.grid(color=GREY, linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)


@contextlib.contextmanager
def any_letters() -> Iterator[None]:
    """Let names have letters that the font lacks: what cannot be drawn is a box, and no reason to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _rendered(figure: Figure, kind: str, letters: str) -> bytes:
    import matplotlib

    content = io.BytesIO()
    # A date or a random id would make every file differ from the last.
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with any_letters(), matplotlib.rc_context({"svg.hashsalt": "pegbox", "svg.fonttype": letters}):
        figure.savefig(content, format=kind, dpi=150, metadata=metadata)
    return content.getvalue()
