from pathlib import Path

import numpy as np
import pytest

from pegbox.errors import UsageError
from pegbox.evaluation import RiskCoverage, risk_coverage
from pegbox.reports import risk_coverage_diagram
from pegbox.reports._risk_coverage import _STROKES, risk_coverage_figure


def measured(rows: int = 80, seed: int = 0, coarse: bool = False) -> RiskCoverage:
    dice = np.random.default_rng(seed)
    doubt = dice.normal(size=rows)
    right = dice.random(rows) > 1 / (1 + np.exp(1 - doubt))
    return risk_coverage(np.round(doubt) if coarse else doubt, right, resamples=20)


def test_the_same_curves_give_the_same_bytes(tmp_path: Path) -> None:
    for suffix in ("svg", "png"):
        first = risk_coverage_diagram(measured(), tmp_path / f"1.{suffix}", "a $5 title")
        second = risk_coverage_diagram(measured(), tmp_path / f"2.{suffix}", "a $5 title")
        assert first.read_bytes() == second.read_bytes()
        assert first.read_bytes() != risk_coverage_diagram(measured(81), second, "a $5 title").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1.png", "1.svg", "2.png", "2.svg"]


def test_the_picture_has_ink_and_no_colour(tmp_path: Path) -> None:
    from matplotlib.image import imread

    many = {f"{seed}": measured(seed=seed) for seed in range(len(_STROKES))}
    pixels = imread(risk_coverage_diagram(many, tmp_path / "a.PNG"))[..., :3]
    # Greyscale: the channels agree to one step of 8 bits.
    assert np.ptp(pixels, axis=2).max() <= 1 / 255
    assert 0.01 < (pixels.mean(axis=2) < 0.5).mean() < 0.2


@pytest.mark.parametrize("coarse", [False, True])
def test_one_curve_is_drawn_with_its_interval_and_the_ideal_order(coarse: bool) -> None:
    curve = measured(coarse=coarse)
    figure = risk_coverage_figure(curve)
    axes = figure.axes[0]
    ideal, line = axes.lines
    assert line.get_xydata() == pytest.approx(np.column_stack([curve.coverage, curve.risk]))
    right = 1 - curve.risk[-1]
    assert ideal.get_xydata()[0] == pytest.approx((0, 0))
    assert ideal.get_xydata()[1] == pytest.approx((right, 0))
    assert ideal.get_xydata()[-1] == pytest.approx((1, 1 - right))
    (band,) = axes.collections
    corners = {tuple(corner) for corner in np.round(band.get_paths()[0].vertices, 9).tolist()}
    for row in map(curve.at, curve.thresholds):
        assert (round(row.coverage, 9), round(row.risk.low, 9)) in corners
        assert (round(row.coverage, 9), round(row.risk.high, 9)) in corners
    assert figure.legends[0].get_texts()[0].get_text() == f"AURC {curve.aurc}"


def test_many_curves_are_told_apart_by_name_and_stroke(tmp_path: Path) -> None:
    names = ["_entropy", "$x$", "\U0001f642", "", "\x00", "a", "b", "c"]
    curves = {name: measured(seed=place) for place, name in enumerate(names)}
    figure = risk_coverage_figure(curves, "$5")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[0] == f"_entropy: AURC {curves['_entropy'].aurc}"
    assert texts[4].startswith("\N{REPLACEMENT CHARACTER}: AURC")
    assert len(texts) == len(names)
    assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())
    lines = figure.axes[0].lines
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == len(names)
    for line, curve in zip(lines, curves.values(), strict=True):
        assert line.get_ydata() == pytest.approx(curve.risk)
    # Drawing it warns of nothing, and warnings are errors here.
    assert risk_coverage_diagram(curves, tmp_path / "a.svg", "$5").stat().st_size > 5_000


def test_a_long_curve_is_thinned_to_what_can_be_seen(tmp_path: Path) -> None:
    curve = measured(20_000)
    line = risk_coverage_figure(curve).axes[0].lines[1]
    assert len(line.get_xdata()) == 400
    assert tuple(line.get_xydata()[-1]) == (1.0, curve.risk[-1])
    assert np.diff(line.get_xdata()).max() <= 1 / 400 + 1 / 20_000 + 1e-12
    place = np.searchsorted(curve.coverage, line.get_xdata())
    assert line.get_ydata().tolist() == curve.risk[place].tolist()
    assert risk_coverage_diagram(curve, tmp_path / "a.svg").stat().st_size < 100_000


@pytest.mark.parametrize("right", [[1], [0], [1, 1, 1], [0, 0, 0]])
def test_answers_that_are_all_alike_can_be_drawn(right: list[int], tmp_path: Path) -> None:
    curve = risk_coverage(range(len(right)), right, resamples=5)
    line = risk_coverage_figure({"a": curve}).axes[0].lines[0]
    assert line.get_ydata().tolist() == [1.0 - right[0]] * len(right)
    assert line.get_marker() == "o"
    ideal = risk_coverage_figure(curve).axes[0].lines[0]
    assert set(ideal.get_ydata().tolist()) == {1.0 - right[0]}
    for place, part in enumerate((curve, {"a": curve})):
        assert risk_coverage_diagram(part, tmp_path / f"{place}.png").stat().st_size > 5_000


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)cannot draw a '.pdf' file.*\.png or \.svg"):
        risk_coverage_diagram(measured(), tmp_path / "a.pdf")
    with pytest.raises(UsageError, match=r"(?s)0 curves cannot be drawn.*1 to 8"):
        risk_coverage_diagram({}, tmp_path / "a.png")
    with pytest.raises(UsageError, match="9 curves cannot be drawn"):
        risk_coverage_diagram({f"{n}": measured() for n in range(9)}, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
