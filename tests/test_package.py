"""What the packages that are released contain."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pegbox

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
NAME = f"pegbox-{pegbox.__version__}"
# Of the project's folders the sdist has src alone: no tests, no docs, no benchmarks.
AROUND = {
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
}


def build(project: Path, out: Path, target: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out), "-t", target]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


def sources() -> set[str]:
    """All files of the package in the checkout, relative to src."""
    files = (path for path in (ROOT / "src" / "pegbox").rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT / "src")) for path in files if "__pycache__" not in path.parts}


def test_the_wheel_is_the_package_and_nothing_else(tmp_path: Path) -> None:
    wheel = build(ROOT, tmp_path, "wheel")
    assert wheel.name == f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"{NAME}.dist-info/METADATA").decode()
        scripts = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
    own = {name for name in names if not name.startswith(f"{NAME}.dist-info/")}
    assert own == sources()
    assert {"pegbox/py.typed", "pegbox/reports/_page/templates/page.html.j2"} <= own
    for kind in ("causal", "masked"):
        assert f"pegbox/models/etude/{kind}/model.safetensors" in own
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    assert f"Version: {pegbox.__version__}\n" in metadata
    assert "pegbox = pegbox.cli:main" in scripts
    # A model of 9 MB each; more would be something that does not belong there.
    assert wheel.stat().st_size < 20 * 2**20


def test_the_sdist_builds_the_same_wheel(tmp_path: Path) -> None:
    sdist = build(ROOT, tmp_path / "sdist", "sdist")
    assert sdist.name == f"{NAME}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = {Path(name).relative_to(NAME) for name in archive.getnames()}
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert {str(name) for name in names if name.parts[0] != "src"} == AROUND
    assert {str(name.relative_to("src")) for name in names if name.parts[0] == "src"} == sources()
    again = build(tmp_path / "unpacked" / NAME, tmp_path / "wheel", "wheel")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(build(ROOT, tmp_path / "first", "wheel")) as other:
        assert [(file.filename, file.CRC) for file in one.infolist()] == [
            (file.filename, file.CRC) for file in other.infolist()
        ]


def test_the_version_is_in_one_place() -> None:
    assert (ROOT / "src" / "pegbox" / "_version.py").read_text(
        "utf-8"
    ) == f'__version__ = "{pegbox.__version__}"\n'
    assert pegbox.__version__ not in (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"## {pegbox.__version__} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
