from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pegbox.models._decoder import decoder_start
from pegbox.models._encoder import PooledClassifier, Pooling
from pegbox.tasks import Classify, Kind, Prompt, prepare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Base:
    """A loaded pretrained model that nothing ever changes.

    Args:
        name: The name it was loaded by.
        kind: ``causal``, ``masked``, ``encoder`` (no output layer) or ``encoder-decoder``.
        model: The model in eval mode with frozen parameters.
        tokenizer: Its tokenizer.
        fingerprint: See :func:`pegbox.models.fingerprint`.
        context: Longest sequence in tokens; of an encoder-decoder, for its encoder.
        revision: Pinned revision of a hub model.
        pooling: For encoders, how hidden states become one vector.
    """

    name: str
    kind: Kind
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    context: int
    revision: str | None = None
    pooling: Pooling = "mean"

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the parameters."""
        return next(self.model.parameters()).dtype

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(tensor.numel() for tensor in self.model.parameters())

    @property
    def pad(self) -> int:
        """A token id for padding; which one does not matter, since lengths say what is real."""
        pad = self.tokenizer.pad_token_id
        rows: int = self.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator, union-attr]
        # A padding token may have been added to a tokenizer without a row of the model for it.
        return pad if pad is not None and pad < rows else 0

    def prepare(self, task: Classify) -> Prompt:
        """The task made ready for this model."""
        start = decoder_start(self.model)
        return prepare(task, self.tokenizer, self.kind, self.context, start=start)

    def module(self, labels: int) -> nn.Module:
        """A module of its own that shares all weights with the base; an encoder gets a zero score layer."""
        shared = share(self.model)
        return PooledClassifier(shared, self.pooling, labels).eval() if self.kind == "encoder" else shared


def share(model: nn.Module) -> nn.Module:
    """Copy the structure of a model but not its tensors, so that adapters on the copy leave it untouched."""
    memo: dict[int, Tensor] = {id(p): p for p in model.parameters()}
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, memo)
