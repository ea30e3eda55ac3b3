"""The readout against transformers' own full forward pass, row by row and without padding.

Tolerance: float32 sums of some hundred terms in another order differ by a few 1e-7 of the largest term; the
tiny models' logits reach about 10, so 2e-5 is an order above what was seen and two below a forgotten bias.
"""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import pegbox
from pegbox.errors import CapabilityError
from pegbox.models import Base, collate, output_layer, output_scale, output_tail, read
from pegbox.tasks import Encoded
from tiny import CAUSAL, ENCODER_DECODERS, MASKED, VOCABULARY, save_tiny, tiny_base, tiny_folder

CLOSE = {"rtol": 1e-5, "atol": 2e-5}
FAMILIES = [
    (kind, name)
    for kind, names in (("causal", CAUSAL), ("masked", MASKED), ("encoder-decoder", ENCODER_DECODERS))
    for name in names
]
LENGTHS = (3, 41, 17, 29, 1)  # longer and shorter than the sliding window of 16
TOKENS = torch.tensor([40, 7, 300, 2])

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*tie_word_embeddings.*",
    "ignore:.*tied.*",
    "ignore:.*lora_bias=True.*",
    "ignore:fan_in_fan_out.*",
    "ignore:fan_in_fan_out.*",
)


def encoded(kind: str, lengths: tuple[int, ...] = LENGTHS) -> Encoded:
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(4, VOCABULARY, (n,), generator=draw).tolist() for n in lengths]
    if len(texts) > 2:
        texts[2][-2:] = [2, 2]  # real tokens that equal end-of-sequence and padding
    ids = tuple(map(tuple, texts))
    # A causal model answers at the last token; a masked one anywhere, as a decoder of its own might.
    positions = tuple(n - 1 if kind == "causal" else n // 2 for n in lengths)
    decoder = torch.randint(4, VOCABULARY, (max(lengths),), generator=draw).tolist()
    return Encoded(ids=ids, positions=positions, decoder=tuple(decoder) if "decoder" in kind else ())


def full(model: nn.Module, rows: Encoded, kind: str) -> Tensor:
    """All logits at the answer positions, from one unpadded forward pass per row."""
    answers = []
    for ids, position in zip(rows.ids, rows.positions, strict=True):
        row = torch.tensor([ids])
        extra = options(kind)
        if rows.decoder:
            extra["decoder_input_ids"] = torch.tensor([rows.decoder])
        answers.append(model(input_ids=row, attention_mask=torch.ones_like(row), **extra).logits[0, position])
    return torch.stack(answers)


def batch(base: Base, rows: Encoded) -> dict[str, Tensor]:
    return collate(rows, range(len(rows)), kind=base.kind, pad=base.pad)


def options(kind: str) -> dict[str, Any]:
    return {"use_cache": False} if kind in ("causal", "encoder-decoder") else {}


@pytest.mark.parametrize(("kind", "name"), FAMILIES)
@pytest.mark.parametrize("tokens", [None, TOKENS], ids=["all", "chosen"])
def test_readout_equals_the_full_forward_pass(kind: str, name: str, tokens: Tensor | None) -> None:
    base, rows = tiny_base(name, kind), encoded(kind)
    with torch.no_grad():
        wanted = full(base.model, rows, kind)
        answers = read(base.model, batch(base, rows), tokens, **options(kind))
    torch.testing.assert_close(answers.logits, wanted if tokens is None else wanted[:, tokens], **CLOSE)
    assert answers.logits.std() > 0.1  # logits that are all alike would agree with anything


@pytest.mark.parametrize(("kind", "name"), FAMILIES)
def test_hidden_states_give_the_logits_through_the_output_layer_and_its_tail(kind: str, name: str) -> None:
    base, rows = tiny_base(name, kind), encoded(kind)
    with torch.no_grad():
        answers = read(base.model, batch(base, rows), TOKENS, **options(kind))
        raw = output_layer(base.model)[1](answers.hidden)[:, TOKENS]
        torch.testing.assert_close(output_tail(base.model, raw), answers.logits, **CLOSE)
        torch.testing.assert_close(answers.logits, full(base.model, rows, kind)[:, TOKENS], **CLOSE)
        capped = getattr(base.model.config, "final_logit_softcapping", None) is not None
        if not capped:
            torch.testing.assert_close(answers.logits, raw * output_scale(base.model), **CLOSE)


def test_logit_scale_and_soft_capping_are_seen() -> None:
    assert output_scale(tiny_base("cohere").model) == pytest.approx(0.25, rel=1e-6)
    assert output_scale(tiny_base("llama").model) == pytest.approx(1.0, rel=1e-6)
    assert output_scale(tiny_base("gemma2").model) == pytest.approx(1.0, rel=1e-5)
    far = output_tail(tiny_base("gemma2").model, torch.tensor([[100.0, -100.0]]))
    assert far.tolist() == [[pytest.approx(4.0), pytest.approx(-4.0)]]  # 4 tanh(100 / 4)


@pytest.mark.parametrize("tied", [True, False])
def test_the_scale_of_t5_is_seen(tied: bool, tmp_path: Path) -> None:
    """The first T5 divides by the root of the width (32 here) before its output layer; later ones do not."""
    folder = shutil.copytree(tiny_folder("t5", "encoder-decoder"), tmp_path / "t5")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"tie_word_embeddings": tied, "scale_decoder_outputs": tied}
    (folder / "config.json").write_text(json.dumps(settings))
    base, rows = pegbox.load(folder), encoded("encoder-decoder")
    with torch.no_grad():
        first = read(tiny_base("t5", "encoder-decoder").model, batch(base, rows), TOKENS)
        answers = read(base.model, batch(base, rows), TOKENS)
        torch.testing.assert_close(
            answers.logits, full(base.model, rows, "encoder-decoder")[:, TOKENS], **CLOSE
        )
    factor = 1.0 if tied else 32**0.5
    torch.testing.assert_close(answers.hidden, first.hidden * factor, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answers.logits, first.logits * factor, rtol=1e-5, atol=1e-4)
    assert output_scale(base.model) == 1.0  # it lies before the hidden state that is read


