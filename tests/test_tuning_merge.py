"""Merging: the same answers by plain weights, which Transformers loads; what cannot be merged says why."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

import pegbox
from four_bit_toy import wide_folder
from pegbox.cli import main
from pegbox.errors import CapabilityError
from pegbox.methods import build
from pegbox.models import answer_tokens
from pegbox.tuning import merge
from tuning_toy import base_of, checksum, fit, full_forward, hush, rows_of, task_of

QUICK = pegbox.Training(epochs=2, precision="float32", learning_rate=1e-2)
FIXED = {"intercept": False, "penalty": 1.0, "smoothing": 0.1}
CASES: list[tuple[str, str, str, dict[str, Any], str]] = [
    ("llama", "causal", "lora", {"targets": "all-linear"}, "words"),
    ("gpt2", "causal", "lora", {"targets": "all-linear"}, "words"),
    ("gpt2", "causal", "closed-form", FIXED, "words"),
    ("bert", "masked", "closed-form", FIXED | {"intercept": True}, "words"),
    ("llama", "causal", "ia3", {}, "words"),
    ("llama", "causal", "head", {}, "words"),
    ("bert", "encoder", "lora", {}, "words"),
    ("bert", "encoder", "closed-form", FIXED | {"intercept": True}, "words"),
]


def tied(model: Any) -> bool:
    return bool(model.get_output_embeddings().weight is model.get_input_embeddings().weight)


@pytest.mark.parametrize("quantise", [None, "nf4"])
@pytest.mark.parametrize(("architecture", "kind", "method", "options", "readout"), CASES)
def test_merged_answers_are_the_same(
    architecture: str,
    kind: str,
    method: str,
    options: dict[str, Any],
    readout: str,
    quantise: Any,
    tmp_path: Path,
) -> None:
    if quantise:
        pytest.importorskip("bitsandbytes")
        base = pegbox.load(wide_folder(architecture, kind), quantise=quantise)
    else:
        base = base_of(architecture, kind)
    before = {
        name: value.clone() for name, value in base.model.state_dict().items() if torch.is_tensor(value)
    }
    tuned = fit(base, build(method, options), rows_of(24), task=task_of(readout=readout), training=QUICK)
    made = merge(tuned, tmp_path / "out")
    rows = rows_of(6, seed=3)
    logits = tuned.logits(rows)
    after = pegbox.Tuned.load(tmp_path / "out", say=hush)
    # Sums of float32 in another order: the weights, hundreds of terms, and logits of at most some tens.
    torch.testing.assert_close(after.logits(rows), logits, rtol=1e-4, atol=1e-4)
    assert made.max_change < 1e-3
    assert (made.dequantised, made.rows, made.probed) == (bool(quantise), 32, True)
    now = base.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in before.items())  # the base is as it was
    meta = json.loads((tmp_path / "out" / "pegbox.json").read_text())
    assert (meta["adapter"], meta["weights"], meta["method"]["name"]) == (False, True, method)
    if after.base.kind != "encoder":
        auto = AutoModelForCausalLM if kind == "causal" else AutoModelForMaskedLM
        plain, info = auto.from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        told = full_forward(plain.eval(), tuned.prompt.encode(rows))[:, list(answer_tokens(tuned.prompt))]
        torch.testing.assert_close(told, logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(plain.get_input_embeddings().weight, base.model.get_input_embeddings().weight)
        changed_output = method == "closed-form"
        assert made.untied == (changed_output and tied(base.model))
        assert plain.config.tie_word_embeddings == (base.model.config.tie_word_embeddings and not made.untied)


def test_some_case_above_unties() -> None:
    assert tied(base_of("gpt2").model)
    assert tied(base_of("bert", "masked").model)


def test_another_number_format_tells_its_rounding(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "lora", rows_of(24), training=QUICK)
    before, rows = checksum(base_of("llama").model), rows_of(5)
    exact = merge(tuned, tmp_path / "exact", rows=rows)
    rounded = merge(tuned, tmp_path / "rounded", rows=rows, dtype="bfloat16")
    assert checksum(base_of("llama").model) == before
    assert (rounded.dtype, rounded.probed, rounded.rows) == ("bfloat16", False, 5)
    assert rounded.bytes < 0.6 * exact.bytes
    # bf16 keeps 8 bits, so that answers move by far more than the 1e-5 of float32 sums.
    assert exact.max_change < 1e-4 < 1e-3 < rounded.max_change
    assert any("change by at most" in line and "5 rows" in line for line in rounded.lines())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "rounded")
    assert plain.config.dtype == torch.bfloat16


def test_merging_4_bits_says_what_it_cost(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    tuned = fit(
        pegbox.load(wide_folder("llama", "causal"), quantise="nf4"), "qlora", rows_of(24), training=QUICK
    )
    made = merge(tuned, tmp_path / "out")
    assert made.bytes > made.base_bytes
    told = "\n".join(made.lines())
    assert "the base was in 4 bits" in told
    assert "not those of the original model" in told
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()


def test_merge_in_memory_is_the_same_model() -> None:
    tuned = fit(base_of("llama"), "lora", rows_of(24), training=QUICK)
    merged = tuned.merge()
    assert merged.weights
    assert not tuned.weights
    torch.testing.assert_close(merged.logits(rows_of(5)), tuned.logits(rows_of(5)), rtol=1e-4, atol=1e-5)
    assert merged.evaluate(rows_of(5), resamples=5).flips is not None  # its base is still there


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("bottleneck", "at prediction it needs two small matrix products per adapter"),
        ("zero-shot", "nothing was tuned"),
        ("full", "there is nothing to merge: full already has weights of its own"),
    ],
)
def test_what_cannot_be_merged_says_why(method: str, why: str, tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), method, rows_of(16), training=QUICK)
    with pytest.raises(CapabilityError, match=why) as error:
        merge(tuned, tmp_path / "out")
    if method != "full":
        assert "closed-form, head, ia3, lora, qlora" in error.value.expected
    assert not (tmp_path / "out").exists()


def test_an_intercept_without_a_bias_to_take_it_is_refused(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "closed-form", rows_of(24))
    with pytest.raises(CapabilityError, match="the adapter has an intercept, and the layer lm_head") as error:
        merge(tuned, tmp_path / "out")
    assert "--options.intercept false" in error.value.fix


def test_a_posterior_that_is_not_taken_along_is_told(tmp_path: Path) -> None:
    rows = rows_of(16)
    tuned = fit(base_of("llama"), "lora", rows, training=QUICK)
    assert not merge(tuned, tmp_path / "plain").posterior
    found = merge(tuned.with_posterior(rows, curvature="diag", prior_precision=1.0), tmp_path / "sure")
    assert any("the posterior is not taken along" in line for line in found.lines())


def test_the_command_writes_a_model_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(base_of("llama"), "lora", rows_of(16), training=QUICK).save(tmp_path / "tuned")
    (tmp_path / "a.csv").write_text("text,label\n")
    assert main(["merge", "tuned", "--out", "merged"]) == 0
    assert "of weights in float32, written to merged" in capsys.readouterr().out
    assert main(["merge", "tuned", "--out", "merged", "--overwrite", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["flipped"] == 0
    for arguments, told in (
        (["merge", "tuned", "--out", "merged"], "the output folder exists"),
        (["merge", "merged", "--out", "again"], "there is nothing to merge"),
        (["merge", "nowhere", "--out", "again"], "there is no such folder"),
        (["merge", "a.csv", "--out", "again"], "this is a file, and a tuned model is a folder"),
        (["merge", "tuned"], "arguments are required: out"),
        (["merge", "tuned", "--out", "x", "--dtype", "int8"], "wrong value for --dtype"),
    ):
        assert main(arguments) == 2
        assert told in capsys.readouterr().err
