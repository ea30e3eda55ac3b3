"""Serving: tuned models behind HTTP, several on one copy of their base."""

from pegbox.serving._app import application, check_installed, listen, run
from pegbox.serving._service import MOST_ROWS, Service

__all__ = ["MOST_ROWS", "Service", "application", "check_installed", "listen", "run"]
