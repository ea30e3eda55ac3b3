"""Make PEFT know our kinds of adapters, without importing PEFT before somebody wants it.

After ``import pegbox``, plain ``peft.PeftModel.from_pretrained`` loads every adapter that Pegbox writes,
whichever of the two packages was imported first.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def install() -> None:
    """Register at once where PEFT is loaded, else as soon as it is."""
    # PEFT imports bitsandbytes where it is installed, which tells on import which kernels it goes without.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if "peft" in sys.modules:
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    from pegbox.methods import register_adapters

    register_adapters()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds PEFT where it would be found anyway, with a loader that registers after it.

    It stays until PEFT is imported, since libraries also ask for the spec to know whether PEFT is there.
    """

    def __init__(self) -> None:
        self._asking = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return PEFT's own spec with its loader wrapped; nothing for all other modules."""
        if fullname != "peft" or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Another loader, with the registration after it."""

    def __init__(self, inner: importlib.abc.Loader) -> None:
        self.inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module as the real loader does."""
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, give it its real loader back, then register."""
        self.inner.exec_module(module)
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.inner
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
        _register()
