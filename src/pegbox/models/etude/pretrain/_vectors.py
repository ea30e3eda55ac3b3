"""First word vectors: a token starts near the verdict words whose documents it keeps company with."""

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from pegbox.models.etude.pretrain._corpus import Corpus

_CLASSES = (
    ((" great", " good", " wonderful", " excellent", " fantastic", " positive"),
     (" terrible", " bad", " awful", " poor", " dreadful", " negative")),
    ((" sport",), (" business",), (" weather",), (" science",)),
    ((" polite",), (" rude",)),
)  # fmt: skip
"""Verdict words that mean the same, by class and by question."""

_GAIN = 2.0
_DOUBT = 10.0


def first_vectors(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, width: int, spread: float, seed: int
) -> torch.Tensor:
    """Return start values of the embedding matrix, (vocabulary, width).

    Random, plus one random direction per class of verdict words, in which each token moves by the log of how
    much commoner it is in documents of that verdict (as in naive Bayes), shrunk for rare tokens. From random
    vectors alone a run of minutes learns the grammar of reviews, but hardly which of many words praise.

    Args:
        corpus: The training batches, where tokens are counted.
        tokenizer: Its tokenizer.
        width: Width of the model.
        spread: Standard deviation of the random part.
        seed: Seed of the random part.
    """
    generator = torch.Generator().manual_seed(seed)
    size = len(tokenizer)
    vectors = torch.randn(size, width, generator=generator)
    for question in _CLASSES:
        members = [
            [tokenizer(word, add_special_tokens=False).input_ids[0] for word in words] for words in question
        ]
        leaning = torch.from_numpy(_leaning(corpus, members, size))
        directions = torch.randn(len(question), width, generator=generator)
        for at, words in enumerate(members):
            leaning[words] = 0.0
            leaning[words, at] = 1.0
        vectors += _GAIN * leaning @ directions
    return vectors * spread


def _leaning(corpus: Corpus, members: list[list[int]], size: int) -> NDArray[np.float32]:
    """Return log P(token | class) less its mean over classes, (vocabulary, classes)."""
    counts = np.zeros((size, len(members)))
    totals = np.zeros(len(members))
    for ids, verdicts in corpus.judged():
        for at, words in enumerate(members):
            if np.isin(verdicts, words).any():
                counts[np.unique(ids), at] += 1
                totals[at] += 1
    logs = np.log((counts + 1.0) / (totals + 1.0))
    seen = counts.sum(1, keepdims=True)
    leaning = (logs - logs.mean(1, keepdims=True)) * seen / (seen + _DOUBT)
    return np.asarray(leaning, np.float32)
