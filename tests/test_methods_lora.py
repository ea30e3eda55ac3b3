"""LoRA: where it sits, that it starts at the base, what it trains, and that it comes back the same."""

import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pegbox
from adapters_toy import (
    FAMILIES,
    attach,
    check_checkpointing,
    checksum,
    count,
    family,
    fill,
    forward,
    in_bf16,
    in_four_bit,
    logits,
    names_that_end,
    own_copy,
    prompt,
    reloaded,
    trained,
)
from pegbox.errors import UsageError
from pegbox.methods import LoRA, load_adapter, save_adapter
from pegbox.methods._lora import target_names
from pegbox.models import answer_tokens, collate, read
from tuning_toy import (
    base_of,
    fit,
    folder_of,
    full_forward,
    hush,
    rows_of,
    same_parts,
    task_of,
)

ATTENTION = {
    ("llama", "causal"): {"q_proj", "v_proj"},
    ("qwen3", "causal"): {"q_proj", "v_proj"},
    ("gemma3_text", "causal"): {"q_proj", "v_proj"},
    ("mistral", "causal"): {"q_proj", "v_proj"},
    ("gpt2", "causal"): {"c_attn"},
    ("bert", "masked"): {"query", "value"},
    ("roberta", "masked"): {"query", "value"},
    ("bert", "encoder"): {"query", "value"},
}
ALL = {
    ("llama", "causal"): {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    ("gpt2", "causal"): {"c_attn", "c_proj", "c_fc"},
    ("bert", "masked"): {"query", "key", "value", "dense"},
    ("roberta", "masked"): {"query", "key", "value", "dense"},
    ("bert", "encoder"): {"query", "key", "value", "dense"},
}
QUICK = pegbox.Training(epochs=2, precision="float32")
LONG = pegbox.Training(epochs=30, precision="float32", learning_rate=5e-3)


def kinds(names: list[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}


@pytest.mark.parametrize(("architecture", "kind"), ATTENTION)
def test_attention_means_queries_and_values(architecture: str, kind: str) -> None:
    names = target_names(base_of(architecture, kind).module(2), "attention")
    assert kinds(names) == ATTENTION[architecture, kind]
    assert len(names) == 2 * len(ATTENTION[architecture, kind])  # two layers


@pytest.mark.parametrize(("architecture", "kind"), ALL)
def test_all_linear_is_everything_below_the_head(architecture: str, kind: str) -> None:
    names = target_names(base_of(architecture, kind).module(2), "all-linear")
    assert kinds(names) == ALL[architecture, kind]
    # Not below it: the head's own transform, the output layer, and the pooler that no answer passes through.
    assert not [
        name for name in names if name.split(".")[0] in ("cls", "lm_head", "score") or "pooler" in name
    ]


def test_names_choose_layers() -> None:
    module = base_of("llama").module(2)
    assert kinds(target_names(module, "o_proj, up_proj")) == {"o_proj", "up_proj"}
    assert target_names(module, "layers.1.mlp.up_proj") == ["model.layers.1.mlp.up_proj"]


@pytest.mark.parametrize("wrong", ["q_prj", "lm_head", "proj"])
def test_a_target_that_matches_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match=f"the target '{wrong}' matches no linear layer") as error:
        fit(base_of("llama"), LoRA(targets=f"v_proj,{wrong}"), rows_of(8), training=QUICK)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(error.value)
    if wrong == "q_prj":
        assert "did you mean 'q_proj'?" in str(error.value)


def test_unknown_attention_is_refused_with_the_way_out() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixer = torch.nn.Linear(4, 4)

    with pytest.raises(UsageError, match="no attention projections are known") as error:
        target_names(Odd(), "attention")
    assert "names among mixer" in str(error.value)
    assert "choose all-linear" in str(error.value)


@pytest.mark.parametrize(("architecture", "kind"), ATTENTION)
@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_step_zero_is_the_base_and_only_lora_learns(architecture: str, kind: str, targets: str) -> None:
    base = base_of(architecture, kind)
    prompt = base.prepare(task_of())
    module = LoRA(targets=targets).attach(base, prompt, seed=3)
    rows = rows_of(5)
    batch = collate(prompt.encode(rows), range(5), kind=base.kind, pad=base.pad)
    tokens = torch.tensor(answer_tokens(prompt))
    module.eval()  # dropout of the base's own would otherwise differ between the two passes
    logits = read(module, batch, tokens).logits
    assert torch.equal(logits, read(base.module(2), batch, tokens).logits)
    torch.nn.functional.cross_entropy(logits, torch.tensor(prompt.task.gold(rows))).backward()
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    head = {name for name in trained if "modules_to_save" in name}
    assert bool(head) == (kind == "encoder")
    assert all("lora_" in name for name in trained - head)
    # B starts at zero, so at first only B (and the head) have a gradient that is not zero; an encoder's head
    # starts at zero too and keeps even that from B.
    learning = {
        name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
    }
    assert learning == (head if kind == "encoder" else {name for name in trained if "lora_B" in name})
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
    assert all(p.grad is None for p in base.model.parameters())


@pytest.mark.parametrize(
    ("architecture", "kind", "epochs"),
    [("llama", "causal", 30), ("roberta", "masked", 60), ("bert", "encoder", 30)],
)
def test_it_learns_and_comes_back_the_same(architecture: str, kind: str, epochs: int, tmp_path: Path) -> None:
    base = base_of(architecture, kind)
    rows = rows_of(24, noise=0.0)
    training = pegbox.Training(
        epochs=epochs, precision="float32", learning_rate=2e-3 if kind == "masked" else 5e-3
    )
    before = checksum(base.model)
    tuned = fit(base, LoRA(targets="all-linear"), rows, training=training)
    history = tuned.details["history"]
    assert history["train_losses"][-1][1] < 0.2 * history["train_losses"][0][1]
    assert tuned.evaluate(rows, resamples=10).metrics["accuracy"].value == 1.0
    assert checksum(base.model) == before
    assert not any(p.requires_grad for p in tuned.module.parameters())
    assert not tuned.module.training
    tuned.save(tmp_path / "out")
    again = pegbox.Tuned.load(tmp_path / "out", say=hush)
    probe = rows_of(7, seed=4)
    assert np.array_equal(again.probabilities(probe), tuned.probabilities(probe))
    assert same_parts(again.module, tuned.module)


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_probabilities(tmp_path: Path) -> None:
    tuned = fit(base_of("llama"), "lora", rows_of(16), training=QUICK)
    tuned.save(tmp_path / "out")
    program = (
        f"import sys, numpy, pegbox; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from tuning_toy import rows_of\n"
        f"tuned = pegbox.Tuned.load({str(tmp_path / 'out')!r})\n"
        f"numpy.save({str(tmp_path / 'p.npy')!r}, tuned.probabilities(rows_of(6, seed=4)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    expected = tuned.probabilities(rows_of(6, seed=4))
    # The same program on the same machine; only the number of threads might differ, which orders sums.
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "kind"), [("qwen3", "causal"), ("gpt2", "causal"), ("roberta", "masked")]
)
def test_plain_peft_gives_the_same_answers(architecture: str, kind: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    tuned = fit(base_of(architecture, kind), LoRA(rank_stabilised=True), rows_of(16), training=LONG)
    tuned.save(tmp_path / "out")
    auto: Any = AutoModelForCausalLM if kind == "causal" else AutoModelForMaskedLM
    model = auto.from_pretrained(folder_of(architecture, kind), dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = PeftModel.from_pretrained(model, tmp_path / "out").eval()
    rows = rows_of(5, seed=4)
    whole = full_forward(plain, tuned.prompt.encode(rows))[:, list(tuned.prompt.tokens)]
    # float32 sums in another order.
    torch.testing.assert_close(tuned.logits(rows), whole, rtol=1e-4, atol=2e-5)
    assert (
        whole - pegbox.models.extract(tuned.base, tuned.prompt, tuned.prompt.encode(rows)).logits
    ).abs().max() > 0.1


def test_one_seed_one_result_and_the_generators_stay() -> None:
    base = base_of("llama")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = fit(base, LoRA(dropout=0.1), rows_of(16), training=QUICK, seed=1)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    assert same_parts(first.module, fit(base, LoRA(dropout=0.1), rows_of(16), training=QUICK, seed=1).module)
    assert not same_parts(
        first.module, fit(base, LoRA(dropout=0.1), rows_of(16), training=QUICK, seed=2).module
    )


def test_fits_on_one_base_do_not_meet() -> None:
    base, rows = pegbox.load(folder_of("gpt2", "causal")), rows_of(16)
    before = checksum(base.model)
    closed = fit(base, "closed-form", rows)
    lora = fit(base, "lora", rows, training=QUICK)
    assert checksum(base.model) == before
    other = pegbox.load(folder_of("gpt2", "causal"))
    assert same_parts(fit(other, "lora", rows, training=QUICK).module, lora.module)
    assert same_parts(fit(other, "closed-form", rows).module, closed.module)
    probe = rows_of(4, seed=3)
    assert np.array_equal(closed.probabilities(probe), fit(other, "closed-form", rows).probabilities(probe))


def test_wrong_options_are_gathered() -> None:
    with pytest.raises(UsageError) as error:
        LoRA(rank=0, alpha=-1, dropout=1.0, targets=" ", rank_stabilised=1, layers=0)  # type: ignore[arg-type]
    for part in (
        *("rank is 0", "alpha is -1", "dropout is 1.0", "targets is ' '", "rank_stabilised is 1"),
        "layers is 0",
    ):
        assert part in str(error.value)


METHODS = [LoRA(rank=3), LoRA(rank=2, targets="all-linear"), LoRA(rank=2, targets="all-linear", layers=1)]


@pytest.mark.parametrize("method", METHODS, ids=["attention", "all", "top"])
@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_the_count_is_the_formula(architecture: str, kind: str, method: LoRA) -> None:
    base = family(architecture, kind)
    module = attach(method, base)
    assert count(module) == method.parameters(base, prompt())
    assert torch.equal(logits(module), logits(base.module(2)))


def test_counts_by_hand() -> None:
    # rank x (inputs + outputs): two layers; queries 32 -> 32, values 32 -> 16 (two of four heads of 8)
    assert LoRA(rank=3).parameters(family("llama", "causal"), prompt()) == 3 * 2 * ((32 + 32) + (32 + 16))
    # the fused layer 32 -> 96
    assert LoRA(rank=3).parameters(family("gpt2", "causal"), prompt()) == 3 * 2 * (32 + 96)
    # queries and values of 4 blocks, and of 2 cross attentions, all 32 -> 32
    assert LoRA(rank=3).parameters(family("t5", "encoder-decoder"), prompt()) == 3 * 6 * 2 * (32 + 32)
    # queries and values, and the score layer with its bias
    encoder = family("bert", "encoder")
    assert LoRA(rank=3).parameters(encoder, prompt()) == 3 * 2 * 2 * (32 + 32) + 2 * (32 + 1)


def test_t5_means_queries_and_values_of_all_attention() -> None:
    module = family("t5", "encoder-decoder").module(2)
    expected = names_that_end(
        module, "SelfAttention.q", "SelfAttention.v", "EncDecAttention.q", "EncDecAttention.v"
    )
    assert len(expected) == 12
    assert target_names(module, "attention") == expected
    everything = target_names(module, "all-linear")
    assert kinds(everything) == {"q", "k", "v", "o", "wi", "wo"}
    with pytest.raises(UsageError, match="the target 'lm_head' matches no linear layer"):
        target_names(module, "lm_head")


@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_only_the_top_layers(architecture: str, kind: str) -> None:
    base = family(architecture, kind)
    names = [name for name in trained(attach(LoRA(layers=1), base)) if "lora_" in name]
    assert names
    top = "decoder.block.1." if architecture == "t5" else ".1."
    assert all(top in name for name in names)


def test_a_decoder_stands_on_its_encoder() -> None:
    names = trained(attach(LoRA(layers=3), family("t5", "encoder-decoder")))
    blocks = {name.partition("base_model.model.")[2].rpartition(".layer.")[0] for name in names}
    assert blocks == {"encoder.block.1", "decoder.block.0", "decoder.block.1"}


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match="lora: layers is 3, and the model has 2 layers") as error:
        fit(base_of("llama"), LoRA(layers=3), rows_of(8), training=QUICK)
    assert "a whole number from 1 to 2" in str(error.value)
    with pytest.raises(UsageError, match="lies in the top 1 layers"):
        attach(LoRA(layers=1, targets="layers.0.mlp.up_proj"), base_of("llama"))


@pytest.mark.parametrize("stabilised", [False, True])
def test_it_computes_the_formula(stabilised: bool) -> None:
    base = family("t5", "encoder-decoder")
    module = attach(LoRA(rank=4, alpha=3, rank_stabilised=stabilised), base)
    fill(module)
    plain, weights = base.module(2), trained(module)
    scale = 3 / 4 ** (0.5 if stabilised else 1)
    for name in target_names(plain, "attention"):
        a, b = (weights[f"base_model.model.{name}.lora_{part}.default.weight"].detach() for part in "AB")

        def change(_module: Any, x: Any, y: Any, delta: Any = scale * b @ a) -> Any:
            return y + x[0] @ delta.T

        plain.get_submodule(name).register_forward_hook(change)
    # float32 sums in another order; the adapter moves the logits by far more.
    torch.testing.assert_close(logits(module), logits(plain), rtol=1e-4, atol=1e-4)
    assert (logits(module) - logits(base.module(2))).abs().max() > 0.05


@pytest.mark.parametrize(("architecture", "kind"), FAMILIES)
def test_it_comes_back_goes_away_and_merges(architecture: str, kind: str, tmp_path: Path) -> None:
    base = own_copy(family(architecture, kind))
    before = checksum(base.model)
    module = attach(LoRA(rank=3, targets="all-linear", dropout=0.2), base)
    fill(module)
    answers = logits(module)
    with torch.no_grad(), module.disable_adapter():
        off = forward(module)
    assert torch.equal(off, logits(base.module(2)))
    assert torch.equal(logits(reloaded(module, base, tmp_path)), answers)
    assert torch.equal(logits(load_adapter(base, 2, tmp_path)), answers)
    assert checksum(base.model) == before
    module.merge_adapter()
    # B A is added to float32 weights instead of applied beside them.
    torch.testing.assert_close(logits(module), answers, rtol=1e-3, atol=1e-3)
    module.unmerge_adapter()
    torch.testing.assert_close(logits(module), answers, rtol=1e-4, atol=1e-4)


def test_two_adapters_switch_and_go(tmp_path: Path) -> None:
    base = family("t5", "encoder-decoder")
    first, second = attach(LoRA(rank=2), base), attach(LoRA(rank=5, layers=2), base)
    fill(first, 1)
    fill(second, 2)
    save_adapter(second, tmp_path)
    alone, other = logits(first), logits(second)
    first.load_adapter(tmp_path, "other")
    assert torch.equal(logits(first), alone)
    first.set_adapter("other")
    assert torch.equal(logits(first), other)
    first.set_adapter("default")
    first.delete_adapter("other")
    assert torch.equal(logits(first), alone)


def test_a_bf16_base_keeps_lora_in_float32_and_starts_at_itself() -> None:
    base = in_bf16(family("qwen3", "causal"))
    module = attach(LoRA(), base)
    assert {tensor.dtype for tensor in trained(module).values()} == {torch.float32}
    assert torch.equal(logits(module), logits(base.module(2)))


def test_four_bit_layers_carry_lora() -> None:
    pytest.importorskip("bitsandbytes")
    base, method = in_four_bit(family("llama", "causal")), LoRA(targets="all-linear")
    module = attach(method, base)
    assert torch.equal(logits(module), logits(base.module(2)))
    assert count(module) == method.parameters(base, prompt())


def test_checkpointing_gives_the_same_gradients() -> None:
    check_checkpointing(LoRA(rank=2), family("gemma3_text", "causal"))


def test_gpt2s_layers_and_others_can_both_be_targets() -> None:
    base = own_copy(family("gpt2", "causal"))
    method = LoRA(rank=3, targets="c_attn,c_fc")
    usual = attach(method, base)
    fill(usual)
    odd = own_copy(base)
    for block in odd.model.transformer.h:  # type: ignore[union-attr, operator]
        old = block.mlp.c_fc
        block.mlp.c_fc = torch.nn.Linear(*old.weight.shape)
        block.mlp.c_fc.weight.data, block.mlp.c_fc.bias.data = old.weight.data.T.clone(), old.bias.data
    mixed = attach(method, odd)
    for name, tensor in trained(usual).items():
        trained(mixed)[name].data.copy_(tensor.data)
    # float32 products in another order
    torch.testing.assert_close(logits(mixed), logits(usual), rtol=1e-4, atol=1e-4)
    answers = logits(mixed)
    mixed.merge_adapter()
    torch.testing.assert_close(logits(mixed), answers, rtol=1e-3, atol=1e-3)


RUN = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import pegbox
from pegbox.methods import LoRA
from tuning_toy import rows_of, task_of
pegbox.fit(
    {base!r}, task_of(), LoRA(dropout=0.1), rows=rows_of(64), folder={folder!r}, resume={resume},
    training=pegbox.Training(epochs={epochs}, checkpoint_every=2, precision="float32", patience=0),
).save({out!r}, overwrite=True)
"""


def run(tmp_path: Path, folder: str, *, resume: bool = False, wait: bool = True, epochs: int = 8) -> Any:
    code = RUN.format(
        tests=str(Path(__file__).parent),
        base=str(folder_of("llama", "causal")),
        folder=str(tmp_path / folder),
        resume=resume,
        epochs=epochs,
        out=str(tmp_path / f"{folder}-out"),
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    if wait:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
        return told
    return process


@pytest.mark.slow
def test_a_killed_fit_resumes_to_the_same_bits(tmp_path: Path) -> None:
    whole = run(tmp_path, "whole")
    assert "10 of 64 training rows held out" in whole
    process = run(tmp_path, "killed", wait=False)
    until = time.monotonic() + 120
    while not any((tmp_path / "killed").glob("checkpoint-*")) and time.monotonic() < until:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed-out").exists()
    told = run(tmp_path, "killed", resume=True)
    assert "resuming from step" in told
    weights = [tmp_path / f"{name}-out" / "adapter_model.safetensors" for name in ("whole", "killed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
