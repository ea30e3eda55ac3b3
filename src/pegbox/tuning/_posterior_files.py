"""The posterior beside an adapter: ``posterior.safetensors``, and in words ``posterior.json``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pegbox._atomic import write_bytes, write_text
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import POSTERIOR_FILE
from pegbox.tuning._card import with_averaged
from pegbox.tuning._laplace import uncertain
from pegbox.uncertainty import (
    AVERAGED,
    HEADER,
    LAST,
    fingerprint,
    header,
    header_of,
    read_header,
    read_laplace,
    to_bytes,
)

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned

WORDS, CARD = "posterior.json", "README.md"


def write_posterior(tuned: Tuned, folder: Path) -> None:
    """Write what posterior there is: the tensors first, whole or not at all, then the words."""
    from safetensors.torch import save

    if tuned.laplace is not None:
        spots = uncertain(tuned, tuned.laplace.part)
        prints = (_base(tuned), _adapter(tuned, tuned.laplace.part))
        write_bytes(folder / POSTERIOR_FILE, to_bytes(tuned.laplace, spots, *prints))
        told = header(tuned.laplace, spots, *prints)
        del told["places"]
        write_text(folder / WORDS, json.dumps(told, indent=1, allow_nan=False) + "\n")
    elif tuned.posterior is not None:
        mark = {HEADER: json.dumps(AVERAGED)} if tuned.averaged else None
        tensors = {name: value.contiguous() for name, value in tuned.posterior.tensors().items()}
        write_bytes(folder / POSTERIOR_FILE, save(tensors, mark))


def save_posterior(tuned: Tuned, folder: Path) -> Path:
    """Write the posterior of a model into the folder that it was loaded from, and tell of it in its card.

    Raises:
        CapabilityError: When there is none.
    """
    if tuned.laplace is None and tuned.posterior is None:
        raise CapabilityError("this model has no posterior to write", where=str(folder))
    write_posterior(tuned, folder)
    card = folder / CARD
    if card.is_file():
        told = card.read_text("utf-8")
        if (now := with_averaged(told, tuned)) != told:
            write_text(card, now)
    return folder / POSTERIOR_FILE


def is_averaged(folder: Path) -> bool:
    """Whether a closed-form fit's posterior was put to use."""
    return bool(header_of(folder / POSTERIOR_FILE) == AVERAGED)


def with_read_posterior(tuned: Tuned, folder: Path) -> Tuned:
    """The model with the Laplace posterior that lies in its folder, if one does.

    Raises:
        InputError: For a posterior that is damaged, or of another adapter or base.
    """
    path = folder / POSTERIOR_FILE
    if tuned.posterior is not None or not path.is_file():
        return tuned
    told = read_header(path)
    if told is None:
        raise InputError(
            f"{tuned.method.name} has no posterior of this kind",
            where=str(path),
            expected="a posterior by pegbox laplace",
            fix="remove the file, or fit it again with pegbox laplace",
        )
    try:
        spots = uncertain(tuned, told["part"])
    except UsageError as error:
        raise InputError(error.what, where=str(path), fix="remove the file") from None
    prints = (_base(tuned), _adapter(tuned, told["part"]))
    return replace(tuned, laplace=read_laplace(path, told, spots, *prints), averaged=True)


def _base(tuned: Tuned) -> str:
    """Fingerprint of the base that was tuned, also where fully tuned weights were loaded without it."""
    return tuned.base.fingerprint if tuned.origin is None else str(tuned.origin["fingerprint"])


def _adapter(tuned: Tuned, part: str) -> str:
    """Fingerprint of all that was tuned: the answers depend on it, whichever part is uncertain."""
    return fingerprint(uncertain(tuned, part if part.startswith(LAST) else "all"))
