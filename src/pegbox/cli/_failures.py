"""One clear error out of whatever the system, the libraries or the parser complain about."""

import errno
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pegbox.cli._signature import flag
from pegbox.errors import InputError, PegboxError, RunError, UsageError, nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# What the user can mend by naming another path; a full or broken disk is none of it.
_WRONG_PATH = {
    getattr(errno, name)
    for name in ("ENOENT", "EACCES", "EPERM", "ENOTDIR", "EISDIR", "EROFS", "ENAMETOOLONG", "ELOOP", "EINVAL")
}
_CONFIG = "a YAML file in UTF-8 with options such as model: etude"
_KINDS = {
    "dict": "NAME VALUE pairs, such as --options.rank 4 or --training.epochs 3",
    "NoneType": "",
    "int": "a whole number",
    "float": "a number",
}


def from_system(error: OSError, options: Mapping[str, Any]) -> PegboxError:
    """A refusal of the system: wrong use when a path of the user's cannot be written, else a failed run.

    Args:
        error: What was raised.
        options: The options of the verb; those that are paths are what the user named.
    """
    place = error.filename if isinstance(error.filename, str | os.PathLike) else None
    reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
    given = {name: value for name, value in options.items() if isinstance(value, Path)}
    for name, path in given.items():
        if place is not None and error.errno in _WRONG_PATH and _concerns(Path(place), path):
            return UsageError(
                f"the path cannot be used: {reason}",
                where=f"{flag(name)} {path}",
                expected="a place that may be written",
                fix="choose another path",
            )
    return RunError(reason, where="" if place is None else str(place), fix=_remedy(error.errno))


def from_library(error: Exception, options: Mapping[str, Any]) -> PegboxError | None:
    """The system's refusal in the words of safetensors, which is no OSError; none for anything else."""
    code = re.search(r"\(os error (\d+)\)", str(error))
    if code is None:
        return None
    # It does not name the file either; what it writes belongs to the output.
    number, out = int(code[1]), options.get("out")
    return from_system(OSError(number, os.strerror(number), *([str(out)] if out else [])), options)


def in_flags(error: PegboxError, options: Mapping[str, Any]) -> PegboxError:
    """The same error with its place as it was typed: an option of the API's becomes the flag and its value.

    Args:
        error: What was raised, changed in place.
        options: The options of the verb.
    """
    # Places of an InputError are those of files and rows.
    if not isinstance(error, InputError):
        for name, value in options.items():
            for spoken in (name, name.replace("_", " ")):
                if error.where in (spoken, f"{spoken} {_typed(value)}", f"{spoken} {value!r}"):
                    typed = value is not None and not isinstance(value, bool | Mapping)
                    error.where = f"{flag(name)} {_typed(value)}" if typed else flag(name)
                elif error.where.startswith(f"{spoken}."):
                    error.where = f"{flag(name)}{error.where[len(spoken) :]}"
    return error