def test_a_t5_with_an_output_layer_of_its_own_keeps_it(tmp_path: Path) -> None:
    """As T5 v1.1 and Flan-T5 have it; the library ties what the file does not hold."""
    folder = shutil.copytree(tiny_folder("t5", "encoder-decoder"), tmp_path / "t5")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["shared.weight"].flip(0).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    del settings["scale_decoder_outputs"]  # which published models do not have
    (folder / "config.json").write_text(json.dumps(settings))
    base, rows = pegbox.load(folder), encoded("encoder-decoder")
    assert torch.equal(base.model.lm_head.weight, tensors["lm_head.weight"])
    with torch.no_grad():
        answers = read(base.model, batch(base, rows), TOKENS)
        wanted = full(base.model, rows, "encoder-decoder")[:, TOKENS]
    torch.testing.assert_close(answers.logits, wanted, **CLOSE)
    torch.testing.assert_close(answers.logits, answers.hidden @ tensors["lm_head.weight"][TOKENS].T, **CLOSE)


@pytest.mark.parametrize(
    ("name", "like"),
    [("mt5", "t5"), ("umt5", "t5"), ("longt5", "t5"), ("mbart", "bart"), ("pegasus", "bart")],
)
def test_relatives_of_t5_and_bart_are_read_alike(
    name: str, like: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODER_DECODERS, name, ENCODER_DECODERS[like])
    base = pegbox.load(save_tiny(tmp_path / name, name, "encoder-decoder"))
    rows = encoded("encoder-decoder", (3, 30, 17))
    with torch.no_grad():
        wanted = full(base.model, rows, "encoder-decoder")[:, TOKENS]
        torch.testing.assert_close(read(base.model, batch(base, rows), TOKENS).logits, wanted, **CLOSE)
    assert wanted.std() > 0.1


def test_a_bias_behind_the_output_layer_is_refused_and_one_of_zeros_left_as_it_was(tmp_path: Path) -> None:
    base, rows = tiny_base("bart", "encoder-decoder"), encoded("encoder-decoder")
    before = base.model.final_logits_bias
    read(base.model, batch(base, rows), TOKENS)
    assert base.model.final_logits_bias is before
    assert before.shape == (1, VOCABULARY)
    folder = save_tiny(tmp_path / "bart", "bart", "encoder-decoder")
    tensors = load_file(folder / "model.safetensors")
    tensors["final_logits_bias"] = torch.zeros(1, VOCABULARY)
    tensors["final_logits_bias"][0, 7] = 0.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CapabilityError, match="adds final_logits_bias to its logits, which is not zero"):
        pegbox.load(folder)


