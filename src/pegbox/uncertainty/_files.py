"""A posterior as one safetensors file, with all else in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pegbox.errors import InputError, UsageError
from pegbox.models import check_safetensors
from pegbox.uncertainty._curvature import GRADES, Basis
from pegbox.uncertainty._diag import DiagonalBasis
from pegbox.uncertainty._evidence import check_precision
from pegbox.uncertainty._full import FullBasis
from pegbox.uncertainty._kron import KroneckerBasis
from pegbox.uncertainty._laplace import Laplace
from pegbox.uncertainty._places import Place, check_part

HEADER = "pegbox"
FORMAT = "pegbox.laplace/1"
AVERAGED = {"averaged": True}


def fingerprint(places: Sequence[Place]) -> str:
    """Of the uncertain weights themselves: another adapter has another."""
    digest = sha256()
    for place in places:
        digest.update(place.name.encode() + place.values().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def header(found: Laplace, places: Sequence[Place], base: str, adapter: str) -> dict[str, Any]:
    """All of a posterior but its tensors, JSON-able."""
    return {
        "format": FORMAT,
        "curvature": found.grade,
        "part": found.part,
        "prior_precision": found.precision,
        "chosen_by": found.chosen,
        "log_likelihood": found.log_likelihood,
        "distance": found.distance,
        "rows": found.rows,
        "log_evidence": found.evidence.at(found.precision),
        "details": dict(found.details),
        "base": base,
        "adapter": adapter,
        "places": [[place.name, *place.shape] for place in places],
    }


def to_bytes(found: Laplace, places: Sequence[Place], base: str, adapter: str) -> bytes:
    """One safetensors file.

    Args:
        found: The posterior.
        places: The layers it is over.
        base: Fingerprint of the base.
        adapter: Fingerprint of all that was tuned, as :func:`fingerprint` takes it.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in found.basis.tensors().items()}
    return save(tensors, {HEADER: json.dumps(header(found, places, base, adapter), allow_nan=False)})


def header_of(path: Path) -> Any:
    """What stands in a whole file's header: ``None`` where nothing does, empty where it is no JSON."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        told = (file.metadata() or {}).get(HEADER)
    try:
        return None if told is None else json.loads(told)
    except ValueError:
        return {}


def read_header(path: Path) -> dict[str, Any] | None:
    """What the file says of itself; ``None`` for the posterior of a closed-form fit.

    Raises:
        InputError: For a damaged file.
    """
    try:
        check_safetensors(path)
    except InputError as error:
        fix = "fit it again with pegbox laplace, or copy it again"
        raise InputError(error.what, where=error.where, expected=error.expected, fix=fix) from None
    found = header_of(path)
    if found is None or found == AVERAGED:
        return None
    if isinstance(found, dict) and found.get("format") == FORMAT and _is_part(found.get("part")):
        return found
    raise InputError(
        "the header of the posterior cannot be read",
        where=str(path),
        expected=FORMAT,
        fix="fit it again with pegbox laplace",
    )


def _is_part(part: Any) -> bool:
    try:
        check_part(part)
    except (UsageError, AttributeError):
        return False
    return True


def read_laplace(
    path: Path, told: Mapping[str, Any], places: Sequence[Place], base: str, adapter: str
) -> Laplace:
    """Read what :func:`to_bytes` wrote, for the very adapter and base that it was fitted to.

    Raises:
        InputError: For a file that is damaged, not finite, or of another adapter or base.
    """
    from safetensors.torch import load_file

    where, fix = str(path), "fit it again with pegbox laplace"
    if told.get("base") != base:
        raise InputError("the posterior was fitted on another base", where=where, expected=base[:12], fix=fix)
    own = [[place.name, *place.shape] for place in places]
    if told.get("places") != own or told.get("adapter") != adapter:
        raise InputError(
            "the posterior was fitted to another adapter than the one beside it",
            where=where,
            expected="the posterior of these very weights",
            fix=fix,
        )
    tensors = load_file(path)
    if any(value.is_floating_point() and not torch.isfinite(value).all() for value in tensors.values()):
        raise InputError("the posterior holds a value that is not a finite number", where=where, fix=fix)
    try:
        if told["curvature"] not in GRADES:
            raise ValueError(told["curvature"])
        if isinstance(told["prior_precision"], bool):
            raise ValueError("prior_precision")
        check_precision(told["prior_precision"])
        basis = _read_basis(told["curvature"], tensors, places)
        return Laplace(
            grade=told["curvature"],
            part=told["part"],
            basis=basis,
            precision=float(told["prior_precision"]),
            log_likelihood=float(told["log_likelihood"]),
            distance=float(told["distance"]),
            rows=int(told["rows"]),
            chosen=str(told["chosen_by"]),
            details=dict(told["details"]),
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, UsageError):
        raise InputError(
            "the posterior's header says what this version cannot read", where=where, expected=FORMAT, fix=fix
        ) from None


def _read_basis(grade: str, tensors: Mapping[str, Tensor], places: Sequence[Place]) -> Basis:
    try:
        return _basis(grade, tensors, places)
    except KeyError as missing:
        raise InputError(
            f"the posterior lacks the tensor {missing}",
            expected="all that pegbox laplace wrote",
            fix="fit it again with pegbox laplace",
        ) from None


def _basis(grade: str, tensors: Mapping[str, Tensor], places: Sequence[Place]) -> Basis:
    numbers = sum(place.size for place in places)
    if grade == "exact":
        found = FullBasis.read(tensors)
        width = found.sketch.length if found.sketch else numbers
        _check(found.vectors, (len(found.values), width))
        return found
    if grade == "diag":
        _check(tensors["values"], (numbers,))
        return DiagonalBasis(tensors["values"])
    kron = KroneckerBasis.read(tensors, len(places))
    total = sum(one.shape[1] * two.shape[1] for one, two in zip(kron.left, kron.right, strict=True))
    _check(kron.values, (total,))
    return kron


def _check(value: Tensor, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise InputError(
            f"the posterior has a tensor of the shape {tuple(value.shape)}",
            expected=str(shape),
            fix="fit it again with pegbox laplace",
        )
