import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pegbox._version import __version__
from pegbox.cli._advise import advise
from pegbox.cli._align import dpo, ppo
from pegbox.cli._calibrate import calibrate
from pegbox.cli._check import check
from pegbox.cli._compare import compare
from pegbox.cli._demo import demo
from pegbox.cli._evaluate import evaluate
from pegbox.cli._failures import (
    from_encoding,
    from_library,
    from_parser,
    from_system,
    in_flags,
    silence_output,
    undecodable,
)
from pegbox.cli._fit import fit
from pegbox.cli._inputs import check_inputs
from pegbox.cli._laplace import laplace
from pegbox.cli._merge import merge
from pegbox.cli._methods import methods
from pegbox.cli._options import GIVEN
from pegbox.cli._predict import predict
from pegbox.cli._rank import rank
from pegbox.cli._reward import reward
from pegbox.cli._rlhf import rlhf
from pegbox.cli._serve import serve
from pegbox.cli._sft import sft
from pegbox.cli._signature import add_function, summary, typed
from pegbox.errors import PegboxError, UsageError, nearest
from pegbox.training import resumed_by

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

VERBS: dict[str, Callable[..., None]] = {
    "check": check,
    "fit": fit,
    "sft": sft,
    "reward": reward,
    "ppo": ppo,
    "dpo": dpo,
    "rlhf": rlhf,
    "predict": predict,
    "evaluate": evaluate,
    "compare": compare,
    "advise": advise,
    "laplace": laplace,
    "calibrate": calibrate,
    "merge": merge,
    "rank": rank,
    "serve": serve,
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
    options: dict[str, Any] = {}
    try:
        parser, verbs = _parsers()
        given = list(sys.argv[1:] if arguments is None else arguments)
        GIVEN.set(tuple(given))
        verb, options = _parse(parser, verbs, given)
        with resumed_by("--resume"):
            VERBS[verb](**options)
        sys.stdout.flush()
    except KeyboardInterrupt as stopped:
        # A note on it is what the engine has told already, with more to the point.
        if not getattr(stopped, "__notes__", None):
            print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough.
        silence_output()
        return 0
    except Exception as error:
        clear = _clear(error, options)
        if clear is None:
            raise
        _print_error(clear)
        return clear.exit_code
    return 0


def _clear(error: Exception, options: Mapping[str, Any]) -> PegboxError | None:
    """The one clear error for what the user can understand; none for a fault of Pegbox itself."""
    if isinstance(error, PegboxError):
        return in_flags(error, options)
    if isinstance(error, OSError):
        _end_output()
        return from_system(error, options)
    if isinstance(error, UnicodeError):
        return from_encoding(error)
    return from_library(error, options)


def _end_output() -> None:
    """Flush standard output, or drop the rest where that fails; else Python complains at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        silence_output()


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
        raise from_parser(str(error), given, verbs) from None
    except UnicodeDecodeError as error:
        raise undecodable(error, given) from None
    options = dict(vars(parsed[parsed.verb].clone()))
    configured = options.pop("config", None)
    found = typed(VERBS[parsed.verb], options)
    check_inputs(parsed.verb, {**found, "config": configured})
    return parsed.verb, found


def _check_verb(given: list[str]) -> None:
    if not given[0].startswith("-") and given[0] not in VERBS:
        raise UsageError(
            f"there is no verb '{given[0]}'",
            expected=", ".join(VERBS),
            fix=nearest(given[0], VERBS) or "see pegbox --help",
        )


def _print_error(error: PegboxError) -> None:
    from rich.console import Console
    from rich.text import Text

    head, *rest = str(error).split("\n")
    text = Text("error: ", style="bold red")
    text.append(head + "".join("\n" + line for line in rest), style="not bold default")
    Console(stderr=True, soft_wrap=True, highlight=False).print(text)
