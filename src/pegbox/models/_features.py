from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from pegbox._atomic import write_bytes
from pegbox._progress import track
from pegbox.models._base import Base
from pegbox.models._batches import batches, collate
from pegbox.models._readout import output_layer, read, rows_of
from pegbox.tasks import Encoded, Prompt

TOKENS_PER_BATCH = 8192
FORMAT = 1


@dataclass(frozen=True)
class Features:
    """What the frozen base holds at each answer position.

    Args:
        hidden: (rows, width) float32, the input of the output layer.
        logits: (rows, labels) float32, the base's answer; zeros for an encoder without output layer.
        cached: Whether they were read from the cache.
    """

    hidden: Tensor
    logits: Tensor
    cached: bool = False

    def __len__(self) -> int:
        return len(self.hidden)


class FeatureCache:
    """Features on disk: one safetensors file per base, task and rows, with a JSON key beside it.

    Args:
        folder: Where; ``PEGBOX_CACHE`` or ``~/.cache/pegbox`` when ``None``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        root = os.environ.get("PEGBOX_CACHE") or Path("~/.cache/pegbox").expanduser()
        self.folder = folder or Path(root) / "features"

    def key(self, base: Base, prompt: Prompt, encoded: Encoded) -> dict[str, str | int]:
        """All that the features depend on."""
        return {
            "format": FORMAT,
            "base": base.fingerprint,
            "dtype": str(base.dtype),
            "device": base.device.type,
            "pooling": base.pooling if base.kind == "encoder" else "",
            "tokens": repr(answer_tokens(prompt)),
            "labels": len(prompt.task.labels),
            "rows": encoded.digest(),
        }

    def read(self, key: dict[str, str | int]) -> Features | None:
        """The features of a key, or ``None`` when they are not there or not whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(key)
        try:
            if json.loads(path.with_suffix(".json").read_text("utf-8")) != key:
                return None
            tensors = load_file(path)
        except (OSError, ValueError, SafetensorError):
            return None
        return Features(tensors["hidden"], tensors["logits"], cached=True)

    def write(self, key: dict[str, str | int], features: Features) -> None:
        """Store features by atomic rename, the JSON key last."""
        from safetensors.torch import save

        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save({"hidden": features.hidden, "logits": features.logits}))
        write_bytes(path.with_suffix(".json"), json.dumps(key, indent=1).encode())

    def _path(self, key: dict[str, str | int]) -> Path:
        name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{name}.safetensors"


def answer_tokens(prompt: Prompt) -> tuple[int, ...]:
    """Output rows to read: first tokens of the label words, or all K rows of an encoder's head."""
    return tuple(range(len(prompt.task.labels))) if prompt.kind == "encoder" else prompt.tokens


@torch.inference_mode()
def extract(
    base: Base,
    prompt: Prompt,
    encoded: Encoded,
    *,
    cache: FeatureCache | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Features:
    """Run the frozen base over the rows once, or read what an earlier run stored.

    Args:
        base: The base.
        prompt: The task, made ready for the base.
        encoded: The rows.
        cache: Where to keep the features; nowhere when ``None``.
        say: Receives a line when the cache could not be written.
    """
    key = cache.key(base, prompt, encoded) if cache else {}
    found = cache.read(key) if cache else None
    if found is not None:
        return found
    module = base.module(len(prompt.task.labels))
    answers = answer_logits(module, base, prompt, encoded)
    if cache:
        try:
            cache.write(key, answers)
        except OSError as error:
            say(f"features could not be cached in {cache.folder}: {error}")
    return answers


@torch.inference_mode()
def answer_logits(module: nn.Module, base: Base, prompt: Prompt, encoded: Encoded) -> Features:
    """Hidden states and label logits of all rows, in batches of like length.

    Args:
        module: The base's module, or one with adapters on it.
        base: The base that the module was made from.
        prompt: The task.
        encoded: The rows; a shared prefix is run once and kept in a key-value cache.
    """
    from pegbox.models._prefix import SharedPrefix

    tokens = torch.tensor(answer_tokens(prompt), device=base.device)
    prefix = SharedPrefix.run(module, encoded.prefix, base.device) if encoded.prefix else None
    hidden: list[Tensor] = [torch.empty(0)] * len(encoded)
    logits: list[Tensor] = [torch.empty(0)] * len(encoded)
    groups = batches([length + len(encoded.prefix) for length in encoded.lengths], TOKENS_PER_BATCH)
    for indices in track(groups, "reading answers"):
        batch = collate(encoded, indices, kind=base.kind, pad=base.pad, with_prefix=False)
        batch = {key: value.to(base.device) for key, value in batch.items()}
        options = prefix.options(batch["input_ids"]) if prefix else {}
        answers = read(module, batch, tokens, **options)
        for index, row, scores in zip(indices, answers.hidden, answers.logits, strict=True):
            hidden[index], logits[index] = row.float().cpu(), scores.float().cpu()
    if not len(encoded):
        return Features(torch.empty(0, 0), torch.empty(0, len(tokens)))
    return Features(torch.stack(hidden), torch.stack(logits))


@torch.inference_mode()
def output_rows(base: Base, hidden: Tensor, tokens: Sequence[int]) -> Tensor:
    """Results of the base's output layer for ``tokens``, before any scale: (rows, tokens) float32."""
    _, layer = output_layer(base.model)
    chosen = torch.tensor(list(tokens), device=base.device)
    return rows_of(layer, hidden.to(base.device, base.dtype), chosen).float().cpu()