@pytest.mark.parametrize("name", list(CAUSAL))
def test_padding_on_the_right_is_never_seen(name: str) -> None:
    """No mask is passed: whatever the padding is, end-of-sequence included, answers are the same bits."""
    base, rows = tiny_base(name), encoded("causal")
    with torch.no_grad():
        for pad in (base.pad, 5, 300):
            inputs = collate(rows, range(len(rows)), kind="causal", pad=pad)
            answers = read(base.model, inputs, TOKENS, use_cache=False)
            if pad == base.pad:
                first = answers.logits
            torch.testing.assert_close(answers.logits, first, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "name"), FAMILIES)
def test_gradients_equal_those_of_the_full_forward_pass(kind: str, name: str) -> None:
    base, rows = tiny_base(name, kind), encoded(kind)
    found, wanted = copy.deepcopy(base.model), copy.deepcopy(base.model)
    for model in (found, wanted):
        model.requires_grad_(True)
    weight = torch.linspace(-1, 1, len(rows) * len(TOKENS)).reshape(len(rows), -1)
    (read(found, batch(base, rows), TOKENS, **options(kind)).logits * weight).sum().backward()
    (full(wanted, rows, kind)[:, TOKENS] * weight).sum().backward()
    for (path, ours), theirs in zip(found.named_parameters(), wanted.parameters(), strict=True):
        if ours.grad is None or theirs.grad is None:
            # RoBERTa and BERT hold a pooler or bias that no logit depends on.
            assert (ours.grad is None) == (theirs.grad is None), path
            continue
        scale = float(theirs.grad.abs().max()) + 1.0
        assert float((ours.grad - theirs.grad).abs().max()) < 5e-5 * scale, path


def lora(base: Base, targets: list[str], *, dropout: float = 0.0, bias: bool = False) -> PeftModel:
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=targets,
        init_lora_weights=False,
        lora_dropout=dropout,
        lora_bias=bias,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = get_peft_model(copy.deepcopy(base.model), config)
        for name, tensor in model.named_parameters():
            if "lora_" in name:
                nn.init.normal_(tensor, std=0.2)
    return model.eval()


ADAPTED = [
    ("causal", "llama", ["q_proj", "v_proj"]),
    ("causal", "llama", ["lm_head"]),
    ("causal", "cohere", ["q_proj", "lm_head"]),
    ("causal", "gemma2", ["q_proj", "lm_head"]),
    ("causal", "gpt2", ["c_attn", "lm_head"]),
    ("masked", "bert", ["query", "decoder"]),
    ("masked", "roberta", ["query", "decoder"]),
    ("encoder-decoder", "t5", ["q", "v"]),
    ("encoder-decoder", "t5", ["q", "lm_head"]),
    ("encoder-decoder", "bart", ["q_proj", "lm_head"]),
]


