from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pegbox._atomic import OWN
from pegbox._atomic import folder as atomic_folder
from pegbox._version import __version__
from pegbox.errors import InputError
from pegbox.evaluation import Scores
from pegbox.methods import POSTERIOR_FILE, Method, Posterior, build, check_adapter, load_adapter, save_adapter
from pegbox.models import Base, FeatureCache, pinned
from pegbox.models import load as load_base
from pegbox.tasks import Task, TooLong, task_from_json
from pegbox.training import tell
from pegbox.tuning._card import card
from pegbox.tuning._once import Once
from pegbox.tuning._plain import model_bytes, read_head, write_model
from pegbox.tuning._posterior_files import is_averaged, with_read_posterior, write_posterior
from pegbox.tuning._provenance import Provenance
from pegbox.tuning._readout import as_read
from pegbox.tuning._shapes import shape_of
from pegbox.tuning._tuned import Cost, Tuned

FORMAT = 1
META, TASK, SCORES = "pegbox.json", "task.json", "scores.json"
CONFIG = "adapter_config.json"
_KEYS: dict[str, type] = {
    "base": dict,
    "method": dict,
    "adapter": bool,
    "posterior": bool,
    "details": dict,
    "cost": dict,
    "training_rows": list,
}
_INNER = {
    "base": ("name", "revision", "fingerprint", "pooling", "max_length"),
    "method": ("name", "options"),
    "cost": ("seconds", "parameters", "rows"),
}


