"""What a GPU computes is what a CPU computes: run by make test-gpu on a machine that has one.

PEGBOX_TEST_PLACE=cpu runs the same checks on a CPU, to work on them.
"""

import copy
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import pegbox
import pegbox.models._cross_entropy as chunks
from comparison_runs import compared, finished
from gpu_toy import (
    DTYPES,
    FAMILIES,
    MARKS,
    PLACE,
    REVIEWS,
    ROWS,
    TAGS,
    UNEVEN,
    Killed,
    adapter,
    base_on,
    distance,
    folder_of,
    hole,
    loaded,
    loss_of,
    losses,
    no_tensor_elsewhere,
    reviews_of,
    sentences_of,
    training,
    trains,
    tuned_on,
    whole_model,
)
from pegbox.comparison import _cell as cell_module
from pegbox.comparison._peak import peak_memory
from pegbox.data import GeneralText
from pegbox.methods import FewShot, LoRA, build, methods
from pegbox.models import IGNORED, LanguageRows, chunked_cross_entropy, encode, extract, language_loss
from pegbox.tasks import Choose
from pegbox.tuning import Switchboard, merge
from pegbox.tuning._label_rows import LabelRows
from pegbox.tuning._trunk_rows import TrunkRows, with_trunk_cached
from test_models_language import batch
from test_tuning_choose import ROWS as QUESTIONS
from tiny import TEXT, VOCABULARY
from tuning_toy import checksum, fit, hush, rows_of, task_of

pytestmark = MARKS
# float32 sums in another order, through two layers and a softmax.
CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}
SPEAKING = [family for family in FAMILIES if family != "bert-encoder"]
LANGUAGE = ["llama", "gpt2", "bert"]
GENERAL = GeneralText("toy text", (*TEXT[:4], "naïve café 🫖", "The staff said yes."))
UNSEEN = rows_of(12, seed=4)
PLAIN = [name for name in methods() if not methods()[name].quantise]

