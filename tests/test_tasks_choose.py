"""Questions with options of their own: columns, answers, row numbers, tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

import pegbox
from pegbox.data import Questions, Table, find_choice_columns, from_questions, questions, read, split
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.tasks import Choose, guess_task, prepare, task_from_file, task_from_json
from tiny import tokenizer_for
from tuning_toy import base_of

OPTIONS = ["tea", "a kettle", "the hotel"]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def answered(tmp_path: Path, *answers: Any, options: Any = OPTIONS) -> Choose:
    rows = [{"question": f"What {i}?", "choices": options, "answer": a} for i, a in enumerate(answers)]
    return pegbox.Choose.from_file(write(tmp_path / "q.jsonl", *rows))


@pytest.mark.parametrize(
    ("answers", "gold", "kind"),
    [
        ((0, 2, 1), (0, 2, 1), "numbers from 0"),
        ((1, 3, 2), (0, 2, 1), "numbers from 1"),
        (("1", "3", "2"), (0, 2, 1), "numbers from 1"),
        ((1.0, 0.0), (1, 0), "numbers from 0"),
        (("A", "c", "(B)"), (0, 2, 1), "letters"),
        (("tea", "the hotel"), (0, 2), "text"),
    ],
)
def test_answers_are_read_as_the_whole_column_says(
    tmp_path: Path, answers: Any, gold: Any, kind: str
) -> None:
    task = answered(tmp_path, *answers)
    assert task.rows is not None
    assert task.rows.answers == gold
    assert task.answer_kind == kind
    assert f"answer column 'answer': {kind}" in task.notes


def test_numbers_that_fit_both_ways_are_told(tmp_path: Path) -> None:
    task = answered(tmp_path, 1, 2, 1)
    assert task.rows is not None
    assert task.rows.answers == (1, 2, 1)
    assert "answer column 'answer': taken as numbers from 0, though none is 0" in task.notes


def test_options_that_are_numbers_are_named_by_their_text(tmp_path: Path) -> None:
    task = answered(tmp_path, "3", "1", options=["2", "3", "1"])
    assert task.rows is not None
    assert task.rows.answers == (1, 2)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"answer": 3}, r"the answer 3 is none of 3 options \(read as numbers from 0\) \(row 2\)"),
        ({"answer": -1}, r"the answer -1 is none of 3 options"),
        ({"answer": None}, r"no answer \(row 2\)"),
        ({"choices": ["one"]}, r"1 option \(row 2\)"),
        ({"choices": ["one", " "]}, r"an option is empty text \(row 2\)"),
        ({"choices": ["one", 3]}, r"an option is not text but int \(row 2\)"),
        ({"question": "  "}, r"empty text in column 'question' \(row 2\)"),
    ],
)
def test_bad_rows_are_named_or_left_out(tmp_path: Path, bad: dict[str, Any], told: str) -> None:
    good = {"question": "What?", "choices": OPTIONS, "answer": 0}
    path = write(tmp_path / "q.jsonl", good, {**good, **bad}, {**good, "answer": 1})
    with pytest.raises(InputError, match=f"1 row cannot be used: {told}"):
        pegbox.Choose.from_file(path)
    task = pegbox.Choose.from_file(path, on_bad="drop")
    assert task.rows is not None
    assert task.rows.numbers == (1, 3)
    with pytest.raises(UsageError, match="on_bad cannot be 'repair'"):
        pegbox.Choose.from_file(path, on_bad="repair")


def test_the_dictionary_of_the_ai2_challenge_is_read(tmp_path: Path) -> None:
    rows = [
        {"question": "Q?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
        {"question": "R?", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "3"},
    ]
    task = pegbox.Choose.from_file(write(tmp_path / "q.jsonl", *rows))
    assert task.rows is not None
    assert (task.rows.answers, task.answer_kind) == ((1, 2), "names")
    assert task.rows.options == (("a", "b"), ("a", "b", "c"))


@pytest.mark.parametrize(
    "names", [("A", "B", "C"), ("choice1", "choice2", "choice3"), ("ending0", "ending1", "ending2")]
)
def test_columns_of_options_are_found(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = tmp_path / "q.csv"
    path.write_text(f"context,question,{','.join(names)},label\nc,q?,x,y,z,B\nd,r?,x,y,,A\n", "utf-8")
    task = pegbox.Choose.from_file(path)
    assert task.fields == ("context", "question")
    assert task.options == names
    assert task.rows is not None
    assert task.rows.options == (("x", "y", "z"), ("x", "y"))
    assert task.wording == "{context}\nQuestion: {question}\nAnswer: {answer}"
    assert task_from_json(json.loads(json.dumps(task.to_json()))) == task.with_rows(None)


def test_kinds_of_tasks_are_told_apart(tmp_path: Path) -> None:
    label = Table("t", {"text": ("a", "b"), "label": ("x", "y")}, (1, 2))
    pair = Table(
        "t", {"a": ("x y", "b c"), "b": ("p q", "q r"), "question": ("u", "v"), "label": ("1", "0")}, (1, 2)
    )
    choose = Table("t", {"question": ("q",), "choices": (["x", "y"],), "answer": (0,)}, (1,))
    tag = Table("t", {"tokens": (["x"],), "tags": (["O"],)}, (1,))
    assert [guess_task(table) for table in (label, pair, choose, tag)] == [
        "classify", "classify", "choose", "tag",
    ]  # fmt: skip
    path = write(tmp_path / "q.jsonl", {"question": "q", "choices": ["x", "y"], "answer": 0})
    assert "task choose (guessed from the columns; override with --task)" in task_from_file(path).notes
    with pytest.raises(UsageError, match="a choose task has no label words"):
        task_from_file(path, label_words=("a", "b"))
    with pytest.raises(UsageError, match="there is no task 'chose'"):
        task_from_file(path, kind="chose")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="No column looks like the question or the answer"):
        find_choice_columns(tag)


def test_a_column_of_sql_is_written_and_no_label(tmp_path: Path) -> None:
    # Schemas repeat, as labels do.
    rows = [f"How many {number}?,T{number % 2}(a),SELECT {number}" for number in range(8)]
    (tmp_path / "q.csv").write_text("question,schema,sql\n" + "\n".join(rows) + "\n", "utf-8")
    assert guess_task(read(tmp_path / "q.csv")) == "generate"


def test_wrong_templates_and_options_are_refused() -> None:
    with pytest.raises(InputError, match="the template goes on after the answer"):
        Choose(template="{answer} {question}")
    with pytest.raises(InputError, match="unknown normalisation"):
        Choose(normalise="words")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no task that this version can read"):
        Choose.from_json({"task": "choose", "format": 9})
    with pytest.raises(InputError, match="these rows have no answers"):
        Choose().gold(from_questions([("q", ["x", "y"])]))
    with pytest.raises(InputError, match="the answer 2 is none of 2 options") as error:
        Choose().gold(Questions("q.csv", {"question": ("q",)}, (("x", "y"),), (2,), (5,)))
    assert "q.csv, row 5" in str(error.value)
    with pytest.raises(InputError, match="No options") as error:
        from_questions(["q"])  # type: ignore[list-item]
    assert "row 1" in str(error.value)


@pytest.mark.parametrize("kind", ["masked", "encoder-decoder"])
def test_models_that_cannot_go_on_a_text_are_refused(kind: Any) -> None:
    with pytest.raises(CapabilityError, match=kind):
        prepare(Choose(), tokenizer_for("masked"), kind, 64)


def test_options_are_said_as_they_stand_after_the_template() -> None:
    base = base_of("llama")
    prompt = base.prepare(Choose())
    rows = from_questions([("What?", ["tea", " a kettle "]), ("Who?", ["the staff", "it", "a hotel"])])
    coded = prompt.encode_options(rows)  # type: ignore[attr-defined]
    for row, (question, options) in enumerate((("What?", ("tea", "a kettle")), ("Who?", rows.options[1]))):
        for at, option in enumerate(options):
            whole = base.tokenizer(f"Question: {question}\nAnswer: {option}")["input_ids"]
            assert [*coded.prompts.ids[row], *coded.options[row][at]] == whole
            assert coded.divisors[row][at] == len(coded.options[row][at])
    for normalise, wanted in (("characters", (3.0, 8.0)), ("none", (1.0, 1.0))):
        other = base.prepare(Choose(normalise=normalise)).encode_options(rows)  # type: ignore
        assert other.divisors[0] == wanted


def test_long_questions_are_cut_and_options_never() -> None:
    task, tokenizer = Choose(), tokenizer_for("causal")
    rows = from_questions([("tea " * 60, ["the kettle was hot", "no"]), ("Who?", ["it", "no"])])
    prompt = prepare(task, tokenizer, "causal", 40)
    coded = prompt.encode_options(rows)  # type: ignore[attr-defined]
    longest = max(map(len, coded.options[0]))
    assert len(coded.prompts.ids[0]) + longest - 1 <= 40
    assert tokenizer.decode(coded.prompts.ids[0]).endswith("\nAnswer:")
    assert coded.prompts.shortened == (1,)
    with pytest.raises(InputError, match="1 texts are longer than the context"):
        prompt.encode_options(rows, too_long="error")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="the template alone is longer than the context"):
        prepare(task, tokenizer, "causal", longest).encode_options(rows)  # type: ignore[attr-defined]


def test_the_same_question_with_its_options_reordered_is_the_same_row() -> None:
    rows = Questions(
        "q", {"question": ("q", "q", "q")}, (("x", "y"), ("y", "x"), ("x", "z")), (0, 1, 0), (1, 2, 3)
    )
    assert rows.texts[0] == rows.texts[1] != rows.texts[2]
    many = Questions(
        "q",
        {"question": tuple(f"q{index // 2}" for index in range(40))},
        (("x", "y"),) * 40,
        (0,) * 40,
        tuple(range(1, 41)),
    )
    parts = split(many, fractions={"train": 0.75, "test": 0.25}, seed=1)
    assert len(parts["test"]) == 10
    assert not {*parts["train"].texts} & {*parts["test"].texts}


def test_shared_questions_are_read_whole() -> None:
    folder = Path(__file__).parent.parent.parent / "shared/data/arc_easy"
    if not folder.is_dir():
        pytest.skip("the shared data sets are not beside the repository")
    table = read(folder / "train.jsonl")
    rows, kind = questions(table, find_choice_columns(table))
    assert (len(rows), kind) == (1999, "numbers from 0")
    assert {len(options) for options in rows.options} == {3, 4, 5}
    assert rows.chance == pytest.approx(0.25, abs=0.001)
