"""What every comparison must beat: numbers by hand, the log-loss against other choices, errors that help."""

import numpy as np
import pytest

import pegbox
from pegbox.comparison import BagOfWords, LongestOption, Majority, baselines, build_baseline
from pegbox.comparison._folds import folds, others
from pegbox.data import Examples, Questions, Sentences, text_key
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.tasks import Choose, Classify, Tag
from tuning_toy import LABELS, hush, rows_of, task_of

QUESTIONS = Questions(
    "quiz.jsonl",
    {"question": ("one?", "two?", "three?", "four?")},
    (("a", "bbb"), ("aa", "b", "cccc"), ("a", "bb"), ("aaa", "b")),
    (1, 2, 0, 0),
    (1, 2, 3, 4),
)
SENTENCES = Sentences(
    "news.conll",
    (("Ann", "met", "Bob", "Lee"), ("Bob", "met", "Ann"), ("Lee", "slept")),
    (("B-PER", "O", "B-PER", "I-PER"), ("B-PER", "O", "B-PER"), ("I-PER", "O")),
    (1, 2, 3),
)


def examples(texts: tuple[str, ...], labels: tuple[str, ...], **more: tuple[str, ...]) -> Examples:
    return Examples("toy", {"text": texts, **more}, labels, tuple(range(1, len(texts) + 1)))


def test_majority_gives_the_smoothed_shares_of_the_labels() -> None:
    rows = examples(("a", "b", "c"), ("bad", "bad", "good"))
    fitted = Majority().fit(Classify(labels=("bad", "fine", "good")), rows)
    found = fitted.probabilities(rows_of(5))
    assert found.dtype == np.float64
    assert found.shape == (5, 3)
    assert np.allclose(found, [3 / 6, 1 / 6, 2 / 6])  # one row is added to each label
    assert fitted.parameters == 3
    assert fitted.seconds >= 0


def test_majority_of_choices_gives_the_shares_of_the_places() -> None:
    fitted = Majority().fit(Choose(), QUESTIONS)
    asked = Questions("q", {"question": ("x", "y")}, (("a", "b", "c", "d"), ("a", "b")), None, (1, 2))
    found = fitted.probabilities(asked)
    # Right at place 0 in two of four, at 1 in one of four, at 2 in one of one row; a fourth place is unseen.
    shares = np.array([3 / 6, 2 / 6, 2 / 3, 1 / 2])
    assert np.allclose(found[0], shares / shares.sum())
    assert np.allclose(found[1], [0.6, 0.4, 0.0, 0.0])


def test_majority_of_tags_gives_each_word_its_usual_tag_well_formed() -> None:
    fitted = Majority().fit(Tag(types=("PER",)), SENTENCES)
    asked = Sentences("s", (("Lee", "Lee", "met", "Zoe"), ("Bob", "Lee")), None, (1, 2))
    # Lee was I-PER twice: where it continues no entity it begins one; Zoe was never seen.
    assert fitted.tags(asked) == (("B-PER", "I-PER", "O", "O"), ("B-PER", "I-PER"))
    assert fitted.parameters == 5
    with pytest.raises(UsageError, match=r"gives words no probabilities"):
        fitted.probabilities(asked)


def test_longest_option_is_as_sure_as_it_was_right() -> None:
    fitted = LongestOption().fit(Choose(), QUESTIONS)
    # Right in the first, second and fourth question, with one row added to right and wrong.
    found = fitted.probabilities(QUESTIONS)
    assert np.allclose(found[1], [1 / 6, 1 / 6, 4 / 6])
    assert np.allclose(found[3], [4 / 6, 2 / 6, 0.0])
    with pytest.raises(UsageError, match=r"tags no words here"):
        fitted.tags(QUESTIONS)


def test_bag_of_words_learns_what_words_tell() -> None:
    train, test = rows_of(60, 3, noise=0.0), rows_of(30, 3, seed=5, noise=0.0)
    task = task_of(3)
    said: list[str] = []
    fitted = BagOfWords().fit(task, train, say=said.append)
    found = fitted.probabilities(test)
    assert (found.argmax(1) == task.gold(test)).all()
    assert np.allclose(found.sum(1), 1)
    assert fitted.details["criterion"] == "5-fold log-loss on 60 rows"
    assert said == [
        f"bag-of-words: {fitted.details['features']}, C {fitted.details['C']:g} "
        f"(5-fold log-loss on 60 rows: {fitted.details['loss']:.3f})"
    ]
    again = BagOfWords().fit(task, train, say=hush)
    assert np.array_equal(again.probabilities(test), found)


def test_bag_of_words_without_signal_keeps_close_to_the_shares() -> None:
    dice = np.random.default_rng(0)
    words = np.array(["kettle", "tea", "hotel", "screen", "staff", "bed", "cup", "door"])
    texts = tuple(f"{' '.join(dice.permutation(words)[:4])} {at}" for at in range(80))
    rows = examples(texts, ("bad",) * 60 + ("fine",) * 20)
    fitted = BagOfWords().fit(Classify(labels=LABELS[:2]), rows, say=hush)
    assert fitted.details["C"] <= 1  # the strongest penalties are the best, where words say nothing
    assert np.abs(fitted.probabilities(rows)[:, 0] - 0.75).max() < 0.25


