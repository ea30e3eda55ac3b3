"""The closed form on real architectures: what is saved is a plain PEFT adapter that says the same."""

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

import pegbox
from pegbox.errors import CapabilityError, UsageError
from pegbox.methods import ClosedForm
from pegbox.models import PooledClassifier, answer_tokens, collate, read
from tuning_toy import base_of, checksum, fit, folder_of, full_forward, hush, rows_of, same_parts, task_of

FAMILIES = [
    ("llama", "causal"),
    ("qwen3", "causal"),
    ("gemma3_text", "causal"),
    ("mistral", "causal"),
    ("gpt2", "causal"),
    ("cohere", "causal"),
    ("bert", "masked"),
    ("roberta", "masked"),
    ("bert", "encoder"),
    ("t5", "encoder-decoder"),
    ("bart", "encoder-decoder"),
]
# float32 sums in another order: the readout multiplies K rows where the full model multiplies all.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def plain_model(architecture: str, kind: str, labels: int) -> Any:
    auto: Any = {
        "causal": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
        "encoder": AutoModel,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }[kind]
    model = auto.from_pretrained(folder_of(architecture, kind), dtype=torch.float32).eval()
    return PooledClassifier(model, "mean", labels).eval() if kind == "encoder" else model


def by_plain_peft(architecture: str, kind: str, labels: int, folder: Path) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        # PEFT speaks of merging into tied layers, of biases, and takes the bias of LoRA-B for a shard.
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(plain_model(architecture, kind, labels), folder).eval()


