"""Serving: tuned models behind HTTP, several on one copy of their base."""

from pegbox.serving._app import application, check_installed, listen, run
from pegbox.serving._service import MAX_ROWS, Service

__all__ = ["MAX_ROWS", "Service", "application", "check_installed", "listen", "run"]
