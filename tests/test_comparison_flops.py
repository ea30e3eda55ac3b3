"""Floating point operations against torch's own counter on whole batches, forward and backward."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import pegbox
from four_bit_toy import wide_folder
from pegbox import Classify, fit
from pegbox.comparison import fit_flops, predict_flops
from pegbox.comparison._made_up import made_up
from pegbox.comparison._profile import Asked
from pegbox.errors import CapabilityError
from pegbox.methods import Method, build
from pegbox.models import Base
from pegbox.tuning._trunk_rows import TrunkRows, with_trunk_cached
from tiny import rows_of_length, tiny_base

TASK = Classify(
    labels=("positive", "negative"), template="{text} It was {answer}.", label_words=("great", "bad")
)
LENGTH = 40
# Torch counts flash attention on GPUs; on a CPU it does the same products under another name.
MAPPING: Any = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(gradient, query, key, value)
    ),
}
KINDS = [("llama", "causal"), ("bert", "masked"), ("bert", "encoder"), ("t5", "encoder-decoder")]
EVERYWHERE = ("lora", "full", "ia3", "bottleneck", "soft-prompt", "prefix", "zero-init-attention")
CASES = [
    *(("llama", "causal", name, {}) for name in (*EVERYWHERE, "p-tuning", "head", "qlora")),
    *(("bert", "masked", name, {}) for name in ("lora", "full", "prefix", "head")),
    *(("bert", "encoder", name, {}) for name in ("lora", "full")),
    *(("t5", "encoder-decoder", name, {}) for name in ("lora", "full")),
    *((family, "causal", "lora", {}) for family in ("gpt2", "qwen3", "gemma2", "bloom")),
    ("llama", "causal", "lora", {"layers": 1}),
    ("llama", "causal", "lora", {"rank": 4, "targets": "all-linear"}),
]


def count(run: Any) -> float:
    with FlopCounterMode(display=False, custom_mapping=MAPPING) as counter:
        run()
    return float(counter.get_total_flops())


def counted(base: Base, method: Method, rows: int, length: int) -> tuple[float, float]:
    """What torch counts of one real batch: the trunk, where it is run apart; a step."""
    asked = Asked.of(base, base.prepare(TASK), method)
    module = asked.module().train()
    made = made_up(asked.base, asked.prompt, [length + asked.soft] * rows)
    kept = with_trunk_cached(module, [made], wanted="auto", precision="float32", say=lambda _: None)[0]
    batch = kept.collate(range(rows))
    below = 0.0
    if isinstance(kept, TrunkRows):
        plain = made.collate(range(rows))
        with torch.no_grad():
            below = count(lambda: kept.trunk.capture(lambda: made.loss(module, plain)))
    return below, count(lambda: kept.loss(module.train(), batch)[0].backward())


@pytest.mark.parametrize(("family", "kind", "name", "options"), CASES)
def test_a_fit_takes_what_torch_counts(family: str, kind: str, name: str, options: dict[str, Any]) -> None:
    base, method = tiny_base(family, kind), build(name, options)
    below, step = counted(base, method, 5, LENGTH)
    assert (below > 0) == (name == "head" or options.get("layers") == 1)
    found = fit_flops(base, base.prepare(TASK), method, [LENGTH] * 5, epochs=3)
    # The counter leaves out the LSTM of p-tuning and counts the rotary factors.
    assert found == pytest.approx(below + 3 * step, rel=0.05 if name == "p-tuning" else 0.01)


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_an_answer_takes_what_torch_counts(family: str, kind: str) -> None:
    base, method = tiny_base(family, kind), build("lora")
    asked = Asked.of(base, base.prepare(TASK), method)
    made, module = made_up(asked.base, asked.prompt, [LENGTH] * 4), asked.module()
    wanted = count(lambda: made.loss(module, made.collate(range(4))))
    found = predict_flops(base, base.prepare(TASK), method, [LENGTH] * 4)
    assert found == pytest.approx(wanted, rel=0.01)


def test_padding_evaluations_and_epochs_are_counted() -> None:
    base, method = tiny_base("llama"), build("lora")
    prompt = base.prepare(TASK)
    even = fit_flops(base, prompt, method, [40] * 8, epochs=1, batch_size=4)
    # Of 64 rows two batches at a time are sorted by length.
    mixed = fit_flops(base, prompt, method, [40, 10] * 32, epochs=1, batch_size=4)
    assert (40 + 10) / 80 < mixed / (8 * even) < 0.85
    assert fit_flops(base, prompt, method, [40, 10, 10, 10], epochs=1) == pytest.approx(even / 2)
    assert fit_flops(base, prompt, method, [40] * 8, epochs=2.5, batch_size=4) == pytest.approx(2.5 * even)
    valid = predict_flops(base, prompt, method, [40] * 4)
    with_valid = fit_flops(
        base, prompt, method, [40] * 8, epochs=1, batch_size=4, valid_lengths=[40] * 4, evaluations=3
    )
    assert with_valid == pytest.approx(even + 3 * valid)


def test_only_the_label_rows_of_the_output_layer_count() -> None:
    base = tiny_base("llama")
    method = build("zero-shot")
    one = predict_flops(base, base.prepare(TASK), method, [LENGTH])
    shape = base.model.config
    blocks = one - 2 * 2 * shape.hidden_size  # two label words
    assert blocks < 2 * LENGTH * sum(v.numel() for v in base.model.model.layers.parameters()) * 1.5


@pytest.mark.parametrize("selection", ["random", "similar"])
def test_few_shot_answers_take_what_torch_counts(selection: str) -> None:
    base = tiny_base("llama")
    method = build("few-shot", {"selection": selection})
    rows = rows_of_length([12] * 40, labels=["positive", "negative"] * 20)
    tuned = fit(base, TASK, method, rows=rows, say=lambda _: None)
    wanted = count(lambda: tuned.logits(rows))
    prompt = base.prepare(TASK)
    lengths = prompt.encode(rows).lengths
    pool = predict_flops(base, prompt, build("zero-shot"), lengths) if selection == "similar" else 0
    # How long demonstrations are is not known before they are drawn.
    assert predict_flops(base, prompt, method, lengths) == pytest.approx(wanted - pool, rel=0.1)
    assert fit_flops(base, prompt, method, lengths, epochs=1) == 0


def test_the_closed_form_reads_every_row_once_and_solves() -> None:
    base = tiny_base("llama")
    prompt = base.prepare(TASK)
    zero = predict_flops(base, prompt, build("zero-shot"), [20] * 64)
    closed = fit_flops(base, prompt, build("closed-form"), [20] * 64, epochs=1)
    # 64 rows of width 32: 6 m n^2 + 20 n^3 and 30 penalties of 4 K m n each.
    assert closed == pytest.approx(zero + 6 * 64 * 32**2 + 20 * 32**3 + 30 * 4 * 2 * 64 * 32)


def test_a_method_that_cannot_work_says_why() -> None:
    base = tiny_base("bert", "encoder")
    with pytest.raises(CapabilityError, match="zero-shot cannot work on an encoder without an output layer"):
        fit_flops(base, base.prepare(TASK), build("zero-shot"), [20], epochs=1)


def test_nothing_changes_on_the_base_and_no_random_number_is_drawn() -> None:
    base = tiny_base("llama")
    state = torch.random.get_rng_state()
    fit_flops(base, base.prepare(TASK), build("full"), [20] * 4, epochs=1)
    assert not any(value.requires_grad or value.grad is not None for value in base.model.parameters())
    assert not base.model.training
    assert torch.equal(state, torch.random.get_rng_state())


def test_4_bit_layers_count_as_the_layers_they_stand_for() -> None:
    pytest.importorskip("bitsandbytes")
    base, plain = (
        pegbox.load(wide_folder("llama", "causal"), quantise=quantise) for quantise in ("nf4", None)
    )
    found, wanted = (
        fit_flops(of, of.prepare(TASK), build("lora"), [LENGTH] * 4, epochs=1) for of in (base, plain)
    )
    assert found == pytest.approx(wanted, rel=1e-6)
