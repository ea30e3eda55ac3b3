"""Generation from fit to a saved folder: the loss, what is written, how it is scored, what is refused."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import pegbox
from conformance import FAMILIES
from pegbox.data import Conversations, Message, from_prompts
from pegbox.errors import CapabilityError, InputError, RunError, UsageError
from pegbox.evaluation import GenerationScores
from pegbox.methods import Attached, LoRA, build, methods
from pegbox.models import Base, decode
from pegbox.tasks import Decoding, Generate, GeneratePrompt
from pegbox.tuning import Replay, Written, base_alone
from pegbox.tuning._shapes._response_rows import ResponseRows
from tuning_toy import base_of, checksum, hush

PAIRS = (
    ("What is hot?", "The tea was hot."),
    ("What broke?", "the screen"),
    ("Is it good? Answer yes or no.", "yes"),
    ("Who answered after a day with a bad breakfast?", "nobody but the staff"),
    ("Say A.", "A"),
)
CAUSAL = [family for family, (_, kind) in FAMILIES.items() if kind == "causal"]
WRITERS = [family for family, (_, kind) in FAMILIES.items() if kind in ("causal", "encoder-decoder")]
TRAINING = pegbox.Training(epochs=2, batch_size=4, precision="float32", patience=0)
TASK = Generate(columns={"instruction": "instruction", "output": "output"}, decoding=Decoding(max_tokens=8))


def rows_of(pairs: Any = PAIRS) -> Conversations:
    messages = tuple((Message("user", asked), Message("assistant", answer)) for asked, answer in pairs)
    references = tuple((answer,) for _, answer in pairs)
    return Conversations("toy chats", messages, references, tuple(range(1, len(pairs) + 1)))


def fit(base: Base, method: Any, *, task: Generate = TASK, rows: Any = None, **options: Any) -> pegbox.Tuned:
    rows = rows_of() if rows is None else rows
    return pegbox.fit(base, task, method, rows=rows, **{"say": hush, "training": TRAINING, **options})


def base_for(family: str) -> Base:
    return base_of(*FAMILIES[family])


def plain_loss(module: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed cross-entropy from the logits of all positions and words."""
    inputs = {key: value for key, value in batch.items() if key != "targets"}
    logits = module(**inputs).logits
    return functional.cross_entropy(
        logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-100, reduction="sum"
    )


@pytest.mark.parametrize("family", WRITERS)
def test_loss_and_gradient_equal_the_plain_ones_in_float64(family: str) -> None:
    base = base_for(family)
    module = copy.deepcopy(base.model).double().requires_grad_(True)
    rows = ResponseRows(base, base.prepare(TASK).speak(rows_of()))  # type: ignore[attr-defined]
    batch = rows.collate(range(len(PAIRS)))
    loss, count = rows.loss(module, batch)
    wanted = plain_loss(module, batch)
    assert int(count) == rows.tokens
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=1e-9)
    values = [value for value in module.parameters() if value.requires_grad]
    ours = torch.autograd.grad(loss, values, allow_unused=True)
    theirs = torch.autograd.grad(wanted, values, allow_unused=True)
    for own, other in zip(ours, theirs, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def test_only_what_is_said_reaches_the_output_layer() -> None:
    base = base_of("llama")
    module: Any = base.module(0)
    rows = ResponseRows(base, base.prepare(TASK).speak(rows_of()))  # type: ignore[attr-defined]
    seen: list[int] = []
    layer = module.get_output_embeddings()
    layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].numel() // inputs[0].shape[-1]))
    rows.loss(module, rows.collate(range(len(PAIRS))))
    assert sum(seen) == rows.tokens < sum(rows.lengths)


def test_every_answer_with_its_end_is_learnt_and_no_question() -> None:
    base = base_of("llama")
    rows = ResponseRows(base, base.prepare(TASK).speak(rows_of()))  # type: ignore[attr-defined]
    batch = rows.collate(range(len(PAIRS)))
    for line, (_, answer) in enumerate(PAIRS):
        told = [token for token in batch["targets"][line].tolist() if token != -100]
        assert told[-1] == base.tokenizer.eos_token_id
        assert base.tokenizer.decode(told[:-1]).strip() == answer


def usable(name: str, family: str) -> bool:
    capability = methods()[name].capability
    architecture, kind = FAMILIES[family]
    return kind in capability.kinds and architecture not in capability.holes and not capability.needs_head


