"""Public names that import their module on first use, so that nothing heavy loads before work starts."""

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any


def lazy(
    package: str, homes: Mapping[str, str], submodules: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package.

    Args:
        package: Name of the package.
        homes: Public name to the module that defines it.
        submodules: Modules of the package that are public names too.
    """

    def __getattr__(name: str) -> Any:
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    def __dir__() -> list[str]:
        return sorted({*homes, *submodules})

    return __getattr__, __dir__
