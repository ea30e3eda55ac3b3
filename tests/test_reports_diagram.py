import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pegbox.errors import UsageError
from pegbox.evaluation import Scores, score
from pegbox.reports import reliability_diagram


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
