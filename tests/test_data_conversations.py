import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from pegbox import data
from pegbox.data import Message
from pegbox.errors import InputError, UsageError

FOLDER = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the development data is not beside the repository"
)
ASKED, SAID = Message("user", "Hi"), Message("assistant", "Hello")
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
GPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
CHATS = data.ConversationColumns("messages", {"messages": "messages"})


def table(source: str = "t.jsonl", /, **columns: Any) -> data.Table:
    found = {name: tuple(cells) for name, cells in columns.items()}
    return data.Table(source, found, tuple(range(1, len(next(iter(found.values()))) + 1)))


def read(
    found: data.Table, *, need: bool = True, on_bad: str = "error", **options: Any
) -> data.Conversations:
    columns = data.find_conversation_columns(found, need_answers=need, **options)
    return data.conversations(found, columns, need_answers=need, on_bad=on_bad)


def fault(kind: type[UsageError] = InputError, **columns: Any) -> str:
    """What is said of the table's rows, read as conversations."""
    with pytest.raises(kind) as caught:
        data.conversations(table(**columns), CHATS)
    assert caught.value.fix
    return str(caught.value)


def of_messages(*messages: Any) -> str:
    """What is said of one such row after a good one."""
    text = fault(messages=(CHAT, list(messages)))
    assert text.startswith("1 row cannot be used: ")
    assert "(row 2) (t.jsonl)" in text
    return text.removeprefix("1 row cannot be used: ").split(" (row 2)")[0]


