"""Pairs of answers: formats, bad rows, the doctor, and the real data."""

import json
from pathlib import Path
from typing import Any

import pytest

from pegbox import data
from pegbox.cli import main
from pegbox.data import Conversations, Message, Preferences, from_prompts, in_turns
from pegbox.errors import InputError, UsageError
from pegbox.tasks import guess_task
from reward_toy import preferences_of

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "hh_harmless"
needs_data = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the development data is not beside the repository"
)
ASKED = {"role": "user", "content": "Hi"}
YES, NO = ({"role": "assistant", "content": text} for text in ("Hello", "What?"))
HUMAN = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Who are you?"
DIALOGUE = f"{HUMAN}\n\nAssistant: A model."


def table(source: str = "t.jsonl", /, **columns: Any) -> data.Table:
    found = {name: tuple(cells) for name, cells in columns.items()}
    return data.Table(source, found, tuple(range(1, len(next(iter(found.values()))) + 1)))


def read(found: data.Table, *, on_bad: str = "error", ranked: bool = True, **options: Any) -> Preferences:
    columns = data.find_preference_columns(found, ranked=ranked, **options)
    return data.preferences(found, columns, on_bad=on_bad, ranked=ranked)


def plain(rows: Preferences) -> list[Any]:
    prompts = [[(message.role, message.content) for message in prompt] for prompt in rows.prompts]
    return [list(row) for row in zip(prompts, rows.chosen, rows.rejected, strict=True)]


ONE = [[("user", "Hi")], "Hello", "What?"]


@pytest.mark.parametrize(
    ("columns", "format", "wanted"),
    [
        ({"prompt": ["Hi"], "chosen": ["Hello"], "rejected": ["What?"]}, "prompt", ONE),
        ({"Question": ["Hi"], "Better": ["Hello"], "Worse": ["What?"]}, "prompt", ONE),
        ({"prompt": [[ASKED]], "chosen": ["Hello"], "rejected": ["What?"]}, "prompt", ONE),
        ({"prompt": [[ASKED]], "chosen": [[YES]], "rejected": [[NO]]}, "messages", ONE),
        ({"prompt": ["Hi"], "chosen": [YES], "rejected": [NO]}, "messages", ONE),
        ({"chosen": [[ASKED, YES]], "rejected": [[ASKED, NO]]}, "messages", ONE),
        ({"prompt": ["Hi"], "chosen": [[ASKED, YES]], "rejected": [[ASKED, NO]]}, "messages", ONE),
        (
            {
                "conversations": [[{"from": "human", "value": "Hi"}]],
                "chosen": [{"from": "gpt", "value": "Hello"}],
                "rejected": [{"from": "gpt", "value": "What?"}],
            },
            "messages",
            ONE,
        ),
        (
            {"system": ["Be kind."], "prompt": ["Hi"], "chosen": ["Hello"], "rejected": ["What?"]},
            "prompt",
            [[("system", "Be kind."), ("user", "Hi")], "Hello", "What?"],
        ),
        (
            {"chosen": [DIALOGUE], "rejected": [f"{HUMAN}\n\nAssistant: Who?"]},
            "dialogue",
            [[("user", HUMAN.strip())], "A model.", "Who?"],
        ),
        (
            {"chosen": ["The sky is bluish. Yes."], "rejected": ["The sky is black. No."]},
            "text",
            [[("user", "The sky is")], "bluish. Yes.", "black. No."],
        ),
    ],
)
def test_formats_are_detected_and_the_prompt_is_split_off(
    columns: dict[str, Any], format: str, wanted: list[Any]
) -> None:
    found = data.find_preference_columns(table(**columns))
    assert found.format == format
    assert found.note.startswith(f"preferences, format {format}: ")
    assert "(guessed; override with --text)" in found.note
    rows = read(table(**columns))
    assert plain(rows) == [wanted]
    assert rows.answered
    assert rows.texts == (("\n".join(text for _, text in wanted[0]),),)


def test_messages_of_csv_are_json_and_columns_can_be_named() -> None:
    cells = {
        "x": [json.dumps([ASKED])],
        "good": [json.dumps([YES])],
        "bad": [json.dumps([NO])],
        "chosen": ["no"],
        "rejected": ["yes"],
    }
    rows = read(table("t.csv", **cells), texts=("x", "good", "bad"))
    assert plain(rows) == [ONE]
    both = read(table(a=["The tea is hot."], b=["The tea is cold."]), texts=("a", "b"))
    assert plain(both) == [[[("user", "The tea is")], "hot.", "cold."]]


