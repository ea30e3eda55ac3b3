from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

import pegbox.methods
from pegbox.errors import RunError, UsageError, check_names, nearest
from pegbox.methods._method import Method

Kind = TypeVar("Kind", bound=type[Method])
ENTRY_POINTS = "pegbox.methods"
_METHODS: dict[str, type[Method]] = {}


def register(method: Kind) -> Kind:
    """Class decorator that makes a method known by its name.

    Raises:
        UsageError: When the class has no name or capability row, or another class has its name.
    """
    missing = [part for part in ("name", "capability") if not hasattr(method, part)]
    if missing:
        raise UsageError(
            f"the method {method.__name__} has no {' and no '.join(missing)}",
            expected="class variables name: str and capability: Capability",
        )
    taken = _METHODS.get(method.name, method)
    if (taken.__module__, taken.__qualname__) != (method.__module__, method.__qualname__):
        raise UsageError(
            f"the method name '{method.name}' is taken by {taken.__module__}.{taken.__qualname__}",
            fix="give the new method another name",
        )
    _METHODS[method.name] = method
    return method


def methods() -> dict[str, type[Method]]:
    """All methods by name: each public module of this package registers its own, and so do others.

    A method from elsewhere is known once its module is imported. What installed packages name under the entry
    point ``pegbox.methods`` is imported here.

    Raises:
        RunError: When one of those cannot be imported.
    """
    for module in pkgutil.iter_modules(pegbox.methods.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"pegbox.methods.{module.name}")
    _import_installed()
    return dict(sorted(_METHODS.items()))


@cache
def _import_installed() -> None:
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            raise RunError(
                f"an installed method cannot be imported: {type(error).__name__}: {error}",
                where=f"entry point {ENTRY_POINTS}: {entry.name} = {entry.value}",
                expected="a module that registers its methods",
                fix="mend or uninstall the package that brings it",
            ) from error


def method_of(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        UsageError: For an unknown name, naming the nearest valid one.
    """
    known = methods()
    if name not in known:
        raise UsageError(
            f"there is no method '{name}'",
            expected=", ".join(known),
            fix=nearest(name, known) or "see pegbox methods",
        )
    return known[name]


def build(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """Make a method from its name and options.

    Raises:
        UsageError: For an unknown name or option, naming the nearest valid one.
    """
    method = method_of(name)
    valid = [item.name for item in fields(method) if item.init]
    check_names(options or {}, valid, f"the method {name} has no option '{{}}'")
    return method(**dict(options or {}))
