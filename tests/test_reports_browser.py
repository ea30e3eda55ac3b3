"""The page in a real browser, whose own words are the test: the page runs no script."""

from pathlib import Path

import numpy as np
import pytest

import browser_toy as browser
from comparison_toy import LADDER, comparison_of, curve_of, with_forgetting
from pegbox.reports._page._view import view
from pegbox.reports._page._write import SECTIONS, page

pytestmark = pytest.mark.skipif(browser.FOUND is None, reason="no Chromium is installed")

LABELS = ["a label of some length", "supercalifragilisticexpialidocious_" * 3]
# Opens the report at three widths and writes down how wide it became; and does what a report must not do.
HARNESS = """<!doctype html><meta charset="utf-8"><pre id="measured">{}</pre><script>
const found = {};
let left = 3;
for (const width of [360, 768, 1280]) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px";
  frame.style.height = "600px";
  frame.onload = () => {
    const root = frame.contentDocument.documentElement;
    found["over " + width] = root.scrollWidth - root.clientWidth;
    const boxes = [...root.querySelectorAll(".scroll")];
    found["boxes over " + width] = boxes.filter(box => box.scrollWidth > box.clientWidth + 1).length;
    const paper = frame.contentWindow.getComputedStyle(frame.contentDocument.body).backgroundColor;
    found["red " + width] = Number(paper.match(/\\d+/)[0]);
    if (--left === 0) document.getElementById("measured").textContent = JSON.stringify(found);
  };
  frame.src = "report.html";
  document.body.append(frame);
}
console.error("a control error");
fetch("http://127.0.0.1:9/control").catch(() => 0);
</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = "Row {} سلام 🙂 " + "x" * 300 + " and a few words more" * 30
    found = comparison_of(LADDER[2:5], labels=LABELS, seeds=(0, 1), text=text, curve=curve_of())
    found = with_forgetting(found)
    path = tmp_path_factory.mktemp("browser") / "report.html"
    path.write_text(page(found, view(found)), "utf-8")
    return path


def test_no_errors_no_requests_and_all_sections(report: Path, tmp_path: Path) -> None:
    found = browser.visit(report, tmp_path)
    assert found.console == ()
    assert found.asked == ()
    for key in SECTIONS:
        assert f'<section id="{key}"' in found.dom
    assert found.dom.count("<table") > 8
    assert found.dom.rstrip().endswith("</html>")


def test_it_fits_narrow_screens_and_is_dark_where_asked(report: Path, tmp_path: Path) -> None:
    harness = report.with_name("harness.html")
    harness.write_text(HARNESS, "utf-8")
    found = browser.visit(harness, tmp_path, "--blink-settings=preferredColorScheme=0")
    # The control: an error and a request are seen by the same means that found none in the report.
    assert any("a control error" in line for line in found.console)
    assert any(address.endswith("/control") for address in found.asked)
    numbers = browser.measured(found)
    for width in (360, 768, 1280):
        assert numbers[f"over {width}"] == 0
        assert numbers[f"red {width}"] < 64
    # What is wider than the screen scrolls in its own box.
    assert numbers["boxes over 360"] >= 3
    assert numbers["boxes over 1280"] < numbers["boxes over 360"]


def test_it_is_drawn(report: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    light = "--blink-settings=preferredColorScheme=1"
    picture = browser.photograph(report, tmp_path, tmp_path / "page.png", (1200, 3000), light)
    pixels = imread(picture)[..., :3]
    assert pixels.shape == (3000, 1200, 3)
    assert pixels[0, 0].min() > 0.95
    ink = (pixels.mean(axis=2) < 0.5).mean(axis=1)
    assert 0.005 < ink.mean() < 0.2
    # Every quarter of what was photographed has something in it.
    assert all(part.max() > 0 for part in np.array_split(ink, 4))
