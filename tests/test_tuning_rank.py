"""Ranks of changes: the factors give what the dense product gives, and two models what was added to one."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import pegbox
from pegbox.cli import main
from pegbox.errors import CapabilityError, InputError, UsageError
from pegbox.methods import build
from pegbox.tuning import merge, rank
from pegbox.tuning._singular_values import effective_rank, energy, needed_rank, product_singular_values
from tuning_toy import base_of, fit, folder_of, rows_of

QUICK = pegbox.Training(epochs=2, precision="float32", learning_rate=1e-2)


def test_factors_give_the_singular_values_of_their_product() -> None:
    dice = torch.Generator().manual_seed(0)
    for outputs, inputs, r in ((40, 30, 5), (6, 30, 8), (40, 4, 8)):
        up, down = (torch.randn(shape, generator=dice) for shape in ((outputs, r), (r, inputs)))
        dense = torch.linalg.svdvals(-2.5 * up.double() @ down.double())
        found = product_singular_values(up, down, -2.5)
        torch.testing.assert_close(found[: len(dense)], dense[: len(found)], rtol=1e-10, atol=1e-10)


def test_effective_rank_is_the_number_of_equal_directions() -> None:
    assert effective_rank(torch.tensor([3.0, 3.0, 3.0, 0.0]).double()) == pytest.approx(3.0)
    assert effective_rank(torch.zeros(4).double()) == 0.0
    # Two values of 3 to 1: entropy of (3/4, 1/4).
    wanted = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(torch.tensor([3.0, 1.0]).double()) == pytest.approx(wanted)


def test_needed_rank_holds_the_share_of_the_energy() -> None:
    values = torch.tensor([3.0, 1.0, 0.0]).double()  # squares 9 and 1
    assert energy(values).tolist() == pytest.approx([0.9, 1.0, 1.0])
    assert [needed_rank(values, share) for share in (0.5, 0.9, 0.91, 1.0)] == [1, 1, 2, 2]
    assert needed_rank(torch.zeros(3).double(), 0.9) == 0


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    method = pegbox.LoRA(rank=4, rank_stabilised=True)
    tuned = fit(base_of("llama"), method, rows_of(24), training=QUICK)
    return tuned.save(tmp_path_factory.mktemp("rank") / "adapter")


def test_an_adapter_and_its_merged_model_agree(adapter: Path, tmp_path: Path) -> None:
    found = rank(adapter)
    assert found.adapter
    assert len(found.spectra) == 4  # queries and values of two layers
    assert {spectrum.rank for spectrum in found.spectra} == {4}
    assert all(1 <= spectrum.effective <= 4 for spectrum in found.spectra)
    assert 1 <= found.suggested <= 4
    merge(pegbox.Tuned.load(adapter), tmp_path / "merged")
    between = rank(folder_of("llama", "causal"), tmp_path / "merged")
    assert not between.adapter
    dense = {spectrum.name.removesuffix(".weight"): spectrum for spectrum in between.spectra}
    for spectrum in found.spectra:
        torch.testing.assert_close(
            torch.tensor(dense[spectrum.name].values[:4]), torch.tensor(spectrum.values), rtol=1e-3, atol=1e-5
        )  # the merged weights are rounded to float32
    assert sum(spectrum.suggested > 0 for spectrum in between.spectra) == 4
    assert "model.norm.weight" in between.skipped


def test_one_layer_may_have_its_own_alpha(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "copy")
    path = tmp_path / "copy" / "adapter_config.json"
    config = json.loads(path.read_text())
    before = rank(adapter).spectra
    path.write_text(
        json.dumps(config | {"alpha_pattern": {"layers.1.self_attn.q_proj": 2 * config["lora_alpha"]}})
    )
    for was, now in zip(before, rank(tmp_path / "copy").spectra, strict=True):
        factor = 2 if "layers.1.self_attn.q_proj" in was.name else 1
        assert now.values == pytest.approx([factor * value for value in was.values])


def test_the_command_prints_writes_and_draws(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "rank.json", tmp_path / "rank.svg"
    assert main(["rank", str(adapter), "--out", str(out), "--plot", str(plot)]) == 0
    told = capsys.readouterr().out
    assert "the adapter has rank 4" in told
    assert "model.layers.1.self_attn.v_proj " in told
    assert json.loads(out.read_text())["suggested"] == rank(adapter).suggested
    assert plot.read_text().startswith("<?xml")
    first = plot.read_bytes()
    assert main(["rank", str(adapter), "--format", "json", "--plot", str(plot)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert plot.read_bytes() == first


def test_between_two_models_only_what_changed_is_listed(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge(pegbox.Tuned.load(adapter), tmp_path / "merged")
    model = str(folder_of("llama", "causal"))
    assert main(["rank", model, str(tmp_path / "merged")]) == 0
    told = capsys.readouterr().out
    # The adapter sits on queries and values of two layers.
    assert told.count("_proj") == 4
    assert "k_proj" not in told
    assert "4 of " in told
    assert main(["rank", model, model]) == 0
    assert "matrix" not in capsys.readouterr().out.splitlines()[0]


def test_wrong_inputs_are_one_clear_error(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(folder_of("llama", "causal"))
    other = str(folder_of("gpt2", "causal"))
    for arguments, told in (
        ([model], "one model alone has no change to measure"),
        ([model, other], "the two models have different tensors: no name in common"),
        ([str(tmp_path / "nowhere")], "no such model folder"),
        (["nowhere"], "there is no such folder, and one model alone has no change to measure"),
        ([model, str(adapter)], "this folder holds an adapter, not a model"),
        ([str(adapter), "--share", "1.5"], "no rank can hold that share of the squared change"),
        ([str(adapter), "--plot", "x.gif"], "cannot draw a '.gif' file"),
        ([], "first"),
    ):
        assert main(["rank", *arguments]) == 2
        assert told in capsys.readouterr().err


def test_changes_that_mean_nothing_are_refused(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rank can hold that share"):
        rank(adapter, share=0)
    head = fit(base_of("bert", "encoder"), "head", rows_of(16), training=QUICK).save(tmp_path / "head")
    with pytest.raises(CapabilityError, match="the adapter changes no matrix"):
        rank(head)
    other = fit(base_of("llama"), "bottleneck", rows_of(16), training=QUICK).save(tmp_path / "other")
    with pytest.raises(CapabilityError, match="whose change is no low-rank product"):
        rank(other)
    broken = shutil.copytree(folder_of("llama", "causal"), tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="not a finite number"):
        rank(folder_of("llama", "causal"), broken)
    weights["model.embed_tokens.weight"] = torch.zeros(3, 32)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"embed_tokens.weight is \(512, 32\) and \(3, 32\)"):
        rank(folder_of("llama", "causal"), broken)


@pytest.mark.parametrize(
    ("architecture", "kind"), [("llama", "causal"), ("gpt2", "causal"), ("bert", "masked")]
)
def test_an_output_layer_that_merging_unties_is_compared(
    architecture: str, kind: str, tmp_path: Path
) -> None:
    """The base saves one tensor for embedding and output layer, the merged model two."""
    method = build("closed-form", {"intercept": False, "penalty": 1.0, "smoothing": 0.1})
    tuned = fit(base_of(architecture, kind), method, rows_of(24))
    wanted = rank(tuned.save(tmp_path / "tuned")).spectra[0]
    merge(tuned, tmp_path / "merged")
    base = folder_of(architecture, kind)
    for found in (rank(base, tmp_path / "merged"), rank(tmp_path / "merged", base)):
        changed = [item for item in found.spectra if item.suggested]
        assert [item.name.removesuffix(".weight") for item in changed] == [wanted.name]
        torch.testing.assert_close(
            torch.tensor(changed[0].values[:2]), torch.tensor(wanted.values), rtol=1e-3, atol=1e-5
        )  # the merged weights are rounded to float32


def test_dora_is_no_low_rank_product(adapter: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(adapter, tmp_path / "dora")
    config = json.loads((copied / "adapter_config.json").read_text())
    (copied / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(CapabilityError, match="DoRA"):
        rank(copied)