TRAINED = [name for name, method in methods().items() if issubclass(method, Attached)]
CASES = [(name, family) for name in TRAINED for family in WRITERS if usable(name, family) and name != "qlora"]


# LoRA on every family, the other methods on three; make test-all runs all of them on all.
FEW = ("llama", "gemma3_text", "t5")


def each(cases: list[tuple[str, str]]) -> list[Any]:
    """Parameters of these cases, those of the longer run marked."""
    return [
        pytest.param(
            name,
            family,
            id=f"{name}-{family}",
            marks=[] if name == "lora" or family in FEW else [pytest.mark.slow],
        )
        for name, family in cases
    ]


@pytest.mark.parametrize(("name", "family"), each(CASES))
def test_each_method_learns_writes_and_is_saved(name: str, family: str, tmp_path: Path) -> None:
    base = base_for(family)
    before = checksum(base.model)
    # Soft tokens begin elsewhere than the base, which they must first catch up with.
    epochs = 40 if name in ("soft-prompt", "p-tuning") else 6
    training = replace(TRAINING, epochs=epochs, learning_rate=2e-3 if name == "full" else 2e-2)
    tuned = fit(base, name, training=training)
    answers = tuned.predict(rows_of())
    assert checksum(base.model) == before
    scores = tuned.evaluate(rows_of(), resamples=20)
    assert scores.metrics["perplexity"].value < scores.metrics["base_perplexity"].value
    assert all(len(tuned.prompt.tokenizer.encode(one.text)) < 40 for one in answers)
    folder = tuned.save(tmp_path / "out", scores=scores)
    again = pegbox.Tuned.load(folder, say=hush)
    assert again.predict(rows_of()) == answers
    kept = GenerationScores.from_json(json.loads((folder / "scores.json").read_text()))
    assert kept.metrics["perplexity"].value == pytest.approx(scores.metrics["perplexity"].value)
    assert "text-generation" in (folder / "README.md").read_text()


@torch.no_grad()
def greedy(module: Any, ids: list[int], start: tuple[int, ...], stops: Any, most: int) -> list[int]:
    """Greedy decoding by whole forward passes, without cache, padding and generate."""
    found: list[int] = []
    while len(found) < most:
        if start:
            told = torch.tensor([[*start, *found]])
            logits = module(input_ids=torch.tensor([ids]), decoder_input_ids=told).logits
        else:
            logits = module(input_ids=torch.tensor([[*ids, *found]])).logits
        token = int(logits[0, -1].argmax())
        if token in stops:
            break
        found.append(token)
    return found


@pytest.mark.parametrize(
    ("name", "family"), each([case for case in CASES if case[0] in ("lora", "prefix", "soft-prompt")])
)
def test_batched_greedy_answers_equal_those_of_whole_passes(name: str, family: str) -> None:
    base = base_for(family)
    tuned = fit(base, name, training=replace(TRAINING, epochs=1, learning_rate=3e-2))
    prompt = tuned.prompt
    assert isinstance(prompt, GeneratePrompt)
    asked = from_prompts([question for question, _ in PAIRS])
    prompts = prompt.ask(asked, room=200)[0]
    assert len({len(ids) for ids in prompts}) > 2  # so that padding is at work
    found = decode(
        tuned.module,
        base,
        prompts,
        Decoding(max_tokens=6),
        stops=prompt.stops,
        start=prompt.start,  # type: ignore[arg-type]
    )
    for ids, own in zip(prompts, found, strict=True):
        assert own == greedy(tuned.module, list(ids), prompt.start, prompt.stops, 6)


def test_settings_of_the_models_folder_do_not_steer_decoding() -> None:
    base = base_of("gpt2")
    plain = fit(base, "zero-shot").predict(rows_of())
    before = base.model.generation_config
    try:
        base.model.generation_config = copy.deepcopy(before)
        for name, value in {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "do_sample": True}.items():
            setattr(base.model.generation_config, name, value)
        base.model.generation_config.min_new_tokens = 3
        assert fit(base, "zero-shot").predict(rows_of()) == plain
        assert base.model.generation_config.repetition_penalty == 5.0
    finally:
        base.model.generation_config = before