def test_dialogues_are_turns_when_asked_for_and_told_when_not() -> None:
    cells = {"prompt": [HUMAN], "chosen": ["A model."], "rejected": ["Who?"]}
    turns = [("user", "Hi"), ("assistant", "Hello."), ("user", "Who are you?")]
    whole = read(table(**cells))
    assert plain(whole)[0][0] == [("user", HUMAN)]
    assert "--dialogue human-assistant reads them as turns" in whole.notes()[0]
    parted = read(table(**cells), dialogue="human-assistant")
    assert plain(parted)[0][0] == turns
    assert parted.notes() == ["prompts of 'Human: ...' and 'Assistant: ...' are read as turns"]
    ended = read(table(**{**cells, "prompt": [HUMAN + "\n\nAssistant:"]}), dialogue="human-assistant")
    assert plain(ended)[0][0] == turns
    transcripts = {"chosen": [DIALOGUE], "rejected": [f"{HUMAN}\n\nAssistant: Who?"]}
    assert plain(read(table(**transcripts), dialogue="human-assistant")) == [[turns, "A model.", "Who?"]]


def test_prompts_among_dialogues_that_are_none_are_named() -> None:
    asked = from_prompts([HUMAN, "What is tea?", "Human: \n\nAssistant: Yes.\n\nHuman: Why?"])
    found = in_turns(asked, "human-assistant", strict=False)
    assert [len(messages) for messages in found.messages] == [3, 1, 1]
    told = "2 of 3 prompts are no dialogues and are read as one message each (rows 2, 3)"
    assert told in found.notes()
    assert not in_turns(asked.select([1]), "human-assistant", strict=False).notes(), "none of them is one"


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"prompt": "Hi", "chosen": "Hello ", "rejected": "Hello"}, "chosen and rejected are the same"),
        ({"prompt": "Hi", "chosen": " ", "rejected": "Hello"}, "empty text in column 'chosen'"),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": None}, "missing text in column 'rejected'"),
        ({"prompt": None, "chosen": "Hello", "rejected": "No"}, "missing text in column 'prompt'"),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": 3}, "not text but int in column 'rejected'"),
        (
            {"prompt": [YES], "chosen": "Hello", "rejected": "No"},
            "message 1 is of the assistant, where the user has the turn",
        ),
        (
            {"prompt": [ASKED, YES], "chosen": "Hello", "rejected": "No"},
            "the conversation ends with the assistant, where the user should ask",
        ),
    ],
)
def test_bad_rows_are_named_with_file_and_row(columns: dict[str, Any], fault: str) -> None:
    good = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}
    found = table(**{name: [good[name], columns[name]] for name in good})
    with pytest.raises(InputError) as caught:
        read(found)
    assert str(caught.value).startswith(f"1 row cannot be used: {fault} (row 2) (t.jsonl)")
    assert "--on-bad-rows drop" in caught.value.fix
    kept = read(found, on_bad="drop")
    assert kept.numbers == (1,)
    assert kept.notes() == [f"1 row left out: {fault} (row 2)"]


OTHER = {"role": "user", "content": "Who?"}


@pytest.mark.parametrize(
    ("chosen", "rejected", "fault"),
    [
        ([ASKED, YES], [OTHER, NO], "the prompts of chosen and rejected differ (first in message 1)"),
        (
            [ASKED, YES],
            [ASKED, YES, OTHER, NO],
            "the prompts of chosen and rejected differ (1 and 3 messages)",
        ),
        ([ASKED], [ASKED, NO], "the messages in column 'chosen' do not end with the assistant"),
        ([YES], [NO], "there is no prompt before the assistant's message"),
        ([YES, ASKED, YES], [YES, ASKED, NO], "message 1 is of the assistant, where the user has the turn"),
        (None, [ASKED, NO], "missing text"),
        ([ASKED, YES], "No", "column 'rejected' holds text, not messages"),
        ([{"role": "human", "content": "Hi"}, YES], [ASKED, NO], "unknown role 'human'"),
    ],
)
def test_bad_lists_of_messages_are_named(chosen: Any, rejected: Any, fault: str) -> None:
    found = table(chosen=[[ASKED, YES], chosen], rejected=[[ASKED, NO], rejected])
    with pytest.raises(InputError) as caught:
        read(found)
    assert fault in str(caught.value)
    assert "(row 2) (t.jsonl)" in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "rejected", "fault"),
    [
        (
            DIALOGUE,
            "\n\nHuman: No\n\nAssistant: Who?",
            "the dialogues before the answers of chosen and rejected",
        ),
        (DIALOGUE, "\n\nHuman: No", "no turn of 'Assistant:' in column 'rejected'"),
        (DIALOGUE, f"{HUMAN}\n\nAssistant: ", "empty answer in column 'rejected'"),
        ("\n\nAssistant: A", "\n\nAssistant: B", "there is no prompt before the answers"),
    ],
)
def test_bad_dialogues_are_named(chosen: str, rejected: str, fault: str) -> None:
    good = (DIALOGUE, f"{HUMAN}\n\nAssistant: Who?")
    with pytest.raises(InputError) as caught:
        read(table(chosen=[good[0], good[0], chosen], rejected=[good[1], good[1], rejected]))
    assert fault in str(caught.value)
    assert "(row 3) (t.jsonl)" in str(caught.value)