each_family = pytest.mark.parametrize("family", FAMILIES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(autouse=True)
def _float32_is_float32() -> Iterator[None]:
    """Nothing may switch TensorFloat-32 on for the whole process."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
    yield
    assert (torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()) == before


def near(found: Any, wanted: Any, **tolerance: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(wanted), **(tolerance or CLOSE))


# Bases


@each_family
def test_a_base_goes_to_the_gpu_by_itself_in_bfloat16(family: str) -> None:
    base = pegbox.load(folder_of(family))
    assert base.device.type == PLACE
    assert base.dtype == (torch.bfloat16 if PLACE == "cuda" else torch.float32)
    assert no_tensor_elsewhere(base.model) == []


@each_family
def test_the_fingerprint_is_the_same_everywhere(family: str) -> None:
    prints = {base_on(family, dtype, place).fingerprint for dtype in DTYPES for place in (PLACE, "cpu")}
    assert len(prints) == 1


def test_products_in_float32_have_its_precision() -> None:
    """TensorFloat-32 has 10 bits of mantissa: errors of some 1e-3."""
    tuned_on("lora", "llama", "float32")
    dice = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 256, generator=dice) for _ in range(2))
    found = (left.to(PLACE) @ right.to(PLACE)).cpu().double()
    assert float((found - left.double() @ right.double()).abs().max()) < 2e-4


@each_family
def test_features_are_those_of_a_cpu(family: str) -> None:
    found = []
    for place in (PLACE, "cpu"):
        base = base_on(family, "float32", place)
        prompt = base.prepare(task_of())
        found.append(extract(base, prompt, encode(base, prompt, ROWS, say=hush)))
    near(found[0].hidden, found[1].hidden)
    near(found[0].logits, found[1].logits)


ASKED: dict[str, tuple[Any, dict[str, Any]]] = {
    "zero-shot": ("zero-shot", {}),
    "whole words": ("zero-shot", {"label_words": ("okay then", "okay maybe not")}),
    "few-shot": (FewShot(per_class=2), {}),
    "few-shot draws": (FewShot(per_class=1, draws=2), {}),
    "few-shot similar": (FewShot(per_class=1, selection="similar"), {}),
    "few-shot whole words": (FewShot(per_class=1), {"label_words": ("okay then", "okay maybe not")}),
}


@pytest.mark.parametrize("family", SPEAKING)
@pytest.mark.parametrize("asked", ASKED)
def test_answers_without_tuning_are_those_of_a_cpu(family: str, asked: str) -> None:
    if "words" in asked and family == "bert":
        pytest.skip("a masked model fills one mask")
    method, options = ASKED[asked]
    found = [
        fit(base_on(family, "float32", place), method, ROWS, task=task_of(**options)).logits(UNSEEN)
        for place in (PLACE, "cpu")
    ]
    assert found[0].device.type == "cpu"
    near(*found)


# Methods

CASES = [(n, f, d) for d in DTYPES for n in PLAIN for f in FAMILIES if not hole(n, f)]
PACKED = [("qlora", f, d) for d in DTYPES for f in FAMILIES]
PACKED += [(n, "llama", "bfloat16") for n in PLAIN if not hole(n, "llama", quantise=True)]
each_case = pytest.mark.parametrize(("name", "family", "dtype"), CASES, ids=["-".join(c) for c in CASES])
each_packed = pytest.mark.parametrize(("name", "family", "dtype"), PACKED, ids=["-".join(c) for c in PACKED])


BEFORE = ("soft-prompt", "p-tuning", "prefix", "zero-init-attention")


def check_learnt(tuned: pegbox.Tuned, name: str, family: str) -> None:
    """It lies where its base does, its loss fell, and it answers."""
    if tuned.module is not None:
        assert no_tensor_elsewhere(tuned.module) == []
    if trains(name):
        assert all(map(math.isfinite, losses(tuned)))
        method: Any = tuned.method
        first = loss_of(tuned, method.attach(tuned.base, tuned.prompt, seed=0))
        # What stands before the text hardly moves a random T5, whose answers come from the decoder.
        share = 1.15 if family == "t5" and name in BEFORE else 0.98
        assert tuned.module is not None
        assert loss_of(tuned, tuned.module) < share * first
    table = tuned.probabilities(UNSEEN)
    assert table.shape == (len(UNSEEN), 2)
    np.testing.assert_allclose(table.sum(1), 1, atol=1e-5)
    said = tuned.predict(["The kettle was great great.", "The tea broke broke."])
    assert all(answer.label in tuned.labels for answer in said)
    assert 0 <= tuned.evaluate(UNSEEN, resamples=5).metrics["accuracy"].value <= 1


@each_case
def test_a_method_learns(name: str, family: str, dtype: str) -> None:
    before = checksum(base_on(family, dtype).model)
    check_learnt(tuned_on(name, family, dtype)[0], name, family)
    assert checksum(base_on(family, dtype).model) == before


@each_case
def test_what_is_saved_answers_alike_on_a_cpu(name: str, family: str, dtype: str) -> None:
    tuned, folder = tuned_on(name, family, dtype)
    again = loaded(folder, "cpu", "float32")
    assert again.base.device.type == "cpu"
    # The closed form tells these few rows of a random model apart by the last bits that bfloat16 has.
    allowed = 2e-3 if dtype == "float32" else 0.3 if name == "closed-form" else 0.1
    near(again.probabilities(UNSEEN), tuned.probabilities(UNSEEN), rtol=0, atol=allowed)


@each_case
def test_what_is_saved_answers_the_same_where_it_was_made(name: str, family: str, dtype: str) -> None:
    tuned, folder = tuned_on(name, family, dtype)
    again = loaded(folder, PLACE, dtype)
    assert again.base.device.type == PLACE
    near(again.logits(UNSEEN), tuned.logits(UNSEEN), rtol=1e-5, atol=1e-5)


@each_packed
def test_a_method_learns_on_a_base_in_4_bits(name: str, family: str, dtype: str) -> None:
    tuned, _ = tuned_on(name, family, dtype, "nf4")
    assert tuned.base.quantise == "nf4"
    check_learnt(tuned, name, family)


@each_packed
def test_what_is_saved_in_4_bits_answers_alike_on_a_cpu(name: str, family: str, dtype: str) -> None:
    """In the same number format: weights that were rounded before fall on other codes."""
    tuned, folder = tuned_on(name, family, dtype, "nf4")
    again = loaded(folder, "cpu", dtype)
    assert again.base.quantise == "nf4"
    # A scale that is rounded to another of its 8-bit codes moves 64 weights by up to a hundredth.
    allowed = 5e-2 if dtype == "float32" else 0.15
    near(again.probabilities(UNSEEN), tuned.probabilities(UNSEEN), rtol=0, atol=allowed)


@each_packed
def test_what_is_saved_in_4_bits_answers_the_same_where_it_was_made(
    name: str, family: str, dtype: str
) -> None:
    tuned, folder = tuned_on(name, family, dtype, "nf4")
    again = loaded(folder, PLACE, dtype)
    assert (again.base.quantise, again.base.device.type) == ("nf4", PLACE)
    near(again.logits(UNSEEN), tuned.logits(UNSEEN), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bert-encoder"])
def test_a_name_alone_is_loaded_fitted_and_loaded_again_on_the_gpu(family: str, tmp_path: Path) -> None:
    """As whoever says nothing of devices and number formats gets it."""
    options: dict[str, Any] = {"rows": rows_of(48), "training": pegbox.Training(epochs=3), "say": hush}
    tuned = pegbox.fit(folder_of(family), task_of(), "lora", **options)
    assert tuned.base.device.type == PLACE
    again = pegbox.Tuned.load(tuned.save(tmp_path / "out"), say=hush)
    assert again.base.device.type == PLACE
    near(again.logits(UNSEEN), tuned.logits(UNSEEN), rtol=1e-5, atol=1e-5)


def test_a_base_on_the_cpu_is_fitted_there() -> None:
    plan = training("lora", "llama", "float32")
    tuned = fit(base_on("llama", "float32", "cpu"), "lora", UNEVEN, training=plan)
    assert tuned.module is not None
    assert {value.device.type for value in tuned.module.parameters()} == {"cpu"}
    # Without dropout the same steps in float32, on twelve of which rounding is carried on.
    there = tuned_on("lora", "llama", "float32")[0]
    near(tuned.probabilities(UNSEEN), there.probabilities(UNSEEN), rtol=0, atol=3e-2)


@each_dtype
@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_rare_labels_are_balanced(balance: Any, dtype: str) -> None:
    plan = training("lora", "llama", dtype, balance=balance, accumulation=2, batch_size=4)
    seen = losses(fit(base_on("llama", dtype), "lora", UNEVEN, training=plan))
    assert all(map(math.isfinite, seen))
    assert sum(seen[-4:]) < sum(seen[:4])


@pytest.mark.parametrize(
    "options",
    [{"smoothing": 0.1, "vocabulary": True}, {"loss": "log"}, {"smoothing": 0.1, "streaming": True}],
    ids=["vocabulary", "log", "streaming"],
)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_the_closed_form_is_solved_as_on_a_cpu(family: str, options: dict[str, Any]) -> None:
    method = build("closed-form", {"penalty": 1.0, **options})
    found = [
        fit(base_on(family, "float32", place), method, rows_of(40)).logits(UNSEEN) for place in (PLACE, "cpu")
    ]
    near(*found, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("family", SPEAKING)
def test_label_words_are_searched_as_on_a_cpu(family: str) -> None:
    found = [
        pegbox.search_label_words(base_on(family, "float32", place), task_of(), rows_of(40), say=hush)
        for place in (PLACE, "cpu")
    ]
    assert found[0].task.label_words == found[1].task.label_words


def test_features_are_kept_for_each_kind_of_device(tmp_path: Path) -> None:
    cache, found = pegbox.FeatureCache(tmp_path), []
    method = build("closed-form", {"penalty": 1.0, "smoothing": 0.1})
    for place in (PLACE, "cpu", PLACE):
        tuned = fit(base_on("llama", "float32", place), method, rows_of(40), cache=cache)
        found.append(tuned.logits(UNSEEN))
    near(found[1], found[0], rtol=1e-2, atol=1e-2)
    assert torch.equal(found[2], found[0])


@each_dtype
def test_a_closed_form_takes_further_rows(dtype: str) -> None:
    method = build("closed-form", {"penalty": 1.0, "smoothing": 0.1})
    rows = rows_of(40)
    grown = fit(base_on("llama", dtype), method, rows.select(range(20))).add_rows(rows.select(range(20, 40)))
    whole = fit(base_on("llama", dtype), method, rows)
    # Features are read in other batches, which matters in bfloat16.
    near(grown.logits(UNSEEN), whole.logits(UNSEEN), atol=1e-3 if dtype == "float32" else 0.2, rtol=1e-2)


@pytest.mark.parametrize("family", SPEAKING)
def test_demonstrations_in_the_context_are_tuned_with(family: str) -> None:
    plan = pegbox.Demonstrate(per_class=1, draws=2)
    tuned = fit(
        base_on(family), "lora", rows_of(48), demonstrations=plan, training=pegbox.Training(max_steps=4)
    )
    assert all(map(math.isfinite, losses(tuned)))
    assert np.isfinite(tuned.probabilities(UNSEEN)).all()


# Merging


@each_family
@pytest.mark.parametrize("name", ["lora", "ia3", "closed-form"])
def test_merged_equals_unmerged(name: str, family: str, tmp_path: Path) -> None:
    method: Any = LoRA(targets="all-linear") if name == "lora" else name
    if name == "closed-form":
        method = build(name, {"intercept": False, "penalty": 1.0, "smoothing": 0.1})
    tuned = fit(base_on(family), method, UNEVEN, training=training(name, family, "float32"))
    made = merge(tuned, tmp_path / "out", rows=UNSEEN)
    assert made.max_change < 1e-3
    near(tuned.merge().logits(UNSEEN), tuned.logits(UNSEEN))
    for place in (PLACE, "cpu"):
        near(
            loaded(tmp_path / "out", place, "float32").logits(UNSEEN),
            tuned.logits(UNSEEN),
            rtol=1e-3,
            atol=2e-3,
        )


@each_family
def test_4_bits_are_merged_as_what_they_stand_for(family: str, tmp_path: Path) -> None:
    tuned, _ = tuned_on("qlora", family, "float32", "nf4")
    made = merge(tuned, tmp_path / "out", rows=UNSEEN)
    assert made.dequantised
    assert made.max_change < 1e-2
    near(
        loaded(tmp_path / "out", "cpu", "float32").logits(UNSEEN), tuned.logits(UNSEEN), rtol=2e-2, atol=2e-2
    )


def test_several_tuned_models_take_turns_in_the_weights() -> None:
    base = base_on("llama")
    before, board = checksum(base.model), Switchboard(base)
    for name in ("lora", "closed-form"):
        board.add(name, tuned_on(name, "llama", "float32")[1], say=hush)
    for name in ("lora", "closed-form", "lora"):
        near(board.use(name).logits(UNSEEN), tuned_on(name, "llama", "float32")[0].logits(UNSEEN))
    board.off()
    assert checksum(base.model) == before


# Interrupted fits


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("llama", "float32"),
        ("gpt2", "float32"),
        ("t5", "float32"),
        ("bert-encoder", "float32"),
        ("gpt2", "bfloat16"),
    ],
)
def test_an_interrupted_fit_goes_on_to_the_same_parameters(
    family: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2, T5 and BERT have dropout, which draws from the GPU's own generator."""
    plan = training("lora", family, dtype, epochs=2, batch_size=5, checkpoint_every=2, learning_rate=5e-3)
    fitted = partial(fit, base_on(family, dtype), "lora", UNEVEN, training=plan)
    whole, twice = (adapter(fitted(folder=tmp_path / name)) for name in ("whole", "twice"))
    loss, calls = LabelRows.loss, [0]

    def deadly(self: LabelRows, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 6:
            raise Killed()
        return loss(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LabelRows, "loss", deadly)
        with pytest.raises(Killed):
            fitted(folder=tmp_path / "killed")
    found = fitted(folder=tmp_path / "killed", resume=True)
    assert found.details["history"]["resumed_from"] == 4
    # As near as the same fit comes to itself: kernels that add in any order are no fault of a resume.
    apart = distance(whole, twice)
    assert apart < 5e-2
    assert distance(adapter(found), whole) <= (0.0 if apart == 0 else 10 * apart + 1e-5)


# Other tasks


@each_dtype
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert-encoder"])
def test_multiple_choice(family: str, dtype: str, tmp_path: Path) -> None:
    plan = training("lora", family, dtype, epochs=25, batch_size=8, learning_rate=1e-2)
    method = LoRA(rank=8, targets="all-linear")
    tuned = fit(base_on(family, dtype), method, QUESTIONS, task=Choose(), training=plan)
    assert losses(tuned)[-1] < 0.9 * losses(tuned)[0]
    scores = tuned.evaluate(QUESTIONS, resamples=5)
    if family != "bert-encoder":
        assert scores.metrics["accuracy"].value >= 0.8
    folder = tuned.save(tmp_path / "out", scores=scores)
    again = loaded(folder, PLACE, dtype)
    near(again.probabilities(QUESTIONS), tuned.probabilities(QUESTIONS), rtol=0, atol=1e-5)
    there = loaded(folder, "cpu", "float32")
    allowed = 2e-3 if dtype == "float32" else 0.15
    near(there.probabilities(QUESTIONS), tuned.probabilities(QUESTIONS), rtol=0, atol=allowed)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_choices_without_tuning_are_those_of_a_cpu(family: str) -> None:
    for method in ("zero-shot", FewShot(per_class=2)):
        found = [
            fit(base_on(family, "float32", place), method, QUESTIONS, task=Choose()).probabilities(QUESTIONS)
            for place in (PLACE, "cpu")
        ]
        near(*found, rtol=0, atol=1e-3)


@each_dtype
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "bert-encoder"])
def test_entities(family: str, dtype: str, tmp_path: Path) -> None:
    rows = sentences_of()
    plan = training("lora", family, dtype, epochs=30, batch_size=8)
    method = LoRA(rank=8, targets="all-linear")
    tuned = fit(base_on(family, dtype), method, rows, task=TAGS, training=plan)
    scores = tuned.evaluate(rows, resamples=5)
    assert scores.metrics["f1"].value > 0.9
    folder = tuned.save(tmp_path / "out", scores=scores)
    assert loaded(folder, PLACE, dtype).predict(rows)[0].tags == tuned.predict(rows)[0].tags
    there = loaded(folder, "cpu", "float32")
    allowed = 5e-3 if dtype == "float32" else 0.5
    near(there.logits(rows).softmax(-1), tuned.logits(rows).softmax(-1), rtol=0, atol=allowed)


