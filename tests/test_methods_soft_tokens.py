"""Soft prompts and P-tuning: learned embeddings for token ids above the vocabulary."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

import pegbox
from conformance import FAMILIES, Case, base_of, case_of, generated, memorise, turn
from pegbox.data import Examples
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import Attached, PTuning, SoftPrompt, export_prompt_tuning
from pegbox.methods._soft_prompts import embedding_shape, input_embedding
from pegbox.methods._tuners.soft_tokens import SoftTokensLayer
from pegbox.models import Base, FeatureCache, answer_logits, encode, word_logprobs
from pegbox.tasks import Demonstration
from pegbox.training import Settings, train
from pegbox.tuning import Tuned, base_alone
from pegbox.tuning._label_rows import LabelRows
from training_toy import same_bits, trained
from tuning_toy import fit, full_forward, hush, rows_of, task_of

FAMILY = pytest.mark.parametrize("family", FAMILIES)
ROWS = rows_of(6, noise=0.0)
MARKED = task_of(template="[P][P] Label [P] {text} It was [P] {answer}")


def layer_of(case: Case) -> SoftTokensLayer:
    return next(part for part in case.module.modules() if isinstance(part, SoftTokensLayer))


def table_of(case: Case, adapter: str = "default") -> Tensor:
    found: Any = layer_of(case).soft_tokens_tables[adapter]
    with torch.no_grad():
        return found().clone()


def marked_case(method: PTuning, family: str = "llama", **options: Any) -> Case:
    base = base_of(family, **options)
    prompt = method.prompt(base, base.prepare(MARKED))
    module = method.attach(base, prompt, seed=3).eval()
    return Case(method, base, prompt, module)


def as_words(case: Case, words: list[int]) -> tuple[Case, Any]:
    """Give each soft token the embedding of a word; also the rows with the words themselves."""
    layer = layer_of(case)
    with torch.no_grad():
        layer.start("default", layer.base_layer(torch.tensor(words)))
    first = embedding_shape(case.base)[0]
    swap = {first + index: word for index, word in enumerate(words)}
    coded = case.encoded
    ids = tuple(tuple(swap.get(token, token) for token in row) for row in coded.ids)
    prefix = tuple(swap.get(token, token) for token in coded.prefix)
    return case, replace(coded, ids=ids, prefix=prefix)


def check_same_as_words(case: Case, words: list[int]) -> None:
    case, spelt = as_words(case, words)
    assert spelt != case.encoded
    found = answer_logits(case.module, case.base, case.prompt, case.encoded)
    expected = answer_logits(case.base.module(2), case.base, case.prompt, spelt)
    assert torch.equal(found.hidden, expected.hidden)
    assert torch.equal(found.logits, expected.logits)


@FAMILY
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_soft_token_with_a_words_embedding_is_that_word(family: str, dtype: str) -> None:
    """To the bit: the same numbers run through the same model, scaled embeddings and positions included."""
    check_same_as_words(case_of(SoftPrompt(length=3), family, dtype=dtype), [300, 7, 77])


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "bert-encoder"])
def test_soft_tokens_between_anchors_are_words_there(family: str) -> None:
    check_same_as_words(marked_case(PTuning(reparametrise=False), family), [300, 7, 77, 9])
    check_same_as_words(case_of(PTuning(reparametrise=False, length=3), family), [300, 7, 77])


def test_demonstrations_share_one_cache_with_soft_tokens_in_it() -> None:
    shown = (Demonstration({"text": "Bad tea"}, "bad"), Demonstration({"text": "Great tea"}, "good"))
    base = base_of("llama")
    task = pegbox.Classify(
        labels=("bad", "good"),
        template="{text} It was {answer}.",
        label_words=("terrible", "great"),
        demonstrations=shown,
    )
    method = PTuning(length=4, reparametrise=False)
    prompt = method.prompt(base, base.prepare(task))
    module = method.attach(base, prompt, seed=0).eval()
    encoded = prompt.encode(Examples("x", {"text": ("Tea was hot", "Bad")}, None, (1, 2)))
    assert encoded.prefix
    found = answer_logits(module, base, prompt, encoded).logits
    whole = full_forward(module, encoded)[:, list(prompt.tokens)]
    # The same sums in another order: keys and values from the cache against one pass.
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


def test_whole_label_words_are_scored_after_soft_tokens() -> None:
    base = base_of("llama")
    task = task_of(label_words=("great tea", "great kettle"))
    method = PTuning(length=4, reparametrise=False)
    prompt = method.prompt(base, base.prepare(task))
    assert not prompt.distinct
    module = method.attach(base, prompt, seed=0).eval()
    encoded = prompt.encode(ROWS)
    found = word_logprobs(module, base, prompt, encoded)
    for row, ids in enumerate(encoded.ids):
        for label, word in enumerate(prompt.answers):
            with torch.no_grad():
                logits = module(input_ids=torch.tensor([[*ids, *word]])).logits[0].log_softmax(-1)
            steps = [logits[len(ids) - 1 + at, token] for at, token in enumerate(word)]
            torch.testing.assert_close(found[row, label], torch.stack(steps).sum(), rtol=1e-4, atol=1e-4)


def nearest_words(case: Case) -> list[int]:
    """The vocabulary word at distance zero from each soft token, -1 where there is none."""
    embedding = layer_of(case).base_layer
    with torch.no_grad():
        words = embedding(torch.arange(embedding_shape(case.base)[0]))
    distance, found = (table_of(case)[:, None] - words.float()).norm(dim=-1).min(1)
    return [word if close < 1e-6 else -1 for word, close in zip(found.tolist(), distance, strict=True)]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "t5", "bert-encoder"])
def test_it_starts_from_what_it_says(family: str) -> None:
    def start(**options: Any) -> Case:
        return case_of(SoftPrompt(length=6, **options), family)

    case = start(initialise="text", text="the tea was")
    ids = case.base.tokenizer("the tea was", add_special_tokens=False)["input_ids"]
    assert nearest_words(case) == [ids[at % len(ids)] for at in range(6)]
    case = start(initialise="vocabulary")
    words = nearest_words(case)
    special = case.base.tokenizer.all_special_ids
    assert len(set(words)) == 6
    assert all(0 <= word < len(case.base.tokenizer) and word not in special for word in words)
    assert words == nearest_words(start(initialise="vocabulary"))
    case = start(initialise="labels")
    layer = layer_of(case)
    names = [case.base.tokenizer(name, add_special_tokens=False)["input_ids"] for name in ("bad", "fine")]
    for at, word in enumerate(case.prompt.answers or names):
        with torch.no_grad():
            mean = layer.base_layer(torch.tensor(list(word))).float().mean(0)
        assert torch.equal(table_of(case)[at], mean)
    assert all(word >= 0 for word in nearest_words(case)[2:])
    case = start(initialise="random")
    assert nearest_words(case) == [-1] * 6
    with torch.no_grad():
        spread = layer.base_layer(torch.arange(embedding_shape(case.base)[0])).std()
    # 6 x 32 normal numbers: their deviation is known to 1 / sqrt(2 * 192), 5 %; four times that.
    assert abs(float(table_of(case).std() / spread) - 1) < 0.2


def test_an_encoders_embeddings_start_as_spread_as_the_models_own() -> None:
    case = case_of(PTuning(), "gemma3_text")
    with torch.no_grad():
        spread = layer_of(case).base_layer(torch.arange(512)).std()
    torch.testing.assert_close(table_of(case).std(), spread, rtol=0.02, atol=0)


def test_another_seed_starts_elsewhere() -> None:
    base = base_of("llama")
    for method in (SoftPrompt(), SoftPrompt(initialise="random"), PTuning()):
        prompt = method.prompt(base, base.prepare(task_of()))
        first, same, other = (trained(method.attach(base, prompt, seed=seed)) for seed in (1, 1, 2))
        assert same_bits(first, same)
        assert not same_bits(first, other)


@pytest.mark.parametrize(
    "method",
    [SoftPrompt(length=3), PTuning(length=5), PTuning(hidden=7), PTuning(length=3, reparametrise=False)],
)
@pytest.mark.parametrize("family", ["gpt2", "t5", "bert-encoder"])
def test_counts_and_targets(method: Attached, family: str) -> None:
    case = case_of(method, family)
    names = list(case.trained)
    assert sum(value.numel() for value in case.trained.values()) == method.parameters(case.base, case.prompt)
    assert all("soft_tokens_tables" in name or "score.modules_to_save" in name for name in names)
    assert any("encoder" in name.rpartition("soft_tokens_tables")[2] for name in names) == (
        isinstance(method, PTuning) and method.reparametrise
    )


@pytest.mark.parametrize("family", ["gemma3_text", "gpt2", "bert", "t5"])
def test_tied_output_layers_and_all_else_of_the_base_stay(family: str) -> None:
    case = case_of(SoftPrompt(length=4), family)
    base = case.base
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    start = table_of(case)
    inner: Any = case.adapter.get_base_model()
    output, own = inner.get_output_embeddings(), base.model.get_output_embeddings()  # type: ignore[operator]
    assert output.weight.data_ptr() == own.weight.data_ptr()
    memorise(case, steps=3)
    assert not torch.equal(table_of(case), start)
    after = base.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    if family == "t5":
        assert not isinstance(inner.decoder.get_input_embeddings(), SoftTokensLayer)


def test_each_sets_the_loss_of_one_label_to_nothing() -> None:
    """On GPT-2 and BERT too, whose tiny random models let no prompt tell texts apart: here it need not."""
    for family in FAMILIES:
        for method in (SoftPrompt(), PTuning()):
            case = case_of(method, family)
            one = replace_gold(case, 0)
            optimiser = torch.optim.AdamW(list(case.trained.values()), lr=2e-2, weight_decay=0.0)
            losses = []
            for _ in range(25):
                optimiser.zero_grad()
                batch = one.collate(range(len(one)))
                loss, count = one.loss(case.module, batch)
                (loss / count).backward()
                optimiser.step()
                losses.append(float(loss.detach() / count))
            assert losses[-1] < 0.9 * losses[0], (family, method.name, losses[0], losses[-1])


def replace_gold(case: Case, label: int) -> LabelRows:
    return LabelRows(case.base, case.prompt, case.encoded, [label] * len(ROWS))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bert", "t5", "bert-encoder"])
def test_p_tuning_is_saved_as_plain_embeddings_with_the_same_answers(family: str, tmp_path: Path) -> None:
    """Equal to the bit: the layer looks up the very numbers that the encoder made."""
    case = case_of(PTuning(), family, turned=True)
    before, made = case.logits(), table_of(case)
    case.tuned().save(tmp_path / "saved")
    assert torch.equal(case.logits(), before)
    assert torch.equal(table_of(case), made)
    stored = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    kept = {name: value for name, value in stored.items() if "score" not in name}
    assert [tuple(value.shape) for value in kept.values()] == [tuple(made.shape)]
    assert torch.equal(next(iter(kept.values())), made)
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert (config["tokens"], config["hidden"], config["peft_type"]) == (8, None, "PEGBOX_SOFT_TOKENS")
    again = Tuned.load(tmp_path / "saved", model=case.base, say=hush)
    assert torch.equal(again.logits(ROWS), before)
    plain = PeftModel.from_pretrained(case.base.module(2), str(tmp_path / "saved")).eval()
    assert torch.equal(answer_logits(plain, case.base, case.prompt, case.encoded).logits, before)


def test_plain_peft_saves_the_encoder_and_loads_it_again(tmp_path: Path) -> None:
    case = case_of(PTuning(length=4), "llama", turned=True)
    before = case.logits()
    case.adapter.save_pretrained(str(tmp_path))
    again = PeftModel.from_pretrained(case.base.module(2), str(tmp_path)).eval()
    assert torch.equal(answer_logits(again, case.base, case.prompt, case.encoded).logits, before)
    layer = next(part for part in again.modules() if isinstance(part, SoftTokensLayer))
    assert layer.soft_tokens_tables["default"].encoder is not None


class Killed(BaseException):
    """Stands for a signal that nobody handles."""


class Deadly(LabelRows):
    """Rows that end the run at one call of the loss."""

    left = 0

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if model.training:
            self.left -= 1
        if self.left == 0:
            raise Killed
        return super().loss(model, batch)


# Two epochs of five steps, a checkpoint after every second: killed in the fourth, seventh and last step.
@pytest.mark.parametrize("at", [4, 7, 10])
def test_p_tuning_resumes_to_the_same_bits_with_its_encoder(at: int, tmp_path: Path) -> None:
    rows = rows_of(20)
    settings = Settings(learning_rate=1e-2, epochs=2, batch_size=4, checkpoint_every=2)

    def run(folder: Path, left: int = -1, *, resume: bool = False) -> dict[str, Tensor]:
        case = case_of(PTuning(), "llama")
        encoded = encode(case.base, case.prompt, rows, say=hush)
        data = Deadly(case.base, case.prompt, encoded, case.prompt.task.gold(rows))
        data.left = left
        train(case.module, data, settings=settings, folder=folder, resume=resume, say=hush)
        return trained(case.module)

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "stopped", at)
    resumed = run(tmp_path / "stopped", resume=True)
    assert same_bits(resumed, whole)
    assert any("encoder.lstm" in name for name in whole)
    assert not same_bits(trained(case_of(PTuning(), "llama").module), whole)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mistral", "gpt2"])
def test_generation_between_marks(family: str) -> None:
    case = marked_case(PTuning(), family)
    turn(case.trained, seed=5)
    ids = [list(row) for row in case.encoded.ids[:3]]
    ids[1] = ids[1][:-3]
    single = [generated(case, [row], use_cache=False)[0] for row in ids]
    assert [generated(case, [row], use_cache=True)[0] for row in ids] == single
    assert generated(case, ids, use_cache=True) == single


def test_two_adapters_of_different_lengths() -> None:
    long = case_of(SoftPrompt(length=5), "llama", turned=True)
    short = case_of(SoftPrompt(length=2), "llama", turned=True)
    expected = {"long": long.logits(), "short": short.logits()}
    config = copy.deepcopy(short.adapter.peft_config["default"])
    long.adapter.add_adapter("short", config)
    layer_of(long).start("short", table_of(short))
    both = long
    assert torch.equal(both.logits(), expected["long"])
    both.adapter.set_adapter("short")
    found = answer_logits(both.module, both.base, short.prompt, short.encoded).logits
    assert torch.equal(found, expected["short"])
    with pytest.raises(
        InputError, match="the prompt holds soft token 5, and the active adapter has 2"
    ) as bad:
        both.logits()
    assert "switch the prompt together with the adapter" in str(bad.value)
    both.adapter.set_adapter("default")
    assert torch.equal(both.logits(), expected["long"])


def test_switched_off_the_base_sees_zero_vectors() -> None:
    case = case_of(SoftPrompt(length=3), "llama", turned=True)
    inner: Any = case.base.model
    row = torch.tensor([case.encoded.ids[0]])
    vectors = inner.get_input_embeddings()(row.clamp(max=511))
    vectors[row >= 512] = 0
    with torch.no_grad(), case.adapter.disable_adapter():
        off = case.module(input_ids=row).logits
        plain = case.module(input_ids=row.clamp(max=511)).logits
    with torch.no_grad():
        assert torch.equal(off, inner(inputs_embeds=vectors).logits)
        assert torch.equal(plain, inner(input_ids=row.clamp(max=511)).logits)


@pytest.mark.parametrize("method", [SoftPrompt(length=3), PTuning()])
def test_fit_save_load_and_the_base_alone(method: Attached, tmp_path: Path) -> None:
    base, rows = base_of("llama"), rows_of(24)
    task = MARKED if isinstance(method, PTuning) else task_of()
    cache = FeatureCache(tmp_path / "cache")
    tuned = fit(base, method, rows, task=task, cache=cache, training=pegbox.Training(epochs=1))
    assert tuned.prompt.soft is not None
    scores = tuned.evaluate(ROWS, resamples=10)
    assert scores.flips is not None, "the base alone answers the prompt without soft tokens"
    bare = {"template": "Label {text} It was {answer}"} if isinstance(method, PTuning) else {}
    zero = fit(base, "zero-shot", rows, task=task_of(**bare))
    assert torch.equal(base_alone(tuned).logits(ROWS), zero.logits(ROWS))
    tuned.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "task.json").read_text())["template"] == task.template
    again = Tuned.load(tmp_path / "saved", model=base, say=hush)
    assert again.prompt.soft == tuned.prompt.soft
    assert torch.equal(again.logits(ROWS), tuned.logits(ROWS))


def test_similar_demonstrations_are_found_by_the_base_alone() -> None:
    base = base_of("llama")
    pool = tuple(Demonstration({"text": f"Tea {at}"}, ("bad", "fine")[at % 2]) for at in range(6))
    task = task_of(demonstrations=pool, similar=1)
    plain = base.prepare(task)
    prompt = SoftPrompt(length=2).prompt(base, plain)
    first, second = (encode(base, each, ROWS, say=hush) for each in (plain, prompt))
    assert second.ids == tuple((row[0], 512, 513, *row[1:]) for row in first.ids)


def test_the_default_arrangement_is_told() -> None:
    lines: list[str] = []
    fit(base_of("llama"), PTuning(length=5), rows_of(8), training=pegbox.Training(epochs=1), say=lines.append)
    assert "the template marks no soft tokens: 3 stand before the text, 2 before the answer" in lines


@pytest.mark.parametrize("method", ["zero-shot", "closed-form", "lora", "soft-prompt"])
def test_marks_are_refused_where_they_are_not_learnt(method: str) -> None:
    with pytest.raises(
        CapabilityError, match=r"marks 4 soft tokens with \[P\], which this method"
    ) as refused:
        fit(base_of("llama"), method, rows_of(8), task=MARKED)
    assert "use p-tuning" in str(refused.value)


def test_marks_that_a_model_never_reads_are_refused() -> None:
    after = task_of(template="{text} It was {answer} [P]")
    with pytest.raises(CapabilityError, match="stands after the answer, which the model never reads"):
        PTuning().prompt(base_of("llama"), base_of("llama").prepare(after))
    assert PTuning().prompt(base_of("bert"), base_of("bert").prepare(after)).soft is not None
    encoder = base_of("bert-encoder")
    with pytest.raises(CapabilityError, match="here they stand before the whole text alone") as refused:
        PTuning().prompt(encoder, encoder.prepare(MARKED))
    assert "leave [P] out" in str(refused.value)


@pytest.mark.parametrize("family", ["llama", "bert", "bert-encoder"])
def test_more_soft_tokens_than_the_context_holds(family: str) -> None:
    base: Base = replace(base_of(family), context=32)
    most = next(n for n in range(32, 0, -1) if _fits(SoftPrompt(length=n), base))
    with pytest.raises(UsageError) as refused:
        SoftPrompt(length=most + 1).prompt(base, base.prepare(task_of()))
    assert f"soft-prompt: {most + 1} soft tokens leave no room for a text" in str(refused.value)
    assert "context 32 tokens" in str(refused.value)
    assert f"at most {most}, beside the template and the answer" in str(refused.value)
    prompt = SoftPrompt(length=most).prompt(base, base.prepare(task_of()))
    assert prompt.encode(ROWS).lengths == [32] * len(ROWS)


def _fits(method: SoftPrompt, base: Base) -> bool:
    try:
        method.prompt(base, base.prepare(task_of()))
    except UsageError:
        return False
    return True


def test_wrong_options_are_told_together() -> None:
    with pytest.raises(UsageError, match="length is 0; initialise is 'words'; text is 'a'"):
        SoftPrompt(length=0, initialise="words", text="a")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="text is None"):
        SoftPrompt(initialise="text")
    with pytest.raises(UsageError, match="hidden is 4") as error:
        PTuning(reparametrise=False, hidden=4)
    assert "a whole number of at least 1 with reparametrise, or none" in str(error.value)
    with pytest.raises(UsageError, match="length is 0; hidden is 0"):
        PTuning(length=0, hidden=0)


def test_merging_is_refused() -> None:
    case = case_of(SoftPrompt(length=2), "llama")
    for merge in (case.adapter.merge_adapter, case.adapter.merge_and_unload):
        with pytest.raises(CapabilityError, match="soft tokens cannot be merged: they stand in the prompt"):
            merge()
    with pytest.raises(CapabilityError, match="soft tokens cannot be merged"):
        layer_of(case).merge()
    inner = case.adapter.unload()
    assert isinstance(inner.get_input_embeddings(), nn.Embedding)


@FAMILY
def test_the_embedding_is_found_by_its_own_name(family: str) -> None:
    base = base_of(family)
    module = base.module(2)
    name, layer = input_embedding(module)
    assert module.get_submodule(name) is layer
    assert isinstance(layer, nn.Embedding)


# PEFT asks for positions to be left to it, and says so.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "mistral", "gpt2"])
def test_exported_to_plain_prompt_tuning_it_answers_the_same(family: str, tmp_path: Path) -> None:
    case = case_of(SoftPrompt(length=4), family, turned=True)
    export_prompt_tuning(case.module, case.base, case.prompt, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    # The tokenizer's one leading special token is the first of five.
    assert (config["peft_type"], config["num_virtual_tokens"]) == ("PROMPT_TUNING", 5)
    plain = PeftModel.from_pretrained(case.base.module(2), str(tmp_path / "out")).eval()
    for ids in case.encoded.ids:
        with torch.no_grad():
            expected = case.module(input_ids=torch.tensor([ids])).logits[0]
            text = torch.tensor([ids[5:]])
            found = plain(input_ids=text, attention_mask=torch.ones_like(text)).logits[0]
        # The same numbers; a mask makes attention take another path, whose sums round otherwise.
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_prompt_tuning_cannot_hold_is_not_exported(tmp_path: Path) -> None:
    masked, marked = case_of(SoftPrompt(length=2), "bert"), marked_case(PTuning())
    for case in (masked, marked, case_of(PTuning(), "llama")):
        with pytest.raises(CapabilityError, match="before the text of a causal model, and nothing else"):
            export_prompt_tuning(case.module, case.base, case.prompt, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    front = case_of(SoftPrompt(length=2), "llama")
    with pytest.raises(CapabilityError, match="this module has no soft tokens"):
        export_prompt_tuning(front.base.module(2), front.base, front.prompt, tmp_path / "out")
