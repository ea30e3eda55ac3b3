"""The command line: parse, call the Python API, print."""

from pegbox.cli._main import main

__all__ = ["main"]
