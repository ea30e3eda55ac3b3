"""How the answer is read: by label words of the base, or by a head of its own on the base's trunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from pegbox.errors import UsageError
from pegbox.methods import Method
from pegbox.models import Base
from pegbox.tasks import Classify, Task


def with_readout(task: Task, base: Base, method: Method, say: Callable[[str], None]) -> Task:
    """The task with the readout that the method needs, told where it changes."""
    if not isinstance(task, Classify) or task.readout == "head" or base.kind == "encoder":
        return task
    # A method that cannot work on the base says so itself, in the words of its own table row.
    if not method.capability.needs_head or base.kind not in method.capability.kinds:
        return task
    say(f"{method.name} answers by a head of its own: readout head instead of label words")
    return replace(task, readout="head")


def read_by(task: Task, readout: Literal["words", "head"]) -> Task:
    """The task read by label words or by a head.

    Raises:
        UsageError: For a head on a task of another kind than classification.
    """
    if readout == "words":
        return task
    if not isinstance(task, Classify):
        raise UsageError(
            f"a {type(task).__name__.lower()} task has no choice of readout",
            where=f"readout {readout}",
            expected="a classification task",
            fix="leave --readout out",
        )
    return replace(task, readout=readout)


def as_read(base: Base, task: Task) -> Base:
    """The base as the task reads it: its trunk where a head answers."""
    return base.headed() if getattr(task, "readout", "words") == "head" else base