@pytest.mark.parametrize(("kind", "name", "targets"), ADAPTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_adapters_on_attention_and_output_layer(
    kind: str, name: str, targets: list[str], dtype: torch.dtype
) -> None:
    base, rows = tiny_base(name, kind), encoded(kind)
    model = lora(base, targets, bias="llama" in name)
    for path, tensor in model.named_parameters():
        if "lora_" not in path:  # adapters stay in float32 beside a base in bfloat16, as PEFT keeps them
            tensor.data = tensor.data.to(dtype)
    inputs = batch(base, rows)
    with torch.no_grad():
        enabled = full(model, rows, kind)[:, TOKENS]
        ours = read(model, inputs, TOKENS, **options(kind)).logits
        with model.disable_adapter():
            disabled = full(model, rows, kind)[:, TOKENS]
            plain = read(model, inputs, TOKENS, **options(kind)).logits
    # bfloat16 keeps 8 bits; a few layers of roundings come to some 2 ** -5 of the largest logit.
    bound = 2**-5 * float(enabled.float().abs().max())
    close = CLOSE if dtype == torch.float32 else {"rtol": 0.0, "atol": bound}
    assert ours.dtype == enabled.dtype
    torch.testing.assert_close(ours, enabled, **close)
    torch.testing.assert_close(plain, disabled, **close)
    assert float((enabled - disabled).abs().max()) > 4 * bound  # the adapter matters


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"]])
def test_merged_adapters_and_merged_then_disabled_ones(targets: list[str]) -> None:
    base, rows = tiny_base("llama"), encoded("causal")
    model = lora(base, targets)
    inputs = batch(base, rows)
    with torch.no_grad():
        before = read(model, inputs, TOKENS, use_cache=False).logits
        model.merge_adapter()
        # Merging rounds W + BA once more in float32.
        merged = read(model, inputs, TOKENS, use_cache=False).logits
        torch.testing.assert_close(merged, before, rtol=1e-4, atol=2e-4)
        torch.testing.assert_close(merged, full(model, rows, "causal")[:, TOKENS], **CLOSE)
        with model.disable_adapter():
            plain = read(model, inputs, TOKENS, use_cache=False).logits
        torch.testing.assert_close(plain, full(base.model, rows, "causal")[:, TOKENS], rtol=1e-4, atol=2e-4)


def test_dropout_of_an_output_adapter_is_off_while_measuring_and_on_while_training() -> None:
    base, rows = tiny_base("llama"), encoded("causal")
    model = lora(base, ["lm_head"], dropout=0.5)
    inputs = batch(base, rows)
    torch.manual_seed(0)
    with torch.no_grad():
        first, second = (read(model, inputs, TOKENS, use_cache=False).logits for _ in range(2))
        assert torch.equal(first, second)
        model.train()
        third, fourth = (read(model, inputs, TOKENS, use_cache=False).logits for _ in range(2))
    assert not torch.allclose(third, fourth)


def test_an_adapter_on_a_tied_output_layer_leaves_the_input_embedding() -> None:
    base = tiny_base("gemma2")
    assert base.model.get_input_embeddings().weight is base.model.get_output_embeddings().weight
    before = base.model.get_input_embeddings().weight.clone()
    rows = encoded("causal")
    model = lora(base, ["lm_head"])
    read(model, batch(base, rows), TOKENS, use_cache=False).logits.sum().backward()
    assert torch.equal(model.base_model.model.get_input_embeddings().weight, before)
    assert torch.equal(base.model.get_input_embeddings().weight, before)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self.size = max(self.size, tensor.numel())
        return made


@pytest.mark.parametrize(("kind", "name"), FAMILIES)
def test_the_tensor_of_all_logits_is_never_built(kind: str, name: str) -> None:
    lengths = (40,) * 6
    base, rows = tiny_base(name, kind), encoded(kind, lengths)
    model = copy.deepcopy(base.model).requires_grad_(True)
    everything = len(lengths) * 40 * VOCABULARY
    inputs = batch(base, rows)
    with Largest() as seen:
        read(model, inputs, TOKENS, **options(kind)).logits.sum().backward()
    assert seen.size < everything / 2
    with Largest() as seen:
        model(**{key: value for key, value in inputs.items() if key != "answer_positions"})
    assert seen.size >= everything  # the full forward pass does, or the check above would mean nothing


def test_the_model_is_restored_after_an_error_and_after_a_read() -> None:
    base, rows = tiny_base("llama"), encoded("causal")
    model = copy.deepcopy(base.model)
    layer, names = model.lm_head, [name for name, _ in model.named_modules()]
    read(model, batch(base, rows), TOKENS, use_cache=False)
    with pytest.raises(IndexError):
        read(model, batch(base, rows), torch.tensor([VOCABULARY]), use_cache=False)
    with pytest.raises(TypeError):
        read(model, batch(base, rows), TOKENS, use_cache=False, input_ids=None)
    assert model.lm_head is layer
    assert [name for name, _ in model.named_modules()] == names


def test_a_model_without_output_layer_is_refused() -> None:
    with pytest.raises(CapabilityError, match="no output layer to read answers from") as error:
        output_layer(tiny_base("bert", "encoder").model)
    assert "BertModel" in str(error.value)
