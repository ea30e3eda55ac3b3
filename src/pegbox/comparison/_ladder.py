"""Which rungs there are, and in which order they are climbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pegbox.comparison._baselines import baselines, build_baseline
from pegbox.comparison._fitted import Baseline
from pegbox.errors import PegboxError, UsageError, nearest
from pegbox.methods import Attached, Method, build, methods
from pegbox.tasks import Task

# What is nearly free comes first, then what most people would try first of what is trained.
FIRST = ("zero-shot", "few-shot", "closed-form", "head", "lora")
# The same answers as lora from a smaller base: climbed when asked for.
ASKED_FOR = ("qlora",)


@dataclass(frozen=True)
class Contender:
    """What is measured on one rung.

    Args:
        name: Name of the rung.
        method: A method, or a baseline that needs no model.
    """

    name: str
    method: Method | Baseline = field(repr=False)

    @property
    def trained(self) -> bool:
        """Whether it is trained by gradients, which is what costs."""
        return isinstance(self.method, Attached)

    @property
    def seeded(self) -> bool:
        """Whether another seed can give another result."""
        return isinstance(self.method, Method) and self.method.seeded

    @property
    def summary(self) -> str:
        """What it turns."""
        return self.method.capability.summary if isinstance(self.method, Method) else self.method.summary

    @property
    def options(self) -> dict[str, Any]:
        """The method's options."""
        return self.method.options() if isinstance(self.method, Method) else {}


Asked = Sequence[str | Method] | Mapping[str, str | Method]


def contenders(
    task: Task, asked: Asked | None = None, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Contender]:
    """The rungs to climb, in order.

    By default these are the baselines, the methods of `FIRST`, all other methods, and last those that train
    all weights; adapters beyond LoRA stand in the order of their names, since they cost nearly the same.

    Args:
        task: The task.
        asked: Names, methods, or names of one's own for them; climbed in this order.
        options: Options of methods by their names.

    Raises:
        UsageError: For a name that is no method and no baseline, or one given twice, and for wrong options.
        CapabilityError: For a baseline that cannot answer the task.
    """
    given = dict(options or {})
    named = _named(asked) if asked is not None else [(name, name) for name in _default(task)]
    names = [name for name, _ in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise UsageError(
            f"a rung is named twice: {', '.join(twice)}" if twice else "there is nothing to compare",
            where="methods",
            expected="at least one method or baseline, each named once",
            fix="name each once; in Python a mapping gives a method several names: "
            '{"rank 4": LoRA(rank=4), "rank 16": LoRA(rank=16)}'
            if twice
            else "name some, or leave methods out for the whole ladder",
        )
    for name in given:
        if name not in names:
            raise UsageError(
                f"options are given for '{name}', which is not climbed",
                where=f"options.{name}",
                expected=", ".join(names),
                fix=_mended(name, names),
            )
    return [Contender(name, _built(what, given.get(name, {}), task)) for name, what in named]


def _mended(name: str, climbed: Sequence[str]) -> str:
    """What to do about options of what is not climbed."""
    if name in methods():
        return f"add {name} to the methods, or leave its options out"
    return nearest(name, climbed) or "leave these options out"


def _default(task: Task) -> list[str]:
    known = {name: kind for name, kind in methods().items() if name not in ASKED_FOR}
    rest = [name for name in known if name not in FIRST]
    whole = [name for name in rest if getattr(known[name], "whole", False)]
    return [*baselines(task), *FIRST, *(name for name in rest if name not in whole), *whole]


def _named(asked: Asked) -> list[tuple[str, str | Method]]:
    if isinstance(asked, str):
        raise UsageError(
            "several methods are wanted, and this is one text", where=f"methods {asked!r}", fix="pass a list"
        )
    if isinstance(asked, Mapping):
        return list(asked.items())
    return [(one, one) if isinstance(one, str) else (one.name, one) for one in asked]


def _built(what: str | Method, options: Mapping[str, Any], task: Task) -> Method | Baseline:
    if isinstance(what, Method):
        if options:
            raise UsageError(
                "options are given for a method that has them already", where=what.name, fix="leave them out"
            )
        return what
    if what in baselines():
        if options:
            raise UsageError("a baseline has no options", where=f"options.{what}", fix="leave them out")
        found = build_baseline(what)
        found.check(task)
        return found
    if what not in methods():
        known = [*baselines(task), *methods()]
        raise UsageError(
            f"there is no method and no baseline '{what}'",
            expected=", ".join(known),
            fix=nearest(what, known) or "see pegbox methods",
        )
    return build(what, options)


def refusal(error: PegboxError) -> str:
    """Why a rung cannot be climbed, in one line."""
    told = f"{error.what} ({error.where})" if error.where else error.what
    return f"{told}; {error.fix}" if error.fix else told
