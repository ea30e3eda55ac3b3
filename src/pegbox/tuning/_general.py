"""Text of no particular task: the user's, or what the embedded world writes beside the task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import count
from pathlib import Path

from pegbox.data import AUTO, GeneralText, read_general_text
from pegbox.models import Base, check_language
from pegbox.tasks import Generate, Tag, Task
from pegbox.training import tell

SIZE = 1 << 16
# Seeds of the world's rows; pretraining drew its documents under other names of the generator.
MEASURED, REPLAYED = 1_000_000, 2_000_000
_BLOCK, _REPEATS = 32, 4096


def general_text(
    source: str | Path | None = None,
    *,
    base: Base | None = None,
    task: Task | None = None,
    column: str | None = None,
    size: int = SIZE,
    seed: int = 0,
    say: Callable[[str], None] = tell,
) -> GeneralText | None:
    """Read general text to measure forgetting on: a user's own, or the embedded world's for etude.

    Args:
        source: A .txt file, a folder of them, or a table with a text column; ``None`` or ``auto`` for what
            the embedded world writes in other genres than the task's, on which etude was pretrained (the
            documents are others than those of pretraining).
        base: The base, which decides what ``auto`` is.
        task: The task, whose genre of the world is left out.
        column: Text column of a table; by default ``text``, else guessed.
        size: Bytes to draw at the most.
        seed: Of the draw.
        say: Receives what was read, and what to give where there is no text.

    Returns:
        The text; ``None`` where none was named and the base is none of the embedded models.

    Raises:
        InputError: When nothing can be read there.
        CapabilityError: For a base without a language loss.
    """
    if base is not None:
        check_language(base.whole or base)
    if source is not None and source != AUTO:
        text = read_general_text(source, column=column, size=size, seed=seed)
    elif base is not None and is_embedded(base):
        text = world_text(task, size=size, seed=MEASURED + seed)
    else:
        name = base.name if base is not None else "no base"
        say(
            f"forgetting is not measured: nobody knows what {name} read before; name a .txt, .csv or .jsonl "
            "file of general text, or a folder of .txt files"
        )
        return None
    for note in text.notes:
        say(note)
    return text


def is_embedded(base: Base) -> bool:
    """Whether a base is one of the embedded models."""
    from pegbox.models import etude

    return base.name in etude.NAMES


def world_text(task: Task | None, *, size: int, seed: int, without: Collection[str] = ()) -> GeneralText:
    """What the embedded world writes in all genres but the task's, as many bytes of each.

    Args:
        task: The task; one that the world does not know leaves no genre out.
        size: Bytes of all genres together, at the most (but a document of each).
        seed: Of the rows.
        without: Documents to leave out.
    """
    from pegbox.models.etude import world

    own = _genre(task)
    genres = [genre for genre in world.GENRES if genre != own]
    documents = [
        text for genre in genres for text in _written(genre, size // len(genres), seed, set(without))
    ]
    beside = f"all genres but {own}" if own else "all genres"
    found = GeneralText(f"the embedded world, {beside}", tuple(documents))
    note = f"{found.source}: {len(found):,} documents of general text, {found.bytes:,} bytes"
    return GeneralText(found.source, found.documents, (note,))


def _written(genre: str, size: int, seed: int, without: set[str]) -> list[str]:
    """Different documents of a genre, its pretraining domains in turn, up to ``size`` bytes; at least one."""
    found: dict[str, None] = {}
    used = repeats = 0
    for text in _rows(genre, seed):
        repeats = repeats + 1 if text in found or text in without else 0
        if repeats > _REPEATS:  # the world has said all it has to say
            break
        if repeats:
            continue
        used += len(text.encode())
        if found and used > size:
            break
        found[text] = None
    return list(found)


def _rows(genre: str, seed: int) -> Iterator[str]:
    from pegbox.models.etude import world

    domains = [name for name in world.DOMAINS[genre] if name not in world.HELD_BACK[genre]]
    for block in count():
        parts = [world.written(genre, name, _BLOCK, seed + block) for name in domains]
        yield from (document.text for row in zip(*parts, strict=True) for document in row)


def _written_genre(task: Generate) -> str | None:
    """The genre of the world by the columns of its rows: records, instructions with outputs, messages."""
    known = {"record": "records", "instruction": "instructions", "message": "replies"}
    return next((genre for name, genre in known.items() if name in task.fields), None)


def _genre(task: Task | None) -> str | None:
    """The genre of the world that a task's labels belong to."""
    from pegbox.models.etude import world

    if task is None:
        return None
    if isinstance(task, Generate):
        return _written_genre(task)
    if isinstance(task, Tag):
        return "names" if set(task.types) <= {"PER", "LOC", "ORG"} else None
    known = {
        frozenset(world.LABELS): "reviews",
        frozenset(world.TOPICS): "news",
        frozenset(world.ANSWERS): "pairs",
        frozenset(("yes", "no")): "passages",
        frozenset(("polite", "rude")): "replies",
        frozenset(("faithful", "wrong")): "records",
        frozenset(("right", "wrong")): "instructions",
    }
    return known.get(frozenset(getattr(task, "labels", ())))
