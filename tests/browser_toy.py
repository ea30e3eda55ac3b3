"""A real browser without a window, driven from the command line alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = next((path for name in NAMES if (path := shutil.which(name))), None)
# No work of the browser's own, and a proxy that refuses whatever a page might still ask for.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--disable-domain-reliability", "--no-pings"),
    *("--allow-file-access-from-files", "--virtual-time-budget=4000", "--enable-logging=stderr"),
    *("--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>"),
)


@dataclass(frozen=True)
class Visit:
    """What a browser had to say of a page.

    Args:
        dom: The page as it stood in the end.
        console: Lines of its console: errors, and refusals of its policy.
        asked: Addresses, other than files, that the page asked for.
    """

    dom: str
    console: tuple[str, ...]
    asked: tuple[str, ...]


def visit(page: Path, scratch: Path, *options: str) -> Visit:
    """Open a page; ``scratch`` takes the browser's own files."""
    log = scratch / "net.json"
    done = _run(page, scratch, "--dump-dom", f"--log-net-log={log}", *options)
    console = re.findall(r"^\[.*?CONSOLE.*?\] (.*)$", done.stderr, re.MULTILINE)
    events = [event.get("params", {}) for event in json.loads(log.read_text("utf-8"))["events"]]
    # What the browser asks on its own account has no page that began it.
    begun = [event for event in events if event.get("initiator", "not an origin") != "not an origin"]
    asked = [event["url"] for event in begun if not event.get("url", "file:").startswith("file:")]
    return Visit(done.stdout, tuple(console), tuple(asked))


def photograph(page: Path, scratch: Path, picture: Path, size: Sequence[int], *options: str) -> Path:
    """Draw a page of some width and height into a PNG file."""
    size_option = f"--window-size={size[0]},{size[1]}"
    _run(page, scratch, f"--screenshot={picture}", size_option, *options)
    return picture


def measured(visit: Visit) -> dict[str, float]:
    """What a page of a test has written into its ``<pre id="measured">``."""
    found = re.search(r'<pre id="measured">(.*?)</pre>', visit.dom, re.DOTALL)
    assert found, visit.dom[:500]
    numbers: dict[str, float] = json.loads(found[1])
    return numbers


def _run(page: Path, scratch: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert FOUND is not None
    profile = f"--user-data-dir={scratch / 'profile'}"
    command = [FOUND, *FLAGS, profile, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
