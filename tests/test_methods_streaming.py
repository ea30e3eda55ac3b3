"""The closed form block by block, and over two processes, equals the one that holds all rows."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pegbox.data import take
from pegbox.errors import UsageError
from pegbox.methods import ClosedForm, _streaming, closed_form
from pegbox.models import _features
from tuning_toy import base_of, fit, folder_of, rows_of

# Penalties of some size: with a tiny one, the last bits of features read in other batches would show.
GIVEN = {"penalty": 0.5, "smoothing": 0.05}


def weights(tuned: Any) -> torch.Tensor:
    return next(p for name, p in tuned.module.named_parameters() if "lora_A" in name)


@pytest.mark.parametrize(
    ("architecture", "kind", "labels", "intercept"),
    [("llama", "causal", 2, True), ("cohere", "causal", 3, False), ("bert", "encoder", 5, True)],
)
def test_streaming_equals_the_solution_at_once(
    architecture: str, kind: str, labels: int, intercept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        closed_form, "accumulate", lambda *rows, **options: _streaming.accumulate(*rows, **options, block=16)
    )
    base, rows = base_of(architecture, kind), rows_of(70, labels)
    at_once = fit(base, ClosedForm(**GIVEN, intercept=intercept, streaming=False), rows, labels)
    streamed = fit(base, ClosedForm(**GIVEN, intercept=intercept, streaming=True), rows, labels)
    assert streamed.details["system"] == "stream"
    assert at_once.details["system"] != "stream"
    # The blocks are padded otherwise, which moves float32 features by their last bits.
    torch.testing.assert_close(weights(streamed), weights(at_once), rtol=1e-4, atol=1e-6)
    probe = rows_of(8, labels, seed=3)
    for one, other in zip(streamed.predict(probe), at_once.predict(probe), strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
        assert one.deviation == pytest.approx(other.deviation, rel=1e-3)
    for key in ("log_evidence", "noise_variance"):
        assert streamed.details[key] == pytest.approx(at_once.details[key], rel=1e-4)


def test_no_more_than_a_block_of_features_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    extract = _features.extract

    def counted(base: Any, prompt: Any, encoded: Any, **options: Any) -> Any:
        seen.append(len(encoded))
        return extract(base, prompt, encoded, **options)

    monkeypatch.setattr("pegbox.methods._method.extract", counted)
    monkeypatch.setattr(
        closed_form, "accumulate", lambda *rows, **options: _streaming.accumulate(*rows, **options, block=16)
    )
    tuned = fit(base_of("llama"), ClosedForm(**GIVEN, streaming=True), rows_of(70))
    assert seen == [16, 16, 16, 16, 6]
    assert tuned.features is None
    assert tuned.grow is None


def test_many_rows_are_streamed_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert closed_form.STREAM_ROWS == 20_000
    monkeypatch.setattr(closed_form, "STREAM_ROWS", 30)
    base = base_of("llama")
    assert fit(base, ClosedForm(**GIVEN), rows_of(30)).details["system"] != "stream"
    assert fit(base, ClosedForm(**GIVEN), rows_of(31)).details["system"] == "stream"
    assert fit(base, ClosedForm(**GIVEN, streaming=False), rows_of(31)).details["system"] != "stream"
    assert fit(base, ClosedForm(loss="log", penalty=1.0), rows_of(31)).details["system"] == "newton"


def test_what_is_not_given_is_chosen_on_a_seeded_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "subset", lambda problem: _streaming.subset(problem, 24))
    told: list[str] = []
    rows = rows_of(60, 3)
    streamed = fit(base_of("llama"), ClosedForm(streaming=True), rows, 3, say=told.append)
    assert any("on 24 of 60 rows (seed 0)" in line and line.startswith("penalty") for line in told)
    assert streamed.details["criterion"] == "exact leave-one-out on 24 of 60 rows (seed 0)"
    chosen = {name: streamed.details[name] for name in GIVEN}
    part = take(rows, 24, seed=0)
    order = sorted(range(24), key=lambda index: part.numbers[index])
    alone = fit(base_of("llama"), ClosedForm(), part.select(order), 3).details
    assert chosen["smoothing"] == pytest.approx(alone["smoothing"])
    assert chosen["penalty"] == pytest.approx(alone["penalty"], rel=1e-4)
    again = fit(base_of("llama"), ClosedForm(**chosen, streaming=False), rows, 3)
    probe = rows_of(8, 3, seed=3)
    np.testing.assert_allclose(streamed.probabilities(probe), again.probabilities(probe), atol=1e-3)


@pytest.mark.parametrize("options", [{"loss": "log"}, {"vocabulary": True}])
def test_streaming_is_refused_where_it_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="streaming is True") as error:
        ClosedForm(streaming=True, **options)
    assert "true only with the squared loss and without vocabulary" in str(error.value)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
rank = int(sys.argv[1])
import torch
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method="file://{store}", rank=rank, world_size=2)
import pegbox
from pegbox.methods import ClosedForm, _streaming, closed_form
from tuning_toy import fit, rows_of
seen = []
real = _streaming.Equations.of
def counted(problem, scale=None):
    seen.append(len(problem.rows))
    return real(problem, scale)
_streaming.Equations.of = counted
closed_form.accumulate = lambda *rows, **options: _streaming.accumulate(*rows, **options, block={block})
tuned = fit(pegbox.load({base!r}), ClosedForm(penalty=0.5, smoothing=0.05, streaming=True), rows_of(50))
assert sum(seen) == {{16: (32, 18), 64: (50, 50)}}[{block}][rank], seen
tuned.save(sys.argv[2])
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed package")
@pytest.mark.parametrize("block", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_two_processes_share_the_rows(block: int, tmp_path: Path) -> None:
    # With blocks of 64 the second process has none of its own and still takes part.
    code = PROGRAM.format(
        tests=str(Path(__file__).parent),
        store=tmp_path / "store",
        base=str(folder_of("llama", "causal")),
        block=block,
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(tmp_path / f"out{rank}")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [child.communicate(timeout=200)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    files = [(tmp_path / f"out{rank}" / "adapter_model.safetensors").read_bytes() for rank in range(2)]
    assert files[0] == files[1]
    from safetensors.torch import load

    alone = fit(base_of("llama"), ClosedForm(**GIVEN, streaming=False), rows_of(50))
    shared = load(files[0])["base_model.model.lm_head.lora_A.weight"]
    torch.testing.assert_close(shared, weights(alone).detach(), rtol=1e-4, atol=1e-6)
