"""Options that several verbs share, from strings to what the API takes."""

import csv
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox._atomic import check_own, recover, write_text
from pegbox.errors import UsageError
from pegbox.training import tell

if TYPE_CHECKING:
    from pegbox.models import FeatureCache

# What followed ``pegbox`` on the command line.
GIVEN: ContextVar[tuple[str, ...]] = ContextVar("GIVEN", default=())

_SIZES = {
    **{"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40},
}
_TIMES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PERIOD = r"(\d+(?:\.\d+)?)\s*([smhd])"


def first() -> bool:
    """Whether this is the first process of torchrun, or the only one: it alone saves and speaks."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """Write a note to standard error, so that standard output stays data."""
    if first():
        tell(line)


def command() -> str:
    """The whole command line, to be repeated in a shell."""
    return shlex.join(["pegbox", *GIVEN.get()])


def emit(text: str) -> None:
    """Write data to standard output; a refusal of the system says where it happened."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def emit_result(
    found: Mapping[str, Any], format: Literal["text", "json"], out: Path | None, show: Callable[[], None]
) -> None:
    """Print a result as JSON, or show it as text; write the JSON to a file too where one is named."""
    content = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if format == "json":
        emit(content)
    else:
        show()
    if out:
        write_text(out, content)


def names(value: str | None) -> tuple[str, ...]:
    """``premise,hypothesis`` to a tuple; a name that holds a comma stands in double quotes."""
    return tuple(part.strip() for part in _parts(value) if part.strip()) if value else ()


def _parts(value: str) -> list[str]:
    """What stands between the commas; of quotes that do not pair, each is a letter like others."""
    line = " ".join(part.strip() for part in value.splitlines())
    try:
        return next(csv.reader([line], skipinitialspace=True, strict=True))
    except csv.Error:
        return line.split(",")


def words(value: str | None) -> dict[str, str] | None:
    """``positive=great,negative=terrible`` to a mapping."""
    if not value:
        return None
    pairs = [part.partition("=") for part in _parts(value)]
    for label, equals, word in pairs:
        if not equals or not label.strip() or not word.strip():
            raise UsageError(
                f"'{label}{equals}{word}' is no label word",
                where=f"--label-words {value}",
                expected='label=word,label=word; one that holds a comma as "label=word, word"',
                fix="pegbox fit alone searches words; write for example positive=great,negative=terrible"
                if value == "auto"
                else "write for example positive=great,negative=terrible",
            )
    return {label.strip(): word.strip() for label, _, word in pairs}


def parse_size(text: str, name: str = "--memory") -> int:
    """``8GB`` (powers of 1000) or ``512MiB`` (powers of 1024) to bytes.

    Args:
        text: A number with its unit; capitals do not matter.
        name: The option, for the message.

    Raises:
        UsageError: For anything else, and for nothing at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B)", text.strip().upper())
    unit = _SIZES.get(found[2]) if found else None
    size = int(float(found[1]) * unit) if found and unit else 0
    if size < 1:
        raise UsageError(
            f"'{text}' is no size",
            where=f"{name} {text}",
            expected="a number above 0 with its unit: B, KB, MB, GB, TB, or KiB, MiB, GiB, TiB",
            fix="write for example 8GB or 512MiB",
        )
    return size


def parse_time(text: str, name: str = "--time") -> float:
    """``90s``, ``20m``, ``1h`` or ``1h30m`` to seconds.

    Args:
        text: Numbers, each with its unit s, m, h or d, the largest first; capitals do not matter.
        name: The option, for the message.

    Raises:
        UsageError: For anything else, and for no time at all.
    """
    parts = re.findall(_PERIOD, text.lower())
    whole = re.fullmatch(rf"\s*(?:{_PERIOD}\s*)+", text.lower())
    units = [_TIMES[unit] for _, unit in parts]
    descending = all(larger > smaller for larger, smaller in pairwise(units))
    seconds = sum(float(number) * _TIMES[unit] for number, unit in parts)
    if not whole or not descending or not seconds:
        raise UsageError(
            f"'{text}' is no time",
            where=f"{name} {text}",
            expected="numbers above 0 with their units: s, m, h, d",
            fix="write for example 90s, 20m, 1h or 1h30m",
        )
    return seconds


def feature_cache(use: bool) -> "FeatureCache | None":
    """The user's feature cache, or none."""
    from pegbox.models import FeatureCache

    return FeatureCache() if use else None


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise UsageError before any work when the output folder is taken, or is not Pegbox's to replace."""
    recover(folder)
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "the output folder exists",
            where=str(folder),
            expected="a new or empty folder",
            fix="choose another --out, or replace it with --overwrite",
        )
    check_own(folder, name="--out")


def check_writable(path: Path | None, name: str) -> None:
    """Raise UsageError before any work when a file cannot be made there, as far as its folders tell."""
    if path is None or (path.exists() and not path.is_dir() and os.access(path, os.W_OK)):
        return
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir() or not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(
            "the file cannot be written" if not path.is_dir() else "a file is wanted, and this is a folder",
            where=f"{name} {path}",
            expected="a file in a folder that may be written",
            fix="choose another path",
        )


def check_least(value: int, least: int, name: str) -> None:
    """Raise UsageError for a number that is too small."""
    if value < least:
        raise UsageError(
            "the number is too small",
            where=f"{name} {value}",
            expected=f"at least {least}",
            fix=f"leave {name} out for its default",
        )


def tell_all(lines: "tuple[str, ...] | list[str]", to: Callable[[str], None] = say) -> None:
    """Tell several lines."""
    for line in lines:
        to(line)


def check_share(value: float | None, name: str) -> None:
    """Raise UsageError for what is not from 0 to 1."""
    if value is not None and not 0 <= value <= 1:
        raise UsageError(
            "the number is no share",
            where=f"{name} {value:g}",
            expected="from 0 to 1",
            fix=f"write {name} 0.2",
        )