def test_beams_find_answers_at_least_as_probable() -> None:
    base = base_of("llama")
    rows = rows_of()
    scores = []
    for beams in (1, 4):
        task = replace(TASK, decoding=Decoding(max_tokens=4, beams=beams, length_penalty=0.0))
        tuned = fit(base, "zero-shot", task=task)
        written = [one.text or " " for one in tuned.predict(rows)]
        assert len(written) == len(rows)
        said = replace(rows, messages=tuple((row[0], Message("assistant", text)) for row, text in zip(
            rows.messages, written, strict=True)))  # fmt: skip
        nats, _ = ResponseRows(base, tuned.prompt.speak(said)).nats(base.model)  # type: ignore[attr-defined]
        scores.append(nats.sum())
    # Not every single one: beams prune, and an answer may be cut at its most tokens.
    assert scores[1] <= scores[0] * 1.05


def test_draws_depend_on_the_seed_alone() -> None:
    base = base_of("llama")

    def drawn(seed: int) -> list[Written]:
        way = Decoding(max_tokens=6, sample=True, temperature=2.0, seed=seed)
        torch.manual_seed(seed + 17)
        return fit(base, "zero-shot", task=replace(TASK, decoding=way)).predict(rows_of())

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_closed_answers_are_chosen_by_their_probability() -> None:
    base = base_of("llama")
    among = ("yes", "no", "maybe no")
    tuned = fit(base, "zero-shot", task=replace(TASK, among=among))
    answers = tuned.predict(rows_of())
    prompt = tuned.prompt
    assert isinstance(prompt, GeneratePrompt)
    for (question, _), answer in zip(PAIRS, answers, strict=True):
        nats = [
            ResponseRows(base, prompt.speak(rows_of([(question, text)]))).nats(base.model)[0][0]
            for text in among
        ]
        wanted = np.exp(-np.array(nats)) / np.exp(-np.array(nats)).sum()
        assert answer.text == among[int(wanted.argmax())]
        assert answer.probability == pytest.approx(wanted.max(), rel=1e-4)


def test_questions_too_long_to_choose_an_answer_for_are_told_or_refused() -> None:
    base = base_of("llama")
    task = replace(TASK, among=("yes", "no", "maybe no"))
    rows = from_prompts(["Who?", "very " * 400])
    said: list[str] = []
    tuned = replace(fit(base, "zero-shot", task=task), say=said.append)
    assert len(tuned.predict(rows)) == 2
    assert [line for line in said if "1 of 2 questions shortened, so that the longest" in line]
    with pytest.raises(InputError, match=r"1 questions are too long to be answered .*row 2"):
        replace(tuned, too_long="error").predict(rows)


def test_few_shot_shows_solved_rows_as_earlier_turns() -> None:
    base = base_of("llama")
    tuned = fit(base, build("few-shot", {"per_class": 2}))
    prompt = tuned.prompt
    assert isinstance(prompt, GeneratePrompt)
    assert len(prompt.task.demonstrations) == 2
    ids = prompt.ask(from_prompts(["Who?"]), room=250)[0][0]
    text = base.tokenizer.decode(ids)
    assert text.count("Instruction:") == 3
    spoken = prompt.speak(rows_of([("Who?", "nobody")]))
    said = [part for part, speaks in prompt.example(spoken) if speaks]
    assert [part.strip() for part in said] == [f"nobody{base.tokenizer.eos_token}"]


def test_perplexity_is_the_mean_over_tokens_said() -> None:
    base = base_of("llama")
    tuned = fit(base, "zero-shot")
    scores = tuned.evaluate(rows_of(), resamples=20)
    rows = ResponseRows(base, tuned.prompt.speak(rows_of()))  # type: ignore[attr-defined]
    loss = plain_loss(base.model, rows.collate(range(len(PAIRS))))
    assert scores.metrics["perplexity"].value == pytest.approx(float((loss / rows.tokens).exp()), rel=1e-4)
    size = sum(len(answer.encode()) for _, answer in PAIRS)
    assert scores.metrics["bits_per_byte"].value == pytest.approx(float(loss) / np.log(2) / size, rel=1e-4)
    assert "base_perplexity" not in scores.metrics