@pytest.mark.parametrize(
    ("columns", "format", "parts"),
    [
        (
            {"instruction": ["a"], "input": ["b"], "output": ["c"], "text": ["d"]},
            "instruction",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        (
            {"Instruction": ["a"], "Context": ["b"], "Response": ["c"]},
            "instruction",
            {"instruction": "Instruction", "input": "Context", "output": "Response"},
        ),
        (
            {"system": ["s"], "instruction": ["a"], "answer": ["c"]},
            "instruction",
            {"instruction": "instruction", "output": "answer", "system": "system"},
        ),
        ({"prompt": ["a"], "completion": ["b"]}, "prompt", {"prompt": "prompt", "output": "completion"}),
        ({"prompt": ["a"], "response": ["b"]}, "prompt", {"prompt": "prompt", "output": "response"}),
        (
            {"prompt": [CHAT[:1]], "completion": [CHAT[1:]]},
            "prompt",
            {"prompt": "prompt", "output": "completion"},
        ),
        ({"prompt": ["a"], "messages": [CHAT]}, "messages", {"messages": "messages"}),
        ({"conversation": [CHAT]}, "messages", {"messages": "conversation"}),
        ({"chat": [CHAT]}, "messages", {"messages": "chat"}),
        ({"conversations": [CHAT]}, "messages", {"messages": "conversations"}),
        ({"turns": [CHAT], "id": ["1"]}, "messages", {"messages": "turns"}),
        (
            {"conversations": [GPT], "system": ["s"]},
            "sharegpt",
            {"conversations": "conversations", "system": "system"},
        ),
        ({"messages": [GPT]}, "sharegpt", {"conversations": "messages"}),
        ({"input": ["a"], "target": ["b"]}, "input", {"input": "input", "output": "target"}),
        ({"input": ["a"], "targets": [["b", "c"]]}, "input", {"input": "input", "output": "targets"}),
        ({"source": ["a"], "target": ["b"]}, "input", {"input": "source", "output": "target"}),
        ({"question": ["a"], "answer": ["b"]}, "input", {"input": "question", "output": "answer"}),
        ({"question": ["a"], "sql": ["b"]}, "input", {"input": "question", "output": "sql"}),
        ({"message": ["a"], "reply": ["b"]}, "input", {"input": "message", "output": "reply"}),
        ({"text": ["a"], "summary": ["b"]}, "input", {"input": "text", "output": "summary"}),
        ({"document": ["a"], "summary": ["b"]}, "input", {"input": "document", "output": "summary"}),
        ({"record": ["a"], "text": ["b"]}, "input", {"input": "record", "output": "text"}),
        (
            {"system_prompt": ["s"], "question": ["a"], "response": ["b"]},
            "input",
            {"input": "question", "output": "response", "system": "system_prompt"},
        ),
        (
            {"system": ["m1"], "source": ["a"], "target": ["b"]},
            "input",
            {"input": "source", "output": "target"},
        ),
        ({"text": ["a"], "source": ["b"]}, "text", {"text": "text"}),
        ({"story": ["a"]}, "text", {"text": "story"}),
    ],
)
def test_formats_are_detected(columns: dict[str, Any], format: str, parts: dict[str, str]) -> None:
    found = data.find_conversation_columns(table(**columns))
    assert (found.format, found.columns) == (format, parts)
    shown = ", ".join(f"{part} {name!r}" for part, name in parts.items())
    assert found.note.startswith(f"format {format}: {shown} (guessed; override with --rows-format, --text")
    assert set(found.inputs) == {name for part, name in parts.items() if part not in ("output", "system")}


def test_the_note_names_columns_that_are_not_used() -> None:
    found = data.find_conversation_columns(table(id=["1"], input=["a"], target=["b"], page=["c"]))
    assert found.note == (
        "format input: input 'input', output 'target' (guessed; override with --rows-format, --text, --label)"
        "; not used: id, page"
    )


def test_columns_as_given() -> None:
    rows = table(input=["a"], target=["b"], title=["c"], body=["d"])
    found = data.find_conversation_columns(rows, texts=("title", "body"), label="target")
    assert (found.format, found.columns) == (
        "input",
        {"input": "title", "input2": "body", "output": "target"},
    )
    assert found.inputs == ("title", "body")
    assert "(as given)" in found.note
    found = data.find_conversation_columns(rows, texts="title")  # type: ignore[arg-type]
    assert found.columns == {"input": "title", "output": "target"}
    assert "(guessed; override with --label)" in found.note
    found = data.find_conversation_columns(rows, format="text", texts=("body",))
    assert (found.format, found.columns) == ("text", {"text": "body"})
    found = data.find_conversation_columns(rows, label="title")
    assert found.columns == {"input": "input", "output": "title"}


def test_a_named_column_may_hold_conversations_or_texts() -> None:
    rows = table(dialog=[CHAT], body=["a"], gpt=[GPT])
    assert data.find_conversation_columns(rows, texts=("dialog",)).format == "messages"
    assert data.find_conversation_columns(rows, texts=("gpt",)).columns == {"conversations": "gpt"}
    assert data.find_conversation_columns(rows, texts=("body",)).format == "text"


def test_a_format_as_given_takes_its_own_columns() -> None:
    rows = table(instruction=["a"], input=["b"], output=["c"], prompt=["d"], completion=["e"], text=["f"])
    for format, parts in [
        ("prompt", {"prompt": "prompt", "output": "completion"}),
        ("input", {"input": "input", "output": "output"}),
        ("text", {"text": "text"}),
    ]:
        assert data.find_conversation_columns(rows, format=format).columns == parts
    found = data.find_conversation_columns(rows, format="instruction", texts=("prompt",), label="text")
    assert found.columns == {"instruction": "prompt", "output": "text"}
    found = data.find_conversation_columns(rows, format="instruction", texts=("prompt", "text"))
    assert found.columns == {"instruction": "prompt", "input": "text", "output": "output"}


def test_prompts_need_no_answers() -> None:
    for columns, format in [
        ({"instruction": ["a"]}, "instruction"),
        ({"prompt": ["a"]}, "prompt"),
        ({"question": ["a"]}, "input"),
        ({"text": ["a"]}, "text"),
    ]:
        found = read(table(**columns), need=False)
        assert data.find_conversation_columns(table(**columns), need_answers=False).format == format
        assert found.messages == ((Message("user", "a"),),)
        assert not found.answered
        assert found.prompts() == found.messages
        assert found.texts == (("a",),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "mesages"}, "there is no format 'mesages' (--rows-format)"),
        ({"texts": ("a", "a")}, "columns cannot be used twice: 'a', 'a'"),
        ({"texts": ("a",), "label": "a"}, "columns cannot be used twice: 'a', 'a'"),
        ({"texts": ("ab",)}, "There is no column 'ab' (t.jsonl)"),
        (
            {"format": "prompt", "texts": ("a", "b")},
            "rows of the format 'prompt' have no 2 text columns (a, b)",
        ),
        ({"format": "text", "label": "a"}, "rows of the format 'text' have no column of answers (--label a)"),
        ({"format": "text", "template": "{a}"}, "rows of the format 'text' have no template (--template)"),
        ({"format": "sharegpt"}, "No columns as the format sharegpt has them can be found (t.jsonl)"),
        ({"texts": ("a", "b")}, "No columns of prompts and an answer can be found (t.jsonl)"),
        ({}, "No columns of prompts and an answer can be found (t.jsonl)"),
    ],
)
def test_columns_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        data.find_conversation_columns(table(a=["x"], b=["y"]), **options)
    assert str(caught.value).startswith(said)
    assert caught.value.expected
    assert caught.value.fix


