"""Templates, label words and the task itself, before any tokenizer is seen."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pegbox.data import Examples
from pegbox.errors import InputError
from pegbox.tasks import Classify, Demonstration, Template, align_words

PAIR = ("premise", "the claim")


def test_a_template_renders_around_its_answer() -> None:
    template = Template("{text} It was {answer}, {{really}}.", ("review",))
    row = {"review": "Nice {place}, {answer} and all."}
    assert template.before(row) == "Nice {place}, {answer} and all. It was"
    assert (template.gap(), template.after(row)) == (" ", ", {really}.")
    assert template.used() == ("review",)
    assert template.answer_last


def test_columns_go_by_their_names_or_short_names() -> None:
    row = {"premise": "P.", "the claim": "C."}
    for text in (
        "{premise}|{the claim}|{answer}",
        "{text_a}|{text_b}|{answer}",
        "{premise}|{text_b}|{answer}",
    ):
        assert Template(text, PAIR).before(row) == "P.|C.|"
    assert Template("{text_b} {answer}", PAIR).used() == ("the claim",)
    assert not Template("{premise}? {answer}, {text_b}", PAIR).answer_last


def test_a_column_called_answer_goes_by_its_short_name() -> None:
    template = Template("{text_a} / {text_b}: {answer}", ("question", "answer"))
    assert template.before({"question": "Q", "answer": "A"}) == "Q / A:"
    clash = Template("{text_b} / {text_b_}: {answer}", ("text_b", "answer"))
    assert clash.before({"text_b": "first", "answer": "second"}) == "first / second:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{text} It was great.", r"the template has no \{answer\} slot \('\{text\} It was great.'\)"),
        ("{text} {answer} or {answer}", r"the template has 2 \{answer\} slots"),
        ("It was {answer}.", r"(?s)the template holds no text of the row .*fix: add \{review\}"),
        (
            "{txt} {answer}",
            r"(?s)the unknown slot \{txt\}.*one of \{text\}, \{review\}, \{answer\}.*mean 'text'",
        ),
        ("{txt} is {anwser}", r"has no \{answer\} slot and names the unknown slot \{txt\}"),
        ("{reviews} {answer}", r"(?s)the unknown slot \{reviews\}.*did you mean 'review'\?"),
        ("{} {answer}", r"the unknown slot \{\}"),
        ("{text.lower} {answer}", r"the unknown slot \{text.lower\}"),
        ("{text[0]} {answer}", r"the unknown slot \{text\[0\]\}"),
        ("{text:>9} {answer}", r"the slot \{text\} asks for a format or conversion"),
        ("{text} {answer!r}", r"the slot \{answer\} asks for a format or conversion"),
        ("{text} {answer", r"(?s)the template cannot be read: .*write a literal brace as \{\{ or \}\}"),
        ("{text} } {answer}", r"(?s)the template cannot be read: .*write a literal brace"),
        ("", r"the template has no \{answer\} slot"),
    ],
)
def test_a_template_that_cannot_work_is_told(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Classify(labels=("a", "b"), fields=("review",), template=text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("a",)}, r"at least two different labels \(labels \['a'\]\)"),
        ({"labels": ("a", "a")}, "at least two different labels"),
        ({"fields": ()}, r"reads one or two text columns \(fields \[\]\)"),
        ({"fields": ("x", "y", "z")}, "reads one or two text columns"),
        ({"fields": ("x", "x")}, "two different ones for pairs"),
        ({"label_words": ("yes",)}, "1 label words for 2 labels"),
        ({"label_words": ("yes", " ")}, "a label word is empty for 2 labels"),
        ({"label_words": ("yes", "yes")}, "(?s)the label word 'yes' stands for two labels.*'a': 'yes'"),
        ({"similar": 0}, "similar must be a number of demonstrations per label"),
        ({"similar": True}, r"\(similar True\)"),
        (
            {"demonstrations": (Demonstration({"text": "x"}, "c"),)},
            r"a demonstration does not fit the task \(demonstration 1, label 'c', texts text\)",
        ),
        ({"demonstrations": (Demonstration({"body": "x"}, "a"),)}, "and the texts text"),
    ],
)
def test_a_task_that_cannot_work_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Classify(**{"labels": ("a", "b"), **options})


def test_lists_are_as_good_as_tuples() -> None:
    task = Classify(labels=["a", "b"], fields=["x", "y"], label_words=["no", "yes"])  # type: ignore[arg-type]
    assert task == Classify(labels=("a", "b"), fields=("x", "y"), label_words=("no", "yes"))
    assert hash(task)


def test_a_task_survives_json() -> None:
    task = Classify(
        labels=("0", "1"),
        fields=("premise", "the claim"),
        label_column="gold",
        template="{premise} é {text_b}\n{answer}",
        label_words=("no", "yes"),
        demonstrations=(Demonstration({"premise": "P", "the claim": "C\n"}, "1"),),
        similar=3,
    )
    assert Classify.from_json(json.loads(json.dumps(task.to_json()))) == task
    bare = Classify(labels=("a", "b"))
    assert Classify.from_json(json.loads(json.dumps(bare.to_json()))) == bare


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "generate"}, "it is a 'generate' task of format 1"),
        ({"format": 9}, "it is a 'classify' task of format 9"),
        ({"labels": None}, "'NoneType' object is not iterable"),
        ({"demonstrations": [{"label": "a"}]}, "the key 'fields' is missing"),
        ({"demonstrations": [3]}, "not subscriptable"),
        ({"labels": ["a"]}, "at least two different labels"),
    ],
)
def test_a_damaged_task_file_is_told(change: dict[str, Any], message: str) -> None:
    saved = Classify(labels=("a", "b")).to_json() | change
    with pytest.raises(InputError, match=message):
        Classify.from_json(saved, where="out/task.json")
    with pytest.raises(InputError, match=r"the key 'format' is missing \(out/task.json\)"):
        Classify.from_json({"task": "classify"}, where="out/task.json")


def test_rows_and_notes_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("id,review,stars\n1,Very good indeed it was,good\n2,Quite bad I am afraid,bad\n")
    task = Classify.from_file(path, texts=["review"], label="stars", label_words={"good": "yes", "bad": "no"})
    assert (task.labels, task.fields, task.label_column) == (("bad", "good"), ("review",), "stars")
    assert task.label_words == ("no", "yes")
    assert task.rows is not None
    assert task.gold(task.rows) == [1, 0]
    assert task.with_rows(None) == task  # rows are no part of the task


def test_label_words_are_brought_into_the_order_of_the_labels() -> None:
    assert align_words(None, ("a", "b")) is None
    assert align_words(["x", "y"], ("a", "b")) == ("x", "y")
    assert align_words({"b": "y", "a": "x"}, ("a", "b")) == ("x", "y")
    with pytest.raises(InputError, match=r"(?s)the unknown label 'positve'.*did you mean 'positive'\?"):
        align_words({"positve": "x"}, ("positive", "negative"))
    with pytest.raises(InputError, match="no label word is given for 'negative'"):
        align_words({"positive": "x"}, ("positive", "negative"))


ROWS = Examples("rows.csv", {"text": ("x", "y", "z")}, ("a", "b", "c"), (2, 5, 9))


def test_labels_that_are_unknown_absent_or_missing_are_told() -> None:
    task = Classify(labels=("a", "b"))
    with pytest.raises(InputError, match=r"the label 'c' is unknown to the task \(rows.csv, row 9\)"):
        task.gold(ROWS)
    with pytest.raises(InputError, match=r"(?s)these rows have no labels \(rows.csv\).*--label"):
        task.gold(replace(ROWS, labels=None))
    wider = Classify(labels=("a", "b", "c", "d", "e"))
    with pytest.raises(InputError, match=r"no training row has the label 'd', 'e' \(rows.csv\)"):
        wider.check_all_present(ROWS)
    Classify(labels=("a", "b", "c")).check_all_present(ROWS)