def save(
    tuned: Tuned,
    folder: Path,
    *,
    scores: Scores | None,
    overwrite: bool,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write a tuned model; see :meth:`Tuned.save`.

    Args:
        tuned: The model.
        folder: Where.
        scores: Its scores.
        overwrite: Whether an existing folder that Pegbox wrote may be replaced.
        beside: JSON files to write with it, by name.
    """
    with atomic_folder(folder, overwrite=overwrite, own=OWN) as target:
        if tuned.module is not None and tuned.weights:
            write_model(tuned.module, tuned.base, target)
        elif tuned.module is not None:
            save_adapter(tuned.module, target)
        write_posterior(tuned, target)
        _write_json(target / TASK, tuned.prompt.task.to_json())
        if scores is not None:
            _write_json(target / SCORES, scores.to_json())
        for name, content in (beside or {}).items():
            _write_json(target / name, content)
        _write_json(target / META, _meta(tuned))
        (target / "README.md").write_text(card(tuned, scores), "utf-8")
    return folder


def load(
    folder: Path,
    *,
    model: str | Path | Base | None = None,
    cache: FeatureCache | None = None,
    too_long: TooLong = "shorten",
    say: Callable[[str], None] = tell,
    posterior: bool = True,
    **options: Any,
) -> Tuned:
    """Read a tuned model; see :meth:`Tuned.load`.

    Raises:
        InputError: When a file is missing or damaged, or the base is not the one it was tuned on.
    """
    meta = _read_meta(folder)
    task = task_from_json(_read_json(folder, TASK), where=str(folder / TASK))
    method = build(meta["method"]["name"], meta["method"]["options"])
    if meta["adapter"]:
        check_adapter(folder)
    exact = _posterior(folder, method, task, expected=meta["posterior"])
    whole = bool(meta.get("weights"))  # earlier folders lack it
    found = partial(_base, folder, task, meta["base"])
    alone = whole and model is None
    base = shape_of(task).base(found(folder if alone else model, options), method)
    own = base
    if whole and not alone:
        own = shape_of(task).base(found(folder, {"device": str(base.device), **options}), method)
    module = _module(folder, own, task, whole=whole, adapter=meta["adapter"])
    tuned = Tuned(
        base=base,
        prompt=method.prompt(base, base.prepare(task)),
        method=method,
        module=module,
        posterior=exact,
        details=meta["details"],
        cost=Cost(**meta["cost"]),
        training_rows=frozenset(meta["training_rows"]),
        validation_rows=frozenset(meta.get("validation_rows") or ()),
        cache=cache,
        too_long=too_long,
        say=Once.of(say),
        weights=whole,
        provenance=_provenance(folder, meta.get("data")),  # earlier folders lack it
        origin=meta["base"] if alone else None,
        averaged=exact is not None and is_averaged(folder),
    )
    return with_read_posterior(tuned, folder) if posterior else tuned


def _module(folder: Path, base: Base, task: Task, *, whole: bool, adapter: bool) -> nn.Module | None:
    """What was tuned: the whole model in the folder, an adapter on the base, or nothing."""
    if whole:
        module = read_head(base.module(len(task.labels)), folder).requires_grad_(False).eval()
        _check_finite(module, folder)
        return module
    return load_adapter(base, len(task.labels), folder) if adapter else None


def _provenance(folder: Path, saved: Any) -> Provenance | None:
    try:
        return None if saved is None else Provenance.from_json(saved)
    except (KeyError, TypeError):
        raise InputError(
            "the file says of the training rows what this version cannot read",
            where=f"{folder / META}: data",
            fix="copy the whole folder again",
        ) from None


def _check_finite(module: nn.Module, folder: Path) -> None:
    for name, value in module.named_parameters():
        if not torch.isfinite(value).all():
            raise InputError(
                "the model holds a value that is not a finite number",
                where=f"{folder}: {name}",
                expected="finite weights",
                fix="tune again, with a lower learning rate",
            )


def adapter_bytes(folder: Path) -> int:
    """Size of a saved folder's adapter, or of its whole weights; 0 where nothing was tuned."""
    path = folder / "adapter_model.safetensors"
    return path.stat().st_size if path.is_file() else model_bytes(folder)


def _base(
    folder: Path, task: Task, saved: dict[str, Any], model: str | Path | Base | None, options: dict[str, Any]
) -> Base:
    """The base that the adapter in ``folder`` was made for, or the whole model in ``folder`` itself."""
    if isinstance(model, Base):
        base = model
    elif model is not None:
        base = load_base(model, **{**_as_saved(saved, whole=model == folder), **options})
    else:
        try:
            own = {**_as_saved(saved), "revision": pinned(saved["name"], saved["revision"])}
            base = load_base(saved["name"], **{**own, **options})
        except InputError as error:
            raise InputError(
                f"the base that this was tuned on cannot be loaded: {error.what}",
                where=error.where or saved["name"],
                expected=error.expected,
                fix="say with --model where it lies now",
            ) from None
    if model != folder and base.fingerprint != saved["fingerprint"]:
        raise InputError(
            f"this adapter was made for another base than {base.name}",
            where=str(folder),
            expected=f"{saved['name']} (fingerprint {saved['fingerprint'][:12]}, "
            f"given {base.fingerprint[:12]})",
            fix="name the base it was tuned on with --model"
            if model is None
            else f"--model {saved['name']}, or leave --model out",
        )
    base = as_read(base, task)
    # The adapter was fitted to vectors pooled this way, whatever the base's folder says by now.
    return replace(base, pooling=saved["pooling"]) if base.kind == "encoder" and saved["pooling"] else base


def _as_saved(saved: dict[str, Any], *, whole: bool = False) -> dict[str, Any]:
    """How the base was loaded; earlier folders lack ``quantise``, and whole models are not quantised."""
    return {"max_length": saved["max_length"], "quantise": None if whole else saved.get("quantise")}


def _posterior(folder: Path, method: Method, task: Task, *, expected: bool) -> Posterior | None:
    """The posterior in the folder, which must be there when the folder says so."""
    posterior = method.load_posterior(folder)
    if expected and posterior is None:
        raise InputError(
            "the file is missing",
            where=str(folder / POSTERIOR_FILE),
            expected="the posterior that was saved with the adapter",
            fix="copy the whole folder again",
        )
    if posterior is not None and posterior.weight.shape[1] != len(task.labels):
        raise InputError(
            f"the posterior is of {posterior.weight.shape[1]} labels",
            where=str(folder / POSTERIOR_FILE),
            expected=f"{len(task.labels)} labels, as in {TASK}",
            fix="copy the whole folder again",
        )
    return posterior


def _meta(tuned: Tuned) -> dict[str, Any]:
    method, cost = tuned.method, tuned.cost
    return {
        "format": FORMAT,
        "pegbox": __version__,
        "base": dict(tuned.origin) if tuned.origin is not None else described(tuned.base),
        "method": _method(method),
        "adapter": tuned.module is not None and not tuned.weights,
        "weights": tuned.weights,
        "posterior": tuned.posterior is not None,
        "details": _plain(tuned.details),
        "cost": {"seconds": cost.seconds, "parameters": cost.parameters, "rows": cost.rows},
        "training_rows": sorted(tuned.training_rows),
        "validation_rows": sorted(tuned.validation_rows),
        "data": None if tuned.provenance is None else tuned.provenance.to_json(),
    }


def saved_base(folder: Path) -> dict[str, Any] | None:
    """What a folder says of the base that its model goes on; none where it holds all weights itself.

    Raises:
        InputError: When the folder is not one that :func:`save` wrote.
    """
    meta = _read_meta(folder)
    return None if meta.get("weights") else dict(meta["base"])


def described(base: Base) -> dict[str, Any]:
    """What ``pegbox.json`` says of a base."""
    return {
        "name": base.name,
        "revision": base.revision,
        "fingerprint": base.fingerprint,
        "kind": base.kind,
        "pooling": base.pooling if base.kind == "encoder" else None,
        "max_length": base.context,
        "quantise": base.quantise,
    }


def _method(method: Method) -> dict[str, Any]:
    return {"name": method.name, "options": method.options()}


def _plain(value: Any) -> Any:
    """JSON values; a number that is not finite, which JSON lacks, becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def _read_meta(folder: Path) -> dict[str, Any]:
    """What ``pegbox.json`` holds, with all that is read from it there."""
    meta = _read_json(folder, META)
    where = str(folder / META)
    if meta.get("format") != FORMAT:
        raise InputError(
            f"this folder has the format {meta.get('format')}",
            where=where,
            expected=f"format {FORMAT}",
            fix="load it with the version of pegbox that wrote it",
        )
    faults = [key for key, kind in _KEYS.items() if not isinstance(meta.get(key), kind)]
    if not isinstance(meta.get("validation_rows", []), list):  # earlier folders lack it
        faults.append("validation_rows")
    faults += [
        f"{key}.{inner}"
        for key, names in _INNER.items()
        if isinstance(meta.get(key), dict)
        for inner in names
        if inner not in meta[key]
    ]
    if faults:
        raise InputError(
            f"the file lacks {', '.join(faults)}", where=where, fix="copy the whole folder again"
        )
    return meta


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if name == META and (folder / CONFIG).is_file():
            raise InputError(
                "this folder holds an adapter that pegbox did not write",
                where=str(folder),
                expected=f"{META} and {TASK} beside {CONFIG}",
                fix="write a folder that every verb reads in Python, by "
                "pegbox.Tuned.from_adapter(folder, task=...).save(FOLDER)",
            ) from None
        raise InputError(
            "this folder holds no tuned model"
            if folder.is_dir()
            else "this is a file, and a tuned model is a folder"
            if folder.exists()
            else "there is no such folder",
            where=str(path),
            expected=f"{META} and {TASK}, as pegbox fit writes them",
            fix="name the folder given to --out",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"the file cannot be read: {error}", where=str(path), fix="copy it again") from None
    if not isinstance(content, dict):
        raise InputError("the file holds no JSON object", where=str(path), fix="copy it again")
    return content
