from __future__ import annotations

import json
from pathlib import Path

from pegbox.errors import InputError, UsageError, nearest


def find_model(name: str | Path) -> str:
    """A folder or hub id for a name, checked as far as the disk allows.

    Raises:
        InputError: When it can be neither, or the folder holds no whole model.
    """
    from pegbox.models import etude

    if str(name) in etude.NAMES:
        return str(etude.folder(str(name)))
    path = Path(name).expanduser()
    if path.is_dir() and str(name).strip():
        check_folder(path)
        return str(path)
    local = isinstance(name, Path) or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1
    if local or (path.exists() and str(name).strip()):
        raise InputError(
            "no such model folder" if not path.exists() else "a model is a folder, and this is a file",
            where=str(name),
            expected="a folder with config.json and *.safetensors, a hub id, or etude",
            fix=nearest_folder(name) or "check the path",
        )
    hint = nearest(str(name), etude.NAMES)
    if "/" not in str(name) and (hint or not str(name).strip()):
        raise InputError(
            "no such model", where=repr(str(name)), expected="a hub id, folder, or etude", fix=hint
        )
    return str(name)


def find_version(name: str | Path, revision: str | None) -> str:
    """A folder or hub id for a name, as `find_model`; a revision only for a hub id.

    Raises:
        InputError: When there can be no such model.
        UsageError: For the revision of a model that lies on the disk.
    """
    where = find_model(name)
    if revision is not None and Path(where).is_dir():
        raise UsageError(
            "a revision names a version of a model on the hub, and this model lies on the disk",
            where=f"model {name}, revision {revision}",
            expected="a revision of a hub id alone",
            fix="leave the revision out",
        )
    return where


def pinned(name: str | Path, revision: str | None) -> str | None:
    """The revision that a saved model asks for; none where the name leads to a folder by now."""
    return revision if revision is None or not Path(find_model(name)).is_dir() else None


def nearest_folder(name: str | Path) -> str:
    """``did you mean 'x'?`` for the nearest folder beside the one that is named, else an empty string."""
    parent = Path(name).expanduser().parent
    siblings = {p.name: str(p) for p in parent.iterdir() if p.is_dir()} if parent.is_dir() else {}
    found = nearest(Path(name).name, siblings)
    for sibling, whole in siblings.items():
        if f"'{sibling}'" in found:
            return found.replace(f"'{sibling}'", f"'{whole}'")
    return found


def check_folder(path: Path) -> None:
    """Raise InputError when a folder holds no model, or weights that are pickled or damaged."""
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise InputError(
            "this folder holds an adapter, not a model",
            where=str(path),
            expected="a model folder with config.json",
            fix="name its base model here, and give the adapter to predict or evaluate",
        )
    if not (path / "config.json").is_file():
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise InputError(
            "this folder is no model",
            where=str(path),
            expected=f"config.json and *.safetensors (found {found})",
            fix="name the folder that save_pretrained wrote, or a hub id",
        )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        pickled = sorted(p.name for p in path.glob("*.bin")) + sorted(p.name for p in path.glob("*.pt"))
        raise InputError(
            f"the weights are pickled ({pickled[0]}), which could run code" if pickled else "no weights here",
            where=str(path),
            expected="*.safetensors",
            fix="convert the model: load it where you trust it and save_pretrained it again"
            if pickled
            else "copy model.safetensors into the folder",
        )
    for file in weights:
        check_safetensors(file)


def check_safetensors(file: Path) -> None:
    """Raise InputError when a safetensors file is missing, truncated or no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"the file is damaged or truncated: {error}" if file.exists() else "the file is missing",
            where=str(file),
            expected="a whole safetensors file",
            fix="copy or download it again",
        ) from None


def weight_files(where: str, revision: str | None) -> list[Path]:
    """The safetensors files that Transformers reads a model from, as they lie on disk once it is loaded."""
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
    from transformers.utils.hub import cached_file

    def found(name: str) -> Path | None:
        if Path(where).is_dir():
            path = Path(where) / name
            return path if path.is_file() else None
        cached = cached_file(where, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        return None if cached is None else Path(cached)

    single, index = found(SAFE_WEIGHTS_NAME), found(SAFE_WEIGHTS_INDEX_NAME)
    if single is not None or index is None:
        return [] if single is None else [single]
    names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    return [path for path in map(found, names) if path is not None]
