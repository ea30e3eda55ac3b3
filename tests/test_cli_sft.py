"""pegbox sft as a user meets it: formats, wrong files, an interrupted run, and the tuned model in use."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from cli_toy import heed_interrupts, run, write_lines
from pegbox.cli import main
from test_cli_seeds import without_seconds
from tiny import save_tiny, tiny_folder

STEPS = ["--training.precision", "float32", "--training.batch_size", "4", "--decoding.max_tokens", "6"]
QUICK = [*STEPS, "--training.max_steps", "2"]
# A template of the usual shape: every turn has a head, and the assistant's ends with the end of sequence.
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)
THINGS = ("tea", "kettle", "screen", "hotel", "breakfast", "staff", "day", "answer")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a chat template."""
    folder = save_tiny(tmp_path_factory.mktemp("chat"), "llama", "causal")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def write_instructions(path: Path, rows: int = 12) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["instruction", "output"])
        for index in range(rows):
            thing = THINGS[index % len(THINGS)]
            writer.writerow([f"Say what the {thing} {index} was.", f"The {thing} was great."])
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_instructions(tmp_path_factory.mktemp("data") / "says.csv")


@pytest.fixture(scope="module")
def tuned(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    assert main(["sft", str(data), "--model", str(model), "--out", str(out), *QUICK]) == 0
    return out


def turns(*contents: str, system: str = "") -> list[dict[str, str]]:
    roles = ("user", "assistant")
    told = [{"role": roles[place % 2], "content": text} for place, text in enumerate(contents)]
    return [{"role": "system", "content": system}, *told] if system else told


def test_rows_in_a_tuned_model_and_its_scores_out(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, told = run(capsys, "sft", data, "--model", model, "--out", tmp_path / "o", *QUICK)
    assert code == 0, told
    assert "format instruction: instruction 'instruction', output 'output' (guessed; override with" in told
    assert "of 12 rows held out for evaluation (seed 0); --test FILE overrides" in told
    assert "conversations are written by the model's own chat template (override with --chat)" in told
    assert "are answers, which alone are learnt" in told
    assert "base perplexity" in out
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    files = {path.name for path in (tmp_path / "o").iterdir()}
    assert files >= {"README.md", "adapter_model.safetensors", "pegbox.json", "task.json", "scores.json"}
    task = json.loads((tmp_path / "o" / "task.json").read_text("utf-8"))
    assert (task["task"], task["rows"], task["decoding"]["max_tokens"]) == ("generate", "instruction", 6)


def test_the_first_row_is_shown_with_the_answer_between_brackets(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["sft", data, "--model", model, "--out", tmp_path / "o", "--method", "zero-shot", "--holdout", "0"]
    code, _, told = run(capsys, *call)
    assert code == 0, told
    assert (
        "row 1 as the model reads it; what it learns to say is the answer, it stands between [[ and ]]:"
        in told
    )
    assert "<s>[user] Say what the tea 0 was. [assistant] [[The tea was great.</s>]]" in told


def test_evaluate_tells_scores_beside_those_of_the_base(
    tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scores.json"
    options = ["--format", "json", "--resamples", "20", "--out", file]
    code, out, told = run(capsys, "evaluate", tuned, data, *options)
    assert code == 0, told
    found = json.loads(out)
    assert found == json.loads(file.read_text("utf-8"))
    assert found["rows"] == 12
    assert found["metrics"].keys() >= {"exact_match", "perplexity", "bits_per_byte", "base_perplexity"}
    assert found["metrics"]["perplexity"]["value"] != found["metrics"]["base_perplexity"]["value"]
    # A model of two steps, as good as untrained, ends hardly any answer within six tokens.
    cut = found["counts"]["cut_answers"]
    assert 0 < cut <= 12
    assert f"{cut} of 12 answers do not end within 6 tokens and are scored as far as they go" in told


def test_predict_writes_jsonl_with_the_rows_own_columns(
    tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "answers.jsonl"
    code, out, told = run(capsys, "predict", tuned, data, "--out", file)
    assert (code, out) == (0, ""), told
    assert "12 rows written" in told
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    with data.open(encoding="utf-8", newline="") as stream:
        assert [[row["instruction"], row["output"]] for row in rows] == list(csv.reader(stream))[1:]
    assert all(isinstance(row["predicted"], str) and isinstance(row["finished"], bool) for row in rows)


def test_predict_answers_lines_of_standard_input(
    tuned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Say what the tea was.\n\nSay A.\n")))
    code, out, told = run(capsys, "predict", tuned)
    assert code == 0, told
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["instruction"] for row in rows] == ["Say what the tea was.", "", "Say A."]
    assert rows[1]["predicted"] is None
    assert "(row 2)" in told


FORMATS: dict[str, tuple[list[dict[str, Any]], list[str], str]] = {
    "messages": (
        [{"messages": turns(f"tea {n}?", "yes", "hot?", "no", system="Be short.")} for n in range(4)],
        [],
        "<s>[system] Be short. [user] tea 0? [assistant] [[yes</s>]] [user] hot? [assistant] [[no</s>]]",
    ),
    "sharegpt": (
        [{"conversations": [{"from": "human", "value": f"tea {n}?"}, {"from": "gpt", "value": "yes"}]}
         for n in range(4)],
        [],
        "<s>[user] tea 0? [assistant] [[yes</s>]]",
    ),
    "prompt": (
        [{"prompt": f"The tea {n} was", "completion": " hot."} for n in range(4)],
        [],
        "<s>The tea 0 was[[ hot.</s>]]",
    ),
    "input": (
        [{"input": f"name[tea {n}]", "targets": ["The tea.", "Tea."]} for n in range(4)],
        ["--chat", "plain", "--system", "Say it."],
        "<s>Say it. Instruction: name[tea 0] Response:[[ The tea.</s>]]",
    ),
    "instruction": (
        [{"instruction": f"Say {n}.", "input": "the tea" if n else "", "response": "tea"} for n in range(4)],
        ["--chat", "none"],
        "<s>Say 0.[[ tea</s>]]",
    ),
    "text": ([{"text": f"The tea {n} was hot."} for n in range(4)], [], "<s>[[The tea 0 was hot.</s>]]"),
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_told_by_its_columns(
    format: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, options, shown = FORMATS[format]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    call = ["--model", model, "--out", tmp_path / "o", "--holdout", "0", *options, *QUICK]
    code, _, told = run(capsys, "sft", file, *call)
    assert code == 0, told
    assert f"format {format}: " in told
    assert shown in told
    code, out, told = run(capsys, "evaluate", tmp_path / "o", file, "--format", "json", "--resamples", "10")
    assert code == 0, told
    assert json.loads(out)["rows"] == 4
    assert ("exact_match" in json.loads(out)["metrics"]) == (format in ("messages", "sharegpt", "prompt",
                                                                        "instruction"))  # fmt: skip


def test_a_template_makes_the_message_of_several_columns(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "question": "Which tea is hot?",
        "columns": ["tea", "hot"],
        "sql": "SELECT tea FROM data WHERE hot = 1",
    }
    table = {"name": "data", "header": ["tea", "hot"], "rows": [["A", 1], ["B", 0]]}
    file = write_lines(
        tmp_path / "rows.jsonl", [{**row, "question": f"{n} tea?", "table": table} for n in range(3)]
    )
    template = "Question: {question}\\nColumns: {columns}\\nSQL:"
    call = [
        "--model",
        model,
        "--out",
        tmp_path / "o",
        "--holdout",
        "0",
        "--template",
        template,
        "--chat",
        "none",
    ]
    code, _, told = run(capsys, "sft", file, *call, *QUICK)
    assert code == 0, told
    assert "Question: 0 tea? Columns: tea, hot SQL:[[ SELECT tea FROM data WHERE hot = 1</s>]]" in told
    code, out, _ = run(capsys, "evaluate", tmp_path / "o", file, "--format", "json", "--resamples", "10")
    assert code == 0
    assert json.loads(out)["metrics"].keys() >= {"sql_match", "sql_execution"}


def test_closed_answers_are_chosen_from(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"Is the tea {n} hot?", "answer": ("yes", "no")[n % 2]} for n in range(4)]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    call = ["--model", model, "--out", tmp_path / "o", "--among", "yes,no", "--method", "few-shot"]
    assert run(capsys, "sft", file, *call, "--holdout", "0")[0] == 0
    code, out, _ = run(capsys, "predict", tmp_path / "o", file)
    assert code == 0
    assert {json.loads(line)["predicted"] for line in out.splitlines()} <= {"yes", "no"}


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD = {"messages": turns("tea?", "yes")}


def chats(*messages: object) -> str:
    """Two good rows and between them one of these messages."""
    return lines(GOOD, {"messages": messages}, {"messages": turns("hot?", "no")})


USER, ANSWER = {"role": "user", "content": "tea?"}, {"role": "assistant", "content": "yes"}
SAID = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
BAD_JSONL = {
    "unknown role": (chats({"role": "usr", "content": "a"}, ANSWER), "'usr', did you mean 'user'?"),
    "no answer": (chats(USER), "ends with the user, without an answer (row 2)"),
    "twice the user": (chats(USER, USER, ANSWER), "message 2 is of the user, where the assistant"),
    "second system": (chats(USER, {"role": "system", "content": "a"}), "which only the first may be"),
    "empty answer": (chats(USER, {**ANSWER, "content": " "}), "of the assistant: empty text (row 2)"),
    "call of a tool": (chats(USER, {"role": "tool", "content": "a"}), "calls of tools are no text"),
    "picture": (chats({**USER, "content": [{"type": "image"}]}, ANSWER), "images and other parts"),
    "wrong key": (chats({"role": "user", "contnt": "a"}, ANSWER), "'contnt', did you mean 'content'?"),
    "no list": (lines(GOOD, {"messages": "hello"}), "no JSON list of messages"),
    "unknown speaker": (
        lines({"conversations": SAID}, {"conversations": [SAID[0], {"from": "bot", "value": "b"}]}),
        "'bot' (valid: system, human, user, gpt, assistant) (row 2)",
    ),
    "prompt of another kind": (
        lines({"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": [ANSWER]}),
        "holds messages and column 'prompt' text (row 2)",
    ),
    "no target": (lines({"input": "a", "targets": ["b"]}, {"input": "c", "targets": []}), "(row 2)"),
    "preferences": (lines({"prompt": "a", "chosen": "b", "rejected": "c"}), "are preferences"),
    "broken line": (lines(GOOD) + '{"messages": \n', "r.jsonl, line 2"),
}
BAD_CSV = {
    "empty cells": ("instruction,output\na,\nb,b\n,c\n", "in column 'output' (row 1); empty text in"),
    "no answers": ("instruction,foo\na,b\n", "the columns are: instruction, foo"),
    "header alone": ("instruction,output\n", "a header but no rows"),
    "nothing": ("", "This file is empty"),
}
BAD_FILES = [
    *(pytest.param("r.jsonl", *case, id=name) for name, case in BAD_JSONL.items()),
    *(pytest.param("r.csv", *case, id=name) for name, case in BAD_CSV.items()),
    pytest.param("r.docx", "hello", "Files of kind '.docx' cannot be read", id="other kind"),
]


@pytest.mark.parametrize(("file", "content", "wanted"), BAD_FILES)
def test_a_wrong_file_is_one_error_with_file_and_row(
    file: str, content: str, wanted: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / file).write_text(content, "utf-8")
    code, out, told = run(capsys, "sft", tmp_path / file, "--model", model, "--out", tmp_path / "o", *QUICK)
    assert (code, out) == (2, ""), told
    assert wanted in told
    assert file in told
    assert told.count("error:") == 1
    assert "fix:" in told
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_bad_rows_are_left_out_and_named_where_asked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(chats(USER), "utf-8")
    call = ["--model", model, "--out", tmp_path / "o", "--method", "zero-shot", "--holdout", "0"]
    code, _, told = run(capsys, "sft", file, *call, "--on-bad-rows", "drop")
    assert code == 0, told
    assert "1 row left out: the conversation ends with the user, without an answer (row 2)" in told


WRONG_CALLS = {
    "format of other rows": (["--rows-format", "messages"], "No columns as the format messages has them"),
    "no such format": (["--rows-format", "promt"], "wrong value for --rows-format"),
    "no such column": (["--label", "outpt"], "did you mean 'output'?"),
    "unknown slot": (["--template", "Q: {instrution}"], "did you mean 'instruction'?"),
    "slot of the answer": (["--template", "Q: {instruction} {answer}"], "has no {answer} slot"),
    "no slot": (["--template", "Q:"], "shows no column"),
    "one answer to choose": (["--among", "yes"], "at least two, different and not blank"),
    "unknown decoding": (["--decoding.max_tokns", "6"], "did you mean 'max_tokens'?"),
    "no tokens": (["--decoding.max_tokens", "0"], "a whole number of at least 1"),
    "draws without sample": (["--decoding.top_k", "5"], "add --decoding.sample true"),
    "a method that fits labels": (["--method", "closed-form"], "free text has no labels"),
    "a method with a head": (["--method", "head"], "writes no text"),
    "similar rows": (["--method", "few-shot", "--options.selection", "similar"], "leave selection at random"),
    "replay of nothing": (["--replay-ratio", "0.2"], "there is no text to replay a share of"),
    "replay without steps": (["--method", "zero-shot", "--replay", "says.csv"], "no training steps"),
    "context too small": (["--max-length", "4"], "raise --max-length"),
    "test file of other rows": (["--test", "chats.jsonl"], "There is no column 'instruction'"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_a_wrong_call_is_one_error_and_leaves_nothing(
    name: str,
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options, wanted = WRONG_CALLS[name]
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "chats.jsonl", [GOOD])
    code, out, told = run(capsys, "sft", data, "--model", model, "--out", "o", *QUICK, *options)
    assert (code, out) == (2, ""), told
    assert wanted in told
    assert told.count("error:") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["chats.jsonl"]


@pytest.mark.parametrize(
    ("architecture", "kind", "rows", "wanted"),
    [
        ("bert", "masked", [{"prompt": "a", "completion": "b"}], "choose another --model, such as etude"),
        ("t5", "encoder-decoder", [{"text": "The tea was hot."}], "plain texts are continued"),
        ("llama", "causal", [GOOD], "use --chat plain"),
    ],
)
def test_a_model_that_cannot_is_refused(
    architecture: str,
    kind: str,
    rows: list[dict[str, Any]],
    wanted: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_lines(tmp_path / "r.jsonl", rows)
    call = ["--model", tiny_folder(architecture, kind), "--out", tmp_path / "o", "--holdout", "0"]
    chat = ["--chat", "model"] if kind == "causal" else []
    code, out, told = run(capsys, "sft", file, *call, *chat)
    assert (code, out) == (2, ""), told
    assert wanted in told
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize(
    ("too_long", "code", "wanted"),
    [
        ("shorten", 0, "1 of 3 questions shortened to fit the context"),
        ("drop", 0, "1 of 3 rows left out, since they do not fit into the context"),
        ("error", 2, "a row is longer than the context"),
    ],
)
def test_rows_that_are_too_long(
    too_long: str, code: int, wanted: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": text, "completion": " hot."} for text in ("The tea was", "tea " * 300, "It was")]
    file = write_lines(tmp_path / "r.jsonl", rows)
    call = ["--model", model, "--out", tmp_path / "o", "--holdout", "0", "--too-long", too_long, *QUICK]
    found, _, told = run(capsys, "sft", file, *call)
    assert found == code, told
    assert wanted in told
    assert (tmp_path / "o").exists() == (code == 0)
    assert not (tmp_path / "o-run").exists()


def test_a_long_answer_is_never_cut(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "The tea", "completion": text} for text in (" was hot.", " tea" * 300)]
    file = write_lines(tmp_path / "r.jsonl", rows)
    call = ["--model", model, "--out", tmp_path / "o", "--holdout", "0", *QUICK]
    code, _, told = run(capsys, "sft", file, *call)
    assert code == 2
    assert "the answer and the template alone are longer than it" in told
    assert "--too-long drop" in told


def test_several_seeds(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["sft", data, "--model", model, "--out", tmp_path / "o", *QUICK, "--seeds", "2"]
    code, printed, told = run(capsys, *call)
    assert code == 0, told
    assert "mean" in printed
    seeds = json.loads((tmp_path / "o" / "seeds.json").read_text("utf-8"))
    assert seeds["seeds"] == [0, 1]
    assert {"exact_match", "perplexity", "base_perplexity"} <= seeds["metrics"].keys()
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_replay_and_forgetting(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "general.txt").write_text("The kettle was great.\n\nThe tea was hot.\n", "utf-8")
    general = ["--replay", tmp_path / "general.txt", "--forgetting", tmp_path / "general.txt"]
    call = ["sft", data, "--model", model, "--out", tmp_path / "o", *QUICK, *general]
    code, printed, told = run(capsys, *call)
    assert code == 0, told
    assert "tuned, bits per byte" in printed
    kept = json.loads((tmp_path / "o" / "pegbox.json").read_text("utf-8"))["details"]["replay"]
    assert kept["source"] == "general.txt"


def test_the_config_is_printed_and_read(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(model), "--out", str(tmp_path / "o"), *QUICK, "--holdout", "0"]
    with pytest.raises(SystemExit) as left:
        main(["sft", str(data), *flags, "--print-config"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "decoding:\n  max_tokens: 6\n" in shown
    assert "too_long: shorten" in shown
    config = tmp_path / "sft.yaml"
    config.write_text(shown, "utf-8")
    assert not (tmp_path / "o").exists()
    code, _, told = run(capsys, "sft", "--config", config, "--decoding.beams", "2")
    assert code == 0, told
    decoding = json.loads((tmp_path / "o" / "task.json").read_text("utf-8"))["decoding"]
    assert (decoding["max_tokens"], decoding["beams"]) == (6, 2)


def test_an_output_folder_is_replaced_only_where_asked(
    tuned: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tuned / "task.json").read_bytes()
    code, _, told = run(capsys, "sft", data, "--model", model, "--out", tuned, *QUICK)
    assert code == 2
    assert "--overwrite" in told
    assert (tuned / "task.json").read_bytes() == before


def test_an_interrupted_run_that_is_resumed_equals_one_that_was_not(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["sft", str(data), "--model", str(model), *STEPS, "--training.epochs", "12"]
    call += ["--training.checkpoint_every", "6"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pegbox", *call, "--out", str(tmp_path / "o")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=heed_interrupts,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((tmp_path / "o-run").glob("checkpoint-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "with --resume, checkpoints are in" in told
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["o-run"]
    code, _, told = run(capsys, *call, "--out", tmp_path / "o", "--resume")
    assert code == 0, told
    assert "resuming from step" in told
    assert run(capsys, *call, "--out", tmp_path / "whole")[0] == 0
    one, other = tmp_path / "o", tmp_path / "whole"
    weights = "adapter_model.safetensors"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()
    scores = [json.loads((folder / "scores.json").read_text("utf-8")) for folder in (one, other)]
    assert without_seconds(scores[0]) == without_seconds(scores[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o", "whole"]


def test_check_examines_the_same_file(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, told = run(capsys, "check", data, "--task", "generate")
    assert code == 0, told
    assert "format instruction" in out
    assert "answer characters per row" in out
    rows = [GOOD, {"messages": turns("hot?", "I'm sorry, but I can't assist with that.")}, GOOD]
    file = write_lines(tmp_path / "r.jsonl", rows)
    code, out, _ = run(capsys, "check", file, "--format", "json")
    assert code == 0
    found = {item["kind"]: item["rows"] for item in json.loads(out)["findings"]}
    assert (found["refusals"], found["exact-duplicates"]) == ([2], [1, 3])


def test_check_examines_texts_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": at, "text": f"The {thing} was great."} for at, thing in enumerate(THINGS)]
    write_lines(tmp_path / "texts.jsonl", rows)
    code, out, told = run(capsys, "check", tmp_path / "texts.jsonl")
    assert code == 0, told
    assert "format text: text 'text'" in out