def test_texts_without_a_common_beginning_and_empty_turns_are_named() -> None:
    with pytest.raises(InputError, match="no beginning in common") as caught:
        read(table(chosen=["The tea is hot.", "Yes."], rejected=["The tea is cold.", "No."]))
    assert "(row 2)" in str(caught.value)
    cells = {"prompt": ["Human: Hi\n\nAssistant: \n\nHuman: Who?"], "chosen": ["A"], "rejected": ["B"]}
    with pytest.raises(InputError, match="turn 2 of the prompt, of 'Assistant', is empty"):
        read(table(**cells), dialogue="human-assistant")
    twice = {**cells, "prompt": ["Human: Hi\n\nHuman: Who?"]}
    with pytest.raises(InputError, match="message 2 is of the user, where the assistant has the turn"):
        read(table(**twice), dialogue="human-assistant")


def test_columns_that_cannot_be_found_are_told() -> None:
    with pytest.raises(InputError, match="No columns of two answers to a prompt can be found") as caught:
        data.find_preference_columns(table(prompt=["a"], answer=["b"]))
    assert "the columns are: prompt, answer" in str(caught.value)
    assert caught.value.fix == "name them with --text prompt,chosen,rejected"
    rows = table(prompt=["a"], chosen=["b"], rejected=["c"])
    with pytest.raises(UsageError, match="cannot be 'prompt'"):
        data.find_preference_columns(rows, texts=("prompt",))
    with pytest.raises(UsageError, match="there is no way 'human' to read dialogues"):
        data.find_preference_columns(rows, dialogue="human")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="There are no rows"):
        read(table(prompt=[], chosen=[], rejected=[]))


def test_pairs_that_are_not_ranked() -> None:
    cells = {"prompt": ["Hi"], "response_a": ["Hello"], "response_b": ["Hello"]}
    with pytest.raises(InputError, match="No columns"):
        data.find_preference_columns(table(**cells))
    rows = read(table(**cells), ranked=False)
    assert not rows.answered
    assert rows.digest() != read(table(**{**cells, "response_b": ["No"]}), ranked=False).digest()


def test_answers_in_memory() -> None:
    one = data.from_answers([("Hi", "Hello"), ([ASKED], "What?")])
    assert isinstance(one, Conversations)
    assert one.prompts() == ((Message("user", "Hi"),),) * 2
    two = data.from_answers([("Hi", "Hello", "What?")])
    assert isinstance(two, Preferences)
    assert plain(two) == [ONE]
    for rows, fault in (
        (["Hi"], "a row is not a prompt with one answer or two"),
        ([("Hi",)], "a row is not a prompt with one answer or two"),
        ([("Hi", "Hello"), ("Hi", "a", "b")], "rows of one answer and rows of two are mixed"),
        ([("Hi", "")], "empty text"),
        ([([YES], "Hello")], "message 1 is of the assistant"),
    ):
        with pytest.raises(InputError, match=fault) as caught:
            data.from_answers(rows)  # type: ignore[arg-type]
        assert "answers given in memory, row " in str(caught.value)


