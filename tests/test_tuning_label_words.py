"""Label-word search: the ranking, the combinations, what is taken, what is told."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pegbox
from pegbox.data import Examples
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.models import class_means, encode, extract, slot_logits
from pegbox.models.etude.world import reviews
from pegbox.tasks import answer_word
from pegbox.tuning._combinations import best_combinations
from pegbox.tuning._label_words import LabelWords, clearly_better
from tuning_toy import LABELS, base_of, full_forward, hush, rows_of, task_of

KINDS = [("llama", "causal"), ("gemma2", "causal"), ("roberta", "masked"), ("t5", "encoder-decoder")]
SIGNED = pegbox.Classify(labels=("negative", "positive"), template="{text} It was {answer}.")


def found_by(architecture: str, kind: str, rows: Examples, **options: Any) -> LabelWords:
    base = base_of(architecture, kind)
    return pegbox.search_label_words(base, task_of(), rows, **{"say": hush, **options})


def world_rows(count: int, *, seed: int) -> Examples:
    made = reviews("hotels", count, seed=seed)
    texts, labels = tuple(row.text for row in made), tuple(row.label for row in made)
    return Examples("world", {"text": texts}, labels, tuple(range(1, count + 1)))


@pytest.mark.parametrize(("architecture", "kind"), [pair for pair in KINDS if pair[1] != "encoder-decoder"])
def test_means_equal_those_of_whole_forward_passes(
    architecture: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, rows = base_of(architecture, kind), rows_of(13)
    # Blocks of a few rows, the last of them shorter.
    monkeypatch.setattr("pegbox.models._vocabulary.LOGITS_PER_BLOCK", 4 * base.model.config.vocab_size)
    prompt = base.prepare(task_of())
    encoded = encode(base, prompt, rows)
    gold = torch.tensor(prompt.task.gold(rows))
    logprobs = full_forward(base.model, encoded).double().log_softmax(1)
    expected = torch.stack([logprobs[gold == label].mean(0) for label in range(2)])
    hidden = extract(base, prompt, encoded).hidden
    # float32 forward passes in batches of other shapes.
    torch.testing.assert_close(class_means(base, hidden, gold, 2), expected, atol=1e-4, rtol=1e-4)
    some = [7, 300, 12]
    torch.testing.assert_close(
        slot_logits(base, hidden, some), full_forward(base.model, encoded)[:, some], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("labels", [2, 3])
def test_combinations_equal_those_of_trying_all(labels: int) -> None:
    dice = torch.Generator().manual_seed(labels)
    logits = torch.randn(30, 7, generator=dice).double()
    gold = torch.arange(30) % labels
    options = [torch.randperm(7, generator=dice)[:4].tolist() for _ in range(labels)]
    tried = []
    for columns in product(*options):
        if len(set(columns)) == labels:
            chosen = logits[:, list(columns)].log_softmax(1)
            own = chosen[torch.arange(30), gold]
            tried.append((-int((chosen.argmax(1) == gold).sum()), -float(own.sum()), columns))
    tried.sort()
    found = best_combinations(logits, gold, options, width=1000)
    assert [item.columns for item in found] == [columns for *_, columns in tried]
    assert [item.correct for item in found] == [-correct for correct, *_ in tried]
    np.testing.assert_allclose([item.log_likelihood for item in found], [-value for _, value, _ in tried])


def test_a_narrow_beam_keeps_its_width_and_never_uses_a_word_twice() -> None:
    logits, gold = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4
    found = best_combinations(logits, gold, [[0, 1, 2, 3, 4]] * 4, width=3)
    assert len(found) == 3
    assert all(len(set(item.columns)) == 4 for item in found)
    assert best_combinations(logits, gold, [[0], [0], [1], [2]], width=3) == []


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_words_are_single_tokens_at_the_answer_and_no_fragments(architecture: str, kind: str) -> None:
    found = found_by(architecture, kind, rows_of(24))
    base = base_of(architecture, kind)
    for items in found.candidates:
        assert len(items) == 16
        for item in items:
            assert item.word.isalpha()
            assert len(item.word) > 1
            prompt = base.prepare(
                task_of(label_words=(item.word, "maybe" if item.word != "maybe" else "yes"))
            )
            assert prompt.answers[0] == (item.token,)
    assert base.prepare(replace(task_of(), label_words=found.found)).distinct


def test_pieces_that_continue_a_word_are_no_words() -> None:
    base = pegbox.load("etude-masked")
    word_of = answer_word(base.prepare(SIGNED))
    vocabulary = base.tokenizer.get_vocab()
    pieces = [token for piece, token in vocabulary.items() if piece.isalpha() and piece[0] != "Ġ"]
    assert len(pieces) > 100
    assert all(word_of(token) is None for token in pieces)
    assert all(word_of(token) is None for token in base.tokenizer.all_special_ids)
    assert word_of(vocabulary["Ġgreat"]) == "great"
    assert word_of(vocabulary["."]) is None
    gpt = base_of("llama")
    inner = gpt.tokenizer.convert_tokens_to_ids("reat")
    words = answer_word(gpt.prepare(task_of()))
    assert all(words(token) is None for token in (inner, *range(4)))


def test_candidates_are_in_the_order_of_brute_force() -> None:
    base, rows = base_of("roberta", "masked"), rows_of(20)
    found = found_by("roberta", "masked", rows, candidates=5)
    prompt = base.prepare(task_of())
    logprobs = full_forward(base.model, encode(base, prompt, rows)).double().log_softmax(1)
    gold = torch.tensor(prompt.task.gold(rows))
    means = torch.stack([logprobs[gold == label].mean(0) for label in range(2)])
    if found.ranking == "distinct":
        means = means - means.mean(0)
    word_of = answer_word(prompt)
    words = {token: word_of(token) for token in range(means.shape[1])}
    for items, row in zip(found.candidates, means, strict=True):
        ranked = [token for token in row.argsort(descending=True).tolist() if words[token]]
        assert [item.token for item in items] == ranked[:5]
        np.testing.assert_allclose([item.score for item in items], row[ranked[:5]], atol=1e-4)


def test_the_accuracy_is_that_of_zero_shot_with_these_words() -> None:
    rows = rows_of(30)
    found = found_by("llama", "causal", rows)
    gold = np.array(task_of().gold(rows))
    for words, accuracy in ((found.found, found.accuracy), (found.given, found.given_accuracy)):
        tuned = pegbox.fit(base_of("llama"), task_of(label_words=words), "zero-shot", rows=rows, say=hush)
        assert (tuned.probabilities(rows).argmax(1) == gold).mean() == pytest.approx(accuracy)
    assert found.best[0] == (found.found, found.accuracy)
    assert [accuracy for _, accuracy in found.best] == sorted(
        (accuracy for _, accuracy in found.best), reverse=True
    )


def test_clearly_better_is_one_standard_error() -> None:
    given = torch.zeros(100, dtype=torch.bool)
    # 1 of 100: mean 0.01, standard error 0.01; 2 of 100: 0.02 against 0.01407.
    assert not clearly_better(torch.arange(100) < 1, given)
    assert clearly_better(torch.arange(100) < 2, given)
    assert not clearly_better(given, given)
    assert not clearly_better(torch.tensor([True]), torch.tensor([False]))


@pytest.mark.slow
def test_the_given_words_stay_unless_the_search_is_clearly_better() -> None:
    base, rows = pegbox.load("etude-masked"), world_rows(256, seed=5)
    told = pegbox.search_label_words(base, SIGNED, rows, say=hush)
    assert told.given == ("terrible", "great")
    assert told.words == (told.found if told.taken else told.given)
    assert told.cross_validated is not None
    # Articles say nothing about a verdict, and the world's words do: 0.51 against 0.63 over twelve draws.
    blank = pegbox.search_label_words(base, replace(SIGNED, label_words=("the", "and")), rows, say=hush)
    assert blank.taken
    assert blank.words == blank.task.label_words == blank.found
    unseen = world_rows(400, seed=6)
    gold = np.array(SIGNED.gold(unseen))
    accuracies = []
    for words in (("the", "and"), blank.words):
        task = replace(SIGNED, label_words=words)
        answers = pegbox.fit(base, task, "zero-shot", rows=rows, say=hush).probabilities(unseen).argmax(1)
        accuracies.append(float((answers == gold).mean()))
    # 400 rows: a standard error of 0.025 each.
    assert accuracies[1] > accuracies[0] + 0.05


def test_too_few_rows_to_cross_validate_keep_the_given_words() -> None:
    found = found_by("llama", "causal", rows_of(2))
    assert found.cross_validated is None
    assert not found.taken
    assert found.words == found.given == ("terrible", "okay")
    assert found.notes()[1] == (
        "the words it had are kept: the rows are too few to cross-validate the search"
    )


def test_notes_say_what_was_found_and_why() -> None:
    found = found_by("llama", "causal", rows_of(40))
    first, second = found.notes()
    assert first.startswith(
        f"label words found on 40 training rows: bad={found.found[0]}, fine={found.found[1]}"
    )
    assert f"{found.cross_validated:.3f} against {found.given_accuracy:.3f}" in second


def test_a_search_is_the_same_with_the_same_seed_and_with_a_cache(tmp_path: Path) -> None:
    rows = rows_of(40)
    cache = pegbox.FeatureCache(tmp_path)
    first, second, third = (
        found_by("llama", "causal", rows, seed=3, **options)
        for options in ({}, {"cache": cache}, {"cache": cache})
    )
    assert first == second == third


def test_large_files_are_sampled_and_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.tuning._label_words.MOST_ROWS", 20)
    told: list[str] = []
    found = found_by("llama", "causal", rows_of(50), say=told.append)
    assert found.rows == 20
    assert "label words are searched on 20 of 50 training rows (seed 0)" in told


def test_words_that_share_a_first_token_are_compared_whole() -> None:
    base = base_of("llama")
    task = task_of(label_words=("great hotel", "great screen"))
    found = pegbox.search_label_words(base, task, rows_of(20), say=hush)
    tuned = pegbox.fit(base, task, "zero-shot", rows=rows_of(20), say=hush)
    gold = np.array(task.gold(rows_of(20)))
    accuracy = (tuned.probabilities(rows_of(20)).argmax(1) == gold).mean()
    assert found.given_accuracy == pytest.approx(accuracy)


def test_fit_searches_on_the_rows_it_trains_on_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Examples] = []
    import pegbox.tuning._label_words as module

    plain = module.search_label_words

    def spied(base: Any, task: Any, rows: Any, **options: Any) -> LabelWords:
        seen.append(rows)
        return plain(base, task, rows, **options)

    monkeypatch.setattr(module, "search_label_words", spied)
    told: list[str] = []
    tuned = pegbox.fit(
        base_of("llama"),
        replace(task_of(), label_words=None),
        "lora",
        rows=rows_of(60),
        label_words="auto",
        training=pegbox.Training(max_steps=1, precision="float32"),
        say=told.append,
    )
    assert len(seen[0]) == tuned.cost.rows == 51
    words = tuned.prompt.task.label_words
    assert words is not None
    assert any(line.startswith("label words found on 51 training rows") for line in told)
    assert any("words are taken" in line or "words are kept" in line for line in told)


def test_what_cannot_be_searched_is_refused() -> None:
    base, rows = base_of("llama"), rows_of(8)
    with pytest.raises(CapabilityError, match="cannot be searched on an encoder"):
        pegbox.search_label_words(base_of("bert", "encoder"), task_of(), rows, say=hush)
    with pytest.raises(UsageError, match="candidates 0"):
        pegbox.search_label_words(base, task_of(), rows, candidates=0)
    with pytest.raises(InputError, match="there are no rows to search on"):
        pegbox.search_label_words(base, task_of())
    with pytest.raises(InputError, match="no training row has the label 'fine'"):
        pegbox.search_label_words(base, task_of(), rows.select([0, 2, 4]))
    with pytest.raises(UsageError, match="label words cannot be searched here"):
        pegbox.fit(base, task_of(), "zero-shot", rows=rows, label_words="auto", say=hush)
    one = pegbox.Classify(labels=LABELS[:3], template="{text} {answer}", label_words=("yes", "maybe", "okay"))
    with pytest.raises(CapabilityError, match="no 3 different words"):
        # One candidate for each of three labels is the same one for two of them.
        pegbox.search_label_words(base, one, rows_of(9, 3), candidates=1, say=hush)


def test_what_is_derived_is_said_and_a_head_has_no_words() -> None:
    told: list[str] = []
    base = base_of("llama")
    bare = pegbox.Classify(labels=task_of().labels)
    pegbox.search_label_words(base, bare, rows_of(24), say=told.append)
    assert any(line.startswith("template ") for line in told)
    for task, method in ((replace(bare, readout="head"), "lora"), (bare, "head")):
        with pytest.raises(UsageError, match="a head says no label words"):
            pegbox.fit(base, task, method, rows=rows_of(24), label_words="auto", say=told.append)
