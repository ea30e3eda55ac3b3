"""What a call reads is there, and never what it writes over."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pegbox.cli._options import names
from pegbox.cli._signature import flag
from pegbox.data import check_source
from pegbox.errors import InputError, UsageError

READ = (
    *("data", "valid", "test", "ood", "held", "gold", "replay", "forgetting", "also", "plan", "config"),
    *("tuned", "adapter", "first", "second", "sft", "reward", "model"),
)
# Those that are files of rows, where they are given.
ROWS = ("data", "valid", "test", "ood", "held")
WRITTEN = ("out", "reliability", "diagram", "plot")
STANDARD_INPUT = "-"
# Names that are no paths, even where a folder is called so.
EMBEDDED = ("etude", "etude-masked")
# Verbs whose --overwrite replaces what they wrote themselves and nothing else in the folder.
SPARING = ("compare", "rlhf")
# Verbs that may put a model in the place of the one that they read.
IN_PLACE = ("merge", "laplace")


def check_inputs(verb: str, options: Mapping[str, Any]) -> None:
    """Refuse, before any work, files of rows that are not there, and outputs that would replace an input.

    Args:
        verb: The verb.
        options: Its options, with outputs as paths; ``config`` lists its configuration files.

    Raises:
        InputError: When a file of rows is missing, or of no kind that can be read.
        UsageError: When an output is an input, or a folder to be overwritten in which an input lies; for the
            revision of a model that lies on the disk.
    """
    for name in ROWS:
        value = options.get(name)
        if isinstance(value, str) and value != STANDARD_INPUT:
            try:
                check_source(value)
            except InputError as error:
                error.where = value if name == "data" else f"{flag(name)} {value}"
                raise
    if options.get("revision") is not None:
        from pegbox.models import find_version

        find_version(str(options["model"]), options["revision"])
    whole = bool(options.get("overwrite")) and verb not in SPARING
    for name, place in _outputs(verb, options):
        if not (place.is_file() or (place.is_dir() and whole)):
            continue
        for read in _inputs(options):
            if why := _clash(read, place, spared=verb in IN_PLACE):
                raise UsageError(
                    f"this {'file' if place.is_file() else 'folder'} would be replaced, and {why}",
                    where=f"{flag(name)} {place}",
                    expected="a place apart from all that is read",
                    fix=f"choose another {flag(name)}",
                )


def _outputs(verb: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """The options that are written to, with their places; the metrics of a policy lie beside it."""
    for name in WRITTEN:
        place = options.get(name)
        if isinstance(place, Path):
            yield name, place
            if verb == "ppo" and place.name:
                yield from ((name, beside) for beside in metrics_files(place))


def metrics_files(out: Path) -> tuple[Path, Path]:
    """Where the metrics of each step of a policy lie, beside its folder, and their picture."""
    kept = out.parent / f"{out.name}-metrics.jsonl"
    return kept, kept.with_suffix(".png")


def _clash(read: Path, place: Path, *, spared: bool) -> str:
    """Why what is read forbids to replace a file or folder; nothing where it does not."""
    if read.samefile(place):
        return "" if spared and place.is_dir() else "it is read too"
    if read.resolve().is_relative_to(place.resolve()):
        return f"{read}, which is read, lies in it"
    # Folders of models are flat; a folder within one is another matter.
    inside = place.is_file() and read.is_dir() and place.resolve().parent == read.resolve()
    return f"it is a part of {read}, which is read" if inside and not _is_a_result(place) else ""


def _is_a_result(path: Path) -> bool:
    """Whether a file in the folder of a model is no part of it: a picture, answers, scores."""
    if path.suffix != ".json" or path.name == "posterior.json":
        return path.suffix.lower() in (".csv", ".jsonl", ".png", ".svg")
    try:
        held = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(held, dict) and str(held.get("format", "")).startswith("pegbox.")


def _inputs(options: Mapping[str, Any]) -> Iterator[Path]:
    """The files and folders that exist among what the options name as inputs."""
    for name in READ:
        given = options.get(name)
        if name == "also":
            given = names(given)
        for value in given if isinstance(given, list | tuple) else (given,):
            # Unlike that of a path, this question takes any text.
            if value is not None and str(value) not in EMBEDDED and os.path.exists(str(value)):
                yield Path(str(value))