# Forgetting and replay


@pytest.mark.parametrize("family", LANGUAGE)
@pytest.mark.parametrize("name", [name for name in PLAIN if name != "few-shot"])
def test_forgetting_is_what_a_cpu_measures(name: str, family: str) -> None:
    if hole(name, family):
        pytest.skip("its row says so")
    tuned, folder = tuned_on(name, family, "float32")
    found, wanted = tuned.forgetting(GENERAL), loaded(folder, "cpu", "float32").forgetting(GENERAL)
    assert found.before.value == pytest.approx(wanted.before.value, rel=1e-3)
    assert found.after.value == pytest.approx(wanted.after.value, rel=1e-3)
    # Exactly: the adapter is not at work at all.
    assert found.off == (None if name in ("full", "zero-shot") else 0.0)


@pytest.mark.parametrize("family", LANGUAGE)
@pytest.mark.parametrize("quantise", [None, "nf4"])
def test_forgetting_in_bfloat16_with_the_adapter_off_is_none(family: str, quantise: Any) -> None:
    tuned, _ = tuned_on("qlora" if quantise else "lora", family, "bfloat16", quantise)
    found = tuned.forgetting(GENERAL)
    assert found.off == 0.0
    assert found.change.value != 0.0


@each_dtype
@pytest.mark.parametrize("family", LANGUAGE)
@pytest.mark.parametrize("name", ["lora", "full", "soft-prompt"])
def test_general_text_is_replayed(name: str, family: str, dtype: str, tmp_path: Path) -> None:
    words = " ".join(TEXT[:4]).split()
    file = tmp_path / "general.txt"
    file.write_text("\n\n".join(" ".join(words[at : at + 9]) for at in range(40)), "utf-8")
    plan = training(name, family, dtype, batch_size=8, epochs=3)
    replay = pegbox.Replay(file, 0.4)
    tuned = fit(base_on(family, dtype), name, UNEVEN, training=plan, replay=replay)
    assert tuned.details["history"]["replayed"] > 0
    assert all(map(math.isfinite, losses(tuned)))


