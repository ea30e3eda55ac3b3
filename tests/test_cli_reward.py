"""pegbox reward, and what the other verbs do with a reward model and with preferences."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

import pegbox
from cli_toy import run, write_lines
from pegbox.cli import main
from reward_toy import toy_pairs
from tuning_toy import folder_of

TRAIN = ["--training.epochs", "4", "--training.learning_rate", "0.01", "--training.precision", "float32"]
ROWS = toy_pairs(24)


def pairs(start: int = 0, stop: int = 24) -> list[dict[str, Any]]:
    found = zip([texts[0] for texts in ROWS.texts], ROWS.chosen, ROWS.rejected, strict=True)
    return [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in found][start:stop]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a reward model."""
    folder = tmp_path_factory.mktemp("reward")
    data = write_lines(folder / "pairs.jsonl", pairs())
    call = ["reward", data, "--model", folder_of("llama", "causal"), "--out", folder / "out", *TRAIN]
    assert main(list(map(str, call))) == 0
    return folder


def test_reward_prints_scores_and_saves_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = folder_of("llama", "causal"), tmp_path / "out"
    test = write_lines(tmp_path / "test.jsonl", pairs(16, 24))
    data = write_lines(tmp_path / "train.jsonl", pairs(0, 16))
    call = ["reward", data, "--test", test, "--model", model, "--out", out, "--system", "Be kind.", *TRAIN]
    code, printed, told = run(capsys, *call)
    assert code == 0, told
    for part in ("reward by lora", "accuracy", "longer wins", "margin", "prefers longer"):
        assert part in printed
    assert "preferences, format prompt: prompt 'prompt', chosen 'chosen', rejected 'rejected'" in told
    assert "conversations are written as 'Instruction: ... Response: ...'" in told
    task = json.loads((out / "task.json").read_text())
    assert (task["task"], task["system"]) == ("prefer", "Be kind.")
    assert json.loads((out / "scores.json").read_text())["rows"] == 8
    scale = json.loads((out / "pegbox.json").read_text())["details"]["reward"]
    assert scale["answers"] == 32
    assert not (tmp_path / "out-run").exists()
    code, _, told = run(capsys, *call)
    assert code == 2
    assert "the output folder exists" in told