def test_answers_that_are_no_texts_are_not_taken_for_generation() -> None:
    with pytest.raises(InputError, match="No columns of prompts and an answer"):
        data.find_conversation_columns(table(question=["a", "b"], answer=[True, False]))


def test_preferences_are_refused() -> None:
    rows = table(prompt=["a"], chosen=["b"], rejected=["c"], completion=["d"])
    for need in (True, False):
        with pytest.raises(InputError) as caught:
            data.find_conversation_columns(rows, need_answers=need)
        assert str(caught.value).startswith("these rows are preferences: chosen and rejected")
        assert "--text prompt --label chosen" in caught.value.fix
    found = data.find_conversation_columns(rows, texts=("prompt",), label="chosen")
    assert data.conversations(rows, found).references == (("b",),)
    assert data.find_conversation_columns(rows, label="chosen").format == "prompt"


def test_instructions() -> None:
    rows = read(
        table(instruction=["Add", "Add"], input=["1 2", " "], output=["3", " ok "], system=["S", None])
    )
    assert rows.messages == (
        (Message("system", "S"), Message("user", "Add\n\n1 2"), Message("assistant", "3")),
        (Message("user", "Add"), Message("assistant", " ok ")),
    )
    assert rows.references == (("3",), (" ok ",))
    assert rows.texts == (("S\nAdd\n\n1 2",), ("Add",))
    assert rows.prompts() == (rows.messages[0][:2], rows.messages[1][:1])
    assert (rows.answered, rows.plain, rows.labels) == (True, False, None)


def test_prompts_and_completions_as_texts_and_as_messages() -> None:
    assert read(table(prompt=["Hi"], completion=["Hello"])).messages == ((ASKED, SAID),)
    rows = read(table(prompt=[CHAT[:1], [*CHAT, *CHAT[:1]]], completion=[CHAT[1:]] * 2, system=["S", ""]))
    assert rows.messages == ((Message("system", "S"), ASKED, SAID), (ASKED, SAID, ASKED, SAID))
    assert rows.references == (("Hello",), ("Hello",))


def test_messages_and_sharegpt_give_the_same() -> None:
    for column, cells, system in (("messages", CHAT, "role"), ("conversations", GPT, "from")):
        first = {system: "system", "content" if system == "role" else "value": ""}
        rows = read(table(**{column: [cells, [first, *cells, *cells]]}))
        assert rows.messages == ((ASKED, SAID), (Message("system", ""), ASKED, SAID, ASKED, SAID))
        assert rows.references == (("Hello",), ("Hello",))


def test_keys_that_arrow_fills_in_are_not_there() -> None:
    filled = [{**message, "name": None, "tool_calls": None} for message in CHAT]
    assert data.conversations(table(messages=[filled]), CHATS).messages == ((ASKED, SAID),)


def test_without_answers_the_last_one_of_conversations_is_left_out_and_said() -> None:
    rows = read(table(messages=[CHAT, CHAT[:1], [*CHAT, *CHAT]]), need=False)
    assert rows.messages == ((ASKED,), (ASKED,), (ASKED, SAID, ASKED))
    assert rows.references is None
    assert rows.notes() == ["the last answer of each conversation is not read (rows 1, 3)"]
    rows = read(table(input=["a"], target=["b"]), need=False)
    assert (rows.messages, rows.references) == (((Message("user", "a"),),), None)


def test_several_right_answers() -> None:
    rows = read(table(input=["a", "b"], references=[["x", "y"], ["z"]]))
    assert rows.references == (("x", "y"), ("z",))
    assert rows.messages[0][-1] == Message("assistant", "x")


def test_answers_may_have_another_usual_name_in_another_file() -> None:
    columns = data.find_conversation_columns(table(input=["a"], target=["b"]))
    rows = data.conversations(table("v.jsonl", input=["a"], references=[["x", "y"]]), columns)
    assert rows.references == (("x", "y"),)
    assert rows.notes() == ["v.jsonl: answers from column 'references', there is no column 'target'"]
    with pytest.raises(InputError, match="There is no column 'target'"):
        data.conversations(table(input=["a"], page=["b"]), columns)


