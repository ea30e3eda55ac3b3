"""What the tests of the command line share: a call in this process, and files of rows."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from pegbox.cli import main

WORDS = {"positive": ("great", "good", "hot"), "negative": ("terrible", "bad", "broke")}
# Options of a fit that takes no time.
FIT = ["--options.penalty", "1.0", "--holdout", "0", "--no-cache"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, and standard error with single spaces."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    return code, streams.out, " ".join(streams.err.split())


def write_rows(path: Path, rows: int = 40, columns: tuple[str, str] = ("text", "label")) -> Path:
    """A csv file of texts with two labels."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for index in range(rows):
            label = ("positive", "negative")[index % 2]
            word = WORDS[label][index // 2 % 3]
            writer.writerow([f"The kettle number {index} was {word} and the tea was {word}.", label])
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def heed_interrupts() -> None:
    """A process started in the background inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