def test_evaluate_gives_the_same_scores_and_a_diagram(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", place / "out", place / "pairs.jsonl", "--resamples", "20"]
    code, out, told = run(capsys, *call, "--format", "json", "--reliability", tmp_path / "r.svg")
    assert code == 0, told
    scores = json.loads(out)
    assert scores["format"] == "pegbox.reward-scores/1"
    assert scores["rows"] == 24
    assert "prompts were among the training rows" in told
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")
    tuned = pegbox.Tuned.load(place / "out", say=lambda _: None)
    own = tuned.evaluate(place / "pairs.jsonl", resamples=20).to_json()
    assert {**scores, "seconds": None} == {**json.loads(json.dumps(own)), "seconds": None}
    code, out, told = run(capsys, *call, "--abstain-above", "0.2")
    assert code == 0, told
    assert "answering only what is at least 0.8 sure" in out


def test_predict_rewards_answers_and_compares_pairs(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = pairs()[0]
    single = write_lines(
        tmp_path / "one.jsonl", [{"prompt": first["prompt"], "response": first[name]} for name in first][1:]
    )
    code, out, told = run(capsys, "predict", place / "out", single)
    assert code == 0, told
    lines = [json.loads(line) for line in out.splitlines()]
    assert all({"prompt", "response", "reward", "reward_standard"} == set(line) for line in lines)
    two = {"prompt": first["prompt"], "first": first["rejected"], "second": first["chosen"]}
    code, out, told = run(capsys, "predict", place / "out", write_lines(tmp_path / "two.jsonl", [two]))
    assert code == 0, told
    (line,) = map(json.loads, out.splitlines())
    assert line["rewards"] == pytest.approx([lines[1]["reward"], lines[0]["reward"]], abs=1e-5)
    better = int(line["rewards"][1] > line["rewards"][0])
    assert (line["predicted_index"], line["predicted"]) == (better, two[("first", "second")[better]])
    margin = line["rewards"][0] - line["rewards"][1]
    assert line["probabilities"][0] == pytest.approx(1 / (1 + math.exp(-margin)), abs=1e-5)
    assert line["probability"] == max(line["probabilities"])
    code, out, _ = run(capsys, "predict", place / "out", place / "pairs.jsonl", "--abstain-above", "0.01")
    assert code == 0
    assert {"chosen", "rejected", "rewards", "abstained"} <= set(json.loads(out.splitlines()[0]))
    code, _, told = run(capsys, "predict", place / "out", single, "--abstain-above", "0.1")
    assert code == 2
    assert "rewards of single answers have no one probability per row" in told


def test_standard_input_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hi\n")))
    code, _, told = run(capsys, "predict", place / "out")
    assert code != 0
    assert "standard input holds one text per line, and this task needs answers" in told


def test_several_seeds_are_scored_on_the_same_pairs(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [
        "reward",
        place / "pairs.jsonl",
        "--model",
        folder_of("llama", "causal"),
        "--out",
        tmp_path / "out",
    ]
    code, out, told = run(capsys, *call, "--seeds", "2", "--training.max_steps", "2")
    assert code == 0, told
    assert "mean" in out
    kept = json.loads((tmp_path / "out" / "seeds.json").read_text())
    assert {part["scores"]["rows"] for part in kept["each"]} == {5}


def test_dialogues_are_read_as_turns_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {**row, "prompt": f"Human: Hi\n\nAssistant: Yes.\n\nHuman: {row['prompt']}"} for row in pairs(0, 6)
    ]
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    call = ["reward", data, "--model", folder_of("llama", "causal"), "--holdout", "0"]
    quick = ["--training.max_steps", "1", "--dialogue", "human-assistant", "--out", tmp_path / "out"]
    code, _, told = run(capsys, *call, *quick)
    assert code == 0, told
    assert "are read as turns" in told
    assert json.loads((tmp_path / "out" / "task.json").read_text())["dialogue"] == "human-assistant"
    ask = write_lines(tmp_path / "ask.jsonl", [{"prompt": rows[0]["prompt"], "answer": "It was great."}])
    code, out, told = run(capsys, "predict", tmp_path / "out", ask, "--text", "prompt,answer")
    assert code == 0, told
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]
    turns.append({"role": "user", "content": pairs()[0]["prompt"]})
    tuned = pegbox.Tuned.load(tmp_path / "out", say=lambda _: None)
    (found,) = tuned.predict([(turns, "It was great.")])
    assert json.loads(out)["reward"] == pytest.approx(found.reward, abs=1e-5)
    bad = write_lines(tmp_path / "bad.jsonl", [{"prompt": "Who?", "answer": "It was great."}])
    code, _, told = run(capsys, "predict", tmp_path / "out", bad, "--text", "prompt,answer")
    assert code != 0
    assert "the prompt does not begin with 'Human:'" in told
    assert "row 1" in told


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"rejected": "It was great."}, "chosen and rejected are the same (row 2)"),
        ({"chosen": ""}, "empty text in column 'chosen' (row 2)"),
        ({"rejected": None}, "missing text in column 'rejected' (row 2)"),
    ],
)
def test_bad_pairs_are_named_or_left_out(
    row: dict[str, Any], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = pairs(0, 6)
    bad = {**good[1], "chosen": "It was great.", **row}
    data = write_lines(tmp_path / "pairs.jsonl", [good[0], bad, *good[2:]])
    call = ["reward", data, "--model", folder_of("llama", "causal"), "--out", tmp_path / "out"]
    code, _, told = run(capsys, *call)
    assert code != 0
    assert fault in told
    assert str(data) in told
    assert "--on-bad-rows drop" in told
    assert not (tmp_path / "out").exists()
    quick = ["--on-bad-rows", "drop", "--holdout", "0", "--training.max_steps", "1"]
    code, _, told = run(capsys, *call, *quick)
    assert code == 0, told
    assert "1 row left out" in told


def test_what_cannot_be_is_refused_before_any_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, out = folder_of("llama", "causal"), place / "pairs.jsonl", tmp_path / "out"
    labelled = write_lines(
        tmp_path / "rows.jsonl", [{"text": "a b", "label": "x"}, {"text": "b", "label": "y"}]
    )
    t5 = folder_of("t5", "encoder-decoder")
    for call, fault in (
        (["reward", labelled, "--model", model, "--out", out], "No columns of two answers to a prompt"),
        (["reward", data, "--model", t5, "--out", out], "divides them between two"),
        (["reward", data, "--model", model, "--out", out, "--method", "closed-form"], "trains no head"),
        (["reward", data, "--model", model, "--out", out, "--chat", "model"], "has no chat template"),
        (["reward", data, "--model", model, "--out", out, "--text", "prompt"], "cannot be 'prompt'"),
        (["fit", data, "--model", model, "--out", out], "pegbox reward"),
        (["fit", data, "--model", model, "--out", out, "--template", "x"], "a prefer task has no template"),
        (["sft", data, "--model", model, "--out", out], "pegbox reward"),
        (["compare", data, "--model", model, "--out", out], "a reward is a number"),
        (["advise", data, "--model", model], "a reward is a number"),
    ):
        code, _, told = run(capsys, *call)
        assert code != 0, call
        assert fault in told, told
        assert not out.exists()


def test_fit_takes_preferences_too(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["fit", place / "pairs.jsonl", "--model", folder_of("bert", "encoder"), "--out", tmp_path / "out"]
    code, out, told = run(capsys, *call, "--method", "head", "--training.max_steps", "2")
    assert code == 0, told
    assert "task prefer (guessed from the columns; override with --task)" in told
    assert "longer wins" in out