def test_what_was_learnt_by_heart_is_an_exact_match() -> None:
    base = base_of("llama")
    training = replace(TRAINING, epochs=60, learning_rate=1e-2, batch_size=8)
    tuned = fit(base, LoRA(rank=8, targets="all-linear"), training=training)
    scores = tuned.evaluate(rows_of(), resamples=20)
    assert scores.metrics["exact_match"].value == 1.0
    assert all(answer.finished for answer in tuned.predict(rows_of()))
    asked = tuned.predict([question for question, _ in PAIRS])
    assert [answer.text for answer in asked] == [answer for _, answer in PAIRS]
    assert base_alone(tuned).evaluate(rows_of(), resamples=20).metrics["exact_match"].value < 1.0


def test_plain_texts_are_learnt_and_scored_without_prompts() -> None:
    base = base_of("llama")
    texts = ["The tea was hot and the staff said yes.", "It was terrible.", "A good hotel, maybe."]
    rows = Conversations(
        "texts", tuple((Message("assistant", text),) for text in texts), tuple((text,) for text in texts),
        (1, 2, 3), True,
    )  # fmt: skip
    task = Generate(format="text", columns={"text": "text"})
    tuned = fit(base, "lora", task=task, rows=rows, training=replace(TRAINING, epochs=20, learning_rate=1e-2))
    scores = tuned.evaluate(rows, resamples=20)
    assert scores.metrics["bits_per_byte"].value < scores.metrics["base_bits_per_byte"].value
    assert "exact_match" not in scores.metrics
    with pytest.raises(CapabilityError, match="plain texts have no question"):
        tuned.predict(rows)


def test_replay_and_resume_work_as_for_other_tasks(tmp_path: Path) -> None:
    base = base_of("llama")
    text = tmp_path / "general.txt"
    text.write_text("The kettle was great and the tea was hot.\n\n" * 60)
    plan = Replay(text, 0.25)
    tuned = fit(base, "lora", replay=plan)
    assert tuned.details["replay"]["windows"] > 0
    broken = tuned.forgetting(text)
    assert broken is not None


@pytest.mark.parametrize("name", ["closed-form", "head"])
def test_methods_that_cannot_write_are_refused(name: str) -> None:
    with pytest.raises(CapabilityError):
        fit(base_of("llama"), name)


def test_what_free_text_does_not_have_is_refused(tmp_path: Path) -> None:
    base = base_of("llama")
    tuned = fit(base, "lora")
    with pytest.raises(CapabilityError, match="no probability per label"):
        tuned.logits(rows_of())
    with pytest.raises(CapabilityError):
        tuned.with_posterior(rows_of())
    with pytest.raises((CapabilityError, UsageError)):
        pegbox.compare(base, TASK.with_rows(rows_of()), folder=tmp_path / "x", say=hush)
    with pytest.raises((CapabilityError, UsageError)):
        pegbox.advise(base, TASK.with_rows(rows_of()), say=hush)
    with pytest.raises(UsageError, match="label words belong"):
        fit(base, "lora", label_words="auto")
    way = Decoding(max_tokens=250)
    long = replace(tuned, prompt=replace(tuned.prompt, task=replace(TASK, decoding=way)))
    with pytest.raises(UsageError, match="leave no room"):
        long.predict(["Who?"])


def test_left_out_rows_are_for_generation_alone() -> None:
    from tuning_toy import rows_of as labelled
    from tuning_toy import task_of

    with pytest.raises(UsageError, match="cannot be left out"):
        pegbox.fit(base_of("llama"), task_of(2), "lora", rows=labelled(8), too_long="drop", say=hush)
    with pytest.raises(UsageError, match="no way 'cut'"):
        fit(base_of("llama"), "lora", too_long="cut")


def test_rows_without_answers_and_broken_weights_have_clear_errors() -> None:
    base = base_of("llama")
    with pytest.raises(InputError, match="no answers"):
        fit(base, "lora", rows=from_prompts(["Who?", "What?"]))
    broken = replace(base, model=copy.deepcopy(base.model))
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("nan"))
    way = Decoding(max_tokens=4, sample=True)
    with pytest.raises(RunError, match="not finite"):
        fit(broken, "zero-shot", task=replace(TASK, decoding=way)).predict(["Who?"])


def test_merged_weights_write_the_same() -> None:
    tuned = fit(base_of("llama"), "lora", training=replace(TRAINING, epochs=6, learning_rate=2e-2))
    assert tuned.merge().predict(rows_of()) == tuned.predict(rows_of())
