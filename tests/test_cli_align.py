"""pegbox ppo and pegbox dpo, from files to a policy's folder."""

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pegbox
from cli_toy import run, write_lines
from pegbox.cli import main
from pegbox.cli._align import dpo, ppo
from pegbox.cli._compare import compare
from pegbox.cli._fit import fit
from pegbox.cli._reward import reward
from pegbox.cli._sft import sft
from pegbox.cli._signature import documented
from pegbox.rlhf import Alignment
from pegbox.tasks import Decoding
from pegbox.tuning import Training
from reward_toy import toy_pairs
from tuning_toy import folder_of, hush

LEARN = ["--training.epochs", "4", "--training.learning_rate", "0.01"]
SMALL = ["--training.epochs", "1", "--training.precision", "float32"]
RL = [
    *("--rl.steps", "2", "--rl.batch_size", "8", "--rl.minibatch_size", "4", "--rl.max_tokens", "6"),
    *("--rl.evaluate_every", "2"),
]
ROWS = toy_pairs(12)
# Scores the reference's 64 answers and a held-out one, then the first step's 8 and one; the next is stopped.
STOPPING = """
asked = 0

def reward(prompt, answer):
    global asked
    asked += 1
    if asked > 74:
        raise KeyboardInterrupt
    return len(answer) + asked % 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, pairs, a tuned model and a reward model on one base."""
    folder = tmp_path_factory.mktemp("align")
    found = zip([texts[0] for texts in ROWS.texts], ROWS.chosen, ROWS.rejected, strict=True)
    pairs = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in found]
    write_lines(folder / "pairs.jsonl", pairs)
    asked = [{"instruction": row["prompt"], "output": row["chosen"]} for row in pairs]
    model = folder_of("llama", "causal")
    data = write_lines(folder / "asked.jsonl", asked)
    way = ["--decoding.max_tokens", "6", "--holdout", "0"]
    calls = [
        ["sft", data, "--model", model, "--out", folder / "sft", *SMALL, *way],
        ["reward", folder / "pairs.jsonl", "--model", model, "--out", folder / "reward", *SMALL, *LEARN],
    ]
    for call in calls:
        assert main(list(map(str, call))) == 0
    return folder


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_a_policy_and_its_metrics_are_saved(
    algorithm: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy"
    call = ["ppo", place / "asked.jsonl", "--sft", place / "sft", "--reward", place / "reward", "--out", out]
    code, printed, told = run(capsys, *call, "--algorithm", algorithm, *RL)
    assert code == 0, told
    assert "before" in printed
    assert "held-out prompt" in printed
    assert "before:" in printed
    assert "step 2 of 2" in told
    lines = (tmp_path / "policy-metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert (tmp_path / "policy-metrics.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "policy-run").exists()
    shutil.move(out, tmp_path / "elsewhere")
    code, _, refused = run(capsys, *call, "--algorithm", algorithm, *RL)
    assert code == 2
    assert f"there is a file of that name ({tmp_path / 'policy-metrics.jsonl'})" in refused
    shutil.move(tmp_path / "elsewhere", out)
    card = (out / "README.md").read_text()
    assert f"{algorithm.upper()}: 2 steps" in card
    assert "win_rate_reward" in card
    assert pegbox.Tuned.load(out, say=hush).predict(["Who?"])


def test_pairs_tune_a_policy_directly(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy"
    code, _, told = run(capsys, "dpo", place / "pairs.jsonl", "--sft", place / "sft", "--out", out, *SMALL)
    assert code == 0, told
    assert pegbox.Tuned.load(out, say=hush).predict(["Who?"])


def test_pairs_under_other_names_are_read_and_what_came_of_them_is_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = zip([texts[0] for texts in ROWS.texts], ROWS.chosen, ROWS.rejected, strict=True)
    rows = [dict(zip(("ask", "good", "bad"), row, strict=True)) for row in found]
    rows[3]["bad"] = rows[3]["good"]
    write_lines(tmp_path / "rows.jsonl", rows)
    held = place / "pairs.jsonl"
    call = ["dpo", tmp_path / "rows.jsonl", "--sft", place / "sft", "--out", tmp_path / "policy", *SMALL]
    code, _, told = run(capsys, *call, "--text", "ask,good,bad")
    assert code == 2
    assert "chosen and rejected are the same (row 4)" in told
    again = ["dpo", held, "--valid", held, "--sft", place / "sft", "--out", tmp_path / "policy"]
    code, _, told = run(capsys, *again, *SMALL, *LEARN)
    assert code == 0, told
    assert "preferences, format prompt: prompt 'prompt'" in told
    share = re.search(r"of 12 held-out pairs, .* in a share of (0\.\d+|1\.0+) \[", told)
    assert share is not None
    # A few large steps on these very pairs raise the chosen answers.
    assert float(share[1]) > 0.5
    assert f"in a share of {share[1]} [" in (tmp_path / "policy" / "README.md").read_text()
    call[call.index(tmp_path / "policy")] = tmp_path / "other"
    call += ["--text", "ask,good,bad", "--on-bad-rows", "drop", "--options.rank", "2"]
    code, _, told = run(capsys, *call)
    assert code == 0, told
    assert "1 row left out: chosen and rejected are the same" in told
    assert "the policy copies the tuned model's lora" in told


def test_prompts_under_other_names_and_as_dialogues_are_read(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"Human: Who {at}?\n\nAssistant: Me.\n\nHuman: {'Why? ' * 200}" for at in range(8)]
    write_lines(tmp_path / "rows.jsonl", [{"ask": text, "number": 1} for text in (*asked, asked[0])])
    call = ["ppo", tmp_path / "rows.jsonl", "--sft", place / "sft", "--reward", "operator:contains"]
    code, _, told = run(capsys, *call, "--out", tmp_path / "none", *RL)
    assert code == 2
    assert "fix: name the columns of the prompt with --text" in told
    assert "--label" not in told
    call = [*call[:4], "--reward", place / "reward", "--text", "ask"]
    code, printed, told = run(capsys, *call, "--out", tmp_path / "one", *RL)
    assert code == 0, told
    assert "prompts: format input: input 'ask' (as given)" in told
    assert "each read as one message (--dialogue human-assistant" in told
    assert "fewer than 6 held-out prompts cannot show" in told
    assert re.search(r"prompt: Human: Who \d\? Assistant: Me\. Human: Why\? .* characters \.\.\. ", printed)
    assert "1 held-out prompt," in printed
    code, printed, told = run(capsys, *call, "--out", tmp_path / "two", "--dialogue", "human-assistant", *RL)
    assert code == 0, told
    assert "each read as one message" not in told
    assert "prompt: Why? Why?" in printed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--rl.beta", "0"], "nothing holds the policy"),
        (["--rl.beta", "0"], "(--rl.free true)"),
        (["--rl.step", "3"], "no setting 'step'"),
        (["--rl.seed", "3"], "seed stands beside rl"),
        (["--rl.seed", "3", "--rl.algorithm", "rloo"], "write --algorithm and --seed"),
        (["--seed", "-1"], "--seed -1"),
        (["--rl.steps", "many"], "(--rl)"),
        (["--reward", "nowhere"], "is no reward"),
        (["--reward", "json:nothing"], "cannot be imported"),
        (["--reward", "string:digits"], "name a function of that module"),
        (["--reward", "operator:index"], "the reward function fails"),
        (["--gold", "nowhere"], "(--gold nowhere)"),
        (["--reward", "{place}/sft"], "gives no rewards"),
        (["--sft", "{place}/reward"], "token by token"),
        (["--sft", "{place}/nothing"], "no such folder"),
        (["--rl.max_tokens", "300"], "no room"),
        (["--out", "{place}/sft"], "the output folder exists"),
    ],
)
def test_wrong_use_has_one_error_and_leaves_nothing(
    changed: list[str], said: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy"
    call = ["ppo", place / "asked.jsonl", "--sft", place / "sft", "--reward", place / "reward", "--out", out]
    code, _, told = run(capsys, *call, *RL, *[part.format(place=place) for part in changed])
    assert code == 2
    assert said in told
    assert told.count("error:") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_says_how_to_go_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stopping.py").write_text(STOPPING)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "policy"
    call = ["ppo", place / "asked.jsonl", "--sft", place / "sft", "--reward", "stopping:reward", "--out", out]
    code, _, told = run(capsys, *call, *RL, "--rl.checkpoint_every", "1", "--rl.evaluate_every", "1")
    assert code == 130
    assert "interrupted after step 1 of 2: continue from step 1 with --resume, checkpoints are in" in told
    assert told.rstrip().endswith("policy-run")
    (tmp_path / "stopping.py").write_text(STOPPING.replace("raise KeyboardInterrupt", "pass"))
    monkeypatch.delitem(sys.modules, "stopping")
    code, _, told = run(capsys, *call, *RL, "--rl.evaluate_every", "1", "--resume")
    assert code == 0, told
    assert "resumed after step 1 of 2" in told


@pytest.mark.parametrize(
    ("verb", "flag", "settings", "elsewhere"),
    [
        (ppo, "rl", Alignment, ("algorithm", "seed")),
        (sft, "decoding", Decoding, ()),
        *((verb, "training", Training, ()) for verb in (fit, sft, reward, dpo, compare)),
    ],
)
def test_help_names_every_setting_with_its_default(
    verb: Callable[..., None], flag: str, settings: type[Any], elsewhere: tuple[str, ...]
) -> None:
    text = re.split("Names and defaults[^:]*: ", documented(verb)[flag])[1]
    shown = dict(re.findall(r"(\w+) \(([\w.-]*\w)", text))
    read = {name: yaml.safe_load(value.replace("unset", "null")) for name, value in shown.items()}
    known = {one.name: one.default for one in dataclasses.fields(settings) if one.name not in elsewhere}
    # YAML takes 3e-4, without a point, for a text.
    assert {name: float(one) if one == "3e-4" else one for name, one in read.items()} == known


def test_another_bases_reward_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folder_of("llama", "causal", seed=1)
    call = ["reward", place / "pairs.jsonl", "--model", other, "--out", tmp_path / "other", *SMALL]
    assert run(capsys, *call)[0] == 0
    call = ["ppo", place / "asked.jsonl", "--sft", place / "sft", "--reward", tmp_path / "other"]
    code, _, told = run(capsys, *call, "--out", tmp_path / "policy", *RL)
    assert code == 2
    assert "another base" in told