# Comparison and advice


def test_a_comparison_is_made_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = pegbox.load(folder_of("llama"))
    rungs = ("majority", "closed-form", "lora")
    found = compared(base, tmp_path / "out", methods=rungs, seeds=(0,))
    assert {rung.name for rung in found.rungs} == set(rungs)
    lora = found.rung("lora").cost
    assert lora.peak_memory is not None
    assert lora.peak_memory > 0
    assert lora.seconds > 0
    assert (torch.cuda.get_device_name() in found.machine) if PLACE == "cuda" else found.machine
    before = finished(tmp_path / "out")
    assert len(before) == len(rungs)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(cell_module, "fit", refuse)
    again = compared(base, tmp_path / "out", methods=rungs, seeds=(0,))
    assert finished(tmp_path / "out") == before
    assert again.rungs == found.rungs


def test_a_rung_in_4_bits_is_climbed(tmp_path: Path) -> None:
    base = pegbox.load(folder_of("llama", "nf4"))
    assert base.device.type == PLACE
    found = compared(base, tmp_path / "out", methods=("majority", "qlora"), seeds=(0,))
    memory = found.rung("qlora").cost.peak_memory
    assert memory is not None
    assert memory > 0


def test_advice_knows_what_methods_take() -> None:
    found = pegbox.comparison.advise(pegbox.load(folder_of("llama")), task_of(), rows=rows_of(60), say=hush)
    assert found.method is not None
    assert found.pilot is not None
    for offer in found.offers:
        costs = offer.costs
        if not costs.feasible:
            continue
        assert costs.memory is not None, costs.method
        assert costs.memory > 0, costs.method
        assert costs.seconds is not None, costs.method
        assert math.isfinite(costs.seconds), costs.method
    assert {offer.costs.method for offer in found.offers if offer.costs.feasible} >= {"lora", "full", "head"}


