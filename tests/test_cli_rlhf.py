"""pegbox rlhf: all stages from one file, its record and report, interruptions, and wrong plans."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import pegbox
from page_toy import Page
from pegbox.cli import main
from pegbox.comparison import PolicyRun
from pegbox.comparison import _rlhf as pipeline
from pegbox.comparison._policy_verdict import verdict
from pegbox.errors import UsageError
from pegbox.evaluation import Estimate, score_rewards
from pegbox.reports import write_rlhf_report
from pegbox.rlhf import METRICS, Alignment
from reward_toy import toy_pairs
from tuning_toy import folder_of, hush

ROWS = toy_pairs(24)
RL = {
    "steps": 3, "batch_size": 8, "minibatch_size": 4, "max_tokens": 6, "evaluate_every": 2,
    "checkpoint_every": 1,
}  # fmt: skip
FAST = {"epochs": 1, "precision": "float32"}
GOLD = "def gold(prompt, answer):\n    return float(len(answer))\n"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    return code, " ".join(streams.out.split()), " ".join(streams.err.split())


def data_in(folder: Path) -> Path:
    """Answers, pairs and a gold reward."""
    found = zip([texts[0] for texts in ROWS.texts], ROWS.chosen, ROWS.rejected, strict=True)
    pairs = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in found]
    asked = [{"instruction": row["prompt"], "output": row["chosen"]} for row in pairs]
    for name, rows in (("pairs", pairs), ("asked", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "golden.py").write_text(GOLD, "utf-8")
    return folder


def plan_of(folder: Path, **changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "model": folder_of("llama", "causal"),
        "gold": "golden:gold",
        "frontier_draws": 4,
        "forgetting": str(folder / "text.txt"),
        "sft": {
            "data": str(folder / "asked.jsonl"), "training": FAST, "holdout": 0,
            "decoding": {"max_tokens": 6},
        },
        "reward": {"data": str(folder / "pairs.jsonl"), "training": {**FAST, "epochs": 4}},
        "ppo": {"data": str(folder / "asked.jsonl"), "rl": RL},
    }  # fmt: skip
    plan = {name: str(part) if isinstance(part, Path) else part for name, part in plan.items()}
    return {name: part for name, part in {**plan, **changes}.items() if part is not None}


def write(plan: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(plan), "utf-8")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in the folder ``run`` beside its data."""
    folder = data_in(tmp_path_factory.mktemp("rlhf"))
    (folder / "text.txt").write_text("\n\n".join(f"The kettle {index} is hot." for index in range(40)))
    path = write(plan_of(folder), folder / "run.yaml")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        assert main(["rlhf", str(path)]) == 0
    return folder


@pytest.fixture(scope="module")
def record(place: Path) -> PolicyRun:
    return PolicyRun.from_json(json.loads((place / "run" / "rlhf.json").read_text("utf-8")))


def test_all_stages_their_record_and_a_report_lie_in_one_folder(place: Path, record: PolicyRun) -> None:
    names = sorted(path.name for path in (place / "run").iterdir())
    assert names == [
        "metrics.jsonl", "pictures", "plan.json", "policy", "report.html", "reward", "rlhf.json", "sft",
    ]  # fmt: skip
    lines = (place / "run" / METRICS).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    assert [stage.name for stage in record.stages] == ["sft", "reward", "policy"]
    assert record.stages[-1].source == "asked.jsonl"
    assert record.algorithm == "ppo"
    assert set(record.scores.rewards) == {"reward", "gold"}
    assert record.scores.reach is not None
    assert record.reward_scores is not None
    assert set(record.forgetting) == {"sft", "policy"}
    assert len(record.verdict) == 3 + bool(record.reward_scores and record.reward_scores.unbeaten)
    assert pegbox.Tuned.load(place / "run" / "policy", say=hush).predict(["Who?"])
    again = PolicyRun.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False)))
    assert again == record


