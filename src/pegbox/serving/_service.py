"""Several tuned models that answer rows as JSON has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from pegbox.data import Table
from pegbox.errors import InputError, PegboxError, UsageError, check_whole, is_number, nearest
from pegbox.models import Base
from pegbox.tuning import Tuned, answer_json, check_abstains, saved_base, shape_of

MAX_ROWS = 256
SOURCE = "rows"


@dataclass(frozen=True, eq=False)
class Service:
    """Tuned models by name. One call is answered at a time, whatever the thread.

    Args:
        models: The tuned models.
        max_rows: Most rows of one call.

    Raises:
        UsageError: Without a model, or for a number that is none.
    """

    models: Mapping[str, Tuned]
    max_rows: int = MAX_ROWS
    _lock: Any = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        check_whole(self.max_rows, 1, "max_rows")
        if not self.models:
            raise UsageError("there is no model to serve", fix="name a folder that pegbox fit wrote")

    @classmethod
    def load(
        cls,
        folders: Sequence[Path],
        *,
        model: str | None = None,
        max_rows: int = MAX_ROWS,
        say: Callable[[str], None] = print,
        **options: Any,
    ) -> Service:
        """Load folders that Pegbox wrote, each under the name of its folder; those of one base share it.

        Args:
            folders: The folders.
            model: Where their base lies now, when its name no longer leads there.
            max_rows: Most rows of one call.
            say: Receives lines for the user.
            options: As for :meth:`pegbox.Tuned.load`.

        Raises:
            UsageError: For two folders of one name, none, and a ``model`` for several bases.
            InputError: For a folder that cannot be loaded.
        """
        check_whole(max_rows, 1, "max_rows")
        names = [folder.resolve().name for folder in folders]
        _check_names(names)
        told = [saved_base(folder) for folder in folders]
        if model is not None:
            _check_one_base(told)
        bases: list[Base] = []
        found = {}
        for name, folder, saved in zip(names, folders, told, strict=True):
            # A folder with all weights in it needs no base.
            place = None if saved is None else _known(bases, saved) or model
            tuned = Tuned.load(folder, model=place, say=say, **options)
            found[name] = tuned
            if saved is not None and not isinstance(place, Base):
                bases.append(tuned.base.whole or tuned.base)
        return cls(found, max_rows)

    def described(self) -> list[dict[str, Any]]:
        """What each model answers, as JSON."""
        return [
            {
                "name": name,
                "task": tuned.prompt.task.to_json()["task"],
                "fields": list(tuned.prompt.task.fields),
                "labels": list(tuned.prompt.task.labels),
                "method": tuned.method.name,
                "base": tuned.base.name,
                "averaged": tuned.averaged,
            }
            for name, tuned in self.models.items()
        ]

    def answer(
        self, rows: Sequence[Any], *, model: str | None = None, abstain_above: float | None = None
    ) -> dict[str, Any]:
        """Answer rows, each a JSON object with a file's columns, or what :meth:`pegbox.Tuned.predict` takes.

        Args:
            rows: The rows, all of one kind.
            model: The name of a model; may be left out where there is one alone.
            abstain_above: Mark rows whose answer has a probability below 1 less this.

        Returns:
            ``model``, its name; ``answers``, one object per row, in order; ``notes``, such as rows that were
            shortened.

        Raises:
            InputError: For rows that cannot be answered.
            UsageError: For an unknown model, and a share that is none.
        """
        name = self._named(model)
        self._check(rows, abstain_above)
        notes: list[str] = []
        tuned = replace(self.models[name], say=notes.append, cache=None)
        try:
            with self._lock:
                read = _read(tuned, rows)
                check_abstains(tuned.prompt.task, read, abstain_above)
                answers = [answer_json(answer, abstain_above) for answer in tuned.predict(read)]
        except PegboxError as error:
            error.where = _as_rows(error.where)
            if "--" in error.fix and "--too-long" not in error.fix:  # a flag's name helps nobody here
                error.fix = (
                    f"send rows with what the model was tuned on: {', '.join(tuned.prompt.task.fields)}"
                )
            raise
        return {"model": name, "answers": answers, "notes": [_as_rows(note) for note in notes]}

    def _named(self, model: str | None) -> str:
        if model is None and len(self.models) == 1:
            return next(iter(self.models))
        if model is None or model not in self.models:
            raise UsageError(
                "the request names no model" if model is None else f"there is no model '{model}'",
                where="model",
                expected=", ".join(self.models),
                fix="name one" if model is None else nearest(model, self.models) or "name one of them",
            )
        return model

    def _check(self, rows: Sequence[Any], abstain_above: float | None) -> None:
        if not isinstance(rows, list | tuple):
            raise InputError("the rows are no list", where=SOURCE, expected="a list", fix="send [row]")
        if not rows or len(rows) > self.max_rows:
            raise InputError(
                f"{len(rows):,} rows are too many at once" if rows else "there is no row",
                where=SOURCE,
                expected=f"1 to {self.max_rows:,} rows",
                fix="send them in several requests" if rows else "send at least one",
            )
        if len({isinstance(row, dict) for row in rows}) > 1:
            raise InputError(
                "some rows are objects and others are not",
                where=SOURCE,
                expected="objects with a file's columns, or texts, all alike",
                fix="write all of them as objects",
            )
        if abstain_above is not None and not (is_number(abstain_above) and 0 <= abstain_above <= 1):
            raise UsageError(
                "this is no share",
                where=f"abstain_above {abstain_above}",
                expected="a number from 0 to 1",
                fix="0.2 leaves answers that are at least 0.8 sure",
            )


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"several folders are called {', '.join(twice)}",
            expected="folders of different names, each once",
            fix="rename one of them, or name it once",
        )


def _check_one_base(told: Iterable[dict[str, Any] | None]) -> None:
    """Raise UsageError for folders that go on several bases."""
    names = {one["fingerprint"]: one["name"] for one in told if one is not None}
    if len(names) > 1:
        raise UsageError(
            "the place of one base is given, and these models go on several",
            where="model",
            expected=f"models of one base, not of {' and '.join(names.values())}",
            fix="serve the models of each base by a server of their own",
        )


def _known(bases: Sequence[Base], saved: Mapping[str, Any]) -> Base | None:
    """The base that a saved model goes on, where it is loaded, with the context of its tuning."""
    for base in bases:
        if base.fingerprint == saved["fingerprint"] and base.quantise == saved.get("quantise"):
            return replace(base, context=saved["max_length"])
    return None


def _read(tuned: Tuned, rows: Sequence[Any]) -> Any:
    """Rows as the model's task reads them; of objects, as it reads a file's."""
    task = tuned.prompt.task
    if not isinstance(rows[0], dict):
        listed = task.to_json()["task"] in ("tag", "generate")
        return [tuple(row) if isinstance(row, list) and not listed else row for row in rows]
    names = dict.fromkeys(str(name) for row in rows for name in row)
    if not names:
        raise InputError(
            "the rows hold nothing", where=SOURCE, expected=", ".join(task.fields), fix="fill them in"
        )
    columns = {name: tuple(row.get(name) for row in rows) for name in names}
    table = Table(SOURCE, columns, tuple(range(1, len(rows) + 1)))
    return shape_of(task).rows(task, table, labelled=False)


def _as_rows(text: str) -> str:
    """What the API calls texts, questions, prompts given in memory are the rows of a request."""
    return re.sub(r"\b[\w ]{0,20}? given in memory\b", SOURCE, text)
