"""What rank a change of weights really has: of an adapter, or between two models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import check_adapter
from pegbox.models import check_folder, find_model
from pegbox.tuning._singular_values import (
    effective_rank,
    energy,
    matrix_singular_values,
    needed_rank,
    pairs,
    product_singular_values,
    reader,
    tensors_of,
)

ADAPTER = "adapter_config.json"
TOP = 64
# Names of input embeddings and output layers, as the architectures that tie them save these.
_INPUTS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "shared.weight")
_OUTPUTS = ("lm_head.weight", "lm_head.decoder.weight", "predictions.decoder.weight")


@dataclass(frozen=True)
class Spectrum:
    """The change of one matrix.

    Args:
        name: Its layer, or its tensor.
        shape: (outputs, inputs).
        rank: Rank of the adapter there, or the most that the matrix can have.
        values: Singular values of the change, largest first, at most 64 of them.
        effective: Effective rank: exp of the entropy of the normalised singular values (Roy & Vetterli 2007).
        energy: Share of the squared norm in the first 1, 2, ... directions, as many as ``values``.
        suggested: Smallest rank that holds the wanted share of the energy; 0 where nothing changed.
    """

    name: str
    shape: tuple[int, int]
    rank: int
    values: tuple[float, ...]
    effective: float
    energy: tuple[float, ...]
    suggested: int


@dataclass(frozen=True)
class Ranks:
    """The changes of all matrices.

    Args:
        what: What was compared.
        share: Share of the energy that the suggested rank holds.
        spectra: One per matrix.
        adapter: Whether they are those of an adapter, with a rank of its own.
        skipped: Tensors that are no matrices, or that only one model has.
    """

    what: str
    share: float
    spectra: tuple[Spectrum, ...]
    adapter: bool
    skipped: tuple[str, ...] = ()

    @property
    def suggested(self) -> int:
        """A rank that holds the share of the energy in every matrix."""
        return max(spectrum.suggested for spectrum in self.spectra)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping."""
        return {"format": "pegbox.rank/1", **asdict(self), "suggested": self.suggested}

    def lines(self) -> list[str]:
        """What follows from the table, one line each."""
        changed = [spectrum for spectrum in self.spectra if spectrum.suggested]
        told = [f"{len(changed)} of {len(self.spectra)} matrices changed"]
        if changed:
            most = f"rank {self.suggested} holds {self.share:.0%} of the change in every matrix"
            own = {spectrum.rank for spectrum in changed}
            told.append(f"{most}; the adapter has rank {_listed(own)}" if self.adapter else most)
        if self.skipped:
            more = f" and {len(self.skipped) - 3} more" if len(self.skipped) > 3 else ""
            told.append(f"not compared, no matrix in both: {', '.join(self.skipped[:3])}{more}")
        return told


def rank(first: str | Path, second: str | Path | None = None, *, share: float = 0.9) -> Ranks:
    """Singular values of every change of weights, from an adapter's factors or between two models.

    Args:
        first: Folder of a LoRA adapter, or a model.
        second: Another model of the same architecture, when ``first`` is a model; the change is that from
            ``first`` to it.
        share: Share of the squared norm that the suggested rank shall hold.

    Raises:
        UsageError: For a share out of range, or one model without the other.
        InputError: For folders that hold neither, or models of different shapes.
        CapabilityError: For an adapter that is no low-rank product.
    """
    if not 0 < share <= 1:
        raise UsageError(
            "no rank can hold that share of the squared change",
            where=f"share {share}",
            expected="a number above 0, up to 1",
            fix="leave it out for 0.9",
        )
    if second is not None:
        return _between(first, second, share)
    folder = Path(first).expanduser()
    if not (folder / ADAPTER).is_file():
        known = Path(find_model(first)).is_dir()
        raise UsageError(
            "one model alone has no change to measure"
            if known
            else "there is no such folder, and one model alone has no change to measure",
            where=str(first),
            expected="the folder of a LoRA adapter, or two models",
            fix="name the model it was tuned from too: pegbox rank BASE TUNED",
        )
    return _adapter(folder, share)


