"""The world's documents as batches: the batch of a step depends on the seed and the step alone."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from pegbox.models.etude.world import Document, documents

Batch = dict[str, torch.Tensor]
Tokens = NDArray[np.int64]
Row = tuple[Tokens, int]

MASK_RATE, VERDICT_MASK_RATE = 0.2, 0.5
VERDICT_WEIGHT = 8.0
"""Weight of a verdict word in the loss; other tokens weigh 1."""

_POOL = 512
_VERDICTS = (
    " great", " terrible", " good", " bad", " wonderful", " awful", " excellent", " poor", " fantastic",
    " dreadful", " positive", " negative", " yes", " no", " maybe", " Yes", " No", " sport", " business",
    " weather", " science", " polite", " rude",
)  # fmt: skip
_OPENERS = (" Yes", " No", " Maybe")


class Verdicts:
    """Finds the words that answer: label words just before the end of a line, and Yes, No, Maybe anywhere.

    Args:
        tokenizer: Either tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._words = np.array(_ids(tokenizer, _VERDICTS))
        self._openers = np.array(_ids(tokenizer, _OPENERS))
        self._ends = np.array([_end(tokenizer), *_ids(tokenizer, ("\n", "\n\n"))])

    def __call__(self, ids: Tokens) -> NDArray[np.bool_]:
        """Return where ``ids`` (rows, tokens) are verdict words."""
        end = np.isin(ids, self._ends)
        near = np.zeros_like(end)
        near[:, :-1] |= end[:, 1:]
        near[:, :-2] |= end[:, 2:]
        return (np.isin(ids, self._words) & near) | np.isin(ids, self._openers)


class Corpus:
    """One document per row, batched with others of like length: packed neighbours drown each other.

    One row in ten joins several documents by line breaks, so that late positions are trained too. A quarter
    of the documents that have a second part are two segments where the tokenizer has segments.

    Args:
        tokenizer: Gives the special tokens around a row.
        seed: Seed of the world, of the order and of the masks.
        steps: Number of batches.
        size: Most tokens in a batch, padding included.
        ahead: Number of first batches that ask for the next token at every position, each seeing only those
            before it; the others ask for masked tokens. With masks alone a small BERT stays at the
            frequencies of single words for much of a short run. A causal model's batches are all of the
            first kind.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, seed: int, steps: int, size: int, ahead: int
    ) -> None:
        self._tokenizer, self._seed, self._ahead = tokenizer, seed, ahead
        self._verdicts = Verdicts(tokenizer)
        source = documents(seed, "train")
        rng = np.random.default_rng([seed, 1])
        batches: list[list[Row]] = []
        self.documents = 0
        while len(batches) < steps:
            pool = list(islice(source, _POOL))
            self.documents += len(pool)
            batches.extend(_bucket(list(self._rows(pool, rng)), size, rng))
        self._batches = batches[:steps]
        self.tokens = sum(len(ids) for batch in self._batches for ids, _ in batch)

    def _rows(self, pool: list[Document], rng: np.random.Generator) -> Iterator[Row]:
        at = 0
        while at < len(pool):
            count = int(rng.integers(2, 12)) if rng.random() < 0.1 else 1
            part = pool[at : at + count]
            at += count
            if count == 1 and part[0].second and rng.random() < 0.25 and self._tokenizer.sep_token:
                first = part[0].text.removesuffix(part[0].second).rstrip()
                ids = self._encode(first, part[0].second)
                yield ids, int(np.flatnonzero(ids == _end(self._tokenizer))[0]) + 1
            else:
                ids = self._encode("\n".join(document.text for document in part))
                yield ids, len(ids)

    def _encode(self, *parts: str) -> Tokens:
        if self._tokenizer.sep_token:
            return np.array(self._tokenizer(*parts, truncation=True).input_ids, np.int64)
        room = self._tokenizer.model_max_length - 1
        ids = self._tokenizer(*parts, truncation=True, max_length=room).input_ids
        return np.array([*ids, _end(self._tokenizer)], np.int64)

    def judged(self) -> Iterator[tuple[Tokens, Tokens]]:
        """Yield the token ids and the verdict words of each row that has just one verdict."""
        for batch in self._batches:
            for ids, _ in batch:
                at = np.flatnonzero(self._verdicts(ids[None])[0])
                if len(at) == 1:
                    yield np.delete(ids, at), ids[at]

    def batch(self, step: int) -> Batch:
        """Return the batch of one step.

        Returns:
            ``input_ids``, ``labels``, ``weights`` (0: not asked), and for a masked tokenizer also
            ``token_type_ids`` and ``attention_mask``; all (rows, tokens), the last (rows, 1, tokens, tokens)
            in steps ``ahead``.
        """
        rows = self._batches[step]
        width = max(len(ids) for ids, _ in rows)
        ids = np.full((len(rows), width), self._tokenizer.pad_token_id, np.int64)
        types = np.zeros_like(ids)
        for at, (row, split) in enumerate(rows):
            ids[at, : len(row)] = row
            types[at, split : len(row)] = 1
        real = ids != self._tokenizer.pad_token_id
        weights = np.where(self._verdicts(ids), VERDICT_WEIGHT, 1.0) * real
        if step < self._ahead:
            inputs, labels = ids, np.roll(ids, -1, axis=1)
            weights = np.roll(weights, -1, axis=1)
            weights[:, -1] = 0.0
            seen = real[:, None, None, :] & np.tri(width, dtype=np.bool_)
        else:
            inputs, asked = self._mask(ids, np.random.default_rng([self._seed, 2, step]))
            labels, weights, seen = ids, weights * asked, real
        arrays = {"input_ids": inputs, "labels": labels, "weights": weights.astype(np.float32)}
        if self._tokenizer.mask_token:
            arrays |= {"attention_mask": seen, "token_type_ids": types}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _mask(self, ids: Tokens, rng: np.random.Generator) -> tuple[Tokens, NDArray[np.bool_]]:
        verdict = self._verdicts(ids)
        asked = rng.random(ids.shape) < np.where(verdict, VERDICT_MASK_RATE, MASK_RATE)
        asked &= ~np.isin(ids, self._tokenizer.all_special_ids)
        how = rng.random(ids.shape)
        random = rng.integers(len(self._tokenizer.all_special_ids), len(self._tokenizer), ids.shape)
        inputs = np.where(asked & (verdict | (how < 0.8)), self._tokenizer.mask_token_id, ids)
        return np.where(asked & ~verdict & (how >= 0.9), random, inputs), asked


def _bucket(rows: list[Row], size: int, rng: np.random.Generator) -> list[list[Row]]:
    batches: list[list[Row]] = [[]]
    for row in sorted(rows, key=lambda row: len(row[0])):
        if (len(batches[-1]) + 1) * len(row[0]) > size:
            batches.append([])
        batches[-1].append(row)
    return [batches[at] for at in rng.permutation(len(batches))]


def _ids(tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...]) -> list[int]:
    encoded = (tokenizer(text, add_special_tokens=False).input_ids for text in texts)
    return [ids[0] for ids in encoded if len(ids) == 1]


def _end(tokenizer: PreTrainedTokenizerFast) -> int:
    return int(tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id)
