"""Labelled toy rows and tiny bases for the tests of methods and tuning."""

import random
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pegbox
from pegbox.data import Examples
from pegbox.models import Base
from pegbox.tasks import Encoded
from tiny import save_tiny

_FOLDERS: list[tempfile.TemporaryDirectory] = []  # type: ignore[type-arg]
LABELS = ("bad", "fine", "good", "odd", "plain")
# First tokens differ in the toy tokenizer, and each is one token, as a mask needs.
WORDS = ("terrible", "okay", "great", "maybe", "yes")
SIGNS = ("broke broke", "okay okay", "great great", "maybe maybe", "yes yes")
THINGS = ("kettle", "hotel", "screen", "breakfast", "tea", "staff")


def hush(_: str) -> None:
    """Say nothing."""


def folder_of(architecture: str, kind: str, seed: int = 0) -> Path:
    """A tiny model on disk, made once per run."""
    return _made(architecture, kind, seed)


def base_of(architecture: str, kind: str = "causal", seed: int = 0) -> Base:
    """A tiny base, loaded once per run."""
    return _loaded(architecture, kind, seed)


@cache
def _made(architecture: str, kind: str, seed: int) -> Path:
    place = tempfile.TemporaryDirectory(prefix="pegbox-tiny-")
    _FOLDERS.append(place)
    return save_tiny(Path(place.name), architecture, kind, seed=seed)


@cache
def _loaded(architecture: str, kind: str, seed: int) -> Base:
    return pegbox.load(folder_of(architecture, kind, seed))


def task_of(labels: int = 2, **options: Any) -> pegbox.Classify:
    """A task of the first labels."""
    options = {"template": "{text} It was {answer}.", "label_words": WORDS[:labels], **options}
    return pegbox.Classify(labels=LABELS[:labels], **options)


def rows_of(count: int, labels: int = 2, *, seed: int = 0, noise: float = 0.2) -> Examples:
    """Rows whose text tells the label, but for a share of ``noise``; every label occurs."""
    dice = random.Random(seed)
    texts, gold = [], []
    for index in range(count):
        label = index % labels
        sign = SIGNS[dice.randrange(labels) if dice.random() < noise else label]
        texts.append(f"The {dice.choice(THINGS)} {index} was {sign} and {dice.choice(THINGS)} {seed}.")
        gold.append(LABELS[label])
    return Examples("toy rows", {"text": tuple(texts)}, tuple(gold), tuple(range(1, count + 1)))


def fit(base: Base, method: Any, rows: Examples, labels: int = 2, **options: Any) -> pegbox.Tuned:
    """Fit silently on the toy task."""
    task = options.pop("task", None) or task_of(labels)
    return pegbox.fit(base, task, method, rows=rows, **{"say": hush, **options})


def checksum(module: nn.Module) -> str:
    """SHA-256 over the names and bits of all parameters and buffers."""
    digest = sha256()
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        digest.update(name.encode() + tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def same_parts(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules' adapters hold the same bits."""
    left, right = (
        {n: p for n, p in module.named_parameters() if "lora_" in n or "score" in n}
        for module in (first, second)
    )
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@torch.no_grad()
def full_forward(model: Any, encoded: Encoded) -> Tensor:
    """All logits at each row's answer position by the whole model, row by row: (rows, vocabulary)."""
    rows = []
    for ids, position in zip(encoded.ids, encoded.positions, strict=True):
        row = torch.tensor([[*encoded.prefix, *ids]])
        inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        if encoded.decoder:
            inputs["decoder_input_ids"] = torch.tensor([encoded.decoder])
        output = model(**inputs)
        rows.append(output[0] if isinstance(output, Tensor) else output.logits[0, position])
    return torch.stack(rows)