def test_two_texts_are_two_blocks_of_features() -> None:
    """A label that depends on which text holds the word: one block could not tell."""
    first = tuple("great" if at % 2 else "poor" for at in range(40))
    second = tuple("poor" if at % 2 else "great" for at in range(40))
    numbers = tuple(f" number {at}" for at in range(40))
    rows = examples(
        tuple(a + b for a, b in zip(first, numbers, strict=True)),
        tuple("fine" if at % 2 else "bad" for at in range(40)),
        other=second,
    )
    task = Classify(labels=("bad", "fine"), fields=("text", "other"))
    fitted = BagOfWords().fit(task, rows, say=hush)
    assert (fitted.probabilities(rows).argmax(1) == task.gold(rows)).all()


def test_the_rotated_features_give_the_same_regression() -> None:
    """The choice of C is made in as many directions as rows; it must equal that on all n-grams."""
    from pegbox.comparison._bag_of_words import _regression, _rotated, _transformed, _vectorizer

    train, test = rows_of(40, 3), rows_of(20, 3, seed=7)
    vectorizers = [_vectorizer("words and characters").fit(train.fields["text"])]
    seen, asked = _transformed(vectorizers, train), _transformed(vectorizers, test)
    gold = np.array(task_of(3).gold(train))
    plain = _regression(10.0).set_params(tol=1e-9).fit(seen, gold).predict_proba(asked)
    small, query = _rotated(seen, asked)
    turned = _regression(10.0).set_params(tol=1e-9).fit(small, gold).predict_proba(query)
    assert small.shape[1] <= 40 < seen.shape[1]
    assert np.abs(plain - turned).max() < 1e-6  # both to the solver's tolerance


def test_a_label_of_one_text_is_always_learnt_from() -> None:
    rows = examples(("a b", "c d", "e f", "g h", "i j"), ("bad", "bad", "fine", "fine", "good"))
    parts = folds(rows, 5, seed=0)
    assert len(parts) == 2
    assert sorted(place for part in parts for place in part) == [0, 1, 2, 3]
    assert 4 in others(5, parts[0])
    fitted = BagOfWords().fit(Classify(labels=("bad", "fine", "good")), rows, say=hush)
    assert fitted.probabilities(rows).shape == (5, 3)


def test_equal_texts_lie_in_one_fold() -> None:
    rows = rows_of(30)
    doubled = rows.select([*range(30), *range(30)])
    keys = [text_key(texts) for texts in doubled.texts]
    for part in folds(doubled, 5, seed=1):
        inside = {keys[place] for place in part}
        assert not inside & {keys[place] for place in others(60, part)}


def test_too_few_texts_to_choose_by_are_told() -> None:
    rows = examples(("a great tea", "a poor tea"), ("fine", "bad"))
    said: list[str] = []
    fitted = BagOfWords().fit(Classify(labels=("bad", "fine")), rows, say=said.append)
    assert said == ["bag-of-words: too few texts of a label to choose by, C 10 on words"]
    assert fitted.details["criterion"] == "usual"
    assert fitted.probabilities(rows).shape == (2, 2)


def test_texts_of_marks_alone_can_be_read() -> None:
    rows = examples(("!!", "!!!", "??", "???"), ("bad", "bad", "fine", "fine"))
    task = Classify(labels=("bad", "fine"))
    fitted = BagOfWords().fit(task, rows, say=hush)
    assert (fitted.probabilities(rows).argmax(1) == task.gold(rows)).all()


def test_baselines_of_each_kind_of_task() -> None:
    assert list(baselines()) == ["majority", "longest-option", "bag-of-words"]
    assert list(baselines(task_of())) == ["majority", "bag-of-words"]
    assert list(baselines(Choose())) == ["majority", "longest-option"]
    assert list(baselines(Tag(types=("PER",)))) == ["majority"]
    assert build_baseline("majority") == Majority()
    with pytest.raises(UsageError, match=r"no baseline 'majorty'(.|\n)*did you mean 'majority'"):
        build_baseline("majorty")


def test_refusals_name_the_reason() -> None:
    with pytest.raises(CapabilityError, match="every question has options of its own"):
        BagOfWords().fit(Choose(), QUESTIONS)  # type: ignore[arg-type]
    with pytest.raises(CapabilityError, match="a tag belongs to one word in its place"):
        BagOfWords().check(Tag(types=("PER",)))
    with pytest.raises(CapabilityError, match="these rows have none"):
        LongestOption().check(pegbox.Classify(labels=("a", "b")))
    with pytest.raises(InputError, match="no training row has the label 'odd'"):
        BagOfWords().fit(Classify(labels=("bad", "fine", "odd")), rows_of(10), say=hush)
    with pytest.raises(InputError, match="no rows to learn from"):
        Majority().fit(task_of(), rows_of(0))