def test_plain_texts_have_no_prompt() -> None:
    rows = read(table(text=["a b", "c"]))
    assert rows.plain
    assert rows.messages == ((Message("assistant", "a b"),), (Message("assistant", "c"),))
    assert rows.prompts() == ((), ())
    assert rows.texts == (("a b",), ("c",))
    assert rows.references == (("a b",), ("c",))


def test_several_columns_become_lines() -> None:
    rows = read(
        table(name=["Ada", "Bo"], age=[36.0, None], likes=[["tea", "sums"], []], out=["x", "y"]),
        texts=("name", "age", "likes"),
        label="out",
    )
    assert [row[0].content for row in rows.messages] == ["name: Ada\nage: 36\nlikes: tea, sums", "name: Bo"]


def test_template() -> None:
    source = table(columns=[["a", "b"], []], question=["how many?", "{why}"], sql=["x", "y"], n=[1, 2.5])
    template = "{{Columns}}: {columns}\nQuestion: {question} ({n})\nSQL:"
    found = data.find_conversation_columns(source, template=template)
    assert (found.format, found.template) == ("input", template)
    assert found.columns == {"input": "columns", "input2": "question", "input3": "n", "output": "sql"}
    assert found.note == (
        "format input: input 'columns', input2 'question', input3 'n', output 'sql', the message by the "
        "template (guessed; override with --label)"
    )
    rows = data.conversations(source, found)
    assert [row[0].content for row in rows.messages] == [
        "{Columns}: a, b\nQuestion: how many? (1)\nSQL:",
        "{Columns}: \nQuestion: {why} (2.5)\nSQL:",
    ]
    prompts = data.find_conversation_columns(source, template="{n}", need_answers=False)
    assert data.conversations(source, prompts, need_answers=False).texts == (("1",), ("2.5",))


