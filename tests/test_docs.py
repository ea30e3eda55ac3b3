"""Code blocks of README and docs run, in order, in a folder of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The runnable blocks: ``python``, and ``sh``; any other language is only shown."""
    return [(match[1], match[2]) for match in BLOCK.finditer(page.read_text("utf-8"))]


# These take longest, and their verbs have tests of their own; make test-all runs them too.
LONG = (
    "advise",
    "compare",
    "forgetting",
    "generation",
    "learning-curve",
    "prompts",
    "report",
    "tasks",
    "training",
)
RUN = [
    pytest.param(page, marks=[pytest.mark.slow] if page.stem in LONG else [], id=page.stem)
    for page in PAGES
    if blocks(page)
]


@pytest.mark.parametrize("page", RUN)
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "PEGBOX_CACHE": str(tmp_path / "cache"),
    }
    # All python blocks of a page share one process, as a reader's session would; sh blocks run before the
    # first python block that follows them.
    parts: list[tuple[str, str]] = []
    for language, code in blocks(page):
        if parts and parts[-1][0] == language:
            parts[-1] = (language, parts[-1][1] + "\n" + code)
        else:
            parts.append((language, code))
    earlier = ""
    for language, code in parts:
        if language == "python":
            earlier += code + "\n"
            command = [sys.executable, "-c", earlier]
        else:
            command = ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
