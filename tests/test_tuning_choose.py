"""Multiple choice from fit to a saved folder; scores against the plain full forward pass."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pegbox
from pegbox.data import Questions, from_questions
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import Attached, FewShot, LoRA, build, methods
from pegbox.models import Base, option_logprobs
from pegbox.tasks import Choose, OptionRows
from pegbox.tuning import Demonstrate, base_alone
from pegbox.tuning._shapes import Work
from pegbox.tuning._shapes._option_rows import ChoiceRows
from pegbox.tuning._shapes.choose import ChooseShape
from tuning_toy import base_of, checksum, fit, folder_of, hush

# Options that share a start, of one and of several tokens, and of different numbers.
ROWS = Questions(
    "toy questions",
    {"question": ("What is hot?", "Who answered the hotel?", "Is it good?", "What broke?", "Who said yes?")},
    (
        ("the tea", "the kettle", "the kettle and the tea", "a screen"),
        ("nobody", "the staff"),
        ("yes", "no", "maybe"),
        ("the screen", "the breakfast", "it"),
        ("A", "B", "C", "the staff said yes", "maybe"),
    ),
    (0, 1, 0, 2, 3),
    (1, 2, 3, 4, 5),
)


def coded(base: Base, task: Choose | None = None) -> OptionRows:
    return base.prepare(task or Choose()).encode_options(ROWS)  # type: ignore[attr-defined]


def plain_scores(model: Any, rows: OptionRows) -> list[Tensor]:
    """Log-probabilities of each option, one full forward pass over all positions and words for each."""
    found = []
    for question, options in zip(rows.prompts.ids, rows.options, strict=True):
        scores = []
        for option in options:
            logits = model(input_ids=torch.tensor([[*question, *option]])).logits[0].float()
            said = logits.log_softmax(-1)[len(question) - 1 : -1]
            scores.append(said[torch.arange(len(option)), list(option)].sum())
        found.append(torch.stack(scores))
    return found


@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "gemma3_text", "gemma2", "mistral", "gpt2", "cohere", "bloom"]
)
def test_scores_from_the_shared_cache_equal_the_full_forward_pass(family: str) -> None:
    base = base_of(family)
    rows = coded(base)
    # Options with the same first tokens, of one token and of several, are all there.
    starts = [option[0] for option in rows.options[0]]
    assert len(set(starts)) < len(starts)
    assert {len(option) for options in rows.options for option in options} >= {1, 2}
    with torch.no_grad():
        wanted = plain_scores(base.model, rows)
    for ours, theirs in zip(option_logprobs(base.model, base, rows), wanted, strict=True):
        # float32 sums of a few tokens in another order.
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("normalise", ["tokens", "characters", "none"])
def test_loss_and_gradients_equal_those_of_the_full_forward_pass(family: str, normalise: Any) -> None:
    base = base_of(family)
    rows = coded(base, Choose(normalise=normalise))
    module = base.module(1)
    weights = {name: value for name, value in module.named_parameters() if "embed" in name or "wte" in name}
    kept = {name: value.requires_grad for name, value in weights.items()}
    try:
        for value in weights.values():
            value.requires_grad_(True)
        trained = ChoiceRows(base, rows, ROWS.answers or ())
        loss, answers = trained.loss(module, trained.collate(range(len(ROWS))))
        found = torch.autograd.grad(loss, list(weights.values()))
        wanted = torch.tensor(0.0)
        for scores, divisors, gold in zip(
            plain_scores(module, rows), rows.divisors, ROWS.answers or (), strict=True
        ):
            wanted = wanted - (scores / torch.tensor(divisors)).log_softmax(0)[gold]
        gradients = torch.autograd.grad(wanted, list(weights.values()))
    finally:
        for name, value in weights.items():
            value.requires_grad_(kept[name])
    assert int(answers) == len(ROWS)
    torch.testing.assert_close(loss, wanted, atol=1e-4, rtol=1e-5)
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_only_the_options_reach_the_output_layer() -> None:
    base = base_of("llama")
    rows, module = coded(base), base.module(1)
    layer = module.get_output_embeddings()  # type: ignore[operator]
    seen: list[int] = []
    layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].numel() // inputs[0].shape[-1]))
    trained = ChoiceRows(base, rows, ROWS.answers or ())
    trained.loss(module, trained.collate(range(len(ROWS))))
    assert seen == [sum(len(option) for options in rows.options for option in options)]


def test_probabilities_are_a_softmax_over_each_rows_own_options() -> None:
    tuned = fit(base_of("llama"), "zero-shot", ROWS, task=Choose())
    table = tuned.probabilities(ROWS)
    assert table.shape == (5, 5)
    for row, options in zip(table, ROWS.options, strict=True):
        assert row[: len(options)].sum() == pytest.approx(1)
        assert (row[len(options) :] == 0).all()
    answers = tuned.predict(ROWS)
    assert [len(answer.probabilities) for answer in answers] == [4, 2, 3, 3, 5]
    assert all(answer.text == ROWS.options[at][answer.index] for at, answer in enumerate(answers))
    alone = tuned.predict([("Is it good?", ["yes", "no", "maybe"])])[0]
    assert alone.probabilities == pytest.approx(answers[2].probabilities, abs=1e-5)
    assert tuned.predict([]) == []


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_small_batch_can_be_learnt_by_heart_and_saved(family: str, tmp_path: Path) -> None:
    base = base_of(family)
    before = checksum(base.model)
    training = pegbox.Training(epochs=25, batch_size=8, learning_rate=1e-2, precision="float32")
    tuned = fit(base, LoRA(rank=8, targets="all-linear"), ROWS, task=Choose(), training=training)
    scores = tuned.evaluate(ROWS, resamples=10)
    assert scores.metrics["accuracy"].value == 1.0
    assert scores.metrics["chance"].value == pytest.approx((1 / 4 + 1 / 2 + 1 / 3 + 1 / 3 + 1 / 5) / 5)
    assert scores.flips is not None
    assert checksum(base.model) == before
    folder = tuned.save(tmp_path / "out", scores=scores)
    again = pegbox.Tuned.load(folder, say=hush)
    assert torch.equal(again.logits(ROWS), tuned.logits(ROWS))
    assert json.loads((folder / "task.json").read_text())["task"] == "choose"
    assert "multiple-choice" in (folder / "README.md").read_text()


def test_few_shot_shows_solved_questions_and_the_base_none() -> None:
    base = base_of("llama")
    tuned = fit(base, FewShot(per_class=2), ROWS, task=Choose())
    shown = tuned.prompt.task.demonstrations
    assert len(shown) == 2
    gold = {options[at] for options, at in zip(ROWS.options, ROWS.answers or (), strict=True)}
    assert {item.label for item in shown} <= gold
    text = base.tokenizer.decode(tuned.prompt.demonstration_ids())
    assert text.count("Question:") == 2
    assert f"Answer: {shown[0].label}\n\n" in text
    zero = fit(base, "zero-shot", ROWS, task=Choose())
    assert torch.equal(base_alone(tuned).logits(ROWS), zero.logits(ROWS))
    assert not torch.equal(tuned.logits(ROWS), zero.logits(ROWS))


def test_what_cannot_work_is_refused_with_the_reason() -> None:
    base = base_of("llama")
    with pytest.raises(CapabilityError, match="every question has options of its own") as error:
        fit(base, "closed-form", ROWS, task=Choose())
    assert "lora" in str(error.value)
    with pytest.raises(CapabilityError, match="cannot work on an encoder"):
        fit(base_of("bert", "encoder"), "zero-shot", ROWS, task=Choose())
    with pytest.raises(CapabilityError, match="chosen per label"):
        fit(base, FewShot(selection="similar"), ROWS, task=Choose())
    with pytest.raises(CapabilityError, match="a masked model fills one mask"):
        fit(base_of("bert", "masked"), "lora", ROWS, task=Choose())
    with pytest.raises(UsageError, match="label words belong to classification"):
        fit(base, "lora", ROWS, task=Choose(), label_words="auto")
    with pytest.raises(UsageError, match="demonstrations belong to classification"):
        fit(base, "lora", ROWS, task=Choose(), demonstrations=Demonstrate(per_class=1))


def test_long_questions_are_told() -> None:
    base = pegbox.load(folder_of("llama", "causal"), max_length=48)
    rows = from_questions([("tea " * 80, ["yes", "no"])])
    told: list[str] = []
    tuned = fit(base, "zero-shot", ROWS, task=Choose(), say=told.append)
    tuned.predict(rows)
    assert any("1 of 1 texts shortened to fit the context" in line for line in told)


def test_a_test_file_is_read_as_the_training_file_was(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    row = {"question": "What?", "choices": ["tea", "it", "no"], "answer": 1}
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "answer": 2}) + "\n")
    for kind, gold in (("numbers from 0", (1, 2)), ("numbers from 1", (0, 1))):
        tuned = fit(base_of("llama"), "zero-shot", ROWS, task=Choose(answer_kind=kind))  # type: ignore[arg-type]
        assert tuned.read(path).answers == gold


@pytest.mark.parametrize("method", [name for name in methods() if name != "qlora"])
def test_every_method_that_trains_chooses_and_is_saved(method: str, tmp_path: Path) -> None:
    if not isinstance(build(method), Attached):
        pytest.skip("it does not train")
    training = pegbox.Training(max_steps=2, precision="float32")
    tuned = fit(base_of("llama"), method, ROWS, task=Choose(), training=training)
    again = pegbox.Tuned.load(tuned.save(tmp_path / "out"), say=hush)
    torch.testing.assert_close(again.logits(ROWS), tuned.logits(ROWS), atol=1e-5, rtol=1e-5)
    # What was trained is what answers: the loss of the rows as they are trained equals that of the scores.
    work = Work(tuned.base, tuned.prompt, 0, "shorten", None, hush)
    trained = ChooseShape().trainable(work, [ROWS])[0]
    assert tuned.module is not None
    with torch.no_grad():
        loss, _ = trained.loss(tuned.module, trained.collate(range(len(ROWS))))
    gold = torch.tensor(ROWS.answers)
    wanted = torch.nn.functional.cross_entropy(tuned.logits(ROWS), gold, reduction="sum")
    torch.testing.assert_close(loss, wanted, atol=1e-3, rtol=1e-4)
    assert (tuned.evaluate(ROWS, resamples=2).flips is None) == (method == "head")


@pytest.mark.parametrize(
    ("method", "architecture", "kind"),
    [("lora", "bert", "encoder"), ("head", "roberta", "masked"), ("full", "bert", "encoder")],
)
def test_a_head_scores_pairs_of_question_and_option(
    method: str, architecture: str, kind: str, tmp_path: Path
) -> None:
    training = pegbox.Training(epochs=40, batch_size=8, learning_rate=2e-2, precision="float32")
    tuned = fit(base_of(architecture, kind), method, ROWS, task=Choose(), training=training)
    table = tuned.probabilities(ROWS)
    loss = -sum(float(torch.tensor(row[at]).log()) for row, at in zip(table, ROWS.answers or (), strict=True))
    # Before training all options are equally likely: log 4 + log 2 + 2 log 3 + log 5 = 5.9.
    assert loss < 5.5
    again = pegbox.Tuned.load(tuned.save(tmp_path / "out"), say=hush)
    torch.testing.assert_close(again.logits(ROWS), tuned.logits(ROWS), atol=1e-6, rtol=1e-5)
    # One pair alone, by the plain module: what the tokenizer makes of two texts.
    coded = tuned.base.tokenizer("What broke?", "it", return_tensors="pt")
    with torch.no_grad():
        wanted = tuned.module(**coded)[0, 0]  # type: ignore[misc]
    assert float(tuned.logits(ROWS)[3, 2]) == pytest.approx(float(wanted), abs=1e-5)


def test_a_full_context_is_trained_on() -> None:
    """The last token of an option is predicted, never read: GPT-2 has no position for it."""
    base = base_of("gpt2")
    question = " ".join(["tea"] * 2 * base.context)
    rows = Questions("long", {"question": (question,)}, (("the kettle and the tea", "no"),), (0,), (1,))
    encoded = base.prepare(Choose()).encode_options(rows)  # type: ignore[attr-defined]
    assert len(encoded.prompts.ids[0]) + len(encoded.options[0][0]) == base.context + 1
    found = ChoiceRows(base, encoded, [0])
    loss, count = found.loss(base.model, found.collate([0]))
    wanted = option_logprobs(base.model, base, encoded)[0] / torch.tensor(encoded.divisors[0])
    assert int(count) == 1
    torch.testing.assert_close(loss, -wanted.log_softmax(0)[0], rtol=1e-4, atol=1e-5)
