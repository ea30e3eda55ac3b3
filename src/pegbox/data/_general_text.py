import gzip
import hashlib
import lzma
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pegbox.data._columns import find_columns
from pegbox.data._read import decode, hub_id, read
from pegbox.data._table import FORMATS, Table, counted
from pegbox.errors import InputError, UsageError, nearest

SIZE = 1 << 16
# What stands for no file; texts so near to it are no hub ids.
AUTO, NEAR = "auto", 0.75
LONGEST = 4096
SEPARATOR = re.compile(r"^<\|endoftext\|>[ \t]*$", re.MULTILINE)
_BLANK = re.compile(r"\n[ \t]*\n")
_OPENERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".xz": lzma.decompress}


@dataclass(frozen=True, eq=False)
class GeneralText:
    """Documents of no particular task: what a model shall still be able to say after tuning.

    Args:
        source: Where they come from.
        documents: The texts; a long one is several.
        notes: What was read and drawn, one line each.
    """

    source: str
    documents: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return sum(len(text.encode()) for text in self.documents)

    def digests(self) -> list[str]:
        """A short digest of each document."""
        return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in self.documents]

    def digest(self) -> str:
        """One digest of all documents in their order."""
        return hashlib.sha256("".join(self.digests()).encode()).hexdigest()[:32]


def read_general_text(
    source: str | Path, *, column: str | None = None, size: int = SIZE, seed: int = 0
) -> GeneralText:
    """Read documents of a file or folder, or a seeded draw of them.

    A .txt file (also .gz or .xz) is divided at lines ``<|endoftext|>`` where it has any, else at blank lines,
    else at its lines; a folder gives each of its .txt files as one document; a table one document per row. A
    document of more than 4,096 characters is cut at spaces into several, so that no book takes the place of
    all others.

    Args:
        source: A .txt file, a folder of them, or what :func:`pegbox.data.read` reads.
        column: Text column of a table; by default ``text``, else guessed.
        size: UTF-8 bytes to draw at the most.
        seed: Of the draw.

    Raises:
        InputError: When nothing can be read there, or it holds no text.
        UsageError: For no size.
    """
    if size < 1:
        raise UsageError("the size is too small", where=f"size {size}", expected="at least 1 byte")
    path = Path(source).expanduser()
    texts, notes = _texts(path, source, column)
    pieces = [piece for text in texts for piece in _pieces(text.strip()) if piece]
    if not pieces:
        raise InputError(
            "there is no text here", where=str(source), expected="at least one document", fix="check the file"
        )
    drawn = _drawn(pieces, size, seed)
    total, kept = (sum(len(text.encode()) for text in part) for part in (pieces, drawn))
    if len(drawn) == len(pieces):
        told = f"{source}: {counted(len(pieces), 'document')} of general text, {total:,} bytes"
    else:
        told = (
            f"{source}: {kept:,} of {total:,} bytes of general text drawn (seed {seed}), "
            f"{len(drawn):,} of {counted(len(pieces), 'document')}"
        )
    return GeneralText(str(source), tuple(drawn), (*notes, told))


def _texts(path: Path, source: str | Path, column: str | None) -> tuple[Sequence[str], tuple[str, ...]]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _plain(file))
        if not files:
            raise InputError(
                "this folder holds no text",
                where=str(source),
                expected="files that end in .txt, .txt.gz or .txt.xz",
                fix="name a folder of texts, or one file",
            )
        found = [_decoded(file) for file in files]
        return [part for text in found for part in SEPARATOR.split(text)], ()
    if _plain(path):
        return _divided(_decoded(path)), ()
    if not path.exists() and (not hub_id(source) or nearest(str(source), [AUTO], NEAR)):
        raise _missing(path)
    table = read(source)
    return _of_table(table, column)


def _plain(path: Path) -> bool:
    name = path.with_suffix("") if path.suffix.lower() in _OPENERS else path
    return name.suffix.lower() == ".txt"


def _decoded(path: Path) -> str:
    if not path.is_file():
        raise _missing(path)
    try:
        raw = path.read_bytes()
        raw = _OPENERS.get(path.suffix.lower(), bytes)(raw)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            f"this file cannot be read: {error}", where=str(path), fix="make it again"
        ) from error
    return decode(raw, str(path)).replace("\r\n", "\n").replace("\r", "\n")


def _missing(path: Path) -> InputError:
    folder = path.parent
    names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    return InputError(
        "there is no such file" if folder.is_dir() else f"there is no folder {folder}",
        where=str(path),
        expected=f"a .txt file, a folder of them, a table ({', '.join(FORMATS)}), or a hub id",
        fix=nearest(path.name, names) or nearest(str(path), [AUTO], NEAR) or "check the path",
    )


def _divided(text: str) -> list[str]:
    if SEPARATOR.search(text):
        return SEPARATOR.split(text)
    return _BLANK.split(text) if _BLANK.search(text.strip()) else text.split("\n")


def _of_table(table: Table, column: str | None) -> tuple[list[str], tuple[str, ...]]:
    notes: tuple[str, ...] = table.notes
    if column is None and "text" in table.columns:
        column = "text"
    if column is None:
        found = find_columns(table, need_label=False)
        names, notes = found.texts, (*notes, f"{table.source}: general text is {' and '.join(found.texts)}")
    elif column in table.columns:
        names = (column,)
    else:
        raise InputError(
            f"there is no column {column!r}",
            where=table.source,
            expected=f"one of: {', '.join(table.names)}",
            fix=nearest(column, table.names) or "name one of these",
        )
    cells = zip(*(table.columns[name] for name in names), strict=True)
    return ["\n".join(str(cell) for cell in row if cell is not None) for row in cells], notes


def _pieces(text: str) -> Iterator[str]:
    while len(text) > LONGEST:
        cut = max(text.rfind(space, LONGEST // 2, LONGEST) for space in (" ", "\n", "\t"))
        cut = cut if cut > 0 else LONGEST
        yield text[:cut].rstrip()
        text = text[cut:].lstrip()
    yield text


def _drawn(pieces: Sequence[str], size: int, seed: int) -> list[str]:
    """As many as fit into ``size`` bytes, in their own order; at least one."""
    if sum(len(text.encode()) for text in pieces) <= size:
        return list(pieces)
    order = random.Random(seed).sample(range(len(pieces)), len(pieces))
    kept: list[int] = []
    used = 0
    for index in order:
        used += len(pieces[index].encode())
        if kept and used > size:
            break
        kept.append(index)
    return [pieces[index] for index in sorted(kept)]
