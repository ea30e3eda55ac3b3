"""What tuning made a model forget: bits per byte of general text, and accuracy on other tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pegbox.data import GeneralText, Rows
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.evaluation import Also, Forgetting, only_also, score_also, score_forgetting
from pegbox.models import Base, LanguageRows, check_language, load, pinned, share, unwrapped
from pegbox.tasks import Prefer, Soft, Tag, Task, task_from_file
from pegbox.tuning._answers import Array, softmax
from pegbox.tuning._shapes import shape_of
from pegbox.tuning._tuned import NO_POSTERIOR

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned

Floats = npt.NDArray[np.float64]

# What bases said of texts, so that many tuned models are compared with one reading. By the model itself,
# since two that differ in their last bits have one fingerprint.
_BASES: WeakKeyDictionary[nn.Module, dict[Any, Floats]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class OtherTask:
    """A labelled task that nothing is tuned on, asked before and after; its base's answers are kept.

    Args:
        name: What it is called.
        task: The task, with its rows.
        notes: What was guessed when it was read.
    """

    name: str
    task: Task
    notes: tuple[str, ...] = ()
    _answers: dict[Any, Array] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, given: OtherTask | Task | str | Path) -> OtherTask:
        """Take a task with rows, or read one from a file, its columns and words guessed.

        Raises:
            InputError: For rows that cannot be used.
            UsageError: For a task without rows.
            CapabilityError: For a task of tags or preferences, which no base answers without a head.
        """
        if isinstance(given, OtherTask):
            return given
        named = isinstance(given, str | Path)
        task: Task = task_from_file(given) if named else given  # type: ignore[arg-type, assignment]
        rows = task.rows
        name = str(given) if named else rows.source if rows is not None else type(task).__name__
        if isinstance(task, Tag | Prefer):
            what = "entities" if isinstance(task, Tag) else "rewards"
            raise CapabilityError(
                f"{what} cannot be asked of a model without a head for them",
                where=name,
                expected="a task to classify or to choose",
                fix="leave it out",
            )
        if rows is None or not len(rows):
            raise UsageError("this task has no rows to ask", where=name, expected="a task read from rows")
        return cls(name, task, tuple(task.notes))


def forgetting(
    tuned: Tuned,
    text: GeneralText | None,
    also: Sequence[OtherTask | Task | str | Path] = (),
    *,
    switch_off: bool = True,
    resamples: int = 1000,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Forgetting:
    """Measure what tuning did to everything else: the same text and tasks under the base and the tuned model.

    The adapter is on for "after": its soft tokens stand in front of every window of text and of every
    question of another task, its prefixes before every token. Under a head (and in full fine-tuning with
    one) the tuned trunk is measured below the base's own output layer. What the base says of a text or an
    :class:`OtherTask` is computed once and kept for further models tuned on the same base.

    Args:
        tuned: The tuned model.
        text: General text, see :func:`general_text`; ``None`` to ask other tasks alone.
        also: Other labelled tasks: files, tasks with rows, or :class:`OtherTask`. Asked in label words
            without demonstrations.
        switch_off: Whether the text is also read with the adapter switched off, which takes as long again.
        resamples: Bootstrap resamples of the intervals.
        seed: Their seed, and that of the masks of a masked model.
        say: Receives lines for the user; by default as the tuned model says them.

    Raises:
        CapabilityError: For a base without a language loss (encoders, encoder-decoders).
        UsageError: Without text and tasks.
        InputError: When the untuned base of a whole saved model cannot be loaded, or a task cannot be read.
    """
    tell = say or tuned.say
    if text is None and not also:
        raise UsageError(
            "there is nothing to measure forgetting on",
            expected="general text, or other labelled tasks",
            fix="pass text=general_text(file) or also=[file]",
        )
    others = [OtherTask.of(given) for given in also]
    for other in others:
        for note in other.notes:
            tell(f"{other.name}: {note}")
    sides = _Sides.of(tuned, tell)
    asked = [_asked(sides, other, resamples=resamples, seed=seed) for other in others]
    kind: Any = "masked bits per byte" if sides.base.kind == "masked" else "bits per byte"
    if text is None:
        return only_also(asked, kind)
    _tell_replayed(tuned, text, tell)
    before, after, off, sizes = _read(sides, text, seed, switch_off=switch_off)
    return score_forgetting(
        before,
        after,
        sizes,
        source=text.source,
        kind=kind,
        off=off,
        also=asked,
        resamples=resamples,
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class _Sides:
    """The base and the tuned model as language models.

    Args:
        tuned: The tuned model.
        base: The base, with its output layer.
        module: The tuned model with an output layer; ``None`` where nothing was turned.
    """

    tuned: Tuned
    base: Base
    module: nn.Module | None

    @classmethod
    def of(cls, tuned: Tuned, say: Callable[[str], None]) -> _Sides:
        """Take the two apart; a trunk gets the base's own output layer back."""
        own = tuned.base
        base = own.whole or own if tuned.origin is None else _untuned(tuned, own, say)
        if own.kind != "encoder":
            return cls(tuned, base, tuned.module)
        check_language(base)
        return cls(tuned, base, _below_own_output(base, tuned.module))

    @property
    def soft(self) -> int:
        """How many soft tokens the tuned model's prompt holds."""
        return 0 if self._soft is None else self._soft.count

    @property
    def _soft(self) -> Soft | None:
        return getattr(self.tuned.prompt, "soft", None)

    @property
    def soft_ids(self) -> list[int]:
        """Ids of all soft tokens, in order."""
        soft = self._soft
        return [] if soft is None else [soft.first + place for place in range(soft.count)]

    @property
    def switch(self) -> Callable[[], AbstractContextManager[None]] | None:
        """What switches the adapter off for a block; ``None`` where there is none."""
        return None if self.tuned.weights else getattr(self.tuned.module, "disable_adapter", None)

    def ask(self, task: Task, rows: Rows, *, after: bool) -> Array:
        """Probabilities (rows, labels) of another task by the tuned model, or by the base."""
        prompt: Any = self.base.prepare(task.with_rows(None))
        module = self.module if after else None
        if module is not None and self._soft is not None:
            prompt = replace(prompt, soft=Soft(self._soft.first, front=self._soft.count))
        asked = replace(
            self.tuned,
            base=self.base,
            prompt=prompt,
            module=module,
            **NO_POSTERIOR,
            features=None,
            grow=None,
            origin=None,
        )
        return softmax(shape_of(task).logits(asked, rows))