@pytest.mark.parametrize(
    ("template", "options", "said"),
    [
        (
            "{question} {answer}",
            {},
            "this template renders the user's message alone and has no {answer} slot",
        ),
        ("{qestion}", {}, "the template names the unknown slot {qestion} (t.jsonl, '{qestion}')"),
        ("{}", {}, "the template names the unknown slot {} (t.jsonl, '{}')"),
        ("Say it", {}, "the template shows no column of the row ('Say it')"),
        ("{question", {}, "the template cannot be read: expected '}' before end of string"),
        ("{question!r}", {}, "the slot {question} asks for a format or conversion"),
        ("{question} {sql}", {"label": "sql"}, "the template shows the answer, 'sql'"),
        ("{question}", {"texts": ("page",)}, "the template does not show the text column 'page'"),
        ("{question} {sql}", {}, "No columns of prompts and an answer can be found (t.jsonl)"),
    ],
)
def test_templates_that_cannot_be(template: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        data.find_conversation_columns(
            table(question=["a"], sql=["b"], page=["c"]), template=template, **options
        )
    assert str(caught.value).startswith(said)
    assert caught.value.expected
    assert caught.value.fix
    if template == "{qestion}":
        assert caught.value.fix == "did you mean 'question'?"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"input": "", "target": "b"}, "empty text in column 'input'"),
        ({"input": None, "target": "b"}, "missing text in column 'input'"),
        ({"input": {"a": 1}, "target": "b"}, "not text but dict in column 'input'"),
        ({"input": [["a"]], "target": "b"}, "not text but list in column 'input'"),
        ({"input": "\ud800", "target": "b"}, "not valid Unicode text in column 'input'"),
        ({"input": "a", "target": " \n"}, "empty text in column 'target'"),
        ({"input": "a", "target": math.nan}, "missing text in column 'target'"),
        ({"input": "a", "target": 3}, "not text but int in column 'target'"),
        ({"input": "a", "target": []}, "no text in column 'target'"),
        ({"input": "a", "target": ["b", ""]}, "empty text in column 'target'"),
        ({"input": "a", "target": "\udfff"}, "not valid Unicode text in column 'target'"),
        ({"instruction": " ", "output": "b"}, "empty text in column 'instruction'"),
        ({"instruction": "a", "input": 3, "output": "b"}, "not text but int in column 'input'"),
        ({"instruction": "a", "output": ""}, "empty text in column 'output'"),
        ({"instruction": "a", "output": "b", "system": 3}, "not text but int in column 'system'"),
        ({"prompt": "", "completion": "b"}, "empty text in column 'prompt'"),
        ({"prompt": "a", "completion": None}, "missing text in column 'completion'"),
        (
            {"prompt": CHAT[:1], "completion": "b"},
            "column 'prompt' holds messages and column 'completion' text",
        ),
        (
            {"prompt": "a", "completion": CHAT[1:]},
            "column 'completion' holds messages and column 'prompt' text",
        ),
        (
            {"prompt": CHAT, "completion": CHAT[1:]},
            "the prompt in column 'prompt' does not end with the user",
        ),
        (
            {"prompt": CHAT[:1], "completion": CHAT[:1]},
            "message 2 is of the user, where the assistant has the turn",
        ),
        (
            {"prompt": CHAT[:1], "completion": [{"role": "assistant", "content": ""}]},
            "message 1 in column 'completion', of the assistant: empty text",
        ),
        ({"text": ""}, "empty text in column 'text'"),
        (
            {"messages": [{"role": "system", "content": "S"}, *CHAT], "system": "S"},
            "column 'system' holds a second system message",
        ),
        (
            {"conversations": [{"from": "bot", "value": "a"}]},
            "message 1 in column 'conversations' is of the unknown role 'bot' "
            "(valid: system, human, user, gpt, assistant)",
        ),
        (
            {"conversations": [{"from": "gpt", "value": "a"}]},
            "message 1 is of the assistant, where the user has the turn",
        ),
    ],
)
def test_bad_rows_are_named_with_file_and_row(cells: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = dict.fromkeys(cells, "a") | {"messages": CHAT, "conversations": GPT}
    if "prompt" in cells and any(isinstance(cell, list) for cell in cells.values()):
        good |= {"prompt": CHAT[:1], "completion": CHAT[1:]}
    good["system"] = "S"
    rows = table("dir/t.jsonl", **{name: [good[name], good[name], cell] for name, cell in cells.items()})
    with pytest.raises(InputError) as caught:
        read(rows)
    assert str(caught.value).startswith(f"1 row cannot be used: {said} (row 3) (dir/t.jsonl)")
    assert caught.value.fix.endswith("leave them out with --on-bad-rows drop")
    kept = read(rows, on_bad="drop")
    assert kept.numbers == (1, 2)
    assert kept.notes() == [f"1 row left out: {said} (row 3)"]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (CHAT[:1], "the conversation ends with the user, without an answer"),
        ([*CHAT, CHAT[0]], "the conversation ends with the user, without an answer"),
        (CHAT[1:], "message 1 is of the assistant, where the user has the turn"),
        ([CHAT[0], CHAT[0]], "message 2 is of the user, where the assistant has the turn"),
        (
            [*CHAT, {"role": "system", "content": "S"}],
            "message 3 is of the system, which only the first may be",
        ),
        ([{"role": "system", "content": "S"}], "no message of the user"),
        ([], "no messages in column 'messages'"),
        ([*CHAT, "Hi"], "message 3 in column 'messages' is str, not a mapping"),
        (
            [{"role": "asistant", "content": "a"}],
            "message 1 in column 'messages' is of the unknown role 'asistant', did you mean 'assistant'? "
            "(valid: system, user, assistant)",
        ),
        (
            [{"role": None, "content": "a"}],
            "message 1 in column 'messages' is of the unknown role None (valid: system, user, assistant)",
        ),
        (
            [{"role": "tool", "content": "a"}],
            "message 1 in column 'messages' is of 'tool', which is not supported: calls of tools are no text",
        ),
        (
            [{"role": "user", "contnet": "a"}],
            "message 1 in column 'messages' has the unknown key 'contnet', did you mean 'content'? "
            "(valid: role and content)",
        ),
        ([{"role": "user"}], "message 1 in column 'messages' has no key 'content' (valid: role and content)"),
        (
            [{**CHAT[0], "name": "Ann"}],
            "message 1 in column 'messages' has the key 'name', which is not supported: "
            "speakers have no names",
        ),
        (
            [CHAT[0], {**CHAT[1], "weight": 0}],
            "message 2 in column 'messages' has the key 'weight', which is not supported: "
            "every answer counts the same",
        ),
        (
            [CHAT[0], {**CHAT[1], "tool_calls": [{}]}],
            "message 2 in column 'messages' has the key 'tool_calls', which is not supported: "
            "calls of tools are no text",
        ),
        (
            [{"role": "user", "content": [{"type": "image"}]}],
            "the content of message 1 in column 'messages' is list, not text: images and other parts are "
            "not supported",
        ),
        (
            [{"role": "user", "content": 3}],
            "the content of message 1 in column 'messages' is int, not text",
        ),
        (
            [{"role": "user", "content": None}],
            "message 1 in column 'messages', of the user: missing text",
        ),
        ([{"role": "user", "content": " "}], "message 1 in column 'messages', of the user: empty text"),
        (
            [CHAT[0], {"role": "assistant", "content": "\n"}],
            "message 2 in column 'messages', of the assistant: empty text",
        ),
        (
            [{"role": "user", "content": "\ud800"}],
            "message 1 in column 'messages', of the user: not valid Unicode text",
        ),
    ],
)
def test_faults_of_messages(messages: list[Any], said: str) -> None:
    assert of_messages(*messages) == said