def _typed(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def from_encoding(error: UnicodeError) -> PegboxError:
    """Text that is no UTF-8, or that the terminal's encoding cannot say."""
    return InputError(
        f"text cannot be read or written: {error}", expected="UTF-8", fix="convert it, or set PYTHONUTF8=1"
    )


def undecodable(error: UnicodeDecodeError, given: list[str]) -> InputError:
    """A file of options, read while the command line is, that is no UTF-8."""
    return InputError(
        f"the configuration file is not UTF-8 text: {error.reason} at byte {error.start}",
        where=_config(given),
        expected=_CONFIG,
        fix="convert it, for example with iconv -f latin1 -t utf-8",
    )


def silence_output() -> None:
    """Send the rest of standard output nowhere; else Python complains once more when it closes the stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def from_parser(message: str, given: list[str], verbs: Mapping[str, "ArgumentParser"]) -> UsageError:
    """Turn the parser's complaint into one clear error that names the nearest valid option."""
    where = f"pegbox {given[0]}"
    message = re.sub(rf"\b{given[0]}\.", "", " ".join(message.split()))
    actions = verbs[given[0]]._actions if given[0] in verbs else []
    unknown = re.search(r"nrecognized arguments?:? .*?(--[\w-]+)", message)
    if unknown:
        # Without the hyphens, which would make short flags alike.
        flags = {option.lstrip("-"): option for action in actions for option in action.option_strings}
        hint = nearest(unknown[1].lstrip("-"), flags).replace("'", "'--", 1)
        return UsageError(f"unknown option {unknown[1]}", where=where, fix=hint or f"see {where} --help")
    lacking = re.search(r"argument (--[\w-]+): expected one argument", message)
    if lacking:
        return _no_value(lacking[1], given, where)
    key = re.search(r"(?:[Kk]ey|nested key|option) '([\w.-]+)'", message)
    if key and ("not expected" in message or "does not accept" in message):
        return _unknown_key(key[1].rpartition(".")[2], (action.dest for action in actions), _config(given))
    value = re.search(r'Parser key "([\w.]+)": (.*)', message)
    if message.startswith("Problems parsing config") or (value and value[1] == "config"):
        return _no_config(message, _config(given))
    if message.startswith("Unexpected config:"):
        return InputError(
            "the configuration file holds no options by name",
            where=_config(given),
            expected=_CONFIG,
            fix="write one a line",
        )
    if value:
        expected, fix = _expected(value[2]), f"see {where} --help"
        got = re.search(r"(?:Got|Given) value: (\S+)$", value[2])
        place = f"{flag(value[1])} {got[1]}" if got else where
        if expected == "str":  # only a file can hold anything else: YAML takes off, no and 12 for no text
            expected, fix = "text", f"write it in quotes in the file: {value[1]}: '...'"
        return UsageError(f"wrong value for {flag(value[1])}", where=place, expected=expected, fix=fix)
    return UsageError(message, where=where, fix=f"see {where} --help")


def _no_value(name: str, given: list[str], where: str) -> UsageError:
    """A flag without a value; what begins with a hyphen is taken for the next flag."""
    following = given[given.index(name) + 1 :][:1] if name in given else []
    value = following[0] if following else ""
    if value.startswith("-") and not value.startswith("--"):
        return UsageError(
            f"{name} wants a value, and {value} begins with a hyphen, as flags do",
            where=f"{name} {value}",
            expected=f"a value after {name}",
            fix=f"write {name}={value} if it is meant so; see {where} --help",
        )
    return UsageError(
        f"{name} wants a value", where=where, expected=f"a value after {name}", fix=f"see {where} --help"
    )


def _config(given: list[str]) -> str:
    """What ``--config`` was given, with its flag."""
    for word, following in zip(given, [*given[1:], ""], strict=True):
        if word == "--config" or word.startswith("--config="):
            return f"{word} {following}" if word == "--config" else word.replace("=", " ", 1)
    return "the configuration file"


def _no_config(message: str, where: str) -> UsageError:
    missing = re.search(r"File does not exist: '(.*)'", message)
    reason = message.rpartition("parsing config: ")[2].rpartition('"config": ')[2]
    if "Path is not a file" in message:
        return InputError(
            "the configuration is no file",
            where=where,
            expected=_CONFIG,
            fix="name a file and not a folder",
        )
    return InputError(
        "there is no such configuration file" if missing else f"the configuration file is no YAML: {reason}",
        where=f"--config {missing[1]}" if missing else where,
        expected=_CONFIG,
        fix="check the path" if missing else "correct the line that is named",
    )


def _unknown_key(name: str, valid: Iterable[str], where: str) -> UsageError:
    keys = [key for key in valid if key not in ("help", "config", "print_config")]
    return UsageError(
        f"unknown key '{name}'",
        where=where,
        expected=", ".join(keys),
        fix=nearest(name, keys),
    )


def _expected(complaint: str) -> str:
    """What the parser would have taken, without the words for its own types."""
    literal = re.search(r"Literal\[(.*?)\]", complaint)
    if literal:
        return literal[1].replace("'", "")
    complaint = re.sub(r"<class '(\w+)'>", r"\1", complaint)
    union = re.search(r"Subtypes: \[(.*?)\] Errors:", complaint)
    if union:
        kinds = [re.sub(r"\[.*", "", kind).strip() for kind in re.split(r", (?![^\[]*\])", union[1])]
        return " or ".join(filter(None, (_KINDS.get(kind, kind) for kind in kinds)))
    expected = re.sub(r"^Expected an? |\. Got value: .*", "", complaint)
    return _KINDS.get(expected, expected)


def _concerns(place: Path, given: Path) -> bool:
    """Whether a refused path is the given one, lies above it, or is written beside it before a rename."""
    refused, wanted = place.absolute(), given.absolute()
    return wanted.is_relative_to(refused) or refused.parent == wanted.parent or refused.is_relative_to(wanted)


def _remedy(code: int | None) -> str:
    return "make room and run it again" if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
