"""Etude, the embedded model: a causal one, its masked twin, and the world that they were raised in."""

from pegbox.models.etude._folder import NAMES, folder

__all__ = ["NAMES", "folder"]
