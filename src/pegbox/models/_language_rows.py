"""Texts as windows of tokens, each token asked of a model once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pegbox._progress import track
from pegbox.errors import CapabilityError
from pegbox.models._base import Base
from pegbox.models._batches import batches
from pegbox.models._language import IGNORED, language_loss
from pegbox.tasks import edges

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WINDOW = 512
MASK_SHARE = 0.15
TARGETS = "targets"
TOKENS_PER_BATCH = {"cpu": 2048}
TOKENS_ON_ACCELERATOR = 16384

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Window:
    """Some tokens of one document in a row, and how many bytes of it each of them stands for."""

    document: int
    ids: tuple[int, ...]
    sizes: tuple[int, ...]


class LanguageRows:
    """Documents cut into windows, trained or scored by what a model says of their tokens.

    A causal model is asked every token after those before it in its window; where its tokenizer puts nothing
    in front, the first of each window is not asked. A masked model is asked a seeded 15 % of the tokens of
    each window (at least one), all of them masked at once. An index counts on over the windows: row ``i`` is
    window ``i`` modulo their number, with masks of its own for each ``i``.

    Args:
        base: A causal or masked base, or what it is called by its tokenizer and kind.
        documents: The texts.
        soft: Ids of soft tokens, which stand in front of every window as in front of a prompt.
        seed: Of the masks.
        length: Most tokens of a window, all included but the soft ones.

    Raises:
        CapabilityError: For a base without a language loss.
    """

    def __init__(
        self,
        base: Base,
        documents: Sequence[str],
        *,
        soft: Sequence[int] = (),
        seed: int = 0,
        length: int = WINDOW,
    ) -> None:
        check_language(base)
        self.kind, self._pad, self._seed = base.kind, base.pad, seed
        self._mask = base.tokenizer.mask_token_id
        start, end = edges(base.tokenizer)
        self._before, self._after = [*start, *soft], [] if base.kind == "causal" else end
        room = min(base.context - len(soft), length) - len(start) - len(self._after)
        if room < 2:
            raise CapabilityError(
                "there is no room for a text",
                where=f"{base.name}, context {base.context} tokens",
                expected=f"room for two tokens beside {len(self._before) + len(self._after)} others",
                fix="raise --max-length",
            )
        self.room = room
        self.documents = len(documents)
        self.windows = [
            window
            for index, (ids, sizes) in enumerate(_tokens(base.tokenizer, documents))
            for window in _windows(index, ids, sizes, room)
            if len(window.ids) > self._unasked
        ]
        self.lengths = [len(self._before) + len(part.ids) + len(self._after) for part in self.windows]

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def _unasked(self) -> int:
        """Tokens at the beginning of a window that nothing stands before."""
        return int(self.kind == "causal" and not self._before)

    def collate(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """One batch padded on the right: ``input_ids``, ``targets``, for masked models ``attention_mask``."""
        windows = [self.windows[index % len(self)] for index in indices]
        length = max(self.lengths[index % len(self)] for index in indices)
        ids = np.full((len(windows), length), self._pad)
        targets = np.full_like(ids, IGNORED)
        mask = np.zeros_like(ids)
        for line, (index, window) in enumerate(zip(indices, windows, strict=True)):
            first = len(self._before)
            whole = [*self._before, *window.ids, *self._after]
            ids[line, : len(whole)] = whole
            mask[line, : len(whole)] = 1
            places = first + np.array(self.asked(index))
            if self.kind == "causal":
                targets[line, places - 1] = ids[line, places]
            else:
                targets[line, places] = ids[line, places]
                ids[line, places] = self._mask
        batch = {"input_ids": torch.from_numpy(ids), TARGETS: torch.from_numpy(targets)}
        return batch if self.kind == "causal" else {**batch, "attention_mask": torch.from_numpy(mask)}

    def asked(self, index: int) -> list[int]:
        """Which of a window's own tokens are asked, in order."""
        count = len(self.windows[index % len(self)].ids)
        if self.kind == "causal":
            return list(range(self._unasked, count))
        dice = np.random.default_rng((self._seed, index))
        chosen = np.flatnonzero(dice.random(count) < MASK_SHARE)
        return chosen.tolist() or [int(dice.integers(count))]

    def answers(self, index: int) -> int:
        """How many of a window's tokens are asked."""
        return len(self.asked(index))

    def sizes(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of what is asked of each document, (documents,)."""
        found = np.zeros(self.documents, dtype=np.int64)
        for index, window in enumerate(self.windows):
            found[window.document] += sum(window.sizes[place] for place in self.asked(index))
        return found

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy and the number of tokens asked."""
        losses = self._losses(model, batch)
        return losses.sum(), batch[TARGETS].new_tensor(len(losses))

    def _losses(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        inputs = {key: value for key, value in batch.items() if key != TARGETS}
        options = {"use_cache": False} if self.kind == "causal" else {}
        # What is measured on a base and on a model tuned on it is compared to the bit.
        return language_loss(model, inputs, batch[TARGETS], alike=not torch.is_grad_enabled(), **options)

    @torch.no_grad()
    def nats(self, model: nn.Module) -> Floats:
        """Summed cross-entropy of each document in nats, (documents,)."""
        device = next(model.parameters()).device
        found = np.zeros(self.documents)
        size = TOKENS_PER_BATCH.get(device.type, TOKENS_ON_ACCELERATOR)
        for indices in track(batches(self.lengths, size), "reading general text"):
            batch = {key: value.to(device) for key, value in self.collate(indices).items()}
            losses = self._losses(model, batch).double().cpu().numpy()
            lines = np.nonzero((batch[TARGETS] != IGNORED).cpu().numpy())[0]
            owners = np.array([self.windows[index].document for index in indices])
            np.add.at(found, owners[lines], losses)
        return found


def check_language(base: Base) -> None:
    """Raise CapabilityError for a base that no language loss is defined for, with the reason."""
    reasons = {
        "encoder": (
            "an encoder without an output layer says nothing of any token, so it has no language loss",
            "judge what tuning broke by its flips, or by other labelled tasks tuned alike",
        ),
        "encoder-decoder": (
            "encoder-decoders share no language loss of plain text: each family was pretrained to fill gaps "
            "of its own kind",
            "measure other labelled tasks instead (--also FILE)",
        ),
    }
    if base.kind in reasons:
        what, fix = reasons[base.kind]
        raise CapabilityError(what, where=base.name, expected="a causal or masked language model", fix=fix)
    if base.kind == "masked" and base.tokenizer.mask_token_id is None:
        raise CapabilityError(
            "the tokenizer has no mask token to ask with", where=base.name, expected="a mask token"
        )


def _windows(document: int, ids: Sequence[int], sizes: Sequence[int], room: int) -> list[_Window]:
    return [
        _Window(document, tuple(ids[at : at + room]), tuple(sizes[at : at + room]))
        for at in range(0, len(ids), room)
    ]


def _tokens(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    """Token ids of each document, and the UTF-8 bytes that each token stands for: they add up to its own."""
    if not documents:
        return []
    coded = tokenizer(
        list(documents),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=tokenizer.is_fast,
        verbose=False,
    )
    rows = coded["input_ids"]
    if not tokenizer.is_fast:
        return [
            (ids, _shares(len(text.encode()), len(ids))) for text, ids in zip(documents, rows, strict=True)
        ]
    offsets = coded["offset_mapping"]
    return [
        (ids, _bytes(text, [end for _, end in places]))
        for text, ids, places in zip(documents, rows, offsets, strict=True)
    ]


def _bytes(text: str, ends: Sequence[int]) -> list[int]:
    """Bytes from each token's end to the one before; space that no token covers counts for the next one."""
    found, last = [], 0
    for place, end in enumerate(ends):
        end = len(text) if place == len(ends) - 1 else max(end, last)
        found.append(len(text[last:end].encode()))
        last = end
    return found


def _shares(size: int, tokens: int) -> list[int]:
    """Whole numbers that add up to ``size``, as equal as can be."""
    return [size * (at + 1) // tokens - size * at // tokens for at in range(tokens)]
