from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pegbox.errors import CapabilityError
from pegbox.models._decoder import decoder_start
from pegbox.models._encoder import PooledClassifier, Pooling
from pegbox.models._quantised import Quantise, size
from pegbox.tasks import Kind, Prompt, Task, prepare

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
        quantise: ``nf4`` when its linear layers are kept in 4 bits.
        whole: Of a trunk that :meth:`headed` gave, the base it is the trunk of.
    """

    name: str
    kind: Kind
    model: nn.Module = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    fingerprint: str
    context: int
    revision: str | None = None
    pooling: Pooling = "mean"
    quantise: Quantise | None = None
    whole: Base | None = field(default=None, repr=False)

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
        return sum(map(size, self.model.parameters()))

    @property
    def pad(self) -> int:
        """A token id for padding; which one does not matter, since lengths say what is real."""
        pad = self.tokenizer.pad_token_id
        rows: int = self.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator, union-attr]
        # A padding token may have been added to a tokenizer without a row of the model for it.
        return pad if pad is not None and pad < rows else 0

    def prepare(self, task: Task) -> Prompt:
        """The task made ready for this model."""
        start = decoder_start(self.model)
        # Only the trunk of a causal model is pooled at its last token.
        forward = self.kind == "encoder" and self.pooling == "last"
        return prepare(task, self.tokenizer, self.kind, self.context, start=start, forward=forward)

    def headed(self, pooling: Pooling | None = None) -> Base:
        """The same weights seen as an encoder: the trunk below the output layer, for a head of its own.

        Args:
            pooling: How hidden states become one vector, or ``none`` to score every token. By default that of
                an encoder, the last real token of a causal model, the mean of a masked one, whose first token
                (``cls``) means little unless its pretraining gave it a task.

        Raises:
            CapabilityError: For a model whose trunk cannot be told from its output layer.
        """
        if self.kind == "encoder":
            return replace(self, pooling=pooling) if pooling else self
        whole: Any = self.model
        trunk = getattr(whole, "base_model", whole)
        if self.kind == "encoder-decoder" or trunk is whole:
            raise CapabilityError(
                f"a head needs a trunk below the output layer, and {type(whole).__name__} has none that "
                "answers by hidden states",
                where=self.name,
                expected="a causal, masked or encoder model",
                fix="read the answer by label words (readout words)",
            )
        own: Pooling = "last" if self.kind == "causal" else "mean"
        model: Any = share(trunk)
        model.is_loaded_in_4bit = self.quantise is not None  # which Transformers notes on the whole alone
        return replace(self, kind="encoder", model=model, pooling=pooling or own, whole=self)

    def module(self, labels: int) -> nn.Module:
        """A module of its own that shares all weights with the base; an encoder gets a zero score layer."""
        shared = share(self.model)
        return PooledClassifier(shared, self.pooling, labels).eval() if self.kind == "encoder" else shared


def share(model: nn.Module) -> nn.Module:
    """Copy the structure of a model but not its tensors, so that adapters on the copy leave it untouched."""
    memo: dict[int, Any] = {id(p): p for p in model.parameters()}
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    # Block scales and the like of quantised weights, which are no tensors of the module.
    states = [getattr(owner, "quant_state", None) for owner in (*model.parameters(), *model.modules())]
    memo |= {id(state): state for state in states if state is not None}
    return copy.deepcopy(model, memo)
