from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.models._base import Base
from pegbox.models._batches import batches, collate
from pegbox.models._prefix import takes_positions
from pegbox.models._readout import POSITIONS, output_layer
from pegbox.tasks import Encoded, Prompt

TOKENS_PER_BATCH = 4096
LOGITS_PER_BATCH = 1 << 26


@torch.no_grad()
def word_logprobs(module: nn.Module, base: Base, prompt: Prompt, encoded: Encoded) -> Tensor:
    """Log-probability of each whole label word after each prompt, (rows, labels).

    For label words that need several tokens or share their first: the prompt runs once, padded on the left,
    and every word continues from its key-value cache; of an encoder-decoder the encoder runs once, and the
    decoder reads every word. Log-probabilities are normalised over the whole vocabulary, at the words' own
    tokens only.

    Args:
        module: The base's model, or one with adapters on it.
        base: The base that the module was made from; causal or encoder-decoder.
        prompt: The task.
        encoded: The rows.
    """
    answers = torch.empty(len(encoded), len(prompt.answers))
    prefix = len(encoded.prefix)
    steps = max(map(len, prompt.answers))
    layer: Any = output_layer(module)[1]
    most = max(1, LOGITS_PER_BATCH // (layer.weight.shape[0] * steps))
    groups = [
        group[start : start + most]
        for group in batches([length + prefix + steps for length in encoded.lengths], TOKENS_PER_BATCH)
        for start in range(0, len(group), most)
    ]
    for indices in track(groups, "scoring label words"):
        if encoded.decoder:
            batch = collate(encoded, indices, kind=base.kind, pad=base.pad)
            batch = {key: value.to(base.device) for key, value in batch.items()}
            scores = _score_decoded(module, batch, prompt.answers)
        else:
            rows = [(*encoded.prefix, *encoded.ids[index]) for index in indices]
            scores = _score(module, rows, prompt.answers, base)
        answers[indices] = scores.float().cpu()
    return answers


def _score_decoded(module: nn.Module, batch: dict[str, Tensor], words: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities (rows, words) of words that a decoder says after what it starts with."""
    inputs = {key: value for key, value in batch.items() if key != POSITIONS}
    opening = inputs.pop("decoder_input_ids")
    output: Any = module(**inputs, decoder_input_ids=opening, use_cache=False)
    first = output.logits[:, -1].float().log_softmax(-1)
    read = {
        "encoder_outputs": (output.encoder_last_hidden_state,),
        "attention_mask": inputs["attention_mask"],
        "use_cache": False,
    }
    scores = []
    for word in words:
        said = first[:, word[0]]
        if len(word) > 1:
            ids = torch.tensor(word, device=opening.device).expand(len(opening), -1)
            output = module(**read, decoder_input_ids=torch.cat([opening, ids[:, :-1]], dim=1))
            said = said + _chosen(output.logits[:, opening.shape[1] :], ids[:, 1:])
        scores.append(said)
    return torch.stack(scores, dim=1)


def _chosen(logits: Tensor, ids: Tensor) -> Tensor:
    """Summed log-probability (rows,) of tokens (rows, steps) under logits (rows, steps, vocabulary)."""
    logits = logits.float()
    return (logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)).sum(1)


def _score(
    module: nn.Module, rows: Sequence[Sequence[int]], words: Sequence[Sequence[int]], base: Base
) -> Tensor:
    from transformers import DynamicCache

    length = max(map(len, rows))
    ids = torch.tensor([[base.pad] * (length - len(row)) + list(row) for row in rows], device=base.device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=base.device)
    cache = DynamicCache(config=module.config)  # type: ignore[arg-type]
    output: Any = module(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **_positions(module, (mask.cumsum(1) - 1).clamp(min=0)),
    )
    first = output.logits[:, -1].float().log_softmax(-1)
    return torch.stack([first[:, word[0]] + _rest(module, cache, mask, word) for word in words], dim=1)


def _rest(module: nn.Module, cache: Any, mask: Tensor, word: Sequence[int]) -> Tensor:
    """Log-probability of a word's further tokens, given its first, (rows,)."""
    if len(word) == 1:
        return torch.zeros(len(mask), device=mask.device)
    steps = len(word) - 1
    ids = torch.tensor(word, device=mask.device).expand(len(mask), -1)
    output: Any = module(
        input_ids=ids[:, :-1],
        attention_mask=torch.cat([mask, mask.new_ones(len(mask), steps)], dim=1),
        past_key_values=copy.deepcopy(cache),
        use_cache=True,
        **_positions(module, mask.sum(1, keepdim=True) + torch.arange(steps, device=mask.device)),
    )
    return _chosen(output.logits, ids[:, 1:])


def _positions(module: nn.Module, positions: Tensor) -> dict[str, Tensor]:
    return {"position_ids": positions} if takes_positions(module) else {}
