"""Posteriors of real adapters: every readout, saving and loading, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import pegbox
from four_bit_toy import wide_folder
from pegbox.data import Questions
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import build
from pegbox.tuning import save_posterior
from pegbox.tuning._laplace import scored, uncertain
from pegbox.uncertainty import _jacobian as jacobian_module
from tuning_toy import LABELS, base_of, checksum, fit, folder_of, hush, rows_of, task_of
from uncertainty_toy import curvature, jacobian, slopes_both_ways

QUICK = pegbox.Training(epochs=2, learning_rate=1e-2)
ROWS = rows_of(24)
OTHERS = rows_of(6, seed=7)
OTHERS_3 = rows_of(6, 3, seed=7)
GRADES = ("exact", "kron", "ekfac", "diag")
CASES = {
    "llama-causal": ("llama", "causal", "lora"),
    "qwen3-causal": ("qwen3", "causal", "lora"),
    "gemma3-causal": ("gemma3_text", "causal", "lora"),
    "mistral-causal": ("mistral", "causal", "lora"),
    "gpt2-causal": ("gpt2", "causal", "lora"),
    "bert-masked": ("bert", "masked", "lora"),
    "roberta-masked": ("roberta", "masked", "lora"),
    "bert-encoder": ("bert", "encoder", "lora"),
    "t5": ("t5", "encoder-decoder", "lora"),
    "llama-head": ("llama", "causal", "head"),
}


def tuned_of(case: str = "llama-causal", labels: int = 2, **options: Any) -> pegbox.Tuned:
    architecture, kind, method = CASES[case]
    rows = rows_of(24, labels)
    return fit(base_of(architecture, kind), method, rows, labels, **_how(labels), **options)


def _how(labels: int = 2) -> dict[str, Any]:
    """Few epochs, stopped by rows of their own, so that all others are tuned on."""
    return {"training": QUICK, "valid": rows_of(4, labels, seed=50)}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_autograd_s_on_every_architecture(case: str) -> None:
    tuned = tuned_of(case, 3)
    rows, spots = scored(tuned, rows_of(5, 3, seed=3)), uncertain(tuned)
    sure = tuned.with_posterior(rows_of(24, 3), curvature="diag", prior_precision=2.0)
    assert sure.laplace is not None
    values = sure.laplace.basis.values
    found = sure.laplace.predict(tuned.module, rows, spots)  # type: ignore[arg-type]
    for index in range(len(rows)):
        slopes = jacobian(tuned.module, _WithRows(rows, spots), spots, index).double()
        slopes = slopes - slopes.mean(0)
        wanted = (slopes / (values + 2.0)) @ slopes.T
        torch.testing.assert_close(found.covariance[index], wanted, rtol=2e-3, atol=1e-6)
    torch.testing.assert_close(found.mean.float(), tuned.logits(rows_of(5, 3, seed=3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("case", "most"), [("llama-causal", 1), *((case, 1 << 20) for case in CASES)])
def test_gradients_taken_together_are_those_of_each_alone(
    case: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = tuned_of(case, 3)
    rows, spots = scored(tuned, rows_of(5, 3, seed=3)), uncertain(tuned)
    monkeypatch.setattr(jacobian_module, "TOGETHER", {"cpu": most})
    order = [[0, 1, 2], [3, 4]]
    alone, together = slopes_both_ways(monkeypatch, tuned.module, rows, spots, order)  # type: ignore[arg-type]
    for own, other in zip(together, alone, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_an_operation_that_takes_one_gradient_alone_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = tuned_of(labels=3)
    wanted = tuned.with_posterior(rows_of(24, 3), prior_precision=1.0).predictive(OTHERS_3).covariance
    monkeypatch.setattr(jacobian_module, "FEW_SEEDS", 0)
    real = torch.autograd.grad

    def strict(*given: Any, is_grads_batched: bool = False, **how: Any) -> Any:
        if is_grads_batched:
            raise RuntimeError("no rule for many gradients at once")
        return real(*given, **how)

    monkeypatch.setattr(torch.autograd, "grad", strict)
    found = tuned.with_posterior(rows_of(24, 3), prior_precision=1.0).predictive(OTHERS_3).covariance
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("case", ["llama-causal", "bert-encoder", pytest.param("t5", marks=pytest.mark.slow)])
def test_exact_curvature_of_a_real_model_is_the_whole_matrix(case: str) -> None:
    tuned = tuned_of(case, 3)
    few = rows_of(24, 3).select(range(6))
    sure = tuned.with_posterior(few, prior_precision=0.5)
    rows, spots = scored(tuned, few), uncertain(tuned)
    whole = curvature(tuned.module, rows, spots).double()
    values = torch.linalg.eigvalsh(whole).flip(0)
    found = sure.laplace.basis.values  # type: ignore[union-attr]
    torch.testing.assert_close(found, values[: len(found)], rtol=1e-3, atol=1e-5 * float(values[0]))
    assert float(found.sum()) == pytest.approx(float(whole.trace()), rel=1e-3)
    inverse = torch.linalg.inv(whole + 0.5 * torch.eye(len(whole)).double())
    slopes = jacobian(tuned.module, scored(tuned, OTHERS_3), spots, 0).double()
    slopes = slopes - slopes.mean(0)
    torch.testing.assert_close(
        sure.predictive(OTHERS_3).covariance[0], slopes @ inverse @ slopes.T, rtol=2e-3, atol=1e-5
    )


class _WithRows:
    """Rows whose gradients reach the rows of an output layer that are read."""

    def __init__(self, rows: Any, spots: Any) -> None:
        self.rows, self.spots = rows, spots

    def __len__(self) -> int:
        return len(self.rows)

    def collate(self, indices: Any) -> Any:
        return self.rows.collate(indices)

    def scores(self, model: Any, batch: Any) -> Any:
        return self.rows.scores(model, batch)


@pytest.mark.parametrize("grade", GRADES)
def test_a_posterior_is_saved_beside_the_adapter_and_comes_back(grade: Any, tmp_path: Path) -> None:
    tuned = tuned_of(labels=3)
    folder = tuned.save(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sure = pegbox.Tuned.load(folder, say=hush).with_posterior(rows_of(24, 3), curvature=grade)
    save_posterior(sure, folder)
    # The card alone changes: it tells of the posterior.
    assert "Probabilities: averaged over a Laplace posterior" in (folder / "README.md").read_text("utf-8")
    changed = {name for name, content in before.items() if (folder / name).read_bytes() != content}
    assert changed == {"README.md"}
    assert {path.name for path in folder.iterdir()} - before.keys() == {
        "posterior.safetensors",
        "posterior.json",
    }
    again = pegbox.Tuned.load(folder, say=hush)
    rows = rows_of(6, 3, seed=7)
    wanted = sure.probabilities(rows)
    np.testing.assert_allclose(again.probabilities(rows), wanted, rtol=0, atol=1e-6)
    assert np.abs(wanted - torch.softmax(tuned.logits(rows).double(), 1).numpy()).max() > 1e-6
    assert sure.save(tmp_path / "whole")
    whole = pegbox.Tuned.load(tmp_path / "whole", say=hush)
    np.testing.assert_allclose(whole.probabilities(rows), wanted, rtol=0, atol=1e-6)
    words = json.loads((folder / "posterior.json").read_text("utf-8"))
    assert words["curvature"] == grade
    assert words["prior_precision"] == pytest.approx(sure.laplace.precision)  # type: ignore[union-attr]


def test_predictions_tell_how_sure_they_are() -> None:
    tuned = tuned_of(labels=3)
    sure = tuned.with_posterior(rows_of(24, 3), prior_precision=0.5)
    rows = rows_of(6, 3, seed=7)
    found = sure.predictive(rows)
    for line, answer in enumerate(sure.predict(rows)):
        assert answer.logit_deviations == pytest.approx(
            dict(zip(LABELS[:3], found.deviations[line].tolist(), strict=True))
        )
        assert 0 < answer.deviation < 0.5  # type: ignore[operator]
        assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    drawn = found.draws(4000, seed=1)
    torch.testing.assert_close(drawn.softmax(2).mean(0), found.probabilities(), rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.std(0).mean(), found.deviations.mean(), rtol=0.05, atol=0)
    assert tuned.predict(rows)[0].logit_deviations is None


def test_unsure_answers_are_less_sure_and_rarely_others() -> None:
    tuned = tuned_of()
    sure = tuned.with_posterior(ROWS, prior_precision=0.05)
    plain, averaged = tuned.probabilities(OTHERS), sure.probabilities(OTHERS)
    assert (averaged.argmax(1) == plain.argmax(1)).all(), "two labels: the margin's sign is kept"
    assert (averaged.max(1) <= plain.max(1) + 1e-9).all()
    assert averaged.max(1).mean() < plain.max(1).mean() - 1e-3
    scores = sure.evaluate(OTHERS)
    assert scores.metrics["nll"].value == pytest.approx(
        -np.log(averaged[np.arange(6), sure.prompt.task.gold(OTHERS)]).mean()
    )


def test_many_labels_read_from_many_rows_of_the_output_layer() -> None:
    """128 labels: their rows of the vocabulary alone, and one backward pass in place of 127."""
    base = pegbox.load("etude")
    tokens = sorted(token for token in base.tokenizer.get_vocab() if token[0] == "Ġ" and token[1:].isalpha())
    words = tuple(token[1:] for token in tokens[:128])
    task = pegbox.Classify(labels=words, template="{text} It was {answer}.", label_words=words)
    rows = replace(rows_of(128), labels=words)
    training = pegbox.Training(epochs=1)
    tuned = pegbox.fit(base, task, "lora", rows=rows, valid=rows.select([0]), training=training, say=hush)
    sure = tuned.with_posterior(rows, curvature="kron", prior_precision=1.0, roots="mixed")
    found = sure.predictive(rows.select([0, 1]))
    assert found.covariance.shape == (2, 128, 128)
    torch.testing.assert_close(found.covariance.sum(2), torch.zeros(2, 128).double(), rtol=0, atol=1e-5)
    spots = uncertain(tuned)
    slopes = jacobian(tuned.module, scored(tuned, rows), spots, 0).double()
    slopes = slopes - slopes.mean(0)
    basis = sure.laplace.basis  # type: ignore[union-attr]
    sizes = [spot.size for spot in spots]
    parts = [own.view(1, 128, *spot.shape) for own, spot in zip(slopes.split(sizes, 1), spots, strict=True)]
    inside = basis.project(parts)[0]
    wanted = slopes @ slopes.T - (inside * basis.values / (1 + basis.values)) @ inside.T
    torch.testing.assert_close(found.covariance[0], wanted, rtol=2e-3, atol=1e-5)


def questions(count: int, seed: int) -> Questions:
    rows = rows_of(count, 3, seed=seed, noise=0.0)
    gold = tuple(LABELS.index(label) % (2 + row % 2) for row, label in enumerate(rows.labels or ()))
    options = tuple(("great", "okay", "terrible")[: 2 + row % 2] for row in range(count))
    return Questions("toy questions", {"question": rows.fields["text"]}, options, gold, rows.numbers)


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_multiple_choice(kind: str) -> None:
    base = base_of("llama" if kind == "causal" else "bert", kind)
    rows = questions(16, 0)
    task = pegbox.Choose(fields=("question",))
    tuned = pegbox.fit(base, task, "lora", rows=rows, training=QUICK, valid=questions(4, 9), say=hush)
    sure = tuned.with_posterior(rows, prior_precision=0.3)
    others = questions(5, 4)
    found, spots = sure.predictive(others), uncertain(tuned)
    wanted = tuned.logits(others)
    there = torch.isfinite(wanted)
    torch.testing.assert_close(found.mean[there].float(), wanted[there], rtol=1e-4, atol=1e-4)
    assert not torch.isfinite(found.mean[~there]).any()
    assert (found.covariance.diagonal(dim1=1, dim2=2)[there] > 0).all()
    assert (found.covariance.diagonal(dim1=1, dim2=2)[~there] == 0).all()
    answers = sure.predict(replace(others, answers=None))
    assert [len(one.probabilities) for one in answers] == [2, 3, 2, 3, 2]
    assert all(one.deviation > 0 and sum(one.probabilities) == pytest.approx(1) for one in answers)  # type: ignore[operator]
    slopes = jacobian(tuned.module, scored(tuned, others), spots, 1).double()
    slopes = slopes - slopes.mean(0)
    whole = sure.laplace.basis  # type: ignore[union-attr]
    taken = whole.values / (0.3 * (0.3 + whole.values))
    inside = slopes @ whole.vectors.double().T  # type: ignore[attr-defined]
    torch.testing.assert_close(
        found.covariance[1], slopes @ slopes.T / 0.3 - (inside * taken) @ inside.T, rtol=2e-3, atol=1e-5
    )


def test_a_base_in_four_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = pegbox.load(wide_folder("llama", "causal"), quantise="nf4")
    tuned = fit(base, "qlora", ROWS, **_how())
    before = checksum(tuned.module)  # type: ignore[arg-type]
    sure = tuned.with_posterior(ROWS)
    assert checksum(tuned.module) == before  # type: ignore[arg-type]
    assert (sure.predictive(OTHERS).deviations > 0).all()
    folder = sure.save(tmp_path / "out")
    again = pegbox.Tuned.load(folder, model=base, say=hush)
    np.testing.assert_allclose(again.probabilities(OTHERS), sure.probabilities(OTHERS), atol=1e-5)


def test_lora_on_the_output_layer_is_over_the_rows_that_are_read() -> None:
    method = build("lora", {"targets": "q_proj"})
    tuned = fit(base_of("llama"), method, ROWS, **_how())
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["lm_head", "q_proj"], task_type="CAUSAL_LM")
    module: Any = get_peft_model(tuned.base.module(2), config)
    for name, value in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    both = replace(tuned, module=module.eval().requires_grad_(False))
    spots = uncertain(both)
    (head,) = [spot for spot in spots if spot.name.endswith("lm_head.lora_B")]
    assert head.shape == (2, 2)
    sure = both.with_posterior(ROWS, prior_precision=1.0)
    free = fit_free(both, [spot for spot in spots if spot is not head])
    grown = sure.predictive(OTHERS).deviations - free
    assert (grown > 0).any(), "what lm_head's factor adds is there"


def fit_free(tuned: pegbox.Tuned, spots: Any) -> torch.Tensor:
    from pegbox.uncertainty import fit_laplace

    found = fit_laplace(tuned.module, scored(tuned, ROWS), spots, precision=1.0, say=hush)  # type: ignore[arg-type]
    return found.predict(tuned.module, scored(tuned, OTHERS), spots).deviations  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_closed_form_fit_uses_its_exact_posterior(architecture: str, tmp_path: Path) -> None:
    tuned = fit(base_of(architecture), "closed-form", ROWS)
    sure = tuned.with_posterior()
    found = sure.predictive(OTHERS)
    torch.testing.assert_close(found.mean, tuned.logits(OTHERS))
    assert (found.deviations > 0).all()
    averaged = sure.probabilities(OTHERS)
    assert (averaged.max(1) < tuned.probabilities(OTHERS).max(1)).all()
    again = pegbox.Tuned.load(sure.save(tmp_path / "out"), say=hush)
    np.testing.assert_allclose(again.probabilities(OTHERS), averaged, atol=1e-6)
    plain = pegbox.Tuned.load(tuned.save(tmp_path / "plain"), say=hush)
    assert not plain.averaged
    for one, other in zip(sure.predict(OTHERS), tuned.predict(OTHERS), strict=True):
        assert one.deviation == pytest.approx(other.deviation)
    with pytest.raises(UsageError, match="whose prior is the penalty"):
        tuned.with_posterior(prior_precision=1.0)


def test_an_adapter_made_elsewhere_gets_one(tmp_path: Path) -> None:
    tuned = tuned_of()
    folder = tuned.save(tmp_path / "out")
    for name in ("pegbox.json", "task.json", "README.md"):
        (folder / name).unlink()
    told: list[str] = []
    foreign = pegbox.Tuned.from_adapter(
        folder, task=task_of(), base=folder_of("llama", "causal"), say=told.append
    )
    one = foreign.with_posterior(ROWS, prior_precision=1.0).probabilities(OTHERS)
    np.testing.assert_allclose(
        one, tuned.with_posterior(ROWS, prior_precision=1.0).probabilities(OTHERS), atol=1e-6
    )
    assert any("all 24 rows count as rows that it was tuned on" in line for line in told)


def test_rows_that_were_not_tuned_on_choose_the_precision() -> None:
    told: list[str] = []
    tuned = replace(tuned_of(), say=told.append)
    both = replace(
        ROWS,
        fields={"text": ROWS.fields["text"] + OTHERS.fields["text"]},
        labels=(ROWS.labels or ()) + (OTHERS.labels or ()),
        numbers=tuple(range(1, 31)),
    )
    sure = tuned.with_posterior(both)
    assert sure.laplace is not None
    assert (sure.laplace.rows, sure.laplace.details["valid_rows"]) == (24, 6)
    assert sure.laplace.chosen == "log loss of 6 held-out rows"
    alone = tuned.with_posterior(ROWS)
    assert alone.laplace is not None
    assert alone.laplace.chosen == "evidence"
    assert any("by the evidence" in line for line in told)
    losses = sure.laplace.details["losses"]
    averaged = sure.probabilities(OTHERS)
    loss = -np.log(averaged[np.arange(6), sure.prompt.task.gold(OTHERS)]).mean()
    assert loss <= min(losses) + 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_precision": 0.0}, "0.0 is no precision"),
        ({"prior_precision": float("nan")}, "nan is no precision"),
        ({"curvature": "kfac"}, "no curvature 'kfac'"),
        ({"part": "tail"}, "no part 'tail'"),
        ({"part": "head"}, "the adapter has no head"),
        ({"roots": "odd"}, "no roots 'odd'"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tuned_of().with_posterior(ROWS, **options)


def test_wrong_rows_are_told() -> None:
    tuned = tuned_of()
    with pytest.raises(InputError, match="tuned on none of these rows"):
        tuned.with_posterior(rows_of(8, seed=99))
    with pytest.raises(UsageError, match="there are none"):
        tuned.with_posterior()
    with pytest.raises(InputError, match="no labels"):
        tuned.with_posterior(replace(ROWS, labels=None))


@pytest.mark.parametrize(
    ("method", "message"),
    [("ia3", "of the type IA3"), ("full", "leaves no adapter"), ("zero-shot", "leaves no adapter")],
)
def test_what_is_no_lora_is_refused(method: str, message: str) -> None:
    with pytest.raises(CapabilityError, match=message):
        fit(base_of("llama"), method, ROWS, **_how()).with_posterior(ROWS)


def test_logits_that_are_not_numbers_are_told() -> None:
    from pegbox.errors import RunError

    tuned = tuned_of()
    with torch.no_grad():
        uncertain(tuned)[0].layer.weight.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite numbers"):
        tuned.with_posterior(ROWS)


def test_a_damaged_or_foreign_posterior_is_refused(tmp_path: Path) -> None:
    folder = tuned_of().with_posterior(ROWS).save(tmp_path / "out")
    other = (
        fit(base_of("llama"), "lora", ROWS, **_how(), seed=5).with_posterior(ROWS).save(tmp_path / "other")
    )
    path = folder / "posterior.safetensors"
    good = path.read_bytes()

    def refused(content: bytes, message: str) -> None:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            pegbox.Tuned.load(folder, say=hush)
        assert error.value.fix

    refused(good[: len(good) // 2], "damaged or truncated")
    refused((other / path.name).read_bytes(), "another adapter")
    path.write_bytes(good)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    save_file({**tensors, "values": tensors["values"] * float("nan")}, path, header)
    refused(path.read_bytes(), "not a finite number")
    save_file({name: value for name, value in tensors.items() if name != "values"}, path, header)
    refused(path.read_bytes(), "lacks the tensor 'values'")
    save_file(tensors, path, {"pegbox": "{}"})
    refused(path.read_bytes(), "header of the posterior")
    told = json.loads(header["pegbox"])
    save_file(tensors, path, {"pegbox": json.dumps({**told, "base": "another"})})
    refused(path.read_bytes(), "fitted on another base")
    path.write_bytes(good)
    assert pegbox.Tuned.load(folder, say=hush).averaged


@pytest.mark.parametrize(("architecture", "kind"), [("llama", "causal"), ("bert", "encoder")])
def test_the_top_layer_of_a_fully_tuned_model(architecture: str, kind: str, tmp_path: Path) -> None:
    tuned = fit(base_of(architecture, kind), "full", ROWS, **_how())
    with pytest.raises(CapabilityError, match="leaves no adapter") as refused:
        tuned.with_posterior(ROWS)
    assert "last-1" in refused.value.fix
    sure = tuned.with_posterior(ROWS, part="last-1", curvature="kron", prior_precision=10.0)
    rows, spots = scored(tuned, OTHERS), uncertain(tuned, "last-1")
    assert ("score" in {spot.name for spot in spots}) == (kind == "encoder")
    basis = sure.laplace.basis  # type: ignore[union-attr]
    found = sure.predictive(OTHERS)
    slopes = jacobian(tuned.module, rows, spots, 0).double()
    slopes = slopes - slopes.mean(0)
    sizes = [spot.size for spot in spots]
    parts = [own.view(1, 2, *spot.shape) for own, spot in zip(slopes.split(sizes, 1), spots, strict=True)]
    inside = basis.project(parts)[0]
    wanted = slopes @ slopes.T / 10 - (inside * basis.values / (10 * (10 + basis.values))) @ inside.T
    torch.testing.assert_close(found.covariance[0], wanted, rtol=2e-3, atol=1e-6)
    again = pegbox.Tuned.load(sure.save(tmp_path / "out"), say=hush)
    np.testing.assert_allclose(again.probabilities(OTHERS), sure.probabilities(OTHERS), atol=1e-5)
    with pytest.raises(UsageError, match="the model has 2 layers"):
        tuned.with_posterior(ROWS, part="last-9")


def test_layers_that_are_too_large_are_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = fit(base_of("llama"), "full", ROWS, **_how())
    monkeypatch.setattr("pegbox.uncertainty._places.MOST", 100)
    with pytest.raises(CapabilityError, match=r"hold [\d,]+ numbers, and one row's gradients would take"):
        tuned.with_posterior(ROWS, part="last-1")


def test_gpt2_s_own_layers_are_no_plain_linear_layers() -> None:
    tuned = fit(base_of("gpt2"), "full", ROWS, **_how())
    with pytest.raises(CapabilityError, match="is a Conv1D"):
        tuned.with_posterior(ROWS, part="last-1")


def test_a_prior_around_the_initial_values_changes_the_evidence_alone() -> None:
    tuned = tuned_of()
    zero = tuned.with_posterior(ROWS, prior_precision=1.0).laplace
    initial = tuned.with_posterior(ROWS, prior_precision=1.0, prior_mean="initial").laplace
    assert zero is not None
    assert initial is not None
    spots = uncertain(tuned)
    first = tuned.method.attach(tuned.base, tuned.prompt, seed=0)  # type: ignore[attr-defined]
    wanted = sum(
        float((spot.values() - old.values()).square().sum())
        for spot, old in zip(spots, uncertain(replace(tuned, module=first)), strict=True)
    )
    assert initial.distance == pytest.approx(wanted)
    assert initial.distance < zero.distance
    assert torch.equal(initial.basis.values, zero.basis.values)
    with pytest.raises(UsageError, match="not known"):
        replace(tuned, details={}).with_posterior(ROWS, prior_mean="initial")
    with pytest.raises(UsageError, match="no prior mean"):
        tuned.with_posterior(ROWS, prior_mean="one")


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2", "gemma3_text"])
def test_a_sequence_classifier_made_elsewhere(architecture: str, tmp_path: Path) -> None:
    """AutoModelForSequenceClassification with PEFT's LoRA: the same logits, a posterior of LoRA and head."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    place = folder_of(architecture, "causal")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=3, dtype=torch.float32)
    base = base_of(architecture)
    model.config.pad_token_id = base.tokenizer.pad_token_id
    names = ["c_attn"] if architecture == "gpt2" else ["q_proj", "model.layers.1.self_attn.v_proj"]
    options: dict[str, Any] = {"task_type": "SEQ_CLS", "fan_in_fan_out": architecture == "gpt2"}
    config = LoraConfig(r=2, target_modules=names, init_lora_weights=False, **options)
    peft: Any = get_peft_model(model, config).eval()
    peft.save_pretrained(tmp_path / "theirs")
    told: list[str] = []
    task = task_of(3)
    tuned = pegbox.Tuned.from_adapter(str(tmp_path / "theirs"), base=base, task=task, say=told.append)
    rows = rows_of(5, 3, seed=2)
    with torch.no_grad():
        wanted = torch.cat(
            [peft(**base.tokenizer(text, return_tensors="pt")).logits for text in rows.fields["text"]]
        )
    torch.testing.assert_close(tuned.logits(rows), wanted, rtol=1e-3, atol=1e-4)
    assert any("are taken for bad, fine, good, in this order" in line for line in told)
    sure = tuned.with_posterior(rows_of(12, 3), prior_precision=1.0)
    assert {spot.name.split(".")[-1] for spot in uncertain(tuned)} >= {"score", "lora_A", "lora_B"}
    again = pegbox.Tuned.load(sure.save(tmp_path / "ours"), model=base, say=hush)
    np.testing.assert_allclose(again.probabilities(rows), sure.probabilities(rows), atol=1e-6)


def test_heads_of_other_kinds_are_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    place = folder_of("bert", "masked")
    model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2)
    config = LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    get_peft_model(model, config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(CapabilityError, match="not one linear layer on the last token"):
        pegbox.Tuned.from_adapter(
            tmp_path / "theirs", base=base_of("bert", "masked"), task=task_of(), say=hush
        )


def test_a_hub_id_that_cannot_be_reached_is_one_clear_error() -> None:
    with pytest.raises(InputError, match="cannot be fetched from the hub"):
        pegbox.Tuned.from_adapter("owner/adapter", task=task_of(), say=hush)