def _adapter(folder: Path, share: float) -> Ranks:
    config = check_adapter(folder)
    if config["peft_type"] != "LORA":
        raise CapabilityError(
            f"the adapter is of the type {config['peft_type']}, whose change is no low-rank product",
            where=str(folder),
            expected="a LORA adapter (lora, qlora, closed-form)",
            fix="merge it where that is possible, and compare the model with its base",
        )
    if config.get("use_dora"):
        raise CapabilityError(
            "the adapter also changes the length of each column (DoRA), and so no low-rank product alone",
            where=str(folder),
            expected="a LORA adapter without use_dora",
            fix="merge it with the library that made it, and compare the model with its base",
        )
    places = tensors_of(folder, "adapter_model.safetensors")
    found = pairs(iter(places))
    if not found:
        raise CapabilityError(
            "the adapter changes no matrix: it holds no LoRA factors",
            where=str(folder),
            expected="a LORA adapter with targets",
        )
    read, spectra = reader(places), []
    for name, (down, up) in found.items():
        A, B = read(down), read(up)
        values = product_singular_values(B, A, _scale(config, name, len(A)))
        spectra.append(_spectrum(name, (len(B), A.shape[1]), len(A), values, share))
    used = {part for pair in found.values() for part in pair}
    return Ranks(str(folder), share, tuple(spectra), adapter=True, skipped=_rest(places, used))


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r), with the layer's own alpha where there is one."""
    alpha = _own(config.get("alpha_pattern") or {}, name, config["lora_alpha"])
    return float(alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)


def _own(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    return next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", name)), default)


def _between(first: str | Path, second: str | Path, share: float) -> Ranks:
    folders = [_model(name) for name in (first, second)]
    before, after = map(tensors_of, folders)
    shared = [_tied_to(folders[0], before, after), _tied_to(folders[1], after, before)]
    before, after = (
        {**places, **{name: places[inner] for name, inner in tied.items()}}
        for places, tied in zip((before, after), shared, strict=True)
    )
    common = [name for name in before if name in after]
    wrong = [name for name in common if before[name][1] != after[name][1]]
    if wrong or not common:
        fault = (
            f"{wrong[0]} is {before[wrong[0]][1]} and {after[wrong[0]][1]}" if wrong else "no name in common"
        )
        raise InputError(
            f"the two models have different tensors: {fault}",
            where=f"{first} and {second}",
            expected="two models of one architecture",
            fix="name a model and the one it was tuned from",
        )
    one, other = (reader(places, tied) for places, tied in zip((before, after), shared, strict=True))
    matrices = [name for name in common if len(before[name][1]) == 2]
    spectra = tuple(
        _spectrum(name, before[name][1], min(before[name][1]), _change(one(name), other(name), name), share)  # type: ignore[arg-type]
        for name in matrices
    )
    skipped = _rest({**before, **after}, set(matrices))
    return Ranks(f"{first} to {second}", share, spectra, adapter=False, skipped=skipped)


def _tied_to(folder: Path, own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """The other model's output layer and the input embedding that takes its place in this model.

    A tied model saves one tensor for both, and the same model with a changed output layer saves two.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    inputs = [name for name in own if name in other and name.endswith(_INPUTS)]
    if len(inputs) != 1 or not config.get("tie_word_embeddings", True):
        return {}
    return {name: inputs[0] for name in other if name not in own and name.endswith(_OUTPUTS)}


def _change(before: Tensor, after: Tensor, name: str) -> Tensor:
    if not before.is_floating_point():
        raise CapabilityError(
            "the weights are packed, so that their difference means nothing",
            where=name,
            expected="models in float32, bfloat16 or float16",
            fix="compare the models before they were quantised",
        )
    change = after.float() - before.float()
    if not torch.isfinite(change).all():
        raise InputError("the weights hold a value that is not a finite number", where=name)
    return matrix_singular_values(change) if change.any() else torch.zeros(1, dtype=torch.float64)


def _model(name: str | Path) -> Path:
    found = Path(find_model(name))
    if not found.is_dir():
        found = _from_hub(str(name))
    check_folder(found)
    return found


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "config.json"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"the model cannot be had: {str(error).splitlines()[0]}",
            where=name,
            expected="a folder, a hub id that can be reached, or etude",
            fix="check the name and the connection",
        ) from None


def _spectrum(name: str, shape: tuple[int, int], rank: int, values: Tensor, share: float) -> Spectrum:
    return Spectrum(
        name=name,
        shape=(int(shape[0]), int(shape[1])),
        rank=rank,
        values=tuple(values[:TOP].tolist()),
        effective=effective_rank(values),
        energy=tuple(energy(values)[:TOP].tolist()),
        suggested=needed_rank(values, share),
    )


def _rest(places: Iterator[str] | Mapping[str, Any], used: set[str]) -> tuple[str, ...]:
    return tuple(name for name in sorted(places) if name not in used)


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
