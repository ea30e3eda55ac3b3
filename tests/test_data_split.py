import random
from collections import Counter

import pytest

from pegbox import data
from pegbox.errors import InputError, UsageError

PARTS = {"train": 0.8, "valid": 0.1, "test": 0.1}


def made(counts: dict[str, int], repeats: int = 1) -> data.Examples:
    rows = [(f"{label} text {i}", label) for label, count in counts.items() for i in range(count)] * repeats
    texts, labels = zip(*rows, strict=True)
    return data.Examples("t.csv", {"text": texts}, labels, tuple(range(1, len(rows) + 1)))


def test_parts_are_disjoint_complete_and_in_proportion() -> None:
    found = made({"a": 600, "b": 300, "c": 7})
    parts = data.split(found, fractions=PARTS, seed=3)
    assert sorted(number for part in parts.values() for number in part.numbers) == list(found.numbers)
    assert {name: len(part) for name, part in parts.items()} == {"train": 725, "valid": 91, "test": 91}
    assert all(list(part.numbers) == sorted(part.numbers) for part in parts.values())
    for part in parts.values():
        # largest remainder with carry stays within two rows of each class's proportion
        share = len(part) / len(found)
        counts = Counter(part.labels)
        assert all(abs(counts[name] - share * total) < 2 for name, total in Counter(found.labels).items())


def test_every_class_with_enough_texts_is_on_every_side() -> None:
    parts = data.split(made({"a": 50, "b": 3, "c": 3}), fractions=PARTS)
    assert all(set(part.labels or ()) == {"a", "b", "c"} for part in parts.values())


def test_equal_texts_stay_on_one_side() -> None:
    texts = [f"text {i}" for i in range(30)] + [f"  TEXT   {i}" for i in range(30)] + ["text 0"] * 5
    labels = ["a", "b"] * 32 + ["a"]
    found = data.Examples("t", {"text": tuple(texts)}, tuple(labels), tuple(range(1, 66)))
    parts = data.split(found, fractions={"train": 0.5, "test": 0.5}, seed=1)
    keys = [{" ".join(text.lower().split()) for text in part.fields["text"]} for part in parts.values()]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 30


def test_many_small_classes_keep_the_overall_proportion() -> None:
    parts = data.split(made({f"c{i}": 7 for i in range(100)}), fractions={"train": 0.75, "test": 0.25})
    # 7 * 0.75 = 5.25: rounding each class alone would give 500 or 600, not 525
    assert len(parts["train"]) == 525


def test_same_seed_same_split_whatever_the_row_order() -> None:
    found = made({"a": 40, "b": 20})
    order = list(range(60))
    random.Random(5).shuffle(order)
    ours = data.split(found, fractions=PARTS, seed=2)
    theirs = data.split(found.select(order), fractions=PARTS, seed=2)
    assert all(set(ours[name].numbers) == set(theirs[name].numbers) for name in PARTS)
    other = data.split(found, fractions=PARTS, seed=3)
    assert set(ours["test"].numbers) != set(other["test"].numbers)


def test_split_is_the_same_on_every_platform() -> None:
    # the three smallest of each class by sha256("0\\0a text 0") ..., computed apart with hashlib alone
    parts = data.split(made({"a": 6, "b": 6}), fractions={"train": 0.5, "test": 0.5}, seed=0)
    assert parts["train"].numbers == (2, 3, 5, 7, 8, 10)


def test_unlabelled_rows_and_pairs() -> None:
    found = data.from_texts([(f"a{i}", f"b{i}") for i in range(10)], names=("a", "b"))
    parts = data.split(found, fractions=PARTS)
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "valid": 1, "test": 1}


def test_a_class_with_too_few_rows_is_named() -> None:
    with pytest.raises(InputError) as caught:
        data.split(made({"a": 20, "rare": 2}), fractions=PARTS)
    assert "Class 'rare' has 2 distinct texts, too few for 3 parts (t.csv, rows 21, 22)" in str(caught.value)
    with pytest.raises(InputError, match="'rare' has 1 distinct text,"):
        data.split(made({"a": 20, "rare": 1}, repeats=4), fractions=PARTS)
    with pytest.raises(InputError, match="The examples have 0 distinct texts"):
        data.split(data.from_texts([]), fractions=PARTS)


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5, "test": 0.4}, {"train": 1.0, "test": 0.0}])
def test_fractions_must_add_up(fractions: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="add up to 1"):
        data.split(made({"a": 5}), fractions=fractions)


@pytest.mark.parametrize("per_class", [False, True])
def test_takes_are_nested_and_stratified(per_class: bool) -> None:
    found = made({"a": 700, "b": 250, "c": 50})
    small, large = (data.take(found, rows, seed=1, per_class=per_class) for rows in (10, 40))
    assert large.numbers[: len(small)] == small.numbers
    # 40 rows hold 28, 10 and 2 in proportion; the first row of each class shifts that by less than 2
    counts = Counter(large.labels)
    expected = {"a": 40, "b": 40, "c": 40} if per_class else {"a": 28, "b": 10, "c": 2}
    assert all(abs(counts[name] - count) < 2 for name, count in expected.items())
    assert len(large) == sum(expected.values())
    assert set(data.take(found, 3, seed=1).labels or ()) == {"a", "b", "c"}
    assert data.take(found, 40, seed=2, per_class=per_class).numbers != large.numbers


def test_take_all_rows_and_unlabelled() -> None:
    found = made({"a": 5, "b": 3}, repeats=2)
    assert sorted(data.take(found, 16, seed=0).numbers) == list(found.numbers)
    assert len(data.take(data.from_texts(["x", "y", "z"]), 2, seed=0)) == 2


@pytest.mark.parametrize(
    ("rows", "per_class", "part"),
    [
        (9, False, "Cannot take 9 rows: there are 8"),
        (4, True, "of each class: class 'b' has 3"),
        (0, False, "take 0 rows"),
    ],
)
def test_take_more_than_there_is(rows: int, per_class: bool, part: str) -> None:
    with pytest.raises(InputError, match=part):
        data.take(made({"a": 5, "b": 3}), rows, seed=0, per_class=per_class)
