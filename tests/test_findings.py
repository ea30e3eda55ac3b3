"""Classical findings as checks on the embedded models; what disagrees is told in docs/every-method.md."""

from dataclasses import replace

import numpy as np
import pytest

import pegbox
from pegbox.data import Examples
from pegbox.models.etude.world import reviews
from tuning_toy import hush

pytestmark = pytest.mark.slow
# One that the embedded models have read about.
DOMAIN = "phones"
TASK = pegbox.Classify(
    labels=("negative", "positive"), template="{text} It was {answer}.", label_words=("terrible", "great")
)


def rows_of(count: int, seed: int) -> Examples:
    made = reviews(DOMAIN, 4 * count, seed=seed)
    picked = [row for label in TASK.labels for row in [r for r in made if r.label == label][: count // 2]]
    texts, labels = tuple(row.text for row in picked), tuple(row.label for row in picked)
    return Examples(DOMAIN, {"text": texts}, labels, tuple(range(1, count + 1)))


def accuracy(method: str, readout: str, seed: int) -> float:
    task = replace(TASK, readout=readout)
    training = pegbox.Training(epochs=20)
    tuned = pegbox.fit(
        "etude-masked", task, method, rows=rows_of(32, seed), training=training, seed=seed, say=hush
    )
    return tuned.evaluate(rows_of(400, 1_000_001), resamples=10).metrics["accuracy"].value


@pytest.mark.parametrize("method", ["full", "lora"])
def test_label_words_beat_a_new_head_at_16_rows_per_class(method: str) -> None:
    # Schick & Schütze 2021; Gao et al. 2021. On hotels, which were held back from the pretraining, three
    # seeds tell nothing for full fine-tuning (0.618 against 0.599): label words bring what the base knows.
    seeds = (0, 1, 2)
    words, head = ([accuracy(method, readout, seed) for seed in seeds] for readout in ("words", "head"))
    # Two standard errors of one accuracy on 400 rows are 0.05; the mean of three runs is held to half.
    assert np.mean(words) > np.mean(head) + 0.025, (words, head)
