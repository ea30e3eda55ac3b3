from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pegbox.data import Conversations, Examples, Preferences, Questions, Rows, Sentences
from pegbox.models import Base
from pegbox.tasks import Choose, Prompt, Tag, Task, TooLong


@dataclass(frozen=True)
class Provenance:
    """The rows that a model was tuned on, as facts for its card.

    Args:
        source: Name of the file or data set, without the folder it lay in.
        rows: Rows that were learnt from.
        validation: Rows that chose where training stopped.
        counts: Rows of each label; of multiple choice of each number of options; of tagging, entities of each
            type.
        digest: SHA-256 of the rows' contents in order; of rows that came later, their own behind a plus.
        reading: What was guessed, left out or changed when they were read, one line each.
        fitting: How those that do not fit into the context were read, one line each.
    """

    source: str
    rows: int
    validation: int
    counts: Mapping[str, int]
    digest: str
    reading: tuple[str, ...] = ()
    fitting: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        base: Base,
        prompt: Prompt,
        rows: Any,
        *,
        valid: Rows | None,
        notes: Sequence[str],
        too_long: TooLong,
    ) -> Provenance:
        """Gather the facts.

        Args:
            base: The base as the task reads it.
            prompt: The task made ready for it.
            rows: Rows that were learnt from.
            valid: Rows that chose where training stopped.
            notes: What was told when the rows were read.
            too_long: What was done with texts that do not fit.
        """
        fitting = _encoded(base, prompt, rows, too_long).notes() if too_long != "error" else []
        return cls(
            source=bare_name(rows.source),
            rows=len(rows),
            validation=0 if valid is None else len(valid),
            counts=_counts(prompt.task, rows),
            digest=rows.digest(),
            reading=tuple(dict.fromkeys(notes)),
            fitting=tuple(note.removeprefix(f"{rows.source}: ") for note in fitting),
        )

    def grown(self, task: Task, rows: Examples) -> Provenance:
        """With further rows that were learnt from later."""
        more = Counter(self.counts) + Counter(_counts(task, rows))
        name = bare_name(rows.source)
        return replace(
            self,
            source=self.source if name in self.source.split(" and ") else f"{self.source} and {name}",
            rows=self.rows + len(rows),
            counts={label: more[label] for label in self.counts},
            digest=f"{self.digest} + {rows.digest()}",
            reading=tuple(dict.fromkeys((*self.reading, *rows.notes()))),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Provenance:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**values, "reading": tuple(values["reading"]), "fitting": tuple(values["fitting"])})


def bare_name(source: str) -> str:
    """A file without its folder, which tells of a machine; a data set's name as it is."""
    path = Path(source)
    return path.name if path.is_absolute() or path.exists() else source


def _counts(task: Task, rows: Rows) -> dict[str, int]:
    if isinstance(rows, Sentences):
        found = Counter(tag[2:] for tags in rows.tags or () for tag in tags if tag[:2] == "B-")
        return {name: found[name] for name in (task.types if isinstance(task, Tag) else sorted(found))}
    if isinstance(rows, Questions):
        sizes = Counter(map(len, rows.options))
        return {f"{size} options": sizes[size] for size in sorted(sizes)}
    if isinstance(rows, Preferences):
        return {}
    labels = Counter(rows.labels or ())
    return {label: labels[label] for label in task.labels}


def _encoded(base: Base, prompt: Any, rows: Any, too_long: TooLong) -> Any:
    """The rows as token ids; demonstrations chosen row by row give way to the text and are left out."""
    if isinstance(prompt.task, Tag):
        return prompt.windows(rows, too_long=too_long)
    if isinstance(prompt.task, Choose):
        encode = prompt.encode_pairs if base.kind == "encoder" else prompt.encode_options
        return encode(rows, too_long=too_long)
    if isinstance(rows, Conversations):
        return prompt.speak(rows, too_long=too_long)
    if isinstance(rows, Preferences):
        return prompt.encode_pairs(rows, too_long=too_long)
    assert isinstance(rows, Examples)
    return prompt.draws[0].encode(rows, too_long=too_long)
