"""The documentation as a site: links lead to headings, the navigation has every page, every name a place."""

import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pegbox
from test_imports import ORDER

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("examples/*.md")]
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^]]*)\]\(([^)\s]+)\)")


def text(page: Path) -> str:
    """A page without its code."""
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as Python-Markdown names them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text(page), re.MULTILINE):
        plain = unicodedata.normalize("NFKD", LINK.sub(r"\1", heading)).encode("ascii", "ignore").decode()
        name = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        again = 0
        while name + f"_{again}" * bool(again) in found:
            again += 1
        found.add(name + f"_{again}" * bool(again))
    return found


def listed(part: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(part, str):
        yield part
    else:
        for inner in part.values() if isinstance(part, dict) else part:
            yield from listed(inner)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for _, target in LINK.findall(text(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.name} links to {target}"
        known = anchors(place) if anchor else set()
        assert not anchor or anchor in known, f"{page.name} links to {target}, not to {sorted(known)}"
        # The site holds the pages of docs alone.
        assert not page.is_relative_to(DOCS) or place.is_relative_to(DOCS), f"{page.name} links to {target}"


def test_the_navigation_has_every_page_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert sorted(listed(nav)) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_reference_has_every_room_and_every_name() -> None:
    """A room's page is generated from its names; what the package itself gives is listed by hand."""
    for room in ORDER:
        if room != "cli":  # its page is cli.md, and its words come from --help
            assert f"::: pegbox.{room}\n" in (DOCS / "reference" / f"{room}.md").read_text("utf-8")
    page = (DOCS / "reference" / "pegbox.md").read_text("utf-8")
    found = re.findall(r"\[`(\w+)`\]\[pegbox\.(\w+)\.\1\]", page)
    assert sorted(name for name, _ in found) == sorted(set(pegbox.__all__) - {"__version__"})
    for name, room in found:
        assert getattr(getattr(pegbox, room), name) is getattr(pegbox, name)


SECTION = re.compile(r"<!-- section ([\w-]+) -->(.*?)<!-- end of section \1 -->", re.DOTALL)
MEASURED = [
    pytest.param(found[2], id=found[1])
    for page in PAGES
    for found in SECTION.finditer(page.read_text("utf-8"))
]


@pytest.mark.parametrize("section", MEASURED)
def test_what_was_measured_names_command_machine_commit_and_date(section: str) -> None:
    if "Not measured yet" not in section:
        for line in (
            r"- Commands?: `python bench/",
            r"- Machine: \w",
            r"- Commit: [0-9a-f]{10}",
            r"Measured 20\d\d-",
        ):
            assert re.search(line, section)


def test_one_command_runs_every_benchmark() -> None:
    bench = ROOT / "bench"
    scripts = {path.stem for path in bench.glob("*.py") if not path.name.startswith("_")} - {"all"}
    done = subprocess.run(
        [sys.executable, str(bench / "all.py"), "--list"], capture_output=True, text=True, check=True
    )
    assert set(re.findall(r"^python bench/(\w+)\.py", done.stdout, re.MULTILINE)) == scripts
    listed_there = set(re.findall(r"^\| `(\w+)\.py`", (bench / "README.md").read_text("utf-8"), re.MULTILINE))
    assert listed_there == scripts
