from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pegbox.data import Examples
from pegbox.errors import CapabilityError, RunError
from pegbox.models import (
    Base,
    answer_logits,
    answer_tokens,
    encode,
    extract,
    output_layer,
    output_tail,
    rows_of,
    word_logprobs,
)
from pegbox.tasks import Encoded, Prompt

if TYPE_CHECKING:
    from pegbox.tuning._tuned import Tuned

Array = npt.NDArray[np.float64]
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Answers:
    """What a tuned model says about rows.

    Args:
        logits: (rows, labels), or log-probabilities of whole label words.
        hidden: (rows, width) input of the output layer; (rows, 0) for whole label words.
        base: (rows, labels) what the base alone says, where the same pass told it.
    """

    logits: Tensor
    hidden: Tensor
    base: Tensor | None = None


def answer(tuned: Tuned, rows: Examples) -> Answers:
    """Answers for rows, told what was shortened.

    Raises:
        RunError: When an answer is not a finite number.
    """
    base, prompt = tuned.base, tuned.prompt
    if len(prompt.draws) > 1:
        return _averaged([answer(replace(tuned, prompt=draw), rows) for draw in prompt.draws])
    encoded = encode(base, prompt, rows, too_long=tuned.too_long, cache=tuned.cache, say=tuned.say)
    for note in encoded.notes():
        tuned.say(note)
    if prompt.answers and not prompt.distinct:
        found = _whole_words(tuned, encoded)
    elif tuned.module is None or (tuned.method.capability.output_only and not tuned.weights):
        features = extract(base, prompt, encoded, cache=tuned.cache, say=tuned.say)
        alone = features.logits if base.kind != "encoder" and not prompt.task.demonstrations else None
        logits = features.logits
        if tuned.module is not None:
            logits = corrected(base, tuned.module, features.hidden, prompt)
        found = Answers(logits, features.hidden, alone)
    else:
        features = answer_logits(tuned.module, base, prompt, encoded)
        found = Answers(features.logits, features.hidden)
    _check_finite(found.logits, rows, base)
    return found


def _averaged(draws: Sequence[Answers]) -> Answers:
    """Logarithms of the probabilities' mean over draws of demonstrations."""
    logits = torch.stack([found.logits.double().log_softmax(1) for found in draws])
    return Answers(logits.logsumexp(0) - math.log(len(draws)), draws[0].hidden)


def corrected(base: Base, module: nn.Module, hidden: Tensor, prompt: Prompt) -> Tensor:
    """Label logits (rows, labels) of an adapter on the output layer, from the base's hidden states."""
    return output_tail(module, raw_logits(base, module, hidden, prompt)).float().cpu()


@torch.inference_mode()
def raw_logits(base: Base, module: nn.Module, hidden: Tensor, prompt: Prompt) -> Tensor:
    """As :func:`corrected`, before logit scale and soft-capping."""
    tokens = torch.tensor(answer_tokens(prompt), device=base.device)
    _, layer = output_layer(module)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return rows_of(layer, hidden.to(base.device, weight.dtype), tokens)


def softmax(logits: Tensor) -> Array:
    """Probabilities (rows, labels) in float64."""
    return logits.double().softmax(1).numpy()


def nearest_distance(hidden: Tensor, known: Tensor) -> Array:
    """Euclidean distance of each row (rows, width) to the nearest of ``known`` (others, width)."""
    reference = known.double()
    blocks = [torch.cdist(part.double(), reference).min(1).values for part in hidden.split(_BLOCK)]
    return torch.cat(blocks).numpy()


def _whole_words(tuned: Tuned, encoded: Encoded) -> Answers:
    if tuned.base.kind not in ("causal", "encoder-decoder"):
        raise CapabilityError(
            "whole label words are scored on causal and encoder-decoder models only",
            where=tuned.base.name,
            expected="label words with different first tokens",
            fix="choose other words with --label-words",
        )
    module = tuned.module if tuned.module is not None else tuned.base.model
    logits = word_logprobs(module, tuned.base, tuned.prompt, encoded)
    return Answers(logits, torch.empty(len(encoded), 0))


def _check_finite(logits: Tensor, rows: Examples, base: Base) -> None:
    bad = (~torch.isfinite(logits)).any(dim=1).nonzero().flatten().tolist() if len(logits) else []
    if bad:
        raise RunError(
            f"{len(bad)} of {len(rows)} answers are not finite numbers",
            where=f"{rows.source}, first in row {rows.numbers[bad[0]]}",
            expected="finite logits",
            fix=f"load {base.name} in another number format than {base.dtype}, such as float32",
        )
