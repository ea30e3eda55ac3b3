"""Command-line options from typed functions: flag, type, default and help come from the signature."""

import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def add_function(parser: "ArgumentParser", function: Callable[..., Any]) -> None:
    """Declare one argument per parameter: positional without default, else ``--flag``.

    Args:
        parser: The parser of one verb.
        function: Its typed function, documented with an ``Args:`` section.
    """
    helps = documented(function)
    hints = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, default, text = hints[name], parameter.default, helps[name]
        if default is inspect.Parameter.empty or parameter.kind is parameter.POSITIONAL_ONLY:
            optional = {} if default is inspect.Parameter.empty else {"nargs": "?", "default": default}
            parser.add_argument(name, type=kind, help=text, **optional)
        elif kind is bool:
            parser.add_argument(flag(name), action="store_true", help=text)
        else:
            parser.add_argument(flag(name), type=kind, default=default, help=text)


def flag(name: str) -> str:
    """``label_words`` to ``--label-words``."""
    return "--" + name.replace("_", "-")


def documented(function: Callable[..., Any]) -> dict[str, str]:
    """The help text of each parameter, from the ``Args:`` section of the docstring."""
    section = inspect.getdoc(function).split("Args:\n", 1)[1].split("\n\n", 1)[0]  # type: ignore[union-attr]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).replace("%", "%%") for name, text in entries}


def summary(function: Callable[..., Any]) -> str:
    """The first line of the docstring."""
    return (inspect.getdoc(function) or "").split("\n", 1)[0]
