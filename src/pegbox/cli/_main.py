import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pegbox._version import __version__
from pegbox.cli._check import check
from pegbox.cli._demo import demo
from pegbox.cli._evaluate import evaluate
from pegbox.cli._fit import fit
from pegbox.cli._methods import methods
from pegbox.cli._predict import predict
from pegbox.cli._signature import add_function, flag, summary, typed
from pegbox.errors import PegboxError, UsageError, nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

VERBS: dict[str, Callable[..., None]] = {
    "check": check,
    "fit": fit,
    "predict": predict,
    "evaluate": evaluate,
    "methods": methods,
    "demo": demo,
}
INTERRUPTED = 130
EPILOG = "Every flag of a verb is also a key of one YAML file (--config FILE); flags given after it win."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when done, 1 for a failed run, 2 for wrong use, 130 after Ctrl-C.
    """
    try:
        parser, verbs = _parsers()
        given = list(sys.argv[1:] if arguments is None else arguments)
        verb, options = _parse(parser, verbs, given)
        VERBS[verb](**options)
        sys.stdout.flush()
    except PegboxError as error:
        _print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough; without this, Python complains once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _parsers() -> tuple["ArgumentParser", dict[str, "ArgumentParser"]]:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="pegbox",
        description="Tune a pretrained language model with the smallest turn that does the job.",
        epilog=EPILOG,
        version=__version__,
        exit_on_error=False,
    )
    subcommands = parser.add_subcommands(dest="verb", required=True)
    verbs = {}
    for name, function in VERBS.items():
        verb = ArgumentParser(
            description=summary(function), epilog=EPILOG, exit_on_error=False, print_config="--print-config"
        )
        verb.add_argument("--config", action="config", help="YAML file with any of the options below.")
        add_function(verb, function)
        subcommands.add_subcommand(name, verb, help=summary(function))
        verbs[name] = verb
    return parser, verbs


def _parse(
    parser: "ArgumentParser", verbs: dict[str, "ArgumentParser"], given: list[str]
) -> tuple[str, dict[str, Any]]:
    from argparse import ArgumentError

    if not given:
        parser.print_help()
        raise SystemExit(2)
    _check_verb(given)
    try:
        parsed = parser.parse_args(given)
    except ArgumentError as error:
        raise _wrong_use(str(error), given, verbs) from None
    options = dict(vars(parsed[parsed.verb].clone()))
    options.pop("config", None)
    return parsed.verb, typed(VERBS[parsed.verb], options)


def _check_verb(given: list[str]) -> None:
    if not given[0].startswith("-") and given[0] not in VERBS:
        raise UsageError(
            f"there is no verb '{given[0]}'",
            expected=", ".join(VERBS),
            fix=nearest(given[0], VERBS) or "see pegbox --help",
        )


def _wrong_use(message: str, given: list[str], verbs: dict[str, "ArgumentParser"]) -> UsageError:
    """Turn the parser's complaint into one clear error that names the nearest valid option."""
    where = f"pegbox {given[0]}"
    message = re.sub(rf"\b{given[0]}\.", "", " ".join(message.split()))
    verb = verbs.get(given[0])
    actions = verb._actions if verb else []
    flags = [option for action in actions for option in action.option_strings]
    keys = [action.dest for action in actions if action.dest not in ("help", "config", "print_config")]
    unknown = re.search(r"nrecognized arguments?:? .*?(--[\w-]+)", message)
    if unknown:
        hint = nearest(unknown[1], flags)
        return UsageError(f"unknown option {unknown[1]}", where=where, fix=hint or f"see {where} --help")
    key = re.search(r"(?:[Kk]ey|nested key|option) '([\w.-]+)'", message)
    if key and ("not expected" in message or "does not accept" in message):
        name = key[1].rpartition(".")[2]
        return UsageError(
            f"unknown key '{name}'",
            where="the configuration file",
            expected=", ".join(keys),
            fix=nearest(name, keys),
        )
    value = re.search(r'Parser key "([\w.]+)": (.*)', message)
    if value:
        option = flag(value[1])
        expected = re.search(r"Literal\[(.*?)\]", value[2])
        valid = (
            expected[1].replace("'", "")
            if expected
            else re.sub(r"^Expected an? |<class '(\w+)'>", r"\1", value[2])
        )
        return UsageError(f"wrong value for {option}", where=where, expected=valid, fix=f"see {where} --help")
    return UsageError(message, where=where, fix=f"see {where} --help")


def _print_error(error: PegboxError) -> None:
    from rich.console import Console
    from rich.text import Text

    head, *rest = str(error).split("\n")
    text = Text("error: ", style="bold red")
    text.append(head + "".join("\n" + line for line in rest), style="not bold default")
    Console(stderr=True, soft_wrap=True, highlight=False).print(text)
