"""The topmost block at the answers alone, since nobody reads what it makes of the other tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[..., Any]


@contextmanager
def at_answers(block: nn.Module, positions: Tensor) -> Iterator[None]:
    """While the context lasts, a block makes the answers' hidden states, and zeros of all others.

    Its own code runs twice, as in generation with a cache: on all tokens as far as their keys and values, and
    at the answers on those keys and values. So there is no table of architectures; a block that mixes tokens
    in other ways than by attention on cached keys gives other results or an error, which its caller must look
    for.

    Args:
        block: The topmost block of a model whose tokens look at those before them.
        positions: Of the answers, (batch,).
    """
    # As an attribute of the instance it stands before the method of the class. Activations of this block are
    # not computed again backwards, when the context is over; being the first, they would save no memory.
    ours = {"forward": _narrowed(block.forward, positions), "gradient_checkpointing": False}
    former = {name: block.__dict__[name] for name in ours if name in block.__dict__}
    block.__dict__.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del block.__dict__[name]
        block.__dict__.update(former)


def _narrowed(whole: Forward, positions: Tensor) -> Forward:
    names = list(inspect.signature(whole).parameters)
    cache = next((name for name in names if "past" in name), None)

    def forward(*args: Any, **options: Any) -> Any:
        if cache is None:
            raise LookupError("the block takes no keys and values")
        given = {**dict(zip(names, args, strict=False)), **options}
        hidden: Tensor = given[names[0]]
        rows, tokens = torch.arange(len(hidden), device=hidden.device), hidden.shape[1]
        taken = {name: _at(value, rows, positions, tokens) for name, value in given.items()}
        if given.get("attention_mask") is None:
            seen = torch.arange(tokens, device=hidden.device) <= positions[:, None]
            taken["attention_mask"] = seen[:, None, None]
        found = whole(**{**taken, cache: _Keys(*_keys(whole, {**given, cache: _Interrupt()}))})
        answers = found if isinstance(found, Tensor) else found[0]
        spread = answers.new_zeros(hidden.shape).index_put((rows, positions), answers[:, 0])
        return spread if isinstance(found, Tensor) else (spread, *found[1:])

    return forward


def _at(value: Any, rows: Tensor, positions: Tensor, tokens: int) -> Any:
    """What stands for every token, or for every pair of tokens, at the answers alone."""
    if isinstance(value, tuple | list):
        return type(value)(_at(part, rows, positions, tokens) for part in value)
    if not isinstance(value, Tensor):
        return value
    if value.dim() == 4 and value.shape[2] == tokens:
        return value.expand(len(rows), -1, -1, -1)[rows, :, positions].unsqueeze(2)
    if value.dim() in (2, 3) and value.shape[1] == tokens and len(value) in (1, len(rows)):
        return value.expand(len(rows), *value.shape[1:])[rows, positions].unsqueeze(1)
    return value


def _keys(whole: Forward, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    try:
        whole(**given)
    except _Projected as seen:
        return seen.key, seen.value
    raise LookupError("the block does not keep its keys and values")


class _Projected(Exception):
    # No error: it leaves the block early.
    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.key, self.value = key, value


class _Interrupt:
    """Stands in for a cache: takes keys and values (batch, heads, tokens, width) and leaves the block."""

    def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise _Projected(key, value)


class _Keys:
    """Stands in for a cache that holds all keys and values already."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.key, self.value = key, value

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self.key, self.value
