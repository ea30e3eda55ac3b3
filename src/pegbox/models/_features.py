from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.models._base import Base
from pegbox.models._batches import batches, collate
from pegbox.models._cache import FeatureCache, Features
from pegbox.models._prefix import SharedPrefix
from pegbox.models._readout import output_layer, read, rows_of
from pegbox.tasks import Encoded, Prompt

# A processor gains nothing from more rows at a time, and more rows of unlike length cost padding.
TOKENS_PER_BATCH = {"cpu": 1024}
TOKENS_ON_ACCELERATOR = 16384


def answer_tokens(prompt: Prompt) -> tuple[int, ...]:
    """Output rows to read: first tokens of the label words, or all K rows of an encoder's head."""
    return tuple(range(len(prompt.task.labels))) if prompt.kind == "encoder" else prompt.tokens


def extract(
    base: Base,
    prompt: Prompt,
    encoded: Encoded,
    *,
    cache: FeatureCache | None = None,
    say: Callable[[str], None] | None = None,
    need_logits: bool = True,
) -> Features:
    """Run the frozen base over the rows once, or read what an earlier run stored.

    Args:
        base: The base.
        prompt: The task, made ready for the base.
        encoded: The rows.
        cache: Where to keep the features; nowhere when ``None``.
        say: Receives a line when the cache could not be written.
        need_logits: Whether label words must have different first tokens; without, logits may be (rows, 0).

    Raises:
        CapabilityError: When two label words share their first token and logits are needed.
    """
    wordless = not need_logits and bool(prompt.answers) and not prompt.distinct
    tokens = () if wordless else answer_tokens(prompt)
    key = cache.key(base, prompt, encoded, tokens) if cache else {}
    found = cache.read(key) if cache else None
    if found is not None:
        return found
    answers = _run(base.module(len(prompt.task.labels)), base, encoded, tokens)
    if cache:
        try:
            cache.write(key, answers)
        except OSError as error:
            if say:
                say(f"features could not be cached in {cache.folder}: {error}")
    return answers


def answer_logits(module: nn.Module, base: Base, prompt: Prompt, encoded: Encoded) -> Features:
    """Hidden states and label logits of all rows, in batches of like length.

    Args:
        module: The base's module, or one with adapters on it.
        base: The base that the module was made from.
        prompt: The task.
        encoded: The rows; a shared prefix is run once and kept in a key-value cache.
    """
    return _run(module, base, encoded, answer_tokens(prompt))


@torch.no_grad()
def _run(module: nn.Module, base: Base, encoded: Encoded, tokens: Sequence[int]) -> Features:
    chosen = torch.tensor(list(tokens), dtype=torch.long, device=base.device)
    if not len(encoded):
        return Features(torch.empty(0, 0), torch.empty(0, len(chosen)))
    prefix = SharedPrefix.run(module, encoded.prefix, base.device) if encoded.prefix else None
    hidden: list[Tensor] = []
    logits: list[Tensor] = []
    tokens_per_batch = TOKENS_PER_BATCH.get(base.device.type, TOKENS_ON_ACCELERATOR)
    # The cache of a shared prefix is copied for each row, which bounds the rows and not the work.
    most = max(1, TOKENS_ON_ACCELERATOR // len(encoded.prefix)) if encoded.prefix else None
    groups = batches(encoded.lengths, tokens_per_batch, rows=most)
    for indices in track(groups, "reading answers"):
        batch = collate(encoded, indices, kind=base.kind, pad=base.pad, with_prefix=False)
        batch = {key: value.to(base.device) for key, value in batch.items()}
        options = prefix.options(batch["input_ids"]) if prefix else {}
        answers = read(module, batch, chosen, **options)
        hidden.append(answers.hidden.float().cpu())
        logits.append(answers.logits.float().cpu())
    back = torch.tensor([index for group in groups for index in group]).argsort()
    return Features(torch.cat(hidden)[back], torch.cat(logits)[back])


@torch.no_grad()
def output_rows(base: Base, hidden: Tensor, tokens: Sequence[int]) -> Tensor:
    """Results of the base's output layer for ``tokens``, before any scale: (rows, tokens) float32."""
    _, layer = output_layer(base.model)
    chosen = torch.tensor(list(tokens), device=base.device)
    return rows_of(layer, hidden.to(base.device, base.dtype), chosen).float().cpu()
