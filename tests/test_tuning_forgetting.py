"""What tuning makes a model forget, by each method; a switched-off adapter is exactly the base."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pegbox
from conformance import FAMILIES, Case, case_of
from pegbox.data import GeneralText
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import Attached, build, methods
from pegbox.models import LanguageRows, share
from pegbox.tasks import Choose, Tag
from pegbox.tuning import OtherTask, forgetting, general_text
from pegbox.tuning import _forgetting as own
from tiny import TEXT, tiny_folder
from tuning_toy import WORDS, base_of, fit, hush, rows_of, task_of

GENERAL = GeneralText("toy text", (*TEXT[:4], "naïve café 🫖", "The staff said yes."))
SPEAKING = ["llama", "gemma3_text", "gpt2", "bert", "roberta"]
TRAINED = [name for name, kind in methods().items() if issubclass(kind, Attached) and not kind.quantise]


def turned(name: str, family: str) -> Case:
    return case_of(build(name), family, turned=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", SPEAKING)
@pytest.mark.parametrize("name", TRAINED)
def test_switched_off_every_adapter_is_exactly_the_base(name: str, family: str) -> None:
    found = turned(name, family).tuned().forgetting(GENERAL)
    assert found.off == (None if name == "full" else 0.0)
    assert found.kind == ("bits per byte" if FAMILIES[family][1] == "causal" else "masked bits per byte")
    assert np.isfinite(found.after.value)
    # A head's trunk is the base's own; every other method was turned away from it.
    assert (found.change.value == 0.0) == (name == "head")


def test_on_a_base_in_4_bits_too() -> None:
    pytest.importorskip("bitsandbytes", reason="bases in 4 bits need bitsandbytes")
    found = turned("qlora", "llama").tuned().forgetting(GENERAL)
    assert found.off == 0.0
    assert found.change.value != 0.0


def test_a_merged_model_has_nothing_to_switch_off() -> None:
    case = turned("lora", "llama")
    found, merged = case.tuned().forgetting(GENERAL), case.tuned().merge().forgetting(GENERAL)
    assert merged.off is None
    # Merging rounds each weight once in float32.
    assert merged.after.value == pytest.approx(found.after.value, rel=1e-4)


@pytest.mark.parametrize("kind", ["tag", "choose"])
def test_models_tuned_on_other_kinds_of_tasks_speak_as_well(kind: str, tmp_path: Path) -> None:
    if kind == "tag":
        lines = [f"The O\nkettle {'B-PER' if at % 2 else 'O'}\nwas O\nhot O\n" for at in range(8)]
        file = tmp_path / "rows.conll"
    else:
        lines = ["question,A,B,answer", *(f"What is hot {at}?,tea,hotel,{'AB'[at % 2]}" for at in range(8))]
        file = tmp_path / "rows.csv"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    task: Any = (Tag if kind == "tag" else Choose).from_file(file)
    # A head starts at zero: only from its second step on does the trunk below it learn.
    training = pegbox.Training(max_steps=6, learning_rate=1e-2, precision="float32")
    tuned = pegbox.fit(base_of("llama"), task, "lora", training=training, say=hush)
    found = tuned.forgetting(GENERAL)
    assert found.off == 0.0
    assert found.change.value != 0.0


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_the_closed_form_changes_the_rows_of_its_label_words_alone(family: str) -> None:
    base = base_of(*FAMILIES[family])
    tuned = fit(base, "closed-form", rows_of(40))
    found = tuned.forgetting(GENERAL)
    assert found.off == 0.0
    assert found.change.value != 0.0
    wordless = GeneralText("no label words", ("The screen broke after a day.",))
    tokens = {token for ids in tuned.prompt.answers for token in ids}
    assert not tokens & {token for w in LanguageRows(base, wordless.documents).windows for token in w.ids}


def test_zero_shot_forgets_nothing_and_has_nothing_to_switch_off() -> None:
    found = fit(base_of("llama"), "zero-shot", rows_of(8)).forgetting(GENERAL)
    assert (found.change.value, found.off) == (0.0, None)
    assert found.before == found.after


def test_the_numbers_are_those_of_the_module_itself() -> None:
    case = turned("lora", "llama")
    found = case.tuned().forgetting(GENERAL)
    rows = LanguageRows(case.base, GENERAL.documents)
    sizes = rows.sizes().sum() * np.log(2)
    assert found.before.value == pytest.approx(rows.nats(case.base.model).sum() / sizes, rel=1e-12)
    assert found.after.value == pytest.approx(rows.nats(case.module).sum() / sizes, rel=1e-12)
    assert found.bytes == GENERAL.bytes


def test_soft_tokens_stand_in_front_of_the_text() -> None:
    case = turned("soft-prompt", "llama")
    found = case.tuned().forgetting(GENERAL)
    soft = case.prompt.soft
    assert soft is not None
    rows = LanguageRows(case.base, GENERAL.documents, soft=[soft.first + at for at in range(soft.count)])
    sizes = rows.sizes().sum() * np.log(2)
    assert found.after.value == pytest.approx(rows.nats(case.module).sum() / sizes, rel=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "roberta"])
@pytest.mark.parametrize("name", ["lora", "full", "prefix"])
def test_under_a_head_the_tuned_trunk_speaks_by_the_base_s_own_output_layer(name: str, family: str) -> None:
    """The same turned weights, once below label words and once below a head, say the same of plain text."""
    headed, words = alike(name, family)
    found, wanted = headed.tuned().forgetting(GENERAL), words.tuned().forgetting(GENERAL)
    assert found.change.value != 0.0
    assert found.off == (None if name == "full" else 0.0)
    assert found.after.value == pytest.approx(wanted.after.value, rel=1e-6)
    assert found.before == wanted.before


def alike(name: str, family: str) -> tuple[Case, Case]:
    """A method under a head and below label words, its parameters moved by the same amounts."""
    whole = base_of(*FAMILIES[family])
    base = whole.headed()
    prompt = base.prepare(task_of(2, readout="head"))
    method: Any = build(name)
    headed = Case(method, base, prompt, method.attach(base, prompt, seed=3))
    words = case_of(method, family)
    words = replace(words, base=whole, module=method.attach(whole, words.prompt, seed=3))
    _turn_alike(headed, words)
    return headed, words


def _turn_alike(headed: Case, words: Case) -> None:
    """Move the parameters that both have by the same amounts; the base's own output layer stays."""
    import torch

    dice = torch.Generator().manual_seed(8)
    theirs = {_plain(name): value for name, value in words.trained.items()}
    with torch.no_grad():
        for name, value in headed.trained.items():
            key = next((other for other in theirs if f".{other}".endswith(f".{_plain(name)}")), None)
            # Of a tied output layer the embedding is the trunk's, and is not compared.
            if "score" in name or key is None or "embed" in name or "wte" in name or "lm_head" in name:
                continue
            value.add_(0.1 * torch.randn(value.shape, generator=dice))
            theirs[key].copy_(value)
    headed.module.eval(), words.module.eval()


