"""Code blocks of README and docs run, in order, in a folder of their own."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pegbox.cli._main import _parsers

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The runnable blocks: ``python``, and ``sh``; any other language is only shown."""
    return [(match[1], match[2]) for match in BLOCK.finditer(page.read_text("utf-8"))]


# These take longest, and their verbs have tests of their own; make test-all runs them too.
LONG = (
    "README",
    "advise",
    "compare",
    "foreign-adapter",
    "forgetting",
    "generation",
    "learning-curve",
    "one-gpu",
    "prompts",
    "report",
    "several-devices",
    "tasks",
    "training",
    "tutorial",
    "uncertainty",
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


SHOWN = re.compile(r"^```(?:sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def calls(page: Path) -> list[list[str]]:
    """Every call of pegbox in a page, run or only shown."""
    lines = [line for block in SHOWN.findall(page.read_text("utf-8")) for line in joined(block)]
    parts = [part for line in lines for part in re.split(r"[|;]|&&", line)]
    words = [shlex.split(re.sub(r"\s[<>].*", "", part), comments=True) for part in parts if "pegbox" in part]
    found = [call[call.index("pegbox") + 1 :] for call in words if "pegbox" in call]
    return [call for call in found if call and "..." not in call]


def joined(block: str) -> list[str]:
    """Lines of a shell, continued ones as one."""
    return re.sub(r"\\\n\s*", " ", block).splitlines()


@pytest.mark.parametrize("page", [page for page in PAGES if calls(page)], ids=lambda page: page.stem)
def test_every_call_is_one_that_pegbox_understands(page: Path) -> None:
    """Also of the pages whose blocks only make test-all runs."""
    parser, _ = _parsers()
    for call in calls(page):
        parser.parse_args(call)
