import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pegbox import _atomic
from pegbox.errors import UsageError


def names(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir())


def test_text_is_written_whole_as_utf8_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    assert _atomic.write_text(target, "œuvre\r\n") == target
    assert target.read_bytes() == "œuvre\r\n".encode()
    _atomic.write_text(target, "second")
    assert target.read_text() == "second"
    assert names(target.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def refuse(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error):
        _atomic.write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_keeps_its_target_and_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    _atomic.write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    with pytest.raises(UsageError, match="where a folder is"):
        _atomic.write_text(tmp_path, "x")


def test_a_device_is_written_directly() -> None:
    code = "from pegbox import _atomic; _atomic.write_text('/dev/stdout', 'through')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "through"


def test_a_folder_appears_only_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with _atomic.folder(target) as partial:
        assert partial.name == f".out.partial-{os.getpid()}"
        (partial / "deep").mkdir()
        (partial / "deep" / "a.bin").write_bytes(b"1")
        assert not target.exists()
    assert (target / "deep" / "a.bin").read_bytes() == b"1"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_folder_leaves_nothing_and_keeps_the_old(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")

    def fail(partial: Path) -> None:
        (partial / "new").write_text("new")
        raise error

    with pytest.raises(error), _atomic.folder(target, overwrite=True) as place:
        fail(place)
    assert names(tmp_path) == ["out"]
    assert names(target) == ["old"]


def test_overwrite_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for name in ("first", "second"):
        with _atomic.folder(target, overwrite=True) as partial:
            (partial / name).write_text(name)
    assert names(target) == ["second"]
    assert names(tmp_path) == ["out"]


def test_a_failed_rename_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    rename = Path.rename

    def fail_for_partial(self: Path, other: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError("disk full")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fail_for_partial)
    with pytest.raises(OSError, match="disk full"), _atomic.folder(target, overwrite=True):
        pass
    assert names(tmp_path) == ["out"]
    assert names(target) == ["old"]


def test_a_full_folder_a_file_and_the_working_folder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="exists and is not empty"), _atomic.folder(tmp_path):
        pass
    with pytest.raises(UsageError, match="where a file is"), _atomic.folder(tmp_path / "file"):
        pass
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="holds the working folder"), _atomic.folder(".", overwrite=True):
        pass
    (tmp_path / "empty").mkdir()
    with _atomic.folder(tmp_path / "empty") as partial:
        (partial / "a").write_text("a")
    assert names(tmp_path / "empty") == ["a"]


def test_a_killed_run_leaves_no_output_and_the_next_one_works(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pegbox import _atomic\n"
        "with _atomic.folder(sys.argv[1]) as p:\n"
        "    (p / 'half').write_text('x'); print('ready', flush=True); sys.stdin.read()\n"
    )
    target = tmp_path / "out"
    command = [sys.executable, "-c", code, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            run.communicate()
    assert not target.exists()
    left = tmp_path / f".out.partial-{run.pid}"
    assert names(tmp_path) == [left.name]
    with _atomic.folder(target) as partial:
        (partial / "whole").write_text("x")
    assert names(target) == ["whole"]
    assert left.is_dir(), "it might belong to a process of another machine"
    make_old(left)
    with _atomic.folder(target, overwrite=True) as partial:
        (partial / "whole").write_text("y")
    assert names(tmp_path) == ["out"]


def make_old(place: Path) -> None:
    for path in (*place.rglob("*"), place):
        os.utime(path, (1, 1))


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_leftovers_of_living_processes_and_of_other_names_stay(tmp_path: Path) -> None:
    dead = dead_process()
    kept = [f".out.partial-{os.getppid()}", f".outer.partial-{dead}", f".out.partial-{dead}x", ".out.old-"]
    for name in [*kept, f".out.partial-{dead}"]:
        (tmp_path / name).mkdir()
        make_old(tmp_path / name)
    _atomic.recover(tmp_path / "out")
    assert names(tmp_path) == sorted(kept)


def test_a_folder_that_a_killed_overwrite_moved_away_comes_back(tmp_path: Path) -> None:
    old = tmp_path / f".out.old-{dead_process()}"
    old.mkdir()
    (old / "model").write_text("mine")
    with (
        pytest.raises(UsageError, match="exists and is not empty"),
        _atomic.folder(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out" / "model").read_text() == "mine"
    assert names(tmp_path) == ["out"]


def test_a_refusal_of_the_system_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=r"No space left on device: .*a\.txt"):
        _atomic.write_text(tmp_path / "a.txt", "new")


# Each round is killed at another moment of an overwrite; the file that is written slowly is of 40 parts.
OVERWRITE = """
import sys, time
from pegbox import _atomic
print("ready", flush=True)
for version in range(1000):
    with _atomic.folder(sys.argv[1], overwrite=True) as place:
        for part in ("a", "b"):
            with (place / part).open("w") as file:
                for _ in range(40):
                    file.write(f"{version} ")
                    file.flush()
"""


@pytest.mark.parametrize("wait", [0.0, 0.011, 0.023, 0.037, 0.052, 0.071])
def test_a_killed_overwrite_leaves_a_whole_folder_or_none(tmp_path: Path, wait: float) -> None:
    target = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", OVERWRITE, str(target)], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(wait)
        run.kill()
        run.communicate()
    assert run.returncode == -signal.SIGKILL
    _atomic.recover(target)
    if target.exists():
        first, second = ((target / part).read_text().split() for part in ("a", "b"))
        assert len(first) == 40
        assert first == second
        assert len(set(first)) == 1


def test_every_file_of_a_folder_is_as_readable_as_the_folder(tmp_path: Path) -> None:
    with _atomic.folder(tmp_path / "out") as target:
        (target / "weights").write_bytes(b"1")
        (target / "weights").chmod(0o600)
        (target / "notes").write_text("1")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == dict.fromkeys(("weights", "notes"), (tmp_path / "out").stat().st_mode & 0o666)