def _plain(name: str) -> str:
    parts = name.replace("base_model.model.", "").replace("encoder.encoder.", "encoder.").split(".")
    return ".".join(parts[1:] if parts[0] == "encoder" else parts)


def test_the_base_is_read_once_for_all_tuned_models(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    nats = LanguageRows.nats

    def noted(self: LanguageRows, model: Any) -> Any:
        read.append(model)
        return nats(self, model)

    monkeypatch.setattr(LanguageRows, "nats", noted)
    base = pegbox.load(tiny_folder("llama", "causal"))
    first, second = (replace(turned(name, "llama").tuned(), base=base) for name in ("lora", "ia3"))
    forgetting(first, GENERAL)
    forgetting(second, GeneralText("the same text", GENERAL.documents), switch_off=False)
    # The base, then on and off; then on alone.
    assert [model is base.model for model in read] == [True, False, False, False]
    forgetting(second, GeneralText("other", GENERAL.documents[:2]))
    assert [model is base.model for model in read[4:]] == [True, False, False]


def test_seeds_choose_masks_and_resamples() -> None:
    tuned = turned("lora", "bert").tuned()
    first, same, other = (tuned.forgetting(GENERAL, seed=seed) for seed in (0, 0, 1))
    assert first == same
    assert first.before != other.before


# Other tasks


def other_task(count: int = 30, labels: int = 2) -> Any:
    return task_of(labels, template="{text} So {answer}.", label_words=WORDS[1 : labels + 1]).with_rows(
        rows_of(count, labels, seed=9)
    )


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_other_tasks_are_asked_in_label_words_before_and_after(family: str) -> None:
    case = turned("lora", family)
    found = case.tuned().forgetting(None, [other_task()])
    (also,) = found.also
    assert (also.rows, also.name) == (30, "toy rows")
    base = case.base
    prompt = base.prepare(other_task().with_rows(None))
    asked = replace(case.tuned(), prompt=prompt)
    gold = np.array(prompt.task.gold(other_task().rows))
    after = asked.probabilities(other_task().rows).argmax(1) == gold
    before = fit(base, "zero-shot", rows_of(4), task=other_task().with_rows(None))
    said = before.probabilities(other_task().rows).argmax(1) == gold
    assert also.after.value == pytest.approx(after.mean())
    assert also.before.value == pytest.approx(said.mean())
    assert also.difference.difference.value == pytest.approx(after.mean() - said.mean())
    assert found.documents == 0


def test_under_a_head_other_tasks_are_asked_of_the_tuned_trunk() -> None:
    base = base_of("llama")
    head = fit(base, "head", rows_of(60), task=task_of(2, readout="head"))
    (also,) = head.forgetting(None, [other_task()]).also
    assert also.before == also.after
    assert also.difference.p == 1.0
    headed, words = alike("lora", "llama")
    found, wanted = (case.tuned().forgetting(None, [other_task()]).also[0] for case in (headed, words))
    assert (found.before, found.after) == (wanted.before, wanted.after)
    assert found.before != found.after


def test_an_other_task_keeps_what_the_base_said(monkeypatch: pytest.MonkeyPatch) -> None:
    task = OtherTask.of(other_task())
    asked: list[bool] = []
    ask = own._Sides.ask
    monkeypatch.setattr(
        own._Sides, "ask", lambda self, *args, after: (asked.append(after), ask(self, *args, after=after))[1]
    )
    for name in ("lora", "ia3"):
        turned(name, "llama").tuned().forgetting(None, [task])
    assert asked == [False, True, True]


def test_files_name_other_tasks(tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    lines = [f'"The {word} {at} was here",{label}' for at in range(6) for word, label in
             (("kettle", "good"), ("hotel", "bad"))]  # fmt: skip
    file.write_text("text,label\n" + "\n".join(lines) + "\n", "utf-8")
    told: list[str] = []
    found = forgetting(turned("lora", "llama").tuned(), GENERAL, [file], say=told.append)
    assert [(also.name, also.rows) for also in found.also] == [(str(file), 12)]
    assert any(line.startswith(f"{file}: text column") for line in told)


# What cannot be measured


def test_nothing_to_measure_on_is_an_error() -> None:
    with pytest.raises(UsageError, match="nothing to measure forgetting on"):
        turned("lora", "llama").tuned().forgetting(None)


def test_an_encoder_says_why() -> None:
    tuned = turned("lora", "bert-encoder").tuned()
    with pytest.raises(CapabilityError, match="without an output layer says nothing"):
        tuned.forgetting(GENERAL)
    with pytest.raises(CapabilityError, match="without an output layer says nothing"):
        tuned.forgetting(None, [other_task()])


def test_an_encoder_decoder_says_why_and_answers_other_tasks() -> None:
    with pytest.raises(CapabilityError, match="gaps of its own kind") as found:
        turned("lora", "t5").tuned().forgetting(GENERAL)
    assert "--also" in found.value.fix


def test_a_tagging_task_and_one_without_rows_cannot_be_asked() -> None:
    tuned = turned("lora", "llama").tuned()
    with pytest.raises(UsageError, match="no rows to ask"):
        tuned.forgetting(None, [task_of(2)])
    with pytest.raises(CapabilityError, match="without a head for them"):
        tuned.forgetting(None, [Tag(types=("PER",))])


# A whole model that was saved


def test_a_saved_whole_model_is_compared_with_its_untuned_base(tmp_path: Path) -> None:
    from tuning_toy import folder_of

    base = pegbox.load(folder_of("llama", "causal"))
    tuned = fit(base, "full", rows_of(40), training=pegbox.Training(epochs=1, learning_rate=1e-2))
    wanted = tuned.forgetting(GENERAL)
    tuned.save(tmp_path / "tuned")
    told: list[str] = []
    alone = pegbox.Tuned.load(tmp_path / "tuned", say=told.append)
    found = alone.forgetting(GENERAL)
    assert found == wanted
    assert wanted.change.value != 0.0
    assert any("untuned base" in line for line in told)
    with_base = pegbox.Tuned.load(tmp_path / "tuned", model=base, say=hush)
    assert with_base.forgetting(GENERAL) == wanted


def test_a_base_that_is_gone_or_another_now_is_an_error(tmp_path: Path) -> None:
    from tiny import save_tiny

    place = save_tiny(tmp_path / "base", "llama", "causal", seed=4)
    tuned = fit(pegbox.load(place), "full", rows_of(40), training=pegbox.Training(epochs=1))
    tuned.save(tmp_path / "tuned")
    alone = pegbox.Tuned.load(tmp_path / "tuned", say=hush)
    save_tiny(place, "llama", "causal", seed=5)
    with pytest.raises(InputError, match="no longer the base that this was tuned from") as found:
        alone.forgetting(GENERAL)
    assert "--model" in found.value.fix
    place.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="untuned base to compare with cannot be loaded"):
        alone.forgetting(GENERAL)


# General text


def test_etude_is_asked_what_the_world_writes_beside_the_task() -> None:
    base = share_name("etude")
    told: list[str] = []
    reviews = pegbox.Classify(labels=("negative", "positive"))
    text = general_text(base=base, task=reviews, size=20_000, say=told.append)
    assert text is not None
    assert text.source == "the embedded world, all genres but reviews"
    assert 18_000 < text.bytes <= 20_000
    assert told == list(text.notes)
    assert len(set(text.documents)) == len(text)
    same, other = (general_text(base=base, task=reviews, size=20_000, seed=s, say=hush) for s in (0, 1))
    assert same is not None
    assert other is not None
    assert same.documents == text.documents
    # Short documents, such as lines of names, may come again under any seed.
    assert len(set(other.documents) & set(text.documents)) < 0.1 * len(text)


def share_name(name: str) -> Any:
    """A toy base under the name of an embedded one: it is the name that tells."""
    return replace(base_of("llama"), name=name)


@pytest.mark.parametrize(
    ("labels", "genre"),
    [(("sport", "business", "weather", "science"), "news"), (("no", "maybe", "yes"), "pairs"),
     (("polite", "rude"), "replies"), (("ham", "spam"), None)],
)  # fmt: skip
def test_the_genre_of_the_task_is_left_out(labels: tuple[str, ...], genre: str | None) -> None:
    text = general_text(
        base=share_name("etude-masked"), task=pegbox.Classify(labels=labels), size=4000, say=hush
    )
    assert text is not None
    assert text.source == "the embedded world, all genres" + (f" but {genre}" if genre else "")


def test_for_another_base_one_line_says_what_to_give() -> None:
    told: list[str] = []
    assert general_text("auto", base=base_of("gpt2"), say=told.append) is None
    (line,) = told
    assert "forgetting is not measured" in line
    assert ".txt" in line


def test_a_file_is_read_for_any_base(tmp_path: Path) -> None:
    file = tmp_path / "general.txt"
    file.write_text("\n\n".join(TEXT[:3]), "utf-8")
    told: list[str] = []
    text = general_text(file, base=base_of("gpt2"), say=told.append)
    assert text is not None
    assert text.documents == tuple(TEXT[:3])
    assert told == [f"{file}: 3 documents of general text, {text.bytes} bytes"]
    found = turned("lora", "gpt2").tuned().forgetting(str(file))
    assert found.source == str(file)
    with pytest.raises(CapabilityError, match="says nothing of any token"):
        general_text(file, base=base_of("bert", "encoder"), say=hush)


def test_sharing_a_model_leaves_the_base_as_it_was() -> None:
    base = base_of("llama")
    before = LanguageRows(base, GENERAL.documents).nats(base.model)
    turned("lora", "llama").tuned().forgetting(GENERAL)
    assert (LanguageRows(base, GENERAL.documents).nats(share(base.model)) == before).all()
