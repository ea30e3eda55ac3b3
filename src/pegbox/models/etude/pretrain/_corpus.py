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

_CHUNK = 4096
MASK_RATE, _VERDICT_RATE = 0.2, 0.5
VERDICT_WEIGHT = 5.0
"""Weight of a verdict word in the causal loss; other tokens weigh 1."""
_VERDICTS = (
    " great",
    " terrible",
    " good",
    " bad",
    " wonderful",
    " awful",
    " excellent",
    " poor",
    " fantastic",
    " dreadful",
    " positive",
    " negative",
    " yes",
    " no",
    " maybe",
    " Yes",
    " No",
    " sport",
    " business",
    " weather",
    " science",
    " polite",
    " rude",
)
_OPENERS = (" Yes", " No", " Maybe")


class Verdicts:
    """Finds the words that answer: label words just before the end of a line, and Yes, No, Maybe anywhere.

    Args:
        tokenizer: Either tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._words = np.array(_ids(tokenizer, _VERDICTS))
        self._openers = np.array(_ids(tokenizer, _OPENERS))
        last = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        self._ends = np.array([last, *_ids(tokenizer, ("\n", "\n\n"))])

    def __call__(self, ids: Tokens) -> NDArray[np.bool_]:
        """Return where ``ids`` (rows, tokens) are verdict words."""
        end = np.isin(ids, self._ends)
        near = np.zeros_like(end)
        near[:, :-1] |= end[:, 1:]
        near[:, :-2] |= end[:, 2:]
        return (np.isin(ids, self._words) & near) | np.isin(ids, self._openers)


class CausalCorpus:
    """Documents as ``<|bos|> text <|eos|>``, packed end to end into blocks; verdict words weigh more.

    Args:
        tokenizer: The causal tokenizer.
        seed: Seed of the world.
        steps: Number of batches.
        rows: Blocks per batch.
        block: Tokens per block.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, seed: int, steps: int, rows: int, block: int
    ) -> None:
        need = steps * rows * block
        pieces: list[list[int]] = []
        have = 0
        source = documents(seed, "train")
        while have < need:
            texts = [document.text + str(tokenizer.eos_token) for document in islice(source, _CHUNK)]
            pieces.extend(tokenizer(texts).input_ids)
            have = have + sum(map(len, pieces[-len(texts) :]))
        tokens = np.fromiter((token for piece in pieces for token in piece), np.int64, have)[:need]
        self._blocks = tokens.reshape(steps, rows, block)
        self._verdicts = Verdicts(tokenizer)
        self.documents = len(pieces)
        self.tokens = need

    def batch(self, step: int) -> Batch:
        """Return ``input_ids`` and the ``weights`` of their tokens in the loss, each (rows, block)."""
        ids = self._blocks[step]
        weights = np.where(self._verdicts(ids), VERDICT_WEIGHT, 1.0).astype(np.float32)
        return {"input_ids": torch.from_numpy(ids), "weights": torch.from_numpy(weights)}


class MaskedCorpus:
    """Documents as ``[CLS] text [SEP]``, batched by length, masked afresh at every step.

    One row in ten joins several documents by line breaks, so that late positions are trained too, and a
    quarter of the documents that have a second part are written as two segments. 20 % of the tokens are
    masked (80 % [MASK], 10 % random, 10 % kept), and half of the verdict words, always by [MASK].

    Args:
        tokenizer: The masked tokenizer.
        seed: Seed of the world and of the masks.
        steps: Number of batches.
        size: Most tokens in a batch, padding included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, steps: int, size: int) -> None:
        self._tokenizer, self._seed = tokenizer, seed
        self._verdicts = Verdicts(tokenizer)
        source = documents(seed, "train")
        rng = np.random.default_rng([seed, 1])
        self._batches: list[list[tuple[Tokens, int]]] = []
        self.documents = 0
        while len(self._batches) < steps:
            chunk = list(islice(source, _CHUNK))
            self.documents += len(chunk)
            self._batches.extend(self._bucket(list(self._rows(chunk, rng)), size, rng))
        self._batches = self._batches[:steps]
        self.tokens = sum(len(ids) for batch in self._batches for ids, _ in batch)

    def _rows(self, chunk: list[Document], rng: np.random.Generator) -> Iterator[tuple[Tokens, int]]:
        at = 0
        while at < len(chunk):
            document = chunk[at]
            if rng.random() < 0.1:
                count = int(rng.integers(2, 12))
                ids = self._encode("\n".join(each.text for each in chunk[at : at + count]))
                at += count
                yield ids, len(ids)
                continue
            at += 1
            if document.second and rng.random() < 0.25:
                first = document.text.removesuffix(document.second).rstrip()
                ids = self._encode(first, document.second)
                yield ids, int(np.flatnonzero(ids == self._tokenizer.sep_token_id)[0]) + 1
            else:
                ids = self._encode(document.text)
                yield ids, len(ids)

    def _encode(self, *parts: str) -> Tokens:
        return np.array(self._tokenizer(*parts, truncation=True).input_ids, np.int64)

    @staticmethod
    def _bucket(
        rows: list[tuple[Tokens, int]], size: int, rng: np.random.Generator
    ) -> list[list[tuple[Tokens, int]]]:
        batches: list[list[tuple[Tokens, int]]] = [[]]
        for row in sorted(rows, key=lambda row: len(row[0])):
            if (len(batches[-1]) + 1) * len(row[0]) > size:
                batches.append([])
            batches[-1].append(row)
        return [batches[at] for at in rng.permutation(len(batches))]

    def batch(self, step: int) -> Batch:
        """Return ``input_ids``, ``attention_mask``, ``token_type_ids`` and ``labels`` (-100: not masked)."""
        rows = self._batches[step]
        width = max(len(ids) for ids, _ in rows)
        ids = np.full((len(rows), width), self._tokenizer.pad_token_id, np.int64)
        types = np.zeros_like(ids)
        for at, (row, split) in enumerate(rows):
            ids[at, : len(row)] = row
            types[at, split : len(row)] = 1
        inputs, labels = self._mask(ids, np.random.default_rng([self._seed, 2, step]))
        return {
            "input_ids": torch.from_numpy(inputs),
            "attention_mask": torch.from_numpy((ids != self._tokenizer.pad_token_id).astype(np.int64)),
            "token_type_ids": torch.from_numpy(types),
            "labels": torch.from_numpy(labels),
        }

    def _mask(self, ids: Tokens, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
        verdict = self._verdicts(ids)
        chosen = rng.random(ids.shape) < np.where(verdict, _VERDICT_RATE, MASK_RATE)
        chosen &= ~np.isin(ids, self._tokenizer.all_special_ids)
        how = rng.random(ids.shape)
        random = rng.integers(len(self._tokenizer.all_special_ids), len(self._tokenizer), ids.shape)
        inputs = np.where(chosen & (verdict | (how < 0.8)), self._tokenizer.mask_token_id, ids)
        inputs = np.where(chosen & ~verdict & (how >= 0.9), random, inputs)
        return inputs, np.where(chosen, ids, -100)


def _ids(tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...]) -> list[int]:
    encoded = (tokenizer(text, add_special_tokens=False).input_ids for text in texts)
    return [ids[0] for ids in encoded if len(ids) == 1]
