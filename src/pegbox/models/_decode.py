"""Texts written by a model: greedy, by beams or sampled, with a cache, in batches of like lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.errors import RunError
from pegbox.models._base import Base
from pegbox.models._batches import batches
from pegbox.models._mode import in_mode
from pegbox.models._readout import unwrapped
from pegbox.tasks import Decoding

TOKENS_PER_BATCH = {"cpu": 8192}
TOKENS_ON_ACCELERATOR = 65536


@torch.no_grad()
def decode(
    module: nn.Module,
    base: Base,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    stops: Sequence[int],
    start: Sequence[int] = (),
) -> list[list[int]]:
    """The tokens that a model writes after each prompt, without the token that ended it.

    Every setting is given to the model's own ``generate``, so that none is taken from the model's folder.

    Args:
        module: The base's model, with or without adapters.
        base: The base.
        prompts: Token ids of each prompt; of an encoder-decoder what its encoder reads.
        decoding: How to decode.
        stops: Token ids that end an answer.
        start: Token ids that the decoder of an encoder-decoder starts with.

    Returns:
        Token ids of each answer, in the order of the prompts; one of ``decoding.max_tokens`` was cut off.
    """
    found: list[list[int]] = [[] for _ in prompts]
    lengths = [len(ids) + decoding.max_tokens for ids in prompts]
    size = TOKENS_PER_BATCH.get(base.device.type, TOKENS_ON_ACCELERATOR) // decoding.beams
    places = [base.device] if base.device.type == "cuda" else []
    with torch.random.fork_rng(places), _as_writing(module, _config(base, decoding, stops, start)):
        torch.manual_seed(decoding.seed)
        for indices in track(batches(lengths, size), "writing answers"):
            rows = _written(module, base, [prompts[index] for index in indices], start)
            for index, row in zip(indices, rows, strict=True):
                found[index] = _ended(row, stops)
    return found


@torch.no_grad()
def written_by(
    module: nn.Module,
    base: Base,
    prompts: Sequence[Sequence[int]],
    *,
    most: int,
    stops: Sequence[int],
    processors: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
) -> list[list[int]]:
    """What a causal model writes after some prompts, in one batch: the greatest score at each place.

    Args:
        module: The base's model, with or without adapters.
        base: The base.
        prompts: Token ids of each prompt.
        most: Most tokens of an answer.
        stops: Token ids that end an answer; what follows one is padding.
        processors: What is done to the scores (rows, vocabulary) before, in order.
    """
    with _as_writing(module, _config(base, Decoding(max_tokens=most), stops, ())):
        return _written(module, base, prompts, (), logits_processor=list(processors))


def _written(
    module: nn.Module,
    base: Base,
    prompts: Sequence[Sequence[int]],
    start: Sequence[int],
    **options: Any,
) -> list[list[int]]:
    inputs = _inputs(base, prompts, start)
    written = _generate(module, inputs, base, **options)
    first = inputs["decoder_input_ids"].shape[1] if start else inputs["input_ids"].shape[1]
    rows: list[list[int]] = written[:, first:].tolist()
    return rows


@contextmanager
def _as_writing(module: nn.Module, config: Any) -> Iterator[None]:
    """While the context lasts, in eval mode and by these settings alone."""
    with in_mode(module, training=False), _settings(unwrapped(module), config):
        yield


def _generate(module: Any, inputs: dict[str, Tensor], base: Base, **options: Any) -> Tensor:
    try:
        written: Tensor = module.generate(**inputs, **options)
    except RuntimeError as error:
        if "probability tensor contains" not in str(error):
            raise
        raise RunError(
            "the model's probabilities are not finite numbers",
            where=base.name,
            expected="finite logits",
            fix=f"load it in another number format than {base.dtype}, or sample at a higher temperature",
        ) from None
    return written


def _inputs(base: Base, prompts: Sequence[Sequence[int]], start: Sequence[int]) -> dict[str, Tensor]:
    """Prompts padded on the left, since a causal model goes on at their right ends; sources on the right."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), base.pad)
    mask = torch.zeros_like(ids)
    for line, own in enumerate(prompts):
        place = slice(0, len(own)) if start else slice(length - len(own), length)
        ids[line, place] = torch.tensor(list(own))
        mask[line, place] = 1
    inputs = {"input_ids": ids.to(base.device), "attention_mask": mask.to(base.device)}
    if start:
        inputs["decoder_input_ids"] = torch.tensor([list(start)] * len(prompts), device=base.device)
    return inputs


def _config(base: Base, decoding: Decoding, stops: Sequence[int], start: Sequence[int]) -> Any:
    from transformers import GenerationConfig

    drawn = {
        "temperature": float(decoding.temperature),
        "top_p": float(decoding.top_p),
        "top_k": decoding.top_k,
    }
    return GenerationConfig(
        max_new_tokens=decoding.max_tokens,
        num_beams=decoding.beams,
        length_penalty=float(decoding.length_penalty),
        do_sample=decoding.sample,
        repetition_penalty=float(decoding.repetition_penalty),
        eos_token_id=list(stops) or None,
        pad_token_id=base.pad,
        decoder_start_token_id=start[0] if start else None,
        use_cache=True,
        **(drawn if decoding.sample else {}),
    )


@contextmanager
def _settings(model: Any, config: Any) -> Iterator[None]:
    """While the context lasts, these settings stand in for those of the model's folder."""
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before


def _ended(row: Sequence[int], stops: Sequence[int]) -> list[int]:
    """The tokens before the first that ends an answer."""
    for place, token in enumerate(row):
        if token in stops:
            return list(row[:place])
    return list(row)
