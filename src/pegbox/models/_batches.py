from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pegbox.models._readout import POSITIONS
from pegbox.tasks import Encoded, Kind


def collate(
    encoded: Encoded, indices: Sequence[int], *, kind: Kind, pad: int, with_prefix: bool = True
) -> dict[str, Tensor]:
    """Pad rows on the right into one batch.

    A causal model gets no attention mask: no real token can look right, so padding on the right is never
    seen, and attention stays on its fast path.

    Args:
        encoded: The rows.
        indices: Which rows.
        kind: Kind of the model.
        pad: Token id to pad with.
        with_prefix: Whether each row carries the shared prefix (else a key-value cache holds it).

    Returns:
        ``input_ids`` (batch, tokens), ``answer_positions`` (batch,), for non-causal models
        ``attention_mask``, for encoder-decoders ``decoder_input_ids``, and ``token_type_ids`` where the
        tokenizer makes them.
    """
    prefix = encoded.prefix if with_prefix else ()
    rows = [(*prefix, *encoded.ids[index]) for index in indices]
    length = max(map(len, rows))
    offset = 0 if with_prefix else len(encoded.prefix)
    batch = {
        "input_ids": torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows]),
        POSITIONS: torch.tensor([encoded.positions[index] - offset for index in indices]),
    }
    if kind != "causal":
        batch["attention_mask"] = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    if encoded.decoder:
        batch["decoder_input_ids"] = torch.tensor([encoded.decoder] * len(indices))
    if encoded.types is not None:
        types = [encoded.types[index] for index in indices]
        batch["token_type_ids"] = torch.tensor([[*row, *[0] * (length - len(row))] for row in types])
    return batch


def batches(lengths: Sequence[int], tokens: int, *, rows: int | None = None) -> list[list[int]]:
    """Group rows of like length, the longest first, no padded batch above ``tokens`` or ``rows``."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    groups: list[list[int]] = []
    for index in order:
        last = groups[-1] if groups else []
        fits = (len(last) + 1) * max(1, lengths[last[0]]) <= tokens if last else False
        if fits and (rows is None or len(last) < rows):
            last.append(index)
        else:
            groups.append([index])
    return groups
