from pathlib import Path

from pegbox.errors import InputError, nearest

NAMES = {"etude": "causal", "etude-masked": "masked"}
"""Folder of each embedded model, by the name that ``pegbox.load`` knows."""


def folder(name: str) -> Path:
    """Return the Hugging Face folder of an embedded model.

    Args:
        name: ``etude`` (causal) or ``etude-masked``.

    Raises:
        InputError: Where there is no such model, or the installation lacks its weights.
    """
    if name not in NAMES:
        raise InputError(
            f"no embedded model is called {name!r}", expected=" or ".join(NAMES), fix=nearest(name, NAMES)
        )
    path = Path(__file__).parent / NAMES[name]
    if not (path / "model.safetensors").is_file():
        raise InputError(
            f"the weights of {name!r} are missing",
            where=str(path),
            expected="a folder with config.json and model.safetensors",
            fix="reinstall pegbox, or run python -m pegbox.models.etude.pretrain",
        )
    return path