def test_the_peak_of_memory_is_measured() -> None:
    with peak_memory(torch.device(PLACE)) as peak:
        torch.ones(1 << 24, device=PLACE).sum().item()
    assert peak.bytes is not None
    # A CPU's is told by pages of the whole process.
    assert 0.99 * (1 << 26) < peak.bytes < (1 << 28)


# The trunk cache, recomputed activations, and the language loss in chunks

TOP = {
    "llama": "layers.1.self_attn.v_proj",
    "gpt2": "h.1.attn.c_attn",
    "bert": "layer.1.attention.self.value",
    "bert-encoder": "layer.1.attention.self.value",
}


@each_dtype
@pytest.mark.parametrize("family", TOP)
def test_stored_states_give_the_loss_and_gradients_of_the_whole_model(family: str, dtype: str) -> None:
    base = base_on(family, dtype)
    prompt = base.prepare(task_of())
    method: Any = LoRA(targets=TOP[family])
    module = method.attach(base, prompt, seed=1)
    turned(module)
    module.eval()
    rows = LabelRows(base, prompt, encode(base, prompt, ROWS, say=hush), prompt.task.gold(ROWS))
    precision = "float32" if dtype == "float32" else "bf16"
    fast = with_trunk_cached(module, [rows], wanted="on", precision=precision, say=hush)[0]
    assert isinstance(fast, TrunkRows)
    with torch.autocast(PLACE, torch.bfloat16, enabled=dtype == "bfloat16"):
        found = [gradients_of_rows(module, part) for part in (rows, fast)]
    assert len(found[0]) > 1
    allowed: dict[str, Any] = (
        {"rtol": 1e-3, "atol": 1e-3} if dtype == "float32" else {"rtol": 0.1, "atol": 0.2}
    )
    for slow, quick in zip(*found, strict=True):
        near(quick, slow, **allowed)


