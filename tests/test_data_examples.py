import math

import pytest

from pegbox import data
from pegbox.errors import InputError, UsageError

COLUMNS = data.Columns(("text",), "label", False, "")
PAIR = data.Columns(("a", "b"), None, False, "")


def table(texts: tuple[object, ...], labels: tuple[object, ...]) -> data.Table:
    return data.Table("t.csv", {"text": texts, "label": labels}, tuple(range(1, len(texts) + 1)))


def message(found: data.Table, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        data.examples(found, COLUMNS, **options)  # type: ignore[arg-type]
    assert caught.value.fix
    return str(caught.value)


def test_labels_become_strings_and_texts_stay() -> None:
    cells = (1, 1.0, "1 ", True, False, "Yes", 2.5, "007")
    found = data.examples(table((" a ",) * 8, cells), COLUMNS)
    assert found.labels == ("1", "1", "1", "true", "false", "Yes", "2.5", "007")
    assert found.fields == {"text": (" a ",) * 8}
    assert found.notes() == ["1 label had surrounding spaces removed (row 3)"]


def test_label_names_sort_numbers_by_value_then_words() -> None:
    found = data.examples(table(("a",) * 6, ("10", "9", "-1", "b", "A", "inf")), COLUMNS)
    assert found.label_names == ("-1", "9", "10", "A", "b", "inf")


def test_case_variants_of_a_label_are_not_merged() -> None:
    assert data.examples(table(("a", "b"), ("Positive", "positive")), COLUMNS).label_names == (
        "Positive",
        "positive",
    )


BAD = table(
    ("a", "", None, 3, "b", "c", "d", "\ud800", "e"), ("x", "y", "x", "x", None, "  ", math.nan, "x", ["x"])
)


def test_bad_rows_are_an_error_that_names_them_all() -> None:
    text = message(BAD)
    assert text.startswith("8 rows cannot be used: ")
    for part in ("empty text in column 'text' (row 2)", "missing text in column 'text' (row 3)",
                 "not text but int in column 'text' (row 4)", "no label in column 'label' (rows 5, 6, 7)",
                 "not valid Unicode text in column 'text' (row 8)", "label in column 'label' is list (row 9)",
                 "(t.csv)", "--on-bad-rows drop"):  # fmt: skip
        assert part in text


def test_bad_rows_can_be_dropped_and_are_named() -> None:
    found = data.examples(BAD, COLUMNS, on_bad="drop", min_classes=1)
    assert found.numbers == (1,)
    assert [item.number for item in found.dropped] == list(range(2, 10))
    assert "3 rows left out: no label in column 'label' (rows 5, 6, 7)" in found.notes()


def test_without_labels_only_texts_count() -> None:
    found = data.examples(BAD, COLUMNS, need_labels=False, on_bad="drop")
    assert found.labels is None
    assert found.label_names == ()
    assert found.numbers == (1, 5, 6, 7, 9)


def test_long_lists_of_rows_are_cut_and_counted() -> None:
    found = data.examples(table(("",) * 1500 + ("a", "b"), ("x",) * 1501 + ("y",)), COLUMNS, on_bad="drop")
    assert found.notes()[0].endswith("(rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ... 1500 in all)")


def test_no_usable_row() -> None:
    assert "No row can be used: empty text in column 'text' (rows 1, 2)" in message(
        table(("", " "), ("x", "y")), on_bad="drop"
    )


def test_one_class_only_unless_allowed() -> None:
    found = table(("a", "b"), ("x", "x"))
    text = message(found)
    assert "Label column 'label' has 1 class only: 'x' (2 rows) (t.csv)" in text
    assert "2 or more classes" in text
    assert data.examples(found, COLUMNS, min_classes=1).label_names == ("x",)


def test_labels_that_are_no_classes() -> None:
    texts = tuple(f"text {i}" for i in range(40))
    scores = tuple(f"{i / 7:.3f}" for i in range(40))
    assert "looks like a score" in message(table(texts, scores))
    assert "40 distinct values in 40 rows, such as '0.000', '0.143', '0.286'" in message(table(texts, scores))
    assert "a number per row" in message(table(texts, tuple(range(40))))
    assert "looks like free text" in message(
        table(texts, tuple(f"an answer of {i} words" for i in range(40)))
    )


def test_many_short_labels_are_allowed_with_a_note() -> None:
    texts = tuple(f"text {i}" for i in range(40))
    found = data.examples(table(texts, tuple(f"intent_{i % 30}" for i in range(40))), COLUMNS)
    assert found.notes() == ["label column 'label': 30 distinct values in 40 rows, is it a class?"]


def test_no_label_column_and_wrong_option() -> None:
    with pytest.raises(InputError, match="no label column"):
        data.examples(table(("a",), ("x",)), data.Columns(("text",), None, False, ""))
    with pytest.raises(UsageError, match="'error' or 'drop'"):
        data.examples(table(("a",), ("x",)), COLUMNS, on_bad="skip")  # type: ignore[arg-type]


def test_pairs_need_both_texts() -> None:
    found = data.Table("t.csv", {"a": ("x", "y"), "b": ("z", "")}, (1, 2))
    kept = data.examples(found, PAIR, need_labels=False, on_bad="drop")
    assert kept.fields == {"a": ("x",), "b": ("z",)}
    assert kept.texts == (("x", "z"),)
    assert kept.dropped == (data.Dropped(2, "empty text in column 'b'"),)


def test_reading_notes_are_kept() -> None:
    found = data.Table("t.csv", {"text": ("a", "b"), "label": ("x", "y")}, (1, 2), ("a note",))
    assert data.examples(found, COLUMNS).notes() == ["a note"]


def test_select_and_digest() -> None:
    found = data.examples(table(("a", "b", "c"), ("x", "y", "x")), COLUMNS)
    part = found.select([2, 1])
    assert (part.fields["text"], part.labels, part.numbers) == (("c", "b"), ("x", "y"), (3, 2))
    moved = data.Examples("other", {"text": ("a", "b", "c")}, ("x", "y", "x"), (7, 8, 9))
    assert moved.digest() == found.digest()
    contents = [
        (("a", "b", "c"), ("x", "y", "y")), (("a", "bc", ""), ("x", "y", "x")), (("a", "b", "c"), None),
        (("c", "b", "a"), ("x", "y", "x")),
    ]  # fmt: skip
    digests = {data.Examples("t", {"text": texts}, labels, (1, 2, 3)).digest() for texts, labels in contents}
    assert len(digests | {found.digest()}) == 5


def test_from_texts() -> None:
    assert data.from_texts(["a", "b"]).fields == {"text": ("a", "b")}
    assert data.from_texts([("a", "b")], names=("premise", "hypothesis")).fields == {
        "premise": ("a",),
        "hypothesis": ("b",),
    }
    assert len(data.from_texts([])) == 0
    for texts, part in [
        (["a", " "], "Empty text (texts given in memory, row 2)"),
        ([("a", "b")], "A row has 2 texts"),
        (["a", None], "Missing text (texts given in memory, row 2)"),
        ([float("nan")], "Missing text (texts given in memory, row 1)"),
        ([3], "Not text but int (texts given in memory, row 1)"),
    ]:
        with pytest.raises(InputError) as caught:
            data.from_texts(texts)  # type: ignore[arg-type]
        assert part in str(caught.value)