def _read(
    sides: _Sides, text: GeneralText, seed: int, *, switch_off: bool
) -> tuple[Floats, Floats, Floats | None, npt.NDArray[np.int64]]:
    """Nats of each document before, after, and with the adapter off; bytes of what was asked."""
    base, module = sides.base, sides.module
    length = base.context - sides.soft
    plain = LanguageRows(replace(base, context=length), text.documents, seed=seed)
    known = _BASES.setdefault(base.model, {})
    # The number of threads decides in which order sums are taken.
    key = (text.digest(), plain.room, seed, torch.get_num_threads())
    if key not in known:
        known[key] = plain.nats(base.model)
    before = known[key]
    if module is None:
        return before, before, None, plain.sizes()
    own = LanguageRows(base, text.documents, soft=sides.soft_ids, seed=seed) if sides.soft else plain
    after, off = own.nats(module), None
    if switch_off and sides.switch is not None:
        with sides.switch():
            off = plain.nats(module)
    return before, after, off, plain.sizes()


def _asked(sides: _Sides, other: OtherTask, *, resamples: int, seed: int) -> Also:
    task: Any = other.task
    rows = task.rows
    base = sides.base
    key = (base.fingerprint, base.kind, str(base.dtype), str(base.device), base.quantise, base.context)
    try:
        gold = task.gold(rows)
        if key not in other._answers:
            other._answers[key] = sides.ask(task, rows, after=False)
        before = other._answers[key]
        after = before if sides.module is None else sides.ask(task, rows, after=True)
    except InputError as error:
        where = error.where if other.name in error.where else f"{other.name}: {error.where}"
        raise InputError(error.what, where=where, expected=error.expected, fix=error.fix) from None
    return score_also(other.name, before, after, gold, resamples=resamples, seed=seed)


def _below_own_output(base: Base, module: nn.Module | None) -> nn.Module | None:
    """The tuned trunk of a model with a head, below the output layer of the base that it is the trunk of."""
    if module is None:
        return None
    model: Any = share(base.model)
    setattr(model, model.base_model_prefix, unwrapped(module).encoder)
    return model.eval()


def _untuned(tuned: Tuned, own: Base, say: Callable[[str], None]) -> Base:
    """The base that a whole saved model was tuned from, loaded by the name it had."""
    assert tuned.origin is not None
    saved = tuned.origin
    try:
        base = load(
            saved["name"],
            revision=pinned(saved["name"], saved["revision"]),
            dtype=str(own.dtype).removeprefix("torch."),  # type: ignore[arg-type]
            device=str(own.device),
            max_length=saved["max_length"],
        )
    except InputError as error:
        raise InputError(
            f"the untuned base to compare with cannot be loaded: {error.what}",
            where=error.where or saved["name"],
            expected=error.expected,
            fix="say with --model (model=) where it lies now",
        ) from None
    if base.fingerprint != saved["fingerprint"]:
        raise InputError(
            f"{saved['name']} is no longer the base that this was tuned from",
            where=f"fingerprint {base.fingerprint[:12]}",
            expected=saved["fingerprint"][:12],
            fix="say with --model (model=) where that base lies now",
        )
    say(f"the untuned base is {saved['name']}")
    return base


def _tell_replayed(tuned: Tuned, text: GeneralText, say: Callable[[str], None]) -> None:
    known = set(tuned.details.get("replay", {}).get("documents", ()))
    found = sum(digest in known for digest in text.digests())
    if found:
        say(f"{text.source}: {found:,} of {len(text):,} documents were replayed in training")