def test_the_report_opens_offline_and_says_all_of_it(place: Path, record: PolicyRun, tmp_path: Path) -> None:
    source = (place / "run" / "report.html").read_text("utf-8")
    read = Page(source)
    for name in ("judge", "frontier", "overdone", "answers", "reward", "course", "forgetting", "repeat"):
        assert read.by_id(name).tag == "section"
    assert "http" not in source.replace("http-equiv", "")
    assert not read.all("script")
    for sentence in record.verdict:
        assert sentence in read.all("body")[0].text
    pictures = {path.name for path in (place / "run" / "pictures").iterdir()}
    names = ("course", "frontier", "held-out", "margins", "reward-reliability")
    assert pictures == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
    write_rlhf_report(record, tmp_path)
    assert (tmp_path / "report.html").read_bytes() == (place / "run" / "report.html").read_bytes()


def test_a_report_without_history_reward_model_or_frontier(record: PolicyRun, tmp_path: Path) -> None:
    bare = replace(
        record,
        algorithm="dpo",
        history=(),
        reward_scores=None,
        stages=record.stages[::2],
        forgetting={},
        scores=replace(record.scores, reach=None),
    )
    text = Page(write_rlhf_report(bare, tmp_path).read_text("utf-8")).all("body")[0].text
    for said in ("The frontier was not measured", "is no tuned model", "learnt directly", "not measured"):
        assert said in text
    with pytest.raises(UsageError, match="folder where a file is"):
        write_rlhf_report(record, tmp_path / "report.html")


def test_what_a_verdict_says_of_it(record: PolicyRun) -> None:
    gold = record.scores.rewards["gold"]

    def said(low: float, high: float, p: float, **changes: Any) -> list[str]:
        moved = replace(gold, difference=Estimate((low + high) / 2, low, high), p=p)
        rewards = {**record.scores.rewards, "gold": moved}
        return list(verdict(replace(record, scores=replace(record.scores, rewards=rewards), **changes)))

    assert "PPO raised the gold reward" in said(0.1, 0.3, 0.001)[0]
    assert "PPO lowered the gold reward" in said(-0.3, -0.1, 0.001)[0]
    assert "cannot tell the PPO policy" in said(-0.1, 0.3, 0.4)[0]
    assert "was not seen to fall" in said(-0.1, 0.3, 0.4)[2]
    assert said(0.1, 0.3, 0.001, warnings=("step 4: over-optimisation: since",))[2].startswith(
        "Warned step 4"
    )
    alone = replace(record, scores=replace(record.scores, rewards={"reward": gold}))
    assert "may have learnt to please" in list(verdict(alone))[2]
    assert "tuned by" not in list(verdict(replace(alone, algorithm="dpo")))[2]
    # Four pairs can show nothing.
    weak = score_rewards([1.0, 2, 0, 1], [0.0, 1, 1, 0], [3] * 4, [2] * 4, resamples=20)
    last = list(verdict(replace(record, reward_scores=weak)))[-1]
    assert last.startswith("Of the reward model: its accuracy is not surely above that of 'longer wins'")
    strong = score_rewards(np.ones(100), np.zeros(100), [2, 3] * 50, [3, 2] * 50, resamples=20)
    assert len(list(verdict(replace(record, reward_scores=strong)))) == 3


def test_the_same_command_again_does_nothing_and_another_plan_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = (place / "run" / "rlhf.json").read_bytes()
    code, _, told = call(capsys, "rlhf", "run.yaml")
    assert code == 0
    assert "finished" in told
    other = write(plan_of(place, frontier_draws=2), place / "other.yaml")
    code, _, told = call(capsys, "rlhf", other, "--out", "run")
    assert code == 2
    assert "another plan: frontier_draws" in told
    assert (place / "run" / "rlhf.json").read_bytes() == before


def test_a_plan_that_is_mended_before_anything_was_tuned_goes_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    out = tmp_path / "out"
    late = {"data": str(place / "asked.jsonl"), "text": "nothing", "training": FAST}
    wrong = write(plan_of(place, sft=late), tmp_path / "wrong.yaml")
    assert call(capsys, "rlhf", wrong, "--out", out)[0] == 2
    monkeypatch.setattr("pegbox.cli._rlhf._stage", lambda *_: None)
    monkeypatch.setattr("pegbox.cli._rlhf._last", lambda *_: None)
    monkeypatch.setattr("pegbox.cli._rlhf._report", lambda *_: None)
    code, _, told = call(capsys, "rlhf", "run.yaml", "--out", out)
    assert code == 0, told


