"""What is peculiar to models with an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pegbox.errors import CapabilityError

BIAS = "final_logits_bias"


def decoder_start(model: nn.Module) -> tuple[int, ...]:
    """Token ids that the decoder of an encoder-decoder starts with; empty for other models.

    These are the start token and, for families that always say one token first (BART's ``<s>``), that token.

    Raises:
        CapabilityError: When the model's files do not say which token its decoder starts with.
    """
    config: Any = model.config
    if not config.is_encoder_decoder:
        return ()
    found = [_setting(model, name) for name in ("decoder_start_token_id", "forced_bos_token_id")]
    if found[0] is None:
        raise CapabilityError(
            "the model does not say which token its decoder starts with",
            where=type(model).__name__,
            expected="decoder_start_token_id in config.json or generation_config.json",
            fix="add it: T5 starts with its padding token",
        )
    return tuple(int(token) for token in found if token is not None)


def _setting(model: nn.Module, name: str) -> Any:
    places = (model.config, getattr(model, "generation_config", None))
    return next((value for place in places if (value := getattr(place, name, None)) is not None), None)


def check_plain_logits(model: nn.Module, where: str) -> None:
    """Raise CapabilityError when a model adds numbers of its own to its output layer's results.

    BART's family can, after the output layer, where neither readout nor closed form would see which token
    each is for; in BART models as published all are zero.
    """
    bias = getattr(model, BIAS, None)
    if bias is not None and bool(bias.any()):
        raise CapabilityError(
            f"{type(model).__name__} adds {BIAS} to its logits, which is not zero in this model",
            where=where,
            expected="an encoder-decoder whose output layer alone makes the logits, such as T5 or BART",
            fix="choose another model",
        )


@contextmanager
def any_width(model: Any) -> Iterator[None]:
    """Let a model that adds a zero to each token's logit add one zero to any number of logits.

    Args:
        model: A Transformers model, not wrapped by PEFT.
    """
    bias = getattr(model, BIAS, None)
    if bias is None:
        yield
        return
    setattr(model, BIAS, torch.zeros_like(bias[:, :1]))
    try:
        yield
    finally:
        setattr(model, BIAS, bias)
