"""Posteriors on a GPU: the CPU's in float32, near them in bfloat16, and in 4 bits."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pegbox
from four_bit_toy import wide_folder
from pegbox.tuning._laplace import scored, uncertain
from tuning_toy import fit, folder_of, hush, rows_of
from uncertainty_toy import slopes_both_ways

PLACE = os.environ.get("PEGBOX_TEST_PLACE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(PLACE == "cuda" and not torch.cuda.is_available(), reason="no GPU here"),
]
HOW: dict[str, Any] = {
    "training": pegbox.Training(epochs=2, learning_rate=1e-2, precision="float32"),
    "valid": rows_of(4, 3, seed=50),
}
ROWS, OTHERS = rows_of(24, 3), rows_of(6, 3, seed=7)
FAMILIES = [("llama", "causal"), ("gpt2", "causal"), ("bert", "encoder"), ("t5", "encoder-decoder")]


@pytest.mark.parametrize("grade", ["exact", "kron", "ekfac", "diag"])
@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_the_same_in_float32(architecture: str, kind: str, grade: Any, tmp_path: Path) -> None:
    place = folder_of(architecture, kind)
    base = pegbox.load(place, device=PLACE, dtype="float32")
    sure = fit(base, "lora", ROWS, 3, **HOW).with_posterior(ROWS, curvature=grade, prior_precision=1.0)
    folder = sure.save(tmp_path / "out")
    there = pegbox.Tuned.load(folder, device=PLACE, dtype="float32", say=hush)
    np.testing.assert_allclose(there.probabilities(OTHERS), sure.probabilities(OTHERS), atol=1e-5)
    here = pegbox.Tuned.load(folder, device="cpu", dtype="float32", say=hush)
    found, wanted = sure.predictive(OTHERS), here.predictive(OTHERS)
    torch.testing.assert_close(found.covariance, wanted.covariance, rtol=5e-3, atol=1e-4)
    again = here.with_posterior(ROWS, curvature=grade, prior_precision=1.0)
    assert again.laplace is not None
    assert sure.laplace is not None
    assert sure.laplace.evidence.at(1.0) == pytest.approx(again.laplace.evidence.at(1.0), rel=5e-3)


def test_near_it_in_bfloat16(tmp_path: Path) -> None:
    base = pegbox.load(folder_of("llama", "causal"), device=PLACE, dtype="bfloat16")
    sure = fit(base, "lora", ROWS, 3, **HOW).with_posterior(ROWS, prior_precision=1.0)
    folder = sure.save(tmp_path / "out")
    here = pegbox.Tuned.load(folder, device="cpu", dtype="float32", say=hush)
    again = here.with_posterior(ROWS, prior_precision=1.0)
    found, wanted = sure.predictive(OTHERS).deviations, again.predictive(OTHERS).deviations
    torch.testing.assert_close(found, wanted, rtol=0.15, atol=0.02)


def test_in_four_bits() -> None:
    pytest.importorskip("bitsandbytes")
    base = pegbox.load(wide_folder("llama", "causal"), device=PLACE, quantise="nf4")
    sure = fit(base, "qlora", ROWS, 3, **HOW).with_posterior(ROWS)
    assert (sure.predictive(OTHERS).deviations > 0).all()


def test_a_sketch() -> None:
    from pegbox.uncertainty import _fit as fit_module
    from pegbox.uncertainty._full import Full

    base = pegbox.load(folder_of("llama", "causal"), device=PLACE, dtype="float32")
    tuned = fit(base, "lora", ROWS, 3, **HOW)
    whole = tuned.with_posterior(ROWS, prior_precision=1.0).predictive(OTHERS).deviations
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fit_module, "Full", lambda numbers, _, seed: Full(numbers, 10**9, length=512, seed=seed)
        )
        folded = tuned.with_posterior(ROWS, prior_precision=1.0).predictive(OTHERS).deviations
    torch.testing.assert_close(folded, whole, rtol=0.5, atol=0.05)


def test_a_closed_form_fit() -> None:
    base = pegbox.load(folder_of("llama", "causal"), device=PLACE, dtype="float32")
    sure = fit(base, "closed-form", ROWS, 3).with_posterior()
    assert (sure.predictive(OTHERS).deviations > 0).all()
    assert sure.predict(OTHERS)[0].deviation is not None


@pytest.mark.parametrize(
    ("architecture", "kind", "dtype"),
    [
        *((*family, "float32") for family in FAMILIES),
        ("llama", "causal", "bfloat16"),
        ("llama", "causal", "nf4"),
    ],
)
def test_gradients_taken_together_are_those_of_each_alone(
    architecture: str, kind: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if packed := dtype == "nf4":
        pytest.importorskip("bitsandbytes")
    place = wide_folder(architecture, kind) if packed else folder_of(architecture, kind)
    how: dict[str, Any] = {"quantise": "nf4"} if packed else {"dtype": dtype}
    base = pegbox.load(place, device=PLACE, **how)
    tuned = fit(base, "qlora" if packed else "lora", ROWS, 3, **HOW)
    rows, spots = scored(tuned, OTHERS), uncertain(tuned)
    order = [list(range(len(rows)))]
    alone, together = slopes_both_ways(monkeypatch, tuned.module, rows, spots, order)  # type: ignore[arg-type]
    close = 1e-4 if dtype == "float32" else 0.05
    for own, other in zip(together, alone, strict=True):
        assert float((own - other).norm()) <= close * float(other.norm()) + 1e-6
