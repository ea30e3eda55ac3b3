from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pegbox.models import Base, batches, collate
from pegbox.tasks import AnswerIds, OptionPairs

GOLD, THERE = "gold", "there"
TOKENS_PER_BATCH = {"cpu": 1024}
TOKENS_ON_ACCELERATOR = 16384


class PairRows:
    """Questions, trained by cross-entropy over a head's scores of (question, option) pairs.

    Of preferences the options are two answers, and the loss is -log sigma(better - other).

    Args:
        base: The base; an encoder.
        pairs: Each question with each of its options as token ids.
        gold: Index of each question's right option.
    """

    own_texts = True

    def __init__(self, base: Base, pairs: OptionPairs | AnswerIds, gold: Sequence[int]) -> None:
        self.answers = max(map(len, pairs.rows), default=0)
        self._base, self._pairs = base, pairs
        self._gold = torch.tensor(list(gold))
        self.lengths = [max(pairs.encoded.lengths[at] for at in row) for row in pairs.rows]

    def __len__(self) -> int:
        return len(self._pairs)

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Inputs (batch, options, tokens), and which options each row has."""
        rows = [self._pairs.rows[index] for index in indices]
        most = max(map(len, rows))
        there = torch.tensor([[at < len(row) for at in range(most)] for row in rows])
        flat = _inputs(self._base, self._pairs, [at for row in rows for at in row])
        batch = {GOLD: self._gold[list(indices)], THERE: there}
        for name, values in flat.items():
            batch[name] = values.new_zeros(*there.shape, values.shape[1])
            batch[name][there] = values
        return batch

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy and the number of questions."""
        gold = batch[GOLD]
        scores = self.scores(model, batch)
        return functional.cross_entropy(scores, gold, reduction="sum"), gold.new_tensor(len(gold))

    def scores(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Scores (batch, options), minus infinity where a row has no such option; gradients flow."""
        there = batch[THERE]
        inputs = {name: value[there] for name, value in batch.items() if name not in (GOLD, THERE)}
        found = model(**inputs).float().squeeze(-1)
        return found.new_full(there.shape, -torch.inf).masked_scatter(there, found)


@torch.no_grad()
def pair_scores(module: nn.Module, base: Base, pairs: OptionPairs) -> list[Tensor]:
    """A head's score of each option, one tensor (options,) per row."""
    found = torch.empty(len(pairs.encoded))
    size = TOKENS_PER_BATCH.get(base.device.type, TOKENS_ON_ACCELERATOR)
    for indices in batches(pairs.encoded.lengths, size):
        inputs = {name: value.to(base.device) for name, value in _inputs(base, pairs, indices).items()}
        found[indices] = module(**inputs).float().squeeze(-1).cpu()
    return [found[list(row)] for row in pairs.rows]


def _inputs(base: Base, pairs: OptionPairs | AnswerIds, indices: Sequence[int]) -> dict[str, Tensor]:
    batch = collate(pairs.encoded, indices, kind=base.kind, pad=base.pad)
    return {name: value for name, value in batch.items() if name != "answer_positions"}
