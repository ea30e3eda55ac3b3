"""Options that several verbs share, from strings to what the API takes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox._atomic import recover
from pegbox.errors import UsageError
from pegbox.training import tell

if TYPE_CHECKING:
    from pegbox.models import FeatureCache

# Notes go to standard error, so that standard output stays data.
say = tell


def emit(text: str) -> None:
    """Write data to standard output; a refusal of the system says where it happened."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def names(value: str | None) -> tuple[str, ...]:
    """``premise,hypothesis`` to a tuple."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


def words(value: str | None) -> dict[str, str] | None:
    """``positive=great,negative=terrible`` to a mapping."""
    if not value:
        return None
    pairs = [part.partition("=") for part in value.split(",")]
    for label, equals, word in pairs:
        if not equals or not label.strip() or not word.strip():
            raise UsageError(
                f"'{label}{equals}{word}' is no label word",
                where=f"--label-words {value}",
                expected="label=word,label=word",
                fix="write for example positive=great,negative=terrible",
            )
    return {label.strip(): word.strip() for label, _, word in pairs}


def feature_cache(use: bool) -> "FeatureCache | None":
    """The user's feature cache, or none."""
    from pegbox.models import FeatureCache

    return FeatureCache() if use else None


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise UsageError before any work when the output folder is taken."""
    recover(folder)
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "the output folder exists",
            where=str(folder),
            expected="a new or empty folder",
            fix="choose another --out, or replace it with --overwrite",
        )


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
