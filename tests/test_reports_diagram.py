import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from comparison_toy import LADDER, Made, comparison_of, curve_of
from pegbox.errors import UsageError
from pegbox.evaluation import Estimate, Scores, score
from pegbox.reports import cost_diagram, learning_curve_diagram, reliability_diagram
from pegbox.reports._curve import curve_figure
from pegbox.reports._pareto import cost_figure, front, spent


def scored(rows: int = 80) -> Scores:
    generator = np.random.default_rng(0)
    table = generator.dirichlet(np.ones(3), size=rows)
    return score(table, generator.integers(3, size=rows), ["a", "b", "c"], resamples=20)


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    for suffix in ("svg", "png"):
        first = reliability_diagram(scored(), tmp_path / f"1.{suffix}", title="a $5 title")
        second = reliability_diagram(scored(), tmp_path / f"2.{suffix}", title="a $5 title")
        assert first.read_bytes() == second.read_bytes()
        assert first.read_bytes() != reliability_diagram(scored(81), second).read_bytes()
    assert "<dc:date>" not in (tmp_path / "1.svg").read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1.png", "1.svg", "2.png", "2.svg"]


def test_the_picture_has_ink_and_no_colour(tmp_path: Path) -> None:
    from matplotlib.image import imread

    pixels = imread(reliability_diagram(scored(), tmp_path / "a.PNG"))[..., :3]
    assert pixels.shape == (870, 720, 3)
    # Greyscale: the channels agree to one step of 8 bits.
    assert np.ptp(pixels, axis=2).max() <= 1 / 255
    assert 0.02 < (pixels.mean(axis=2) < 0.5).mean() < 0.2


def test_every_bin_has_its_interval_drawn(tmp_path: Path) -> None:
    found = scored()
    text = reliability_diagram(found, tmp_path / "a.svg").read_text()
    lines = text.split('<g id="LineCollection_1">')[1].split("</g>")[0]
    assert lines.count("<path") == len(found.reliability.bins)
    bars = text.split('<g id="axes_2">')[1].split('<g id="legend_1">')[0].count('<g id="patch_')
    # Four spines and the background are patches too.
    assert bars == len(found.reliability.histogram) + 5


def test_one_row_can_be_drawn(tmp_path: Path) -> None:
    one = score([[1.0, 0.0]], [0], ["a", "b"], resamples=5)
    assert reliability_diagram(one, tmp_path / "a.png").stat().st_size > 5_000


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)cannot draw a '.pdf' file.*\.png or \.svg"):
        reliability_diagram(scored(), tmp_path / "a.pdf")


def test_drawing_leaves_pyplot_and_settings_alone(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, pegbox.reports, pegbox.evaluation as e\n"
        "heavy = {'matplotlib', 'sklearn', 'scipy', 'torch', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import matplotlib\n"
        # Reading the backend would itself load pyplot to find one.
        "keys = sorted(set(matplotlib.rcParams) - {'backend'})\n"
        "before = [matplotlib.rcParams[key] for key in keys]\n"
        "s = e.score([[.9, .1], [.2, .8]], [0, 0], ['a', 'b'], resamples=5)\n"
        "pegbox.reports.reliability_diagram(s, sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert [matplotlib.rcParams[key] for key in keys] == before\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.svg")], check=True)


def test_a_learning_curve_is_drawn_with_what_is_expected(tmp_path: Path) -> None:
    first, again = (learning_curve_diagram(curve_of(), tmp_path / name, "$5") for name in ("1.svg", "2.svg"))
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != learning_curve_diagram(curve_of(128), again, "$5").read_bytes()
    axes = curve_figure(curve_of()).axes
    assert [part.get_ylabel() for part in axes] == ["accuracy", "log-loss, nats"]
    for part in axes:
        assert [label.get_text() for label in part.get_xticklabels()] == [
            "16",
            "32",
            "64",
            "128",
            "256",
            "512",
        ]
    law = axes[0].lines[0]
    assert law.get_xydata()[-1] == pytest.approx((512, curve_of().at(512).value))
    with pytest.raises(UsageError, match=r"cannot draw a '\.pdf' file"):
        learning_curve_diagram(curve_of(), tmp_path / "a.pdf")


def test_a_curve_of_one_size_and_many_labels_is_drawn(tmp_path: Path) -> None:
    one = dataclasses.replace(curve_of(), points=curve_of().points[:1], rows=1_000_000)
    ticks = curve_figure(one).axes[0].get_xticklabels()
    assert [label.get_text() for label in ticks] == ["16", "1.00M", "2.00M"]
    assert learning_curve_diagram(one, tmp_path / "a.png").stat().st_size > 5_000


def cost_labels(rungs: list[Made]) -> list[str]:
    found = comparison_of(rungs, seeds=(0,), rows=60)
    return [text.get_text() for text in cost_figure(found).axes[0].texts]


def test_cost_against_accuracy_names_its_points(tmp_path: Path) -> None:
    assert sorted(cost_labels(list(LADDER))) == sorted(made.name for made in LADDER)
    found = comparison_of(LADDER, seeds=(0,))
    first, again = (cost_diagram(found, tmp_path / name) for name in ("1.png", "2.png"))
    assert first.read_bytes() == again.read_bytes()
    with pytest.raises(UsageError, match=r"cannot draw a '\.pdf' file"):
        cost_diagram(found, tmp_path / "a.pdf")


def test_names_do_not_lie_on_each_other() -> None:
    many = [Made(f"rung {n} with a long name", n / 10, 1.1**n, 8) for n in range(20)]
    found = comparison_of(many, seeds=(0,), rows=60)
    figure = cost_figure(found)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    names = [text.get_text() for text in figure.axes[0].texts]
    assert found.recommended in names
    assert 2 < len(names) < 20
    assert not [(a, b) for place, a in enumerate(boxes) for b in boxes[:place] if a.overlaps(b)]


def test_the_front_is_what_nothing_quicker_equals() -> None:
    found = comparison_of(LADDER, seeds=(0,))
    best = front(found.rungs, "accuracy")
    for rung in found.rungs:
        quicker = [part for part in found.rungs if spent(part) <= spent(rung) and part is not rung]
        value = rung.metrics["accuracy"].value
        beaten = any(part.metrics["accuracy"].value >= value for part in quicker)
        assert (rung in best) is not beaten, rung.name
    # Of a loss less is better.
    losses = [rung.metrics["nll"].value for rung in front(found.rungs, "nll")]
    assert losses == sorted(losses, reverse=True)


def test_a_metric_that_is_undefined_is_not_drawn() -> None:
    found = comparison_of(LADDER[:3], seeds=(0,))
    nothing = Estimate(math.nan, math.nan, math.nan)
    rungs = tuple(dataclasses.replace(rung, metrics={"accuracy": nothing}) for rung in found.rungs)
    axes = cost_figure(dataclasses.replace(found, rungs=rungs)).axes[0]
    assert not axes.texts
    assert front(rungs, "accuracy") == ()


def test_letters_that_the_font_lacks_do_not_stop_a_picture(tmp_path: Path) -> None:
    found = comparison_of([dataclasses.replace(LADDER[0], name="\U0001f642 \x00\ud800 $x$")], seeds=(0,))
    assert cost_diagram(found, tmp_path / "a.svg").stat().st_size > 5_000
    assert reliability_diagram(scored(), tmp_path / "b.svg", title="\U0001f642\x00").stat().st_size > 5_000
