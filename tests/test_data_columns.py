import pytest

from pegbox import data
from pegbox.errors import InputError, UsageError

LONG = ("a long review of a film", "another one, also long", "the third is short", "fourth and last of them")
LABELS = ("pos", "neg", "pos", "neg")


def table(**columns: tuple[object, ...]) -> data.Table:
    rows = len(next(iter(columns.values())))
    return data.Table("t.csv", columns, tuple(range(1, rows + 1)))


def fails(found: data.Table, *parts: str, **options: object) -> None:
    with pytest.raises(UsageError) as caught:
        data.find_columns(found, **options)  # type: ignore[arg-type]
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("names", "texts", "label"),
    [
        (("text", "label"), ("text",), "label"),
        (("id", "Review Text", "Star Rating"), ("Review Text",), "Star Rating"),
        (("reviewText", "overallSentiment"), ("reviewText",), "overallSentiment"),
        (("label", "content", "label_text"), ("content",), "label"),
        (("idx", "sentence", "is_spam"), ("sentence",), "is_spam"),
        (("column_a", "column_q"), ("column_a",), "column_q"),
        (("", "body", "category"), ("body",), "category"),
        (("评论", "标签"), ("评论",), "标签"),
    ],
)
def test_single_text_is_guessed_from_names_and_contents(
    names: tuple[str, ...], texts: tuple[str, ...], label: str
) -> None:
    columns: dict[str, tuple[object, ...]] = {}
    for name in names:
        contents = LABELS if name in (label, "label_text") else ("a", "b", "c", "d")
        columns[name] = LONG if name in texts else contents
    found = data.find_columns(table(**columns))
    assert (found.texts, found.label, found.guessed) == (texts, label, True)


@pytest.mark.parametrize(
    "pair",
    [("premise", "hypothesis"), ("sentence1", "sentence2"), ("Sentence_A", "Sentence_B"),
     ("question", "passage"), ("satz1", "satz2"), ("question1", "question2")],
)  # fmt: skip
def test_pairs_are_recognised_in_order(pair: tuple[str, str]) -> None:
    found = data.find_columns(
        table(id=("1", "2", "3", "4"), gold_label=LABELS, **{pair[1]: LONG, pair[0]: LONG[::-1]})
    )
    assert (found.texts, found.label) == (pair, "gold_label")
    assert found.note == (
        f"text columns {pair[0]!r}, {pair[1]!r}, label column 'gold_label' "
        "(guessed; override with --text, --label)"
    )


def test_notes_say_what_was_guessed() -> None:
    found = table(review=LONG, stars=("1", "5", "1", "5"))
    notes = {
        "text column 'review', label column 'stars' (guessed; override with --text, --label)": {},
        "text column 'review', label column 'stars' (as given)": {"texts": ["review"], "label": "stars"},
        "text column 'review', label column 'stars' (label guessed; override with --label)": {
            "texts": ["review"]
        },
        "text column 'review', label column 'stars' (text guessed; override with --text)": {"label": "stars"},
    }
    for note, options in notes.items():
        assert data.find_columns(found, **options).note == note  # type: ignore[arg-type]
    assert not data.find_columns(found, texts=["review"], label="stars").guessed
    assert data.find_columns(table(review=LONG), need_label=False).note == (
        "text column 'review', no label column (guessed; override with --text)"
    )


@pytest.mark.parametrize("labels", [(1, 0, 1, 0), (True, False, True, False), (1.0, 2.0, None, 1.0), LABELS])
def test_label_types_are_tolerated(labels: tuple[object, ...]) -> None:
    assert data.find_columns(table(comment=LONG, target=labels)).label == "target"


def test_label_is_found_among_the_rest_of_a_given_text() -> None:
    assert data.find_columns(table(a=LONG, b=LABELS), texts=["a"]).label == "b"


def test_free_text_named_target_is_not_guessed() -> None:
    texts = tuple(f"a sentence of some words, number {i} of many in this column" for i in range(50))
    fails(table(input=texts, target=texts[::-1]), "No column looks like a label", "--label: target")


def test_missing_column_suggests_the_nearest() -> None:
    found = table(review=LONG, stars=("1", "5", "1", "5"))
    fails(
        found,
        "There is no column 'reveiw' (t.csv)",
        "one of: review, stars",
        "did you mean 'review'?",
        texts=["reveiw"],
    )
    fails(found, "There is no column 'star'", "did you mean 'stars'?", label="star")


def test_text_and_label_must_differ() -> None:
    fails(table(review=LONG), "'review' is given as text and as label", texts=["review"], label="review")


@pytest.mark.parametrize("texts", [["review", "review"], ["review", "a", "b"]])
def test_one_or_two_text_columns(texts: list[str]) -> None:
    fails(
        table(review=LONG, a=LONG, b=LONG, label=LABELS),
        "Text columns cannot be",
        "one text column, or two",
        texts=texts,
    )


def test_no_text_like_column() -> None:
    fails(
        table(id=("1", "2"), stars=("1", "5")),
        "No column looks like text",
        "id, stars",
        "--text",
        label="stars",
    )


def test_a_missing_header_is_asked_about() -> None:
    fails(table(good=("bad", "fine"), **{"1": ("0", "1")}), "--label: 1; is the header line there?")


def test_no_label_column() -> None:
    fails(table(text=LONG), "No column looks like a label", "add a column with the label of each row")


def test_several_possible_labels_are_not_guessed() -> None:
    fails(
        table(review=LONG, country=LABELS, shop=LABELS),
        "Several columns could be the label: country, shop",
        "--label",
    )


def test_a_column_missing_from_another_file_is_an_error() -> None:
    columns = data.find_columns(table(review=LONG, stars=LABELS))
    with pytest.raises(InputError, match="There is no column 'stars'"):
        data.examples(table(review=LONG, star=LABELS), columns)


def test_a_first_row_in_the_place_of_names_is_refused() -> None:
    found = table(**{"a long review of this film": LONG, "neg": LABELS})
    fails(found, "this file seems to have no header line", "'a long review of this film'")
    given = data.find_columns(found, texts=["a long review of this film"], label="neg")
    assert given.label == "neg"
    # A column may well be named as the class that it tells, and one may be a question in full.
    assert data.find_columns(table(message=LONG, pos=LABELS)).label == "pos"
    assert data.find_columns(table(**{"How was it this time?": LONG, "label": LABELS})).label == "label"
    assert data.find_columns(table(**{"How was it this time?": LONG, "pos": LABELS})).label == "pos"
    keys = data.Table("t.jsonl", found.columns, found.numbers)
    assert data.find_columns(keys).label == "neg"


def test_names_with_commas_are_told_apart() -> None:
    found = table(**{"Text, free": LONG, "label": LABELS})
    fails(found, "one of: 'Text, free', 'label'", """goes in double quotes: '"Text, free"'""", texts=["Text"])


def test_a_column_without_a_name_is_not_proposed() -> None:
    with pytest.raises(InputError) as caught:
        data.find_columns(table(**{"text": LONG, "": LONG}))
    assert caught.value.fix == "add a column with the label of each row"
