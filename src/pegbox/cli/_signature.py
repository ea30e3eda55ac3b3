"""Command-line options from typed functions: flag, type, default and help come from the signature."""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# Ends the help of each --training; a test holds it and the settings together.
TRAINING = (
    "Names and defaults, of which the verb or the method has its own for what is unset: learning_rate "
    "(unset), head_learning_rate (unset), epochs (unset), batch_size (16), accumulation (1, batches of a "
    "step), warmup (unset, share of the steps), schedule (unset; linear, cosine, constant), weight_decay "
    "(unset), gradient_clip (1.0; 0 for none), precision (auto; bf16, float32), patience (4, evaluations "
    "without a gain; 0 never stops), evaluations_per_epoch (2), max_steps (unset, no limit), "
    "checkpoint_every (epoch, or steps), gradient_checkpointing (false), divergence (3.0, times the least "
    "loss at which it stops; 0 only where it is not finite), balance (none; weights, sampling), report_to "
    "(none; tensorboard, wandb), trunk_cache (auto; on, off)."
)
_PATHS: dict[Any, Any] = {Path: str, Path | None: str | None}


def add_function(parser: "ArgumentParser", function: Callable[..., Any]) -> None:
    """Declare one argument per parameter: positional without default, else ``--flag``.

    Args:
        parser: The parser of one verb.
        function: Its typed function, documented with an ``Args:`` section.
    """
    helps = documented(function)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, default, text = _kind(function, name), parameter.default, helps[name]
        required = default is inspect.Parameter.empty
        if parameter.kind is not parameter.KEYWORD_ONLY:
            optional = {} if required else {"nargs": "?", "default": default}
            parser.add_argument(name, type=kind, help=text, **optional)
        elif kind is bool:
            parser.add_argument(flag(name), action="store_true", help=text)
        elif required:
            parser.add_argument(flag(name), type=kind, required=True, help=text)
        else:
            default = str(default) if isinstance(default, Path) else default
            parser.add_argument(flag(name), type=kind, default=default, help=text)


def typed(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Parsed options as the function wants them: paths become paths."""
    hints = get_type_hints(function)
    return {
        name: Path(value) if value is not None and any(hints[name] == path for path in _PATHS) else value
        for name, value in options.items()
    }


def _kind(function: Callable[..., Any], name: str) -> Any:
    hint = get_type_hints(function)[name]
    return next((shown for path, shown in _PATHS.items() if hint == path), hint)


def flag(name: str) -> str:
    """``label_words`` to ``--label-words``."""
    return "--" + name.replace("_", "-")


def documented(function: Callable[..., Any]) -> dict[str, str]:
    """The help text of each parameter, from the ``Args:`` section of the docstring."""
    section = (inspect.getdoc(function) or "").partition("Args:\n")[2].split("\n\n", 1)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    helps = {name: re.sub(r"\s+", " ", text).replace("%", "%%") for name, text in entries}
    if "training" in helps:
        helps["training"] += f" {TRAINING}"
    return helps


def summary(function: Callable[..., Any]) -> str:
    """The first line of the docstring."""
    return (inspect.getdoc(function) or "").split("\n", 1)[0]
