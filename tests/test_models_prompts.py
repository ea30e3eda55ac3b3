"""Shared demonstrations, whole label words and similar demonstrations against naive scoring.

The naive side runs every full sequence alone, without cache, padding or mask. Tolerance as in the readout's
tests: float32 sums in another order.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pegbox.data import Examples
from pegbox.errors import CapabilityError
from pegbox.models import Base, FeatureCache, answer_logits, encode, extract, word_logprobs
from pegbox.tasks import Classify, Demonstration, Encoded, Prompt, demonstration, text_keys
from tiny import CAUSAL, ENCODER_DECODERS, MASKED, rows_of_length, tiny_base

CLOSE = {"rtol": 1e-5, "atol": 2e-5}
ROWS = rows_of_length([3, 25, 1, 14, 9], labels=["a", "b", "a", "b", "a"])
SHOWN = [demonstration(ROWS, index) for index in (1, 2, 3)]  # some 60 tokens, beyond the sliding window
TASK = Classify(
    labels=("a", "b", "c"), template="{text}\nLabel: {answer}", label_words=("great", "terrible", "okay")
)
COLLIDING = ("good hotel", "good", "no bad breakfast", "terrible")


def naive_logits(base: Base, encoded: Encoded, tokens: tuple[int, ...]) -> Tensor:
    answers = []
    for row, position in zip(encoded.ids, encoded.positions, strict=True):
        ids = torch.tensor([[*encoded.prefix, *row]])
        answers.append(base.model(input_ids=ids).logits[0, position, list(tokens)])
    return torch.stack(answers)


@torch.no_grad()
@pytest.mark.parametrize("name", list(CAUSAL))
def test_shared_demonstrations_equal_full_prompts(name: str) -> None:
    base = tiny_base(name)
    prompt = base.prepare(TASK).with_demonstrations(SHOWN)
    encoded = prompt.encode(ROWS)
    assert len(encoded.prefix) > 40
    assert len({len(row) for row in encoded.ids}) == 5
    found = answer_logits(base.module(3), base, prompt, encoded)
    torch.testing.assert_close(found.logits, naive_logits(base, encoded, prompt.tokens), **CLOSE)
    without = answer_logits(base.module(3), base, prompt, base.prepare(TASK).encode(ROWS))
    assert float((found.logits - without.logits).abs().max()) > 0.01  # the demonstrations matter


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_shared_demonstrations_serve_every_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base(name)
    prompt = base.prepare(TASK).with_demonstrations(SHOWN)
    encoded = prompt.encode(ROWS)
    monkeypatch.setattr("pegbox.models._features.TOKENS_PER_BATCH", {"cpu": 1})
    found = answer_logits(base.module(3), base, prompt, encoded)
    torch.testing.assert_close(found.logits, naive_logits(base, encoded, prompt.tokens), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("name", list(MASKED))
def test_masked_models_read_demonstrations_in_one_piece(name: str) -> None:
    base = tiny_base(name, "masked")
    prompt = base.prepare(TASK).with_demonstrations(SHOWN)
    encoded = prompt.encode(ROWS)
    assert encoded.prefix == ()
    found = answer_logits(base.module(3), base, prompt, encoded)
    torch.testing.assert_close(found.logits, naive_logits(base, encoded, prompt.tokens), **CLOSE)
    masks = [[at for at, token in enumerate(row) if token == 3] for row in encoded.ids]
    assert masks == [[position] for position in encoded.positions]  # demonstrations show their answers


@torch.no_grad()
@pytest.mark.parametrize("shown", [(), SHOWN], ids=["zero-shot", "few-shot"])
@pytest.mark.parametrize("name", list(CAUSAL))
def test_whole_label_words_equal_full_sequences(name: str, shown: tuple[Demonstration, ...]) -> None:
    base = tiny_base(name)
    task = Classify(labels=("a", "b", "c", "d"), template=TASK.template, label_words=COLLIDING)
    prompt = base.prepare(task).with_demonstrations(shown)
    assert [len(word) > 1 for word in prompt.answers] == [True, False, True, False]
    assert not prompt.distinct
    encoded = prompt.encode(ROWS)
    wanted = torch.zeros(len(ROWS), len(COLLIDING))
    for at, row in enumerate(encoded.ids):
        before = [*encoded.prefix, *row]
        for label, word in enumerate(prompt.answers):
            logprobs = base.model(input_ids=torch.tensor([[*before, *word]])).logits[0].log_softmax(-1)
            wanted[at, label] = sum(logprobs[len(before) + i - 1, token] for i, token in enumerate(word))
    found = word_logprobs(base.model, base, prompt, encoded)
    # Up to four log-probabilities are summed.
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("shown", [(), SHOWN], ids=["zero-shot", "few-shot"])
@pytest.mark.parametrize("template", [TASK.template, "{text} It was {answer}."], ids=["last", "in a gap"])
@pytest.mark.parametrize("name", list(ENCODER_DECODERS))
def test_whole_label_words_of_a_decoder_equal_full_sequences(
    name: str, template: str, shown: tuple[Demonstration, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_base(name, "encoder-decoder")
    task = Classify(labels=("a", "b", "c", "d"), template=template, label_words=COLLIDING)
    prompt = base.prepare(task).with_demonstrations(shown)
    assert not prompt.distinct
    encoded = prompt.encode(ROWS)
    wanted = torch.zeros(len(ROWS), len(COLLIDING))
    for at, row in enumerate(encoded.ids):
        for label, word in enumerate(prompt.answers):
            said = [*encoded.decoder, *word]
            output = base.model(
                input_ids=torch.tensor([row]), decoder_input_ids=torch.tensor([said]), use_cache=False
            )
            logprobs = output.logits[0].log_softmax(-1)
            first = len(encoded.decoder) - 1
            wanted[at, label] = sum(logprobs[first + i, token] for i, token in enumerate(word))
    passes: list[int] = []
    encoder = base.model.get_encoder()
    hook = encoder.register_forward_hook(lambda *_: passes.append(1))
    found = word_logprobs(base.model, base, prompt, encoded)
    hook.remove()
    # Up to six log-probabilities are summed.
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-4)
    assert len(passes) == 1  # five rows in one batch: the encoder runs once for all words
    monkeypatch.setattr("pegbox.models._sequences.LOGITS_PER_BATCH", 1)
    torch.testing.assert_close(word_logprobs(base.model, base, prompt, encoded), wanted, rtol=2e-5, atol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", list(ENCODER_DECODERS))
def test_encoder_decoders_read_demonstrations_in_the_encoder(name: str) -> None:
    base = tiny_base(name, "encoder-decoder")
    task = Classify(labels=TASK.labels, template=TASK.template, label_words=("tea", "hot", "good"))
    prompt = base.prepare(task).with_demonstrations(SHOWN)
    encoded = prompt.encode(ROWS)
    assert encoded.prefix == ()
    found = answer_logits(base.module(3), base, prompt, encoded)
    for at, row in enumerate(encoded.ids):
        output = base.model(
            input_ids=torch.tensor([row]), decoder_input_ids=torch.tensor([encoded.decoder]), use_cache=False
        )
        wanted = output.logits[0, encoded.positions[at], list(prompt.tokens)]
        torch.testing.assert_close(found.logits[at], wanted, **CLOSE)
    without = answer_logits(base.module(3), base, prompt, base.prepare(task).encode(ROWS))
    assert float((found.logits - without.logits).abs().max()) > 0.01  # the demonstrations matter


def test_whole_label_words_in_small_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base("llama")
    task = Classify(labels=("a", "b", "c", "d"), template=TASK.template, label_words=COLLIDING)
    prompt = base.prepare(task)
    whole = word_logprobs(base.model, base, prompt, prompt.encode(ROWS))
    monkeypatch.setattr("pegbox.models._sequences.LOGITS_PER_BATCH", 1)
    torch.testing.assert_close(word_logprobs(base.model, base, prompt, prompt.encode(ROWS)), whole, **CLOSE)
    assert word_logprobs(base.model, base, prompt, prompt.encode(ROWS.select([]))).shape == (0, 4)


def test_methods_that_read_one_token_refuse_colliding_words() -> None:
    base = tiny_base("llama")
    task = Classify(labels=("a", "b"), template=TASK.template, label_words=COLLIDING[:2])
    prompt = base.prepare(task)
    with pytest.raises(CapabilityError) as error:
        extract(base, prompt, prompt.encode(ROWS))
    assert str(error.value) == (
        "two label words begin with the same token: 'good hotel' and 'good' "
        "(label words ['good hotel', 'good'])\n"
        "  expected: words with different first tokens, since this method reads one token per label\n"
        "  fix: choose other words with --label-words (zero-shot and few-shot score whole words)"
    )


POOL_TEXTS = (
    "the kettle was great",
    "a good hotel and a great breakfast",
    "It was terrible the screen broke",
    "the screen broke after a day",
    "The  KETTLE was great",
    "nobody answered",
)
POOL = Examples("pool.csv", {"text": POOL_TEXTS}, ("a", "a", "b", "b", "a", "c"), (1, 2, 3, 4, 5, 6))


def pooled(base: Base, per_class: int = 1, **task: Any) -> Prompt:
    made = Classify(
        **{"labels": TASK.labels, "template": TASK.template, "label_words": TASK.label_words, **task}
    )
    return base.prepare(made).with_pool([demonstration(POOL, i) for i in range(len(POOL))], per_class)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("causal", "gpt2"), ("causal", "llama"), ("masked", "roberta"), ("encoder-decoder", "t5")],
)
def test_similar_demonstrations_are_the_nearest_of_each_label(kind: str, name: str) -> None:
    base, queries = tiny_base(name, kind), rows_of_length([5, 12, 2])
    prompt = pooled(base)
    found = encode(base, prompt, queries)
    plain = prompt.with_demonstrations(())
    features = extract(base, plain, plain.encode(POOL)).hidden.numpy()
    asked = extract(base, plain, plain.encode(queries)).hidden.numpy()
    cosine = (asked / np.linalg.norm(asked, axis=1)[:, None]) @ (
        features / np.linalg.norm(features, axis=1)[:, None]
    ).T
    for row, scores in enumerate(cosine):
        nearest = [
            max(members, key=lambda i: scores[i]) for members in ((0, 1, 4), (2, 3), (5,))
        ]  # by the labels of POOL
        shown = [demonstration(POOL, i) for i in sorted(nearest, key=lambda i: scores[i])]
        wanted = prompt.with_demonstrations(shown).encode(queries.select([row]))
        assert found.ids[row] == (*wanted.prefix, *wanted.ids[0])
        assert found.positions[row] == wanted.positions[0]
    assert found.prefix == ()


def test_a_row_is_never_its_own_demonstration_nor_is_its_twin() -> None:
    base = tiny_base("llama")
    prompt = pooled(base, per_class=6)
    found = encode(base, prompt, POOL)
    solved = prompt.solved_ids(prompt.task.demonstrations)
    keys = text_keys(POOL)
    for row, ids in enumerate(found.ids):
        text = " ".join(map(str, ids))
        for other, shown in enumerate(solved):
            present = " ".join(map(str, shown)) in text
            assert present == (keys[row] != keys[other])
    assert keys[0] == keys[4]  # the twins of the pool


def test_similar_demonstrations_that_do_not_fit_are_left_out_and_counted() -> None:
    base = tiny_base("llama")
    lines: list[str] = []
    prompt = pooled(base, per_class=3)
    short = Prompt(prompt.task, prompt.tokenizer, "causal", 48, prompt.answers)
    found = encode(base, short, rows_of_length([2, 30]), say=lines.append)
    assert all(len(ids) <= 48 for ids in found.ids)
    left = int(lines[0].split()[0])
    assert lines == [f"{left} similar demonstrations left out to fit the context of 48 tokens"]
    assert 0 < left < 12
    assert found.shortened == (2,)


def test_similar_demonstrations_work_with_colliding_label_words(tmp_path: Any) -> None:
    base = tiny_base("llama")
    prompt = pooled(base, label_words=COLLIDING[:3])
    cache = FeatureCache(tmp_path)
    first = encode(base, prompt, rows_of_length([5]), cache=cache)
    assert encode(base, prompt, rows_of_length([5]), cache=cache) == first
    assert word_logprobs(base.model, base, prompt, first).shape == (1, 3)


def test_encoding_many_rows_with_similar_demonstrations_runs_no_tokenizer_per_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = tiny_base("llama")
    calls = count_calls(monkeypatch)
    prompt = pooled(base)
    encode(base, prompt, rows_of_length([4] * 20))
    few = calls()
    encode(base, prompt, rows_of_length([4] * 200))
    assert calls() - few == few


def count_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    from pegbox.tasks import _prompt

    made: list[int] = []
    plain = _prompt.woven_ids

    def counted(*args: Any, **options: Any) -> Any:
        made.append(1)
        return plain(*args, **options)

    monkeypatch.setattr(_prompt, "woven_ids", counted)
    return lambda: len(made)