def compare(tuned: pegbox.Tuned, architecture: str, kind: str, folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Full logits of base and adapter, and the label tokens, after checking the answers."""
    rows, labels = rows_of(9, len(tuned.labels), seed=7), len(tuned.labels)
    tuned.save(folder)
    encoded = tuned.prompt.encode(rows)
    tokens = torch.tensor(answer_tokens(tuned.prompt))
    whole = full_forward(by_plain_peft(architecture, kind, labels, folder), encoded)
    torch.testing.assert_close(tuned.logits(rows), whole[:, tokens], **CLOSE)
    return full_forward(plain_model(architecture, kind, labels), encoded), whole, tokens


@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_plain_peft_gives_the_same_answers(architecture: str, kind: str, tmp_path: Path) -> None:
    # The random BART's rows differ in the third digit only: a free penalty would enlarge rounding errors.
    method = ClosedForm(penalty=0.01) if architecture == "bart" else ClosedForm()
    tuned = fit(base_of(architecture, kind), method, rows_of(40))
    base, whole, tokens = compare(tuned, architecture, kind, tmp_path / "out")
    assert (base[:, tokens] - whole[:, tokens]).abs().max() > 1e-2
    others = torch.ones(base.shape[1], dtype=torch.bool)
    others[tokens] = False
    assert torch.equal(base[:, others], whole[:, others])


@pytest.mark.parametrize("labels", [2, 3, 5])
@pytest.mark.parametrize(
    "method",
    [
        ClosedForm(),
        ClosedForm(intercept=False),
        ClosedForm(loss="log", penalty=1.0),
        ClosedForm(loss="log", intercept=False, penalty=1.0),
        ClosedForm(vocabulary=True),
    ],
    ids=["squared", "squared-through-zero", "log", "log-through-zero", "vocabulary"],
)
def test_every_option_survives_export(method: ClosedForm, labels: int, tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), method, rows_of(45, labels), labels)
    base, whole, _ = compare(tuned, "llama", "causal", tmp_path / "out")
    assert tuned.module.peft_config["default"].r == (32 if method.vocabulary else labels)
    assert tuned.module.peft_config["default"].lora_bias == method.intercept
    if method.vocabulary:
        assert not torch.equal(base.argmax(1), whole.argmax(1))
        gold = torch.tensor(tuned.prompt.tokens)[tuned.prompt.task.gold(rows_of(45, labels))]
        own = full_forward(tuned.module, tuned.prompt.encode(rows_of(45, labels)))
        # Every token was fitted: the right answer leads among all 512, not only among the label words.
        assert (own.argmax(1) == gold).float().mean() > 0.6


def test_whole_vocabulary_has_the_rank_of_the_rows(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), ClosedForm(vocabulary=True), rows_of(12))
    assert tuned.module.peft_config["default"].r == 11  # 12 rows, centred
    compare(tuned, "llama", "causal", tmp_path / "out")


def test_log_loss_reaches_the_optimum_of_the_answers() -> None:
    rows = rows_of(45, 3)
    tuned = fit(base_of("cohere"), ClosedForm(loss="log", penalty=0.01), rows, 3)
    # At the optimum of a free intercept the mean probability of each label is its share of the rows; the
    # adapter is float32, hence 1e-5.
    assert tuned.probabilities(rows).mean(0) == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert tuned.details["gradient_norm"] < 1e-8


def test_leave_one_out_loss_is_that_of_real_refits() -> None:
    rows = rows_of(14)
    base = base_of("llama")
    whole = fit(base, ClosedForm(), rows)
    chosen = ClosedForm(penalty=whole.details["penalty"], smoothing=whole.details["smoothing"])
    losses = []
    for out in range(len(rows)):
        part = fit(base, chosen, rows.select([i for i in range(len(rows)) if i != out]))
        probability = part.probabilities(rows.select([out]))[0][whole.prompt.task.gold(rows)[out]]
        losses.append(-math.log(probability))
    assert whole.details["criterion"] == "exact leave-one-out"
    assert sum(losses) / len(losses) == pytest.approx(whole.details["left_out_loss"], abs=1e-5)


def test_details_name_the_decomposition_of_large_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    from pegbox.methods._least_squares import _spectrum

    monkeypatch.setattr(_spectrum, "SVD_WORK", 0)
    for method in (ClosedForm(), ClosedForm(loss="log", penalty=1.0), ClosedForm(vocabulary=True)):
        assert fit(base_of("llama"), method, rows_of(20)).details["decomposition"] == "gram"


def test_details_say_what_was_chosen() -> None:
    details = fit(base_of("llama"), "closed-form", rows_of(40)).details
    assert details["penalty"] > 0
    assert 0 < details["smoothing"] < 0.5
    assert details["system"] == "svd"
    assert details["gradient_norm"] < 1e-10
    assert math.isfinite(details["log_evidence"])
    assert details["decomposition"] == "svd"
    given = fit(base_of("llama"), ClosedForm(penalty=3.0, smoothing=0.1), rows_of(40)).details
    assert (given["penalty"], given["smoothing"]) == (3.0, 0.1)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("gpt2", "causal"), ("bert", "masked"), ("bert", "encoder"), ("t5", "encoder-decoder")],
)
def test_the_base_is_untouched_and_its_memory_shared(architecture: str, kind: str) -> None:
    base = base_of(architecture, kind)
    before = checksum(base.model)
    tuned = fit(base, "closed-form", rows_of(40))
    tuned.predict(rows_of(3, seed=2))
    assert checksum(base.model) == before
    known = {tensor.data_ptr() for tensor in (*base.model.parameters(), *base.model.buffers())}
    own = [name for name, p in tuned.module.named_parameters() if p.data_ptr() not in known]
    assert own
    assert all("lora_" in name or "score" in name for name in own)
    assert not any(p.requires_grad for p in tuned.module.parameters())


def test_without_the_adapter_the_base_answers_to_the_bit() -> None:
    base = base_of("gemma3_text")
    tuned = fit(base, "closed-form", rows_of(40))
    encoded = tuned.prompt.encode(rows_of(6, seed=3))
    batch = collate(encoded, range(6), kind="causal", pad=base.pad)
    tokens = torch.tensor(tuned.prompt.tokens)
    with torch.no_grad():
        alone = read(base.model, batch, tokens).logits
        with tuned.module.disable_adapter():
            assert torch.equal(read(tuned.module, batch, tokens).logits, alone)
        assert not torch.equal(read(tuned.module, batch, tokens).logits, alone)


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_fitting_draws_no_random_numbers_of_others(kind: str) -> None:
    base = base_of("llama" if kind == "causal" else "bert", kind)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(base, "closed-form", rows_of(20)).predict(rows_of(2))
    assert torch.equal(torch.rand(3), expected)


def test_bfloat16_bases_work() -> None:
    for architecture, kind in (("llama", "causal"), ("bert", "encoder"), ("t5", "encoder-decoder")):
        base = pegbox.load(folder_of(architecture, kind), dtype="bfloat16")
        tuned = fit(base, "closed-form", rows_of(40))
        assert tuned.module is not None
        with torch.no_grad():
            encoded = tuned.prompt.encode(rows_of(6, seed=3))
            whole = full_forward(tuned.module, encoded)[:, list(answer_tokens(tuned.prompt))].float()
        # bfloat16 keeps eight bits: logits of a few units are right to about 2 %.
        torch.testing.assert_close(tuned.logits(rows_of(6, seed=3)), whole, rtol=0.03, atol=0.06)


@pytest.mark.parametrize(
    ("architecture", "labels"), [("llama", 2), ("llama", 3), ("gemma3_text", 2), ("cohere", 3)]
)
@pytest.mark.parametrize("loss", ["squared", "log"])
def test_deviation_is_that_of_draws_from_the_posterior(architecture: str, labels: int, loss: Any) -> None:
    # Half the labels are noise: in the far tail of a sure answer even many draws know a deviation badly.
    tuned = fit(base_of(architecture), ClosedForm(loss=loss), rows_of(40, labels, noise=0.5), labels)
    rows = rows_of(5, labels, seed=11)
    features = pegbox.models.extract(tuned.base, tuned.prompt, tuned.prompt.encode(rows)).hidden.double()
    scale = 0.25 if architecture == "cohere" else 1.0
    zero = torch.zeros(5, labels, dtype=torch.float64)
    _, covariance = tuned.posterior.predictive(features * scale, zero)
    mean = tuned.logits(rows).double()
    if architecture == "gemma3_text":
        mean = 4 * torch.atanh(mean / 4)  # undo the soft-capping at 4, under which the posterior lies
    torch.manual_seed(0)
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt()[:, None]
    draws = mean[:, None] + torch.einsum(
        "nka,nsa->nsk", root, torch.randn(5, 20000, labels, dtype=torch.float64)
    )
    if architecture == "gemma3_text":
        draws = 4 * torch.tanh(draws / 4)
    sample = draws.softmax(2).std(1)
    for row, prediction in enumerate(tuned.predict(rows)):
        place = tuned.labels.index(prediction.label)
        # 20,000 draws know a deviation to 0.5 %, the method's own 1,024 (three labels) to about 3 %.
        assert prediction.deviation == pytest.approx(float(sample[row, place]), rel=0.08)


@pytest.mark.parametrize("architecture", ["t5", "bart"])
@pytest.mark.parametrize("template", ["{text} It was {answer}.", "{text} It was {answer}"])
def test_an_encoder_decoder_survives_saving(architecture: str, template: str, tmp_path: Path) -> None:
    """Wherever the answer is read: after the sentinel, or at the decoder's first step."""
    base = base_of(architecture, "encoder-decoder")
    for method in ("closed-form", "zero-shot", "few-shot", ClosedForm(vocabulary=True)):
        tuned = fit(base, method, rows_of(24), task=task_of(template=template))
        folder = tmp_path / f"{method if isinstance(method, str) else 'vocabulary'}"
        tuned.save(folder)
        again = pegbox.Tuned.load(folder, say=hush)
        assert again.base.kind == "encoder-decoder"
        assert again.predict(rows_of(4, seed=2)) == tuned.predict(rows_of(4, seed=2))
        assert "AutoModelForSeq2SeqLM" in (folder / "README.md").read_text() or tuned.module is None
    tied = base.model.get_input_embeddings().weight is base.model.get_output_embeddings().weight
    assert tied  # and neither moved: compare() and the checksums above look at every tensor


def test_posterior_survives_saving(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "closed-form", rows_of(40))
    tuned.save(tmp_path / "out")
    again = pegbox.Tuned.load(tmp_path / "out", model=tuned.base, say=hush)
    for name, tensor in tuned.posterior.tensors().items():
        assert torch.equal(again.posterior.tensors()[name], tensor), name
    assert again.predict(rows_of(4, seed=2)) == tuned.predict(rows_of(4, seed=2))
    assert fit(base_of("llama"), ClosedForm(vocabulary=True), rows_of(20)).posterior is None


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("llama", "causal"), ("cohere", "causal"), ("bert", "encoder"), ("t5", "encoder-decoder")],
)
@pytest.mark.parametrize("count", [20, 60])
def test_further_rows_equal_a_refit(architecture: str, kind: str, count: int) -> None:
    base = base_of(architecture, kind)
    # A penalty of some size: with a tiny one, the last bits of features read in other batches would show.
    first = fit(base, ClosedForm(penalty=1.0, smoothing=0.05), rows_of(count))
    weights = checksum(first.module)
    more, rest = rows_of(3, seed=1), rows_of(2, seed=2)
    grown = first.add_rows(more).add_rows(rest)
    joined = pegbox.data.Examples(
        "all",
        {"text": rows_of(count).fields["text"] + more.fields["text"] + rest.fields["text"]},
        rows_of(count).labels + more.labels + rest.labels,
        tuple(range(1, count + 6)),
    )
    chosen = ClosedForm(penalty=first.details["penalty"], smoothing=first.details["smoothing"])
    refit = fit(base, chosen, joined)
    probe = rows_of(6, seed=9)
    # Both adapters are written in float32, whose last bit is 6e-8 of a weight.
    assert grown.probabilities(probe) == pytest.approx(refit.probabilities(probe), abs=2e-6)
    assert abs(first.probabilities(probe) - refit.probabilities(probe)).max() > 1e-4
    assert checksum(first.module) == weights
    assert grown.cost.rows == count + 5
    assert grown.training_rows == refit.training_rows
    assert len(grown.features) == count + 5
    assert grown.posterior is None
    assert first.add_rows(more).probabilities(probe) == pytest.approx(
        first.add_rows(more).probabilities(probe), abs=0
    )


