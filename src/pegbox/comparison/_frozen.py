from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pegbox.data import Examples, Rows, take
from pegbox.errors import InputError
from pegbox.methods import ClosedForm, Equations, Problem
from pegbox.models import Base, FeatureCache, encode, output_tail
from pegbox.tasks import Classify, Prompt


@dataclass(frozen=True, eq=False)
class Frozen:
    """A base that answers a task, as the closed form sees it.

    Args:
        base: The base as the task reads it.
        prompt: The task, made ready for it.
        cache: Feature cache.
        say: Receives lines for the user.
    """

    base: Base
    prompt: Prompt
    cache: FeatureCache | None
    say: Callable[[str], None]

    @classmethod
    def of(cls, base: Base, task: Classify, cache: FeatureCache | None, say: Callable[[str], None]) -> Frozen:
        """Make the task ready and tell what was derived for it.

        Raises:
            CapabilityError: For a base that the closed form cannot work on.
        """
        seen = base.headed() if task.readout == "head" else base
        ClosedForm().check(seen)
        prompt = seen.prepare(task.with_rows(None))
        for note in prompt.notes:
            say(note)
        return cls(seen, prompt, cache, say)

    def equations(self, rows: Examples) -> Equations:
        """Features and base logits of labelled rows; told what was shortened."""
        encoded = encode(self.base, self.prompt, rows, cache=self.cache, say=self.say)
        for note in encoded.notes():
            self.say(note)
        gold = torch.tensor(self.prompt.task.gold(rows))
        return Equations.of(Problem(self.base, self.prompt, rows, gold, encoded, 0, self.cache, self.say))

    def finished(self, logits: Tensor, scale: float) -> Tensor:
        """What the model makes of corrected logits (rows, labels), which some cap softly.

        Args:
            logits: On the scale of :class:`pegbox.methods.Equations`.
            scale: Theirs.
        """
        return output_tail(self._module, (logits / scale).to(self.base.device)).cpu()

    @cached_property
    def _module(self) -> nn.Module:
        return self.base.module(len(self.prompt.task.labels))


def labelled(task: Classify, rows: Rows | None) -> Examples:
    """The rows, if there are some and all have labels that the task knows.

    Raises:
        InputError: For none, and for a label that is missing or unknown.
    """
    if rows is None or not len(rows):
        raise InputError("there are no rows for a learning curve", expected="labelled rows", fix="pass rows=")
    found: Examples = rows  # type: ignore[assignment]  # a classification task reads no others
    task.gold(found)
    return found


def fewer(rows: Examples, most: int, seed: int, done: str, say: Callable[[str], None]) -> Examples:
    """At most so many rows, a seeded sample where there are more; told."""
    if len(rows) <= most:
        return rows
    say(f"learning curve: {most:,} of {len(rows):,} rows are {done} (seed {seed})")
    return take(rows, most, seed)
