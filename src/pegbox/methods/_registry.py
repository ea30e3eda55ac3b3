from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import pegbox.methods
from pegbox.errors import UsageError, nearest
from pegbox.methods._method import Method

Kind = TypeVar("Kind", bound=type[Method])
_METHODS: dict[str, type[Method]] = {}


def register(method: Kind) -> Kind:
    """Class decorator that makes a method known by its name."""
    _METHODS[method.name] = method
    return method


def methods() -> dict[str, type[Method]]:
    """All methods by name: each public module of this package registers its own."""
    for module in pkgutil.iter_modules(pegbox.methods.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"pegbox.methods.{module.name}")
    return dict(sorted(_METHODS.items()))


def build(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """Make a method from its name and options.

    Raises:
        UsageError: For an unknown name or option, naming the nearest valid one.
    """
    known = methods()
    if name not in known:
        raise UsageError(
            f"there is no method '{name}'",
            expected=", ".join(known),
            fix=nearest(name, known) or "see pegbox methods",
        )
    valid = [item.name for item in fields(known[name]) if item.init]
    for key in options or {}:
        if key not in valid:
            raise UsageError(
                f"the method {name} has no option '{key}'",
                expected=", ".join(valid) or "no options",
                fix=nearest(key, valid),
            )
    return known[name](**dict(options or {}))
