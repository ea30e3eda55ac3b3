"""Names beside points, so that none lies on another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pegbox.reports._figure import ACCENT, INK, any_letters
from pegbox.reports._format import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]
_SIZE = 8.5
# Width of a letter and height of a line in font sizes, as wide as most fonts that a page is shown in.
_LETTER, _LINE = 0.6, 1.25
_GAP, _MARKER = 6.0, 4.0
_Side = tuple[Literal["left", "center", "right"], Literal["bottom", "center", "top"]]
_NEAR, _FAR = 0.6 * _GAP, 2.4 * _GAP
_SIDES: tuple[tuple[float, float, _Side], ...] = (
    (_NEAR, _NEAR, ("left", "bottom")),
    (_NEAR, -_NEAR, ("left", "top")),
    (-_NEAR, _NEAR, ("right", "bottom")),
    (-_NEAR, -_NEAR, ("right", "top")),
    (_GAP, 0, ("left", "center")),
    (-_GAP, 0, ("right", "center")),
    (_NEAR, _FAR, ("left", "bottom")),
    (_NEAR, -_FAR, ("left", "top")),
    (-_NEAR, _FAR, ("right", "bottom")),
    (-_NEAR, -_FAR, ("right", "top")),
)


def place_labels(
    axes: Axes,
    labels: Sequence[tuple[str, float, float, bool]],
    lines: Sequence[tuple[float, float, float, float]] = (),
) -> None:
    """Write a name beside each point, where it covers no point, no other name and as few lines as can be.

    A name that fits nowhere is left out, unless it is set off from the others.

    Args:
        axes: Where the points are drawn, with their final limits and scales.
        labels: Name (empty for a point without one), x, y, and whether it is set off.
        lines: Upright and level lines to keep clear, each with its x, y, x and y.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    # Only a layout that has been run knows where on the paper a point lies.
    with any_letters():
        figure.draw_without_rendering()
    scale = 72 / figure.dpi

    def paper(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y)) * scale
        return float(across), float(up)

    extent = axes.get_window_extent()
    frame: Box = (extent.x0 * scale, extent.y0 * scale, extent.x1 * scale, extent.y1 * scale)
    points = [paper(x, y) for _, x, y, _ in labels]
    taken = [(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points]
    drawn = [_around(*paper(*line[:2]), *paper(*line[2:])) for line in lines]
    # What is set off chooses first.
    for (name, x, y, strong), point in sorted(
        zip(labels, points, strict=True), key=lambda pair: not pair[0][3]
    ):
        boxes = [_box(name, point, side) for side in _SIDES]
        covers = [_hits(box, taken) + _outside(box, frame) for box in boxes]
        chosen = min(range(len(boxes)), key=lambda n: (covers[n], _hits(boxes[n], drawn)))
        if name and (strong or not covers[chosen]):
            taken.append(boxes[chosen])
            _write(axes, name, (x, y), _SIDES[chosen], strong)


def _write(
    axes: Axes, name: str, point: tuple[float, float], place: tuple[float, float, _Side], strong: bool
) -> None:
    dx, dy, (across, up) = place
    axes.annotate(
        legible(name),
        point,
        xytext=(dx, dy),
        textcoords="offset points",
        ha=across,
        va=up,
        fontsize=_SIZE,
        fontweight="bold" if strong else "normal",
        color=ACCENT if strong else INK,
        parse_math=False,
    )


def _around(x: float, y: float, other_x: float, other_y: float) -> Box:
    return min(x, other_x) - 1, min(y, other_y) - 1, max(x, other_x) + 1, max(y, other_y) + 1


def _box(name: str, point: tuple[float, float], place: tuple[float, float, _Side]) -> Box:
    width, height = _LETTER * _SIZE * len(name), _LINE * _SIZE
    dx, dy, (across, up) = place
    left = point[0] + dx - {"left": 0.0, "center": width / 2, "right": width}[across]
    low = point[1] + dy - {"bottom": 0.0, "center": height / 2, "top": height}[up]
    return left, low, left + width, low + height


def _outside(box: Box, frame: Box) -> bool:
    return box[0] < frame[0] or box[1] < frame[1] or box[2] > frame[2] or box[3] > frame[3]


def _hits(box: Box, others: Sequence[Box]) -> int:
    """How many of the others a box touches."""
    return sum(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in others
    )