def test_a_report_that_failed_is_made_without_tuning_anew(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    page = place / "run" / "report.html"
    before = page.read_bytes()
    page.unlink()
    code, _, told = call(capsys, "rlhf", "run.yaml")
    assert code == 0
    assert "training" not in told
    assert page.read_bytes() == before


def test_overwriting_keeps_stages_that_stay_and_never_its_own_inputs(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    out = tmp_path / "copy"
    shutil.copytree(place / "run", out)
    stamp = (out / "sft" / "pegbox.json").stat().st_mtime_ns
    changed = plan_of(place, ppo={"data": str(place / "asked.jsonl"), "rl": {**RL, "steps": 1}})
    path = write(changed, tmp_path / "changed.yaml")
    code, _, told = call(capsys, "rlhf", path, "--out", out, "--overwrite")
    assert code == 0, told
    assert (out / "sft" / "pegbox.json").stat().st_mtime_ns == stamp
    assert len((out / METRICS).read_text().splitlines()) == 1
    own = write(plan_of(place, sft=str(out / "sft")), tmp_path / "own.yaml")
    code, _, told = call(capsys, "rlhf", own, "--out", out, "--overwrite")
    assert code == 2
    assert "lies in the folder" in told
    assert (out / "sft" / "pegbox.json").exists()


def test_a_plan_of_someone_else_is_not_taken_for_one(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (tmp_path / "plan.json").write_text("[1]")
    code, _, told = call(capsys, "rlhf", "run.yaml", "--out", tmp_path, "--overwrite")
    assert code == 2
    assert "something else" in told
    assert [one.name for one in tmp_path.iterdir()] == ["plan.json"]


def test_a_saturated_reward_is_drawn(record: PolicyRun, tmp_path: Path) -> None:
    assert record.scores.reach is not None
    flat = replace(record.scores.reach, reward=Estimate(0.3, 0.3 + 1e-16, 0.3 - 1e-16))
    write_rlhf_report(replace(record, scores=replace(record.scores, reach=flat)), tmp_path)


def test_an_interrupted_run_goes_on_to_the_same_policy(
    place: Path, record: PolicyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Stopped in the policy's last step, then while it is judged."""
    from pegbox.rlhf import Aligner
    from pegbox.tuning import Aligned

    monkeypatch.chdir(place)
    real, judged = Aligner._advance, Aligned.side_by_side

    def stop(run: Aligner) -> None:
        if run.step == 2:
            raise KeyboardInterrupt
        real(run)

    def halt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    out = tmp_path / "again"
    monkeypatch.setattr(Aligner, "_advance", stop)
    assert call(capsys, "rlhf", "run.yaml", "--out", out)[0] == 130
    monkeypatch.setattr(Aligner, "_advance", real)
    monkeypatch.setattr(Aligned, "side_by_side", halt)
    code, _, told = call(capsys, "rlhf", "run.yaml", "--out", out)
    assert code == 130
    assert "sft: done" in told
    assert "the same command goes on" in told
    assert "resumed after step 2" in told
    assert not (out / "policy").exists()
    monkeypatch.setattr(Aligned, "side_by_side", judged)
    assert call(capsys, "rlhf", "run.yaml", "--out", out)[0] == 0
    found = PolicyRun.from_json(json.loads((out / "rlhf.json").read_text("utf-8")))
    assert found.scores == record.scores
    assert found.answers == record.answers
    assert not (out / "policy-run").exists()


def test_pairs_are_learnt_directly_and_stages_may_be_folders_or_functions(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    given = plan_of(
        place, sft=str(place / "run" / "sft"), reward="golden:gold", gold=None, ppo=None, forgetting=None,
        dpo={"data": str(place / "pairs.jsonl"), "training": FAST},
    )  # fmt: skip
    code, printed, told = call(
        capsys, "rlhf", write(given, tmp_path / "direct.yaml"), "--out", tmp_path / "out"
    )
    assert code == 0, told
    assert "DPO" in printed
    found = PolicyRun.from_json(json.loads((tmp_path / "out" / "rlhf.json").read_text("utf-8")))
    assert found.algorithm == "dpo"
    assert found.reward == "golden:gold"
    assert found.history == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sftt": {}}, "no key 'sftt'"),
        ({"sft": None}, "the section sft is missing"),
        ({"ppo": None}, "one of ppo and dpo"),
        ({"dpo": {"data": "x"}}, "one of ppo and dpo"),
        ({"sft": {"data": "x", "epochs": 3}}, "no option 'epochs'"),
        ({"sft": {"training": FAST}}, "names no data"),
        ({"sft": 3}, "the section sft is 3"),
        ({"sft": {"data": "nowhere.jsonl"}}, "section sft"),
        ({"ppo": {"data": "asked.jsonl", "rl": {"step": 3}}}, "no setting 'step'"),
        ({"ppo": {"data": "asked.jsonl", "rl": [3]}}, "section ppo"),
        ({"ppo": {"data": "asked.jsonl", "rl": {"seed": 3}}}, "in a plan the same keys of the section"),
        ({"sft": {"data": "asked.jsonl"}, "revision": "v1"}, "a version of a model on the hub"),
        ({"ppo": {"data": "asked.jsonl", "rl": {1: 2}}}, "no setting"),
        ({"ppo": {"data": "asked.jsonl", "model": "x"}}, "no option 'model'"),
        ({"ppo": None, "dpo": {"data": "pairs.jsonl", "beta": -1}}, "weight of the divergence"),
        ({"ppo": None, "dpo": {"data": "pairs.jsonl", "max_tokens": 0}}, "max_tokens"),
        ({"frontier_draws": "many"}, "frontier_draws is 'many'"),
        ({"draws": 8}, "write frontier_draws for the frontier"),
        ({"reward": {"data": "pairs.jsonl", "training": {"epoch": 1}}}, "section reward"),
        ({"reward": {"data": "pairs.jsonl", "options": {"rank": "much"}}}, "section reward"),
        ({"reward": "run/sft"}, "a folder that pegbox reward wrote"),
        ({"out": 3}, "out is 3"),
        ({"gold": "nowhere:gold"}, "cannot be imported"),
        ({"sft": "nowhere"}, "no folder of a tuned model"),
        ({"forgetting": "nowhere.txt"}, "no such text"),
        ({"sft": {"data": "asked.jsonl", "method": "full"}}, "a base of its own"),
        ({"ppo": {"data": "nowhere.jsonl"}}, "section ppo"),
        (
            {"reward": {"data": "pairs.jsonl", "training": {"epochs": "abc"}}},
            "epochs is 'abc', expected a number above 0 (section reward",
        ),
        (
            {"ppo": None, "dpo": {"data": "pairs.jsonl", "training": {"learning_rate": 0}}},
            "learning_rate is 0, expected a number above 0 (section dpo of ",
        ),
        ({"reward": {"data": "pairs.jsonl", "holdout": "much"}}, "section reward"),
    ],
)
def test_a_wrong_plan_has_one_error(
    changes: dict[str, Any], said: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    code, _, told = call(
        capsys, "rlhf", write(plan_of(place, **changes), tmp_path / "w.yaml"), "--out", tmp_path / "o"
    )
    assert code == 2
    assert said in told
    assert told.count("error:") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("content", "said"), [("a: [", "no YAML"), ("- 1\n", "no sections"), (None, "no such file")]
)
def test_a_file_that_is_no_plan(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "p.yaml").write_text(content)
    code, _, told = call(capsys, "rlhf", tmp_path / "p.yaml")
    assert code == 2
    assert said in told


def test_a_finished_run_is_not_overwritten_from_python(place: Path) -> None:
    with pytest.raises(UsageError, match="finished run"):
        pipeline.rlhf("sft", "reward", "rows", folder=place / "run", settings=Alignment())
