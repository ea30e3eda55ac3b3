from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.models import IGNORED, Base, batches, in_mode, language_loss
from pegbox.tasks import Spoken

TARGETS = "targets"
TRAINED_AT_ONCE = {"cpu": 1024}
TOKENS_PER_BATCH = {"cpu": 4096}
TOKENS_ON_ACCELERATOR = 32768

Floats = npt.NDArray[np.float64]


class ResponseRows:
    """Conversations, trained by cross-entropy over what the model is to say in them.

    Positions that it is not to say never reach the output layer.

    Args:
        base: The base; causal, or an encoder-decoder.
        rows: Conversations as token ids.
    """

    def __init__(self, base: Base, rows: Spoken) -> None:
        self.kind, self._pad, self._rows = base.kind, base.pad, rows
        # On a processor larger passes are no faster, and take more memory.
        self.tokens_at_once = TRAINED_AT_ONCE.get(base.device.type)
        sources = rows.sources or [()] * len(rows)
        self.lengths = [len(ids) + len(source) for ids, source in zip(rows.ids, sources, strict=True)]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def tokens(self) -> int:
        """Tokens of all sequences that the model is to say."""
        return sum(map(sum, self._rows.said))

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """One batch padded on the right: ids, and at each position the token that is to be said after it.

        An encoder-decoder gets ``input_ids`` with ``attention_mask`` and its decoder ``decoder_input_ids``.
        """
        rows = self._rows
        ids = _padded([rows.ids[index] for index in indices], self._pad)
        wanted = np.full_like(ids, IGNORED)
        for line, index in enumerate(indices):
            row, said = np.array(rows.ids[index]), np.array(rows.said[index])
            assert not said[0]  # nothing stands before it that it could be said after
            places = np.flatnonzero(said)
            wanted[line, places - 1] = row[places]
        batch = {TARGETS: torch.from_numpy(wanted)}
        if rows.sources is None:
            return {"input_ids": torch.from_numpy(ids), **batch}
        sources = [rows.sources[index] for index in indices]
        read = _padded(sources, self._pad)
        mask = np.arange(read.shape[1]) < np.array([[len(source)] for source in sources])
        return {
            "input_ids": torch.from_numpy(read),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "decoder_input_ids": torch.from_numpy(ids),
            **batch,
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy and the number of tokens to say."""
        losses = self.losses(model, batch)
        return losses.sum(), batch[TARGETS].new_tensor(len(losses))

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of each token that is to be said, in reading order; gradients flow."""
        inputs = {key: value for key, value in batch.items() if key != TARGETS}
        return language_loss(model, inputs, batch[TARGETS], use_cache=False)

    @torch.no_grad()
    def nats(self, model: nn.Module) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Summed cross-entropy in nats and number of tokens said of each row, (rows,) of the source."""
        count = len(self._rows.numbers)
        found, tokens = np.zeros(count), np.zeros(count, dtype=np.int64)
        device = next(model.parameters()).device
        size = TOKENS_PER_BATCH.get(device.type, TOKENS_ON_ACCELERATOR)
        with in_mode(model, training=False):
            for indices in track(batches(self.lengths, size), "reading answers"):
                batch = {key: value.to(device) for key, value in self.collate(indices).items()}
                losses = self.losses(model, batch).double().cpu().numpy()
                lines = np.nonzero((batch[TARGETS] != IGNORED).cpu().numpy())[0]
                owners = np.array([self._rows.rows[index] for index in indices])[lines]
                np.add.at(found, owners, losses)
                np.add.at(tokens, owners, 1)
        return found, tokens


def _padded(rows: Sequence[Sequence[int]], pad: int) -> npt.NDArray[np.int64]:
    ids = np.full((len(rows), max(map(len, rows))), pad)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
    return ids