def test_cells_that_are_no_lists() -> None:
    text = fault(messages=(CHAT, None, {"role": "user"}, b"[]", "Hi"))
    for part in (
        "no messages in column 'messages' (row 2)",
        "column 'messages' holds dict, not a list of messages (row 3)",
        "column 'messages' holds bytes, not a list of messages (row 4)",
        "column 'messages' is text that is no JSON list of messages: Expecting value (row 5)",
    ):
        assert part in text


def test_no_usable_row() -> None:
    rows = table(messages=[CHAT[:1], CHAT[:1]])
    for on_bad in ("error", "drop"):
        with pytest.raises(
            InputError, match=r"^No row can be used: the conversation ends with the user.*rows 1, 2"
        ):
            data.conversations(rows, CHATS, on_bad=on_bad)
    with pytest.raises(InputError, match=r"^There are no rows \(t.jsonl\)"):
        data.conversations(data.Table("t.jsonl", {"messages": ()}, ()), CHATS)
    with pytest.raises(UsageError, match="on_bad cannot be 'repair'"):
        data.conversations(rows, CHATS, on_bad="repair")
    with pytest.raises(InputError, match="There is no column of answers"):
        data.conversations(table(input=["a"]), data.ConversationColumns("input", {"input": "input"}))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> data.Table:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {name: cell if isinstance(cell, str) else json.dumps(cell) for name, cell in row.items()}
            for row in rows
        )
    return data.read(path)