def gradients_of_rows(module: torch.nn.Module, part: Any) -> list[Tensor]:
    module.zero_grad()
    batch = {key: value.to(PLACE) for key, value in part.collate([3, 0, 7, 5]).items()}
    loss, _ = part.loss(module, batch)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


@torch.no_grad()
def turned(module: torch.nn.Module) -> None:
    """Move what is trained off its start."""
    dice = torch.Generator().manual_seed(0)
    for value in module.parameters():
        if value.requires_grad:
            value.add_((0.1 * torch.randn(value.shape, generator=dice)).to(value))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lora", {"layers": 1, "targets": "all-linear"}),
        ("bottleneck", {"layers": 1}),
        ("zero-init-attention", {"layers": 1, "length": 3}),
        ("head", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fit_with_the_trunk_cached_ends_where_it_does_without(name: str, options: dict[str, Any]) -> None:
    told: list[str] = []
    found = []
    for cached in ("on", "off"):
        plan = training(name, "llama", "float32", trunk_cache=cached, epochs=8, learning_rate=5e-3)
        method = build(name, options)
        found.append(fit(base_on("llama"), method, UNEVEN, training=plan, say=told.append).logits(UNSEEN))
    assert any("frozen layers below were run once" in line for line in told)
    near(*found)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("name", ["lora", "full", "prefix"])
def test_recomputed_activations_give_the_same_fit(name: str, family: str) -> None:
    """With dropout too: what is computed again draws the same numbers."""
    found = []
    for recomputed in (False, True):
        plan = training(name, family, "float32", gradient_checkpointing=recomputed, epochs=5)
        tuned = fit(base_on(family), name, UNEVEN, training=plan)
        found.append((losses(tuned), tuned.logits(UNSEEN)))
    near(found[1][0], found[0][0])
    near(found[1][1], found[0][1], rtol=1e-2, atol=3e-2)


def language_batch(kind: str, place: str = PLACE) -> tuple[dict[str, Tensor], Tensor]:
    """Three rows padded on the right, and what is asked of them, where the model is."""
    inputs, targets = batch(kind)
    return {name: value.to(place) for name, value in inputs.items()}, targets.to(place)


def plain_loss(model: Any, inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    logits = model(**inputs).logits.float()
    return functional.cross_entropy(logits[targets != IGNORED], targets[targets != IGNORED], reduction="none")


def loss_and_gradients(model: Any, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    weights = torch.linspace(0.5, 2, len(values), device=values.device)
    (values * weights).sum().backward()
    found = {name: p.grad.clone().cpu() for name, p in model.named_parameters() if p.grad is not None}
    return values.detach().cpu(), found


@pytest.mark.parametrize("trained", ["all", "output layer frozen"])
@pytest.mark.parametrize("chunk", [5, 1000])
@pytest.mark.parametrize("family", LANGUAGE)
def test_the_language_loss_in_chunks_is_the_plain_one(
    family: str, chunk: int, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", chunk * VOCABULARY)
    model = whole_model(family, PLACE).eval()
    if trained != "all":
        model.get_output_embeddings().requires_grad_(False)
    inputs, targets = language_batch(FAMILIES[family][1])
    wanted = loss_and_gradients(model, plain_loss(model, inputs, targets))
    found = loss_and_gradients(model, language_loss(model, inputs, targets))
    near(found[0], wanted[0])
    assert found[1].keys() == wanted[1].keys()
    for name, value in wanted[1].items():
        near(found[1][name], value, rtol=1e-3, atol=1e-3 * max(1.0, float(value.abs().max())))


@pytest.mark.parametrize("family", LANGUAGE)
def test_the_language_loss_is_that_of_a_cpu(family: str) -> None:
    found = []
    for place in (PLACE, "cpu"):
        model = whole_model(family, place).eval()
        found.append(language_loss(model, *language_batch(FAMILIES[family][1], place)).detach().cpu())
    near(*found)


@pytest.mark.parametrize("trained", [False, True])
def test_autocast_holds_when_logits_are_computed_anew(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 7 * 11)
    matrix = torch.randn(11, 4, requires_grad=trained, device=PLACE)
    hidden = torch.randn(40, 4, requires_grad=True, device=PLACE)
    types: list[torch.dtype] = []

    def logits(states: Tensor) -> Tensor:
        found = functional.linear(states, matrix)
        types.append(found.dtype)
        return found

    targets, parameters = torch.arange(40, device=PLACE) % 11, [matrix] if trained else []
    with torch.autocast(PLACE, torch.bfloat16):
        values = chunked_cross_entropy(hidden, targets, logits, outputs=11, parameters=parameters)
    values.sum().backward()
    assert values.dtype == torch.float32
    assert set(types) == {torch.bfloat16}
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32


def test_dropout_is_the_same_when_logits_are_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LOGITS_PER_CHUNK", 7 * 11)
    matrix = torch.randn(4, 11, dtype=torch.float64, device=PLACE, requires_grad=True)
    hidden = torch.randn(40, 4, dtype=torch.float64, device=PLACE)
    targets = torch.arange(40, device=PLACE) % 11

    def loss() -> Tensor:
        torch.manual_seed(3)
        dropped = partial(functional.dropout, p=0.5)
        made = chunked_cross_entropy(
            hidden, targets, lambda states: dropped(states) @ matrix, outputs=11, parameters=[matrix]
        )
        return made.sum()

    loss().backward()
    step = 1e-6
    with torch.no_grad():
        low = loss()
        matrix[1, 5] += step
        high = loss()
    assert matrix.grad is not None
    # A finite difference of a smooth function in float64: error of the order of the step.
    near(matrix.grad[1, 5].cpu(), ((high - low) / step).cpu(), rtol=1e-4, atol=1e-4)


@each_dtype
def test_recomputed_blocks_go_with_the_language_loss(dtype: str) -> None:
    """As a replay with gradient_checkpointing has it, dropout at work."""
    model = copy.deepcopy(base_on("gpt2", dtype).model).requires_grad_(True).train()
    inputs, targets = language_batch("causal")
    found = []
    for recomputed in (False, True):
        model._set_gradient_checkpointing(recomputed, partial(checkpoint, use_reentrant=False))  # type: ignore[operator]
        torch.manual_seed(5)
        found.append(loss_and_gradients(model, language_loss(model, inputs, targets, use_cache=False)))
    near(found[1][0], found[0][0])
    for name, value in found[0][1].items():
        near(found[1][1][name], value, rtol=1e-2, atol=1e-2 * max(1.0, float(value.abs().max())))


@each_dtype
def test_nats_do_not_depend_on_the_batches(dtype: str) -> None:
    rows = LanguageRows(base_on("llama", dtype), GENERAL.documents)
    together = rows.nats(base_on("llama", dtype).model)
    alone = [LanguageRows(base_on("llama", dtype), [text]) for text in GENERAL.documents]
    found = np.concatenate([one.nats(base_on("llama", dtype).model) for one in alone])
    np.testing.assert_allclose(found, together, rtol=1e-4 if dtype == "float32" else 3e-2)


# A pretrained model


@pytest.fixture(scope="module")
def etude() -> Any:
    """The embedded model as it is loaded where nobody says how."""
    return pegbox.load("etude")


def test_the_embedded_model_learns_reviews(etude: Any) -> None:
    assert etude.device.type == PLACE
    test = reviews_of(300, seed=1)
    task = REVIEWS.with_rows(reviews_of(384, seed=0))
    tuned = pegbox.fit("etude", task, "lora", say=hush)
    assert tuned.base.device.type == PLACE
    before = pegbox.fit(etude, task, "zero-shot", say=hush).evaluate(test, resamples=5)
    after = tuned.evaluate(test, resamples=5)
    assert after.metrics["accuracy"].value > before.metrics["accuracy"].value


@pytest.mark.parametrize(
    ("name", "options"),
    [("zero-shot", {}), ("few-shot", {}), ("closed-form", {"penalty": 1.0, "smoothing": 0.1})],
    ids=["zero-shot", "few-shot", "closed-form"],
)
def test_the_embedded_model_answers_as_on_a_cpu(name: str, options: dict[str, Any]) -> None:
    method = build(name, options)
    test, train = reviews_of(60, seed=1), reviews_of(64, seed=0)
    found = [
        pegbox.fit(
            pegbox.load("etude", dtype="float32", device=place), REVIEWS, method, rows=train, say=hush
        ).probabilities(test)
        for place in (PLACE, "cpu")
    ]
    near(*found, rtol=0, atol=2e-3)


def test_what_the_embedded_model_forgets_is_told(etude: Any) -> None:
    replayed = pegbox.Replay(ratio=0.3, size=60_000)
    tuned = pegbox.fit(
        etude, REVIEWS, "lora", rows=reviews_of(64, seed=0), replay=replayed,
        training=pegbox.Training(max_steps=8), say=hush,
    )  # fmt: skip
    assert tuned.details["history"]["replayed"] > 0
    found = tuned.forgetting()
    assert found.off == 0.0
    assert found.documents > 0
    assert math.isfinite(found.change.value)
