from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from pegbox.data import (
    Table,
    find_choice_columns,
    find_columns,
    find_conversation_columns,
    find_tag_columns,
    is_ranked,
    read,
)
from pegbox.errors import InputError, UsageError, nearest
from pegbox.tasks._choose import Choose
from pegbox.tasks._classify import Classify
from pegbox.tasks._generate import Generate
from pegbox.tasks._prefer import Prefer
from pegbox.tasks._tag import Tag
from pegbox.tasks._task import Task

TaskKind = Literal["classify", "choose", "tag", "generate", "prefer"]
_CHATS = ("messages", "sharegpt")
# Names of columns that hold what is to be written, never a label.
_WRITTEN = ("sql", "summary", "highlights", "translation", "human_reference")
_HAVE = {
    "label_words": "this option with a classify task only",
    "template": "this option with a classify or choose task",
    "label": "the columns of preferences with --text prompt,chosen,rejected",
}


def guess_task(table: Table) -> TaskKind:
    """What a table's columns are made for: preferences, tags, options, conversations, or one label per row.

    Instructions with outputs, and prompts with completions, are to be generated unless their answers are few
    and repeated, as labels are.
    """
    if is_ranked(table.names):
        return "prefer"
    for kind, find in (("tag", find_tag_columns), ("choose", find_choice_columns)):
        try:
            columns: Any = find(table)
        except InputError:
            continue
        if kind == "tag" or _clear(columns.options):
            return kind  # type: ignore[return-value]
    if _conversations(table):
        return "generate"
    cells = [cell for column in table.columns.values() for cell in column[:100]]
    # Lists without a text are words whose tags could not be read, which the error of that kind tells.
    lists = any(isinstance(cell, list | tuple) for cell in cells)
    return "tag" if lists and not any(isinstance(cell, str) for cell in cells) else "classify"


def _conversations(table: Table) -> bool:
    """Whether a table holds conversations, or prompts with answers in free words."""
    try:
        found = find_conversation_columns(table)
    except InputError:
        return False
    if found.format in _CHATS:
        return True
    if found.format not in ("instruction", "prompt"):
        written = found.columns.get("output", "").lower() in _WRITTEN
        return found.format == "input" and (written or not _labelled(table))
    answers = [str(cell) for cell in table.columns[found.columns["output"]] if cell not in (None, "")]
    return len(set(answers)) > max(20, len(answers) // 2)


def _labelled(table: Table) -> bool:
    """Whether a table has a text and a label column by their names and contents."""
    try:
        find_columns(table)
    except InputError:
        return False
    return True


def task_from_file(
    source: str | Path,
    *,
    kind: TaskKind | Literal["auto"] = "auto",
    texts: Sequence[str] = (),
    label: str | None = None,
    template: str | None = None,
    label_words: Mapping[str, str] | Sequence[str] | None = None,
    split: str | None = None,
    on_bad: str = "error",
) -> Task:
    """Read a task of any kind from a file or hub id; what is not named is guessed and noted.

    Args:
        source: A file or hub id.
        kind: ``classify``, ``choose``, ``tag``, ``generate``, ``prefer``, or ``auto`` to tell by the columns.
        texts: Text columns; of ``tag`` the column of words.
        label: Column of labels, answers or tags.
        template: For ``classify``, ``choose`` and ``generate``.
        label_words: For ``classify``.
        split: Split of a hub data set.
        on_bad: What to do with rows that cannot be used.

    Raises:
        UsageError: For no such kind, or an option that the kind does not have.
        InputError: For rows that cannot be used.
    """
    if kind != "auto" and kind not in get_args(TaskKind):
        valid = ("auto", *get_args(TaskKind))
        raise UsageError(f"there is no task {kind!r}", expected=", ".join(valid), fix=nearest(kind, valid))
    table = read(source, split=split)
    found = guess_task(table) if kind == "auto" else kind
    if found == "classify":
        return Classify.from_table(
            table, texts=texts, label=label, template=template, label_words=label_words, on_bad=on_bad
        )
    plain = found in ("tag", "prefer")
    _check_unused(found, label_words=label_words, template=template if plain else None)
    if found == "tag":
        words = texts[0] if texts else None
        task: Task = Tag.from_table(table, tokens=words, tags=label, on_bad=on_bad)
    elif found == "prefer":
        _check_unused(found, label=label)
        task = Prefer.from_table(table, texts=texts, on_bad=on_bad)
    elif found == "generate":
        task = Generate.from_table(table, texts=texts, label=label, template=template, on_bad=on_bad)
    else:
        task = Choose.from_table(table, texts=texts, answer=label, template=template, on_bad=on_bad)
    if kind != "auto":
        return task
    note = f"task {found} (guessed from the columns; override with --task)"
    return replace(task, notes=(note, *task.notes))


def _clear(options: Sequence[str]) -> bool:
    """Whether columns are surely options: one of lists, or several with more than a letter or number."""
    if len(options) == 1 or all(len(name) > 1 for name in options):
        return True
    start = [name.lower() for name in options[:3]]
    return start in (["a", "b", "c"], ["0", "1", "2"], ["1", "2", "3"])


def _check_unused(kind: str, **given: Any) -> None:
    for name, value in given.items():
        if value:
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"a {kind} task has no {name.replace('_', ' ')}",
                where=option,
                expected=_HAVE[name],
                fix=f"leave {option} out, or name another task with --task",
            )
