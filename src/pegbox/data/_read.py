import gzip
import os
import re
import zlib
from pathlib import Path

from pegbox.data._arrow import parse_parquet, read_hub
from pegbox.data._conll import parse_conll
from pegbox.data._csv import parse_delimited
from pegbox.data._json import parse_json, parse_jsonl
from pegbox.data._table import FORMATS, Table, kind_of
from pegbox.errors import InputError, UsageError, nearest

_PLAIN = (".txt", ".text", ".md")
_HUB_ID = re.compile(r"(?P<id>\w[\w.-]*(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?(?:\[(?P<split>[^\]]+\]?)\])?")
_FILE_SUFFIX = re.compile(r"\.[A-Za-z]{2,7}")
_BOMS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def read(source: str | Path, *, split: str | None = None, revision: str | None = None) -> Table:
    """Read one split of one source without changing a cell.

    csv and tsv cells are the strings that stand in the file; json, jsonl and parquet values keep their type.
    Files are read with Python's own csv and json modules and pyarrow, because the csv and json builders of
    ``datasets`` infer types ("NA" becomes missing, "007" becomes 7, date strings become timestamps) and leave
    a copy in the user's cache. Hub ids go through ``datasets``.

    Args:
        source: A .csv, .tsv, .json, .jsonl, .conll (each also .gz) or .parquet file, or a hub id, written
            ``owner/name``, ``owner/name:config`` or ``owner/name[split]``.
        split: Which split of a hub data set; its train split when not given.
        revision: Commit, tag or branch of a hub data set.

    Returns:
        The table; ``table.notes`` says what was noticed on the way.

    Raises:
        InputError: The source is missing, empty or malformed; the message says where and how to mend it.
    """
    if not isinstance(source, str | Path):
        raise UsageError(
            f"a {type(source).__name__} cannot be read", expected="the path of a file, or a hub id",
            fix="write it to a file first, for example frame.to_csv('rows.csv', index=False)",
        )  # fmt: skip
    path = Path(source).expanduser()
    hub = hub_id(source)
    if hub:
        return read_hub(hub["id"], hub["config"], split or hub["split"], revision)
    if split or revision:
        raise InputError(
            "A split or revision was given for a file", where=str(source),
            expected="split and revision only with a hub id such as owner/name",
            fix="give each split as a file of its own",
        )  # fmt: skip
    _check_path(path, str(source))
    return _read_file(path, str(source))


def check_source(source: str | Path) -> None:
    """Refuse, without reading it, what `read` cannot read: no such file, a folder, an unknown kind of file.

    Raises:
        InputError: It is none of the files that can be read, and no hub id.
    """
    if hub_id(source) is None:
        _check_path(Path(source).expanduser(), str(source))


def hub_id(source: str | Path) -> "re.Match[str] | None":
    """The parts of a hub id; None for what is, or would be, a file or folder."""
    path = Path(source).expanduser()
    # Unlike that of a path, this question takes any text.
    if not isinstance(source, str) or os.path.exists(path) or _FILE_SUFFIX.fullmatch(path.suffix):
        return None
    return _HUB_ID.fullmatch(source)


def _check_path(path: Path, source: str) -> None:
    if os.path.isdir(path):
        files = sorted(item.name for item in path.iterdir() if kind_of(item))
        raise InputError(
            "This is a folder, not a file", where=source,
            expected=f"one file: {', '.join(FORMATS)}",
            fix=f"name one of its files: {', '.join(files[:5])}" if files else "it holds no such file",
        )  # fmt: skip
    if not os.path.exists(path):
        folder = path.parent
        there = os.path.isdir(folder)
        names = [item.name for item in folder.iterdir()] if there else []
        missing = "There is no such file" if there else f"There is no folder {folder}"
        raise InputError(
            missing, where=source, expected=f"a file ({', '.join(FORMATS)}) or a hub id such as owner/name",
            fix=nearest(path.name, names) or "check the path",
        )  # fmt: skip
    if not kind_of(path):
        raise InputError(
            f"Files of kind '{path.suffix or path.name}' cannot be read", where=source,
            expected=", ".join(FORMATS),
            fix="make each text a row of a .jsonl file: {\"text\": \"...\"}" if path.suffix.lower() in _PLAIN
            else "convert the file, or rename it if it is one of these",
        )  # fmt: skip


def _read_file(path: Path, source: str) -> Table:
    kind = kind_of(path)
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except PermissionError as error:
        raise InputError("This file may not be read", where=source, fix="change its permissions") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"This file cannot be read: {error}", where=source, fix="make it again") from error
    if not raw.strip():
        raise InputError(
            "This file is empty", where=source, expected="a header and rows", fix="check its export"
        )
    if kind == ".parquet":
        return parse_parquet(raw, source)
    text = decode(raw, source)
    if kind in (".csv", ".tsv"):
        return parse_delimited(text, source, tabs=kind == ".tsv")
    if kind == ".conll":
        return parse_conll(text, source)
    return parse_json(text, source) if kind == ".json" else parse_jsonl(text, source)


def decode(raw: bytes, source: str) -> str:
    """Return bytes as UTF-8 text; what is none is an error that says what it looks like."""
    likely = next((name for bom, name in _BOMS.items() if raw.startswith(bom)), "")
    offset, line = 0, 1
    if not likely:
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            offset, line = error.start, raw.count(b"\n", 0, error.start) + 1
        likely = "utf-16" if raw.count(0) > len(raw) // 5 else _single_byte(raw)
        if 0 in raw and likely != "utf-16":
            raise InputError(
                "This file is no text", where=source,
                expected="UTF-8; this holds zero bytes, as binary files do",
                fix="export it as text, or give it the name of what it is, such as .parquet or .csv.gz",
            ) from None  # fmt: skip
    raise InputError(
        "This file is not UTF-8 text", where=f"{source}, line {line}, byte {offset}",
        expected=f"UTF-8; this looks like {likely}",
        fix=f"convert it: iconv -f {likely} -t utf-8 {source} > utf8{Path(source).suffix}",
    )  # fmt: skip


def _single_byte(raw: bytes) -> str:
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"