def test_further_rows_take_a_posterior_out_of_use() -> None:
    lines: list[str] = []
    first = fit(base_of("llama"), "closed-form", rows_of(20))
    sure = replace(first.with_posterior(), say=lines.append)
    more, probe = rows_of(4, seed=1), rows_of(6, seed=9)
    grown = sure.add_rows(more)
    assert (grown.averaged, grown.laplace, grown.posterior) == (False, None, None)
    assert grown.probabilities(probe) == pytest.approx(first.add_rows(more).probabilities(probe), abs=0)
    assert [line for line in lines if "posterior" in line] == [
        "the posterior is of the rows before these, and no longer in use; fit again on all to have one"
    ]
    assert sure.averaged
    lines.clear()
    grown.add_rows(rows_of(4, seed=2))
    assert not lines


def test_further_rows_are_refused_where_there_are_no_equations() -> None:
    tuned = fit(base_of("llama"), ClosedForm(loss="log", penalty=1.0), rows_of(20))
    with pytest.raises(CapabilityError, match="takes no further rows") as error:
        tuned.add_rows(rows_of(1))
    assert "fit again on all rows" in str(error.value)


def test_wrong_options_are_gathered() -> None:
    with pytest.raises(UsageError) as error:
        ClosedForm(loss="log", penalty=-1, smoothing=0.1, intercept="yes", vocabulary=True)  # type: ignore[arg-type]
    told = str(error.value)
    for part in ("penalty is -1", "smoothing is 0.1", "intercept is 'yes'", "vocabulary is True"):
        assert part in told
    assert "only with the squared loss" in told
    with pytest.raises(UsageError, match="penalty is inf"):
        ClosedForm(penalty=float("inf"))


def test_vocabulary_is_refused_on_an_encoder() -> None:
    with pytest.raises(CapabilityError, match="cannot work on an encoder without an output layer") as error:
        fit(base_of("bert", "encoder"), ClosedForm(vocabulary=True), rows_of(20))
    assert "leave vocabulary off" in str(error.value)


def test_same_rows_same_bits() -> None:
    base = base_of("llama")
    assert same_parts(*(fit(base, "closed-form", rows_of(30)).module for _ in range(2)))
    assert task_of().labels == ("bad", "fine")