def test_rows_are_selected_and_split_by_their_prompts() -> None:
    rows = preferences_of(*((f"Question {at // 2}", "a", "b") for at in range(40)))
    part = rows.select([3, 4])
    assert (part.numbers, part.texts) == ((4, 5), (("Question 1",), ("Question 2",)))
    assert rows.labels is None
    parts = data.split(rows, fractions={"train": 0.7, "test": 0.3}, seed=0)
    prompts = [set(one.texts) for one in parts.values()]
    assert not prompts[0] & prompts[1]
    assert sum(map(len, parts.values())) == 40


def test_the_doctor_finds_what_makes_preferences_doubtful() -> None:
    prompts = [f"Question {at} of the staff about breakfast, hotel and the weather" for at in range(30)]
    chosen = [f"A much longer answer, number {at}" for at in range(30)]
    rejected = [f"A shorter answer: {at}" for at in range(30)]
    prompts += [prompts[0], prompts[1], "Same?", "Twice?", prompts[5]]
    chosen += [rejected[0], chosen[1], "Yes, sir", "No", f"{prompts[5]} Yes"]
    rejected += [chosen[0], rejected[1], "yes,  Sir", "No", f"{prompts[5]} No"]
    rejected[7] = "word " * 400
    chosen[8] = "Well, that is good.<|im_end|>"
    found = table(prompt=prompts, chosen=chosen, rejected=rejected)
    other = table(prompt=[prompts[2]], chosen=["x"], rejected=["y"])
    columns = data.find_preference_columns(found)
    report = data.check_preferences(
        found, columns, others={"test": other}, token_lengths=lambda texts: [len(text) for text in texts]
    )
    kinds = {item.kind: item for item in report.findings}
    assert kinds["bad-rows"].rows == (34,)
    assert kinds["bad-rows"].severity == "error"
    assert "chosen and rejected are the same" in kinds["bad-rows"].message
    assert kinds["equal-answers"].rows == (33,)
    assert kinds["exact-duplicates"].rows == (2, 32)
    assert kinds["reversed-preferences"].rows == (1, 31)
    assert kinds["prompt-in-answer"].rows == (35,)
    assert kinds["template-marks"].rows == (9,)
    assert kinds["long-answers"].rows == (8,)
    assert kinds["exact-leak"].rows == (3,)
    # Of 34 usable pairs all differ in length; the longer is rejected in rows 8 and 31 and in 33 (a space).
    bias = kinds["length-bias"]
    assert bias.severity == "warning"
    assert bias.message.startswith(
        "the longer answer is chosen in 91.2% of 34 pairs of different length (95 %"
    )
    assert {"prompt characters", "chosen words", "rejected tokens"} <= set(report.lengths)
    assert report.to_json()["splits"] == {"test": 1}


def test_a_little_more_length_is_a_fact_and_no_warning() -> None:
    rows = preferences_of(*((f"Ask {at}?", "longer" if at % 2 else "no", "okay") for at in range(30)))
    found = table(
        prompt=[texts[0] for texts in rows.texts], chosen=list(rows.chosen), rejected=list(rows.rejected)
    )
    report = data.check_preferences(found, data.find_preference_columns(found))
    bias = next(item for item in report.findings if item.kind == "length-bias")
    assert bias.severity == "info"
    assert "50.0% of 30 pairs" in bias.message


def test_check_knows_preferences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "rejected": "Hello"}) + "\n")
    assert guess_task(data.read(path)) == "prefer"
    assert main(["check", str(path)]) == 0
    said = capsys.readouterr().out
    assert "preferences, format prompt" in said
    assert "error: 1 row: chosen and rejected are the same (row 2)" in said
    assert main(["check", str(path), "--task", "prefer", "--text", "prompt,rejected,chosen"]) == 0
    assert main(["check", str(path), "--label", "chosen"]) == 2
    assert "preferences have no column of labels" in capsys.readouterr().err


@needs_data
def test_real_preferences_are_read() -> None:
    found = {name: data.read(FOLDER / f"{name}.jsonl") for name in ("train", "test")}
    rows = read(found["train"])
    assert len(rows) == 1703
    assert "each read as one message" in rows.notes()[-1]
    turns = read(found["train"], dialogue="human-assistant", on_bad="drop")
    # 4 rows have two turns of one speaker in a row.
    assert len(turns) == 1699
    assert max(map(len, turns.prompts)) > 4
    columns = data.find_preference_columns(found["train"])
    report = data.check_preferences(found["train"], columns, others={"test": found["test"]})
    bias = next(item.message for item in report.findings if item.kind == "length-bias")
    assert bias.startswith("the shorter answer is chosen in 54.8% of 1,694 pairs")
