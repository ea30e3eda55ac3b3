"""Options that several verbs share, from strings to what the API takes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.models import FeatureCache


def say(line: str) -> None:
    """Tell the user something on standard error, so that standard output stays data."""
    print(line, file=sys.stderr, flush=True)


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
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "the output folder exists",
            where=str(folder),
            expected="a new or empty folder",
            fix="choose another --out, or replace it with --overwrite",
        )


def tell_all(lines: "tuple[str, ...] | list[str]", to: Callable[[str], None] = say) -> None:
    """Tell several lines."""
    for line in lines:
        to(line)
