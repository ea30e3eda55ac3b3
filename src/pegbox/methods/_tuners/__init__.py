"""Our own kinds of PEFT adapters: one module each with its config, layer and model, registered on import.

Private modules of this package are helpers; every other one registers the adapter kind that it defines.
"""

from __future__ import annotations

import importlib
import pkgutil


def register_adapters() -> None:
    """Make every own kind of adapter known to PEFT."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")


# First of all, and below what it calls: importing PEFT imports every module of this package, and no module of
# it could be imported on its own if that happened in the middle of it.
import peft  # noqa: E402, F401
