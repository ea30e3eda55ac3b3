"""How many directions a change of weights has: singular values, effective rank, energy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

# Above this side, float64 would cost more than the eight digits of float32 are short of.
_EXACT = 2048


def product_singular_values(up: Tensor, down: Tensor, scale: float) -> Tensor:
    """Singular values (rank,) of scale B A, largest first, in float64 and without ever forming the product.

    With the thin QR decompositions B = Q R and Aᵀ = P S, B A = Q (R Sᵀ) Pᵀ, so that the small matrix R Sᵀ
    has the same singular values.

    Args:
        up: B, (outputs, rank).
        down: A, (rank, inputs).
        scale: What the product is multiplied by.
    """
    left = torch.linalg.qr(up.double(), mode="r").R
    right = torch.linalg.qr(down.double().T, mode="r").R
    return torch.linalg.svdvals(left @ right.T) * abs(scale)


def matrix_singular_values(change: Tensor) -> Tensor:
    """Singular values of a dense matrix, largest first, float64."""
    exact = change.double() if min(change.shape) <= _EXACT else change.float()
    return torch.linalg.svdvals(exact).double()


def effective_rank(values: Tensor) -> float:
    """exp of the Shannon entropy of the normalised singular values (Roy & Vetterli 2007); 0 for no change."""
    total = values.sum()
    if not total > 0:
        return 0.0
    share = values / total
    share = share[share > 0]
    return float((-(share * share.log()).sum()).exp())


def energy(values: Tensor) -> Tensor:
    """Share of the squared Frobenius norm in the first 1, 2, ... directions, (rank,)."""
    squares = values.square().cumsum(0)
    return squares / squares[-1] if len(squares) and squares[-1] > 0 else torch.ones_like(squares)


def needed_rank(values: Tensor, share: float) -> int:
    """The smallest rank that holds this share of the energy; 0 for no change."""
    if not len(values) or not values[0] > 0:
        return 0
    # A hair less, since the last share is 1 but for rounding.
    return int((energy(values) < share - 1e-12).sum()) + 1


def tensors_of(folder: Path, files: str = "*.safetensors") -> dict[str, tuple[Path, tuple[int, ...]]]:
    """File and shape of every tensor in some files of a folder, none of them read yet."""
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob(files)):
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
                found[name] = (path, tuple(tensors.get_slice(name).get_shape()))
    return found


def reader(
    places: Mapping[str, tuple[Path, tuple[int, ...]]], shared: Mapping[str, str] | None = None
) -> Callable[[str], Tensor]:
    """Reads one tensor at a time, those with a second name by the name that they are saved under."""
    from safetensors import safe_open

    def read(name: str) -> Tensor:
        with safe_open(places[name][0], "pt") as tensors:
            return tensors.get_tensor((shared or {}).get(name, name))

    return read


def pairs(names: Iterator[str]) -> dict[str, tuple[str, str]]:
    """The layer's name of each pair of LoRA factors, and the names of its A and B."""
    given = set(names)
    downs = [name for name in sorted(given) if name.endswith(("lora_A.weight", "lora_embedding_A"))]
    ups = {
        name: name.replace("lora_A.weight", "lora_B.weight").replace("_embedding_A", "_embedding_B")
        for name in downs
    }
    return {
        name.rpartition(".lora_")[0].removeprefix("base_model.model."): (name, up)
        for name, up in ups.items()
        if up in given
    }