def test_csv_spells_lists_in_json(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert read(write_csv(path, [{"messages": CHAT}])).messages == ((ASKED, SAID),)
    assert read(write_csv(path, [{"conversations": GPT}])).messages == ((ASKED, SAID),)
    both = [{"prompt": CHAT[:1], "completion": CHAT[1:]}, {"prompt": "[{a}]", "completion": '["b"]'}]
    rows = read(write_csv(path, both))
    assert rows.texts == (("Hi",), ("[{a}]",))
    rows = read(write_csv(path, [{"input": ["a", "b"], "references": ["x", "y"]}]))
    assert rows.texts == (("a, b",),)
    assert rows.references == (("x", "y"),)
    rows = read(write_csv(path, [{"input": '["a', "target": '["x"]'}]))
    assert rows.texts == (('["a',),)


def test_csv_that_spells_no_json_is_named(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "t.csv", [{"messages": CHAT}, {"messages": "[{'role': 'user'}]"}])
    with pytest.raises(InputError) as caught:
        read(source)
    assert "column 'messages' is text that is no JSON list of messages: Expecting property name" in str(
        caught.value
    )
    assert f"(row 2) ({tmp_path / 't.csv'})" in str(caught.value)


def test_lists_of_json_files_are_not_read_twice() -> None:
    assert read(table("t.jsonl", input=['["a"]'], references=['["x", "y"]'])).references == (('["x", "y"]',),)
    assert read(table("t.csv", input=['["a"]'], references=['["x", "y"]'])).references == (("x", "y"),)


def test_select_digest_and_cells() -> None:
    source = table(id=[7, 8, 9], input=["a", "b", ""], target=["x", "y", "z"])
    columns = data.find_conversation_columns(source)
    rows = data.conversations(source, columns, on_bad="drop", extra=["id"])
    assert rows.cells == {"id": (7, 8)}
    assert len(rows) == 2
    part = rows.select([1])
    assert (part.numbers, part.cells, part.references) == ((2,), {"id": (8,)}, (("y",),))
    assert (part.dropped, part.remarks) == ((), ())
    assert rows.select([0, 1]).digest() == rows.digest() != rows.select([1, 0]).digest()
    other = data.conversations(table("o.csv", input=["b"], target=["y"]), columns)
    assert other.digest() == part.digest()
    assert (
        rows.select([0]).digest()
        != data.conversations(source.select([0]), columns, need_answers=False).digest()
    )
    two = data.conversations(table(input=["b"], target=[["y", "z"]]), columns)
    assert two.digest() != part.digest()
    with pytest.raises(InputError, match="There is no column 'ids'"):
        data.conversations(source, columns, on_bad="drop", extra=["ids"])


def test_rows_can_be_split_and_taken() -> None:
    rows = read(table(input=[f"a{i // 2}" for i in range(20)], target=[f"x{i // 2}" for i in range(20)]))
    parts = data.split(rows, fractions={"train": 0.8, "valid": 0.2})
    assert {name: len(part) for name, part in parts.items()} == {"train": 16, "valid": 4}
    assert not {*parts["train"].texts} & {*parts["valid"].texts}
    assert len(data.take(rows, 3, seed=0)) == 3


def test_prompts_in_memory() -> None:
    rows = data.from_prompts(["Hi", "Why?"])
    assert rows.messages == ((ASKED,), (Message("user", "Why?"),))
    assert (rows.references, rows.numbers, rows.source) == (None, (1, 2), "prompts given in memory")
    rows = data.from_prompts([[*CHAT, ASKED], [Message("system", "S"), ASKED]])
    assert rows.messages == ((ASKED, SAID, ASKED), (Message("system", "S"), ASKED))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("  ", "Empty text"),
        (3, "the prompt holds int, not a list of messages"),
        (CHAT, "the conversation ends with the assistant, where the user should ask"),
        ([{"role": "user"}], "message 1 in the prompt has no key 'content' (valid: role and content)"),
        ([Message("user", "")], "message 1 in the prompt, of the user: empty text"),
    ],
)
def test_bad_prompts_in_memory(item: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        data.from_prompts(["Hi", item])
    assert str(caught.value).startswith(f"{said} (prompts given in memory, row 2)")
    assert caught.value.fix
    with pytest.raises(UsageError, match=r"predict\(\[text\]\)"):
        data.from_prompts("Hi")


@needs_data
def test_public_instructions() -> None:
    source = data.read(FOLDER / "instruct_mix" / "train.jsonl")
    rows = read(source)
    assert len(rows) == len(source) == 983  # its README
    assert [row[0].content for row in rows.messages] == [
        f"{task}\n\n{context}" if str(context).strip() else task
        for task, context in zip(source.columns["instruction"], source.columns["input"], strict=True)
    ]
    assert [row[-1].content for row in rows.messages] == list(source.columns["output"])


@needs_data
def test_public_data_to_text() -> None:
    columns = data.find_conversation_columns(data.read(FOLDER / "e2e_nlg" / "train.jsonl"))
    assert (columns.format, columns.columns) == ("input", {"input": "input", "output": "target"})
    own = data.find_conversation_columns(valid := data.read(FOLDER / "e2e_nlg" / "valid.jsonl"))
    assert own.columns == {"input": "input", "output": "references"}
    rows = data.conversations(valid, columns)
    assert rows.references == data.conversations(valid, own).references
    assert rows.references == tuple(tuple(cell) for cell in valid.columns["references"])  # type: ignore[arg-type]
    assert len(rows) == 547  # its README


@needs_data
def test_public_text_to_sql() -> None:
    source = data.read(FOLDER / "wikisql" / "test.jsonl")
    assert data.find_conversation_columns(source).columns == {"input": "question", "output": "sql"}
    columns = data.find_conversation_columns(
        source, template="Columns: {columns}\nQuestion: {question}\nSQL:"
    )
    rows = data.conversations(source, columns, extra=["columns"])
    first = rows.messages[0][0].content.split("\n")
    assert first == [
        f"Columns: {', '.join(source.columns['columns'][0])}",  # type: ignore[call-overload]
        f"Question: {source.columns['question'][0]}",
        "SQL:",
    ]
    assert rows.cells["columns"] == source.columns["columns"]


@needs_data
def test_public_preferences_are_refused() -> None:
    with pytest.raises(InputError, match="these rows are preferences"):
        data.find_conversation_columns(data.read(FOLDER / "hh_harmless" / "test.jsonl"))
