"""Several tuned models that answer rows as JSON has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from pegbox.data import Table
from pegbox.errors import InputError, UsageError, check_whole, is_number, nearest
from pegbox.models import Base
from pegbox.tuning import Tuned, answer_json, base_of, check_abstains, shape_of

MOST_ROWS = 256
SOURCE = "rows"


@dataclass(frozen=True, eq=False)
class Service:
    """Tuned models by name; those of one base share its weights. One request is answered at a time.

    Args:
        models: The tuned models.
        most: Most rows of one request.
    """

    models: Mapping[str, Tuned]
    most: int = MOST_ROWS
    _lock: Any = field(default_factory=Lock, init=False, repr=False)

    @classmethod
    def load(
        cls,
        folders: Sequence[Path],
        *,
        model: str | None = None,
        most: int = MOST_ROWS,
        say: Callable[[str], None] = print,
        **options: Any,
    ) -> Service:
        """Load folders that Pegbox wrote, each under the name of its folder.

        Args:
            folders: The folders.
            model: Where their base lies now, when its name no longer leads there.
            most: Most rows of one request.
            say: Receives lines for the user.
            options: As for :meth:`pegbox.Tuned.load`.

        Raises:
            UsageError: For two folders of one name, or none.
            InputError: For a folder that cannot be loaded.
        """
        check_whole(most, 1, "max_rows")
        names = [folder.resolve().name for folder in folders]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise UsageError(
                f"several folders are called {', '.join(twice)}" if twice else "there is no model to serve",
                where="tuned",
                expected="folders of different names",
                fix="rename one of them" if twice else "name a folder that pegbox fit wrote",
            )
        bases: dict[str, Base] = {}
        found = {}
        for name, folder in zip(names, folders, strict=True):
            known = bases.get(base_of(folder) or "")
            tuned = Tuned.load(folder, model=known or model, say=say, **options)
            bases.setdefault(tuned.base.fingerprint, tuned.base)
            found[name] = tuned
        return cls(found, most)

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
        with self._lock:
            read = _read(tuned, rows)
            check_abstains(tuned.prompt.task, read, abstain_above)
            answers = [answer_json(answer, abstain_above) for answer in tuned.predict(read)]
        return {"model": name, "answers": answers, "notes": notes}

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
        if not rows or len(rows) > self.most:
            raise InputError(
                f"{len(rows):,} rows are too many at once" if rows else "there is no row",
                where=SOURCE,
                expected=f"1 to {self.most:,} rows",
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
                "this is no share", where=f"abstain_above {abstain_above}", expected="a number from 0 to 1"
            )


def _read(tuned: Tuned, rows: Sequence[Any]) -> Any:
    """Rows as the model's task reads them; of objects, as it reads a file's."""
    task = tuned.prompt.task
    if not isinstance(rows[0], dict):
        listed = task.to_json()["task"] in ("tag", "generate")
        return [tuple(row) if isinstance(row, list) and not listed else row for row in rows]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: tuple(row.get(name) for row in rows) for name in names}
    table = Table(SOURCE, columns, tuple(range(1, len(rows) + 1)))
    try:
        return shape_of(task).rows(task, table, labelled=False)
    except InputError as error:
        if "--" in error.fix:  # a flag's name helps nobody here
            error.fix = f"name the columns as the model's rows had them: {', '.join(task.fields)}"
        raise
