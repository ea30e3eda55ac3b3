"""Weights in 4 bits: NormalFloat with double quantisation (Dettmers et al. 2023), by bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pegbox.errors import CapabilityError, UsageError, nearest

Quantise = Literal["nf4"]
QUANTISE_BLOCK = 64


def check_quantise(quantise: str | None, where: str) -> None:
    """Raise when there is no such quantisation, or nothing installed that does it.

    Raises:
        UsageError: For an unknown name.
        CapabilityError: Without bitsandbytes.
    """
    valid = get_args(Quantise)
    if quantise is not None and quantise not in valid:
        raise UsageError(
            "unknown quantisation",
            where=f"quantise '{quantise}'",
            expected=", ".join(valid),
            fix=nearest(quantise, valid) or "use --quantise nf4, or leave it out",
        )
    if quantise is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise CapabilityError(
            "4-bit weights need bitsandbytes, which is not installed",
            where=where,
            expected="the extra qlora",
            fix="pip install 'pegbox[qlora]'",
        )


def quantised_loading(
    skeleton: nn.Module, dtype: torch.dtype, device: torch.device, where: str
) -> dict[str, Any]:
    """What Transformers loads a model by: NF4 in blocks of 64, their scales in 8 bits.

    Layers whose inputs are no multiple of 64 stay as they are, on every device: on processors, bitsandbytes
    0.50 takes a wrong block's scale for them, which spoils their values without a word.

    Args:
        skeleton: The model without its weights.
        dtype: Number format that weights are multiplied in, and of all that stays as it is: embeddings,
            norms, biases and the output layer.
        device: Where the weights go, each as soon as it is read.
        where: The model's name, for errors.

    Raises:
        CapabilityError: When no layer is left to pack.
    """
    from transformers import BitsAndBytesConfig

    kept, packed = divided_layers(skeleton)
    if not packed:
        raise CapabilityError(
            f"no linear layer has a multiple of {QUANTISE_BLOCK} inputs, in blocks of which weights are "
            "packed",
            where=where,
            expected="a wider model",
            fix="load it without quantise",
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def divided_layers(skeleton: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the linear layers that stay as they are, the output layer among them, and of those packed."""
    from transformers.pytorch_utils import Conv1D

    whole: Any = skeleton
    output = whole.get_output_embeddings()
    kept: list[str] = []
    packed: list[str] = []
    for name, layer in skeleton.named_modules():
        if isinstance(layer, nn.Linear | Conv1D):
            weight: Any = layer.weight
            inputs = weight.shape[1] if isinstance(layer, nn.Linear) else weight.shape[0]
            (kept if layer is output or inputs % QUANTISE_BLOCK else packed).append(name)
    return kept, packed


def make_trainable(model: nn.Module) -> None:
    """Keep evaluation from changing what training computes.

    On processors with AVX512-BF16, bitsandbytes 0.50 repacks a layer's weights in the first forward pass in
    eval mode; gradients through the layer are wrong from then on, with the loss unchanged.
    """
    for layer in quantised_layers(model).values():
        quick: Any = layer
        quick.support_avx512bf16_for_cpu = False


def quantised_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with 4-bit weights by name; none where there are none."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if getattr(getattr(layer, "weight", None), "quant_state", None) is not None
    }


def plain_layers(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Replace a model's 4-bit layers by plain ones with the values that they stand for.

    Args:
        model: A model of its own; other tensors stay the same objects.
        dtype: Number format of the new weights.

    Returns:
        The model.
    """
    from transformers.pytorch_utils import Conv1D

    whole: Any = model
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(whole.config, name):
            delattr(whole.config, name)
    for name in ("is_loaded_in_4bit", "is_quantized", "hf_quantizer", "quantization_method", "hf_device_map"):
        whole.__dict__.pop(name, None)
    with torch.device("meta"):
        original = type(whole)(whole.config)
    for name, layer in quantised_layers(model).items():
        parent, _, last = name.rpartition(".")
        turned = isinstance(original.get_submodule(name), Conv1D)
        setattr(model.get_submodule(parent), last, _plain_layer(layer, dtype, turned=turned))
    return model


def _plain_layer(layer: Any, dtype: torch.dtype, *, turned: bool) -> nn.Module:
    """A linear layer with the values that a 4-bit layer stands for; GPT-2's kind when turned."""
    from bitsandbytes.functional import dequantize_4bit
    from transformers.pytorch_utils import Conv1D

    if turned:
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
        conv = Conv1D(weight.shape[0], weight.shape[1])
        conv.weight = nn.Parameter(weight.T.contiguous(), requires_grad=False)
        conv.bias = nn.Parameter(layer.bias.detach().to(dtype).clone(), requires_grad=False)
        return conv
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
    plain = nn.utils.skip_init(
        nn.Linear,
        weight.shape[1],
        weight.shape[0],
        bias=layer.bias is not None,
        device=weight.device,
        dtype=dtype,
    )
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().to(dtype).clone(), requires_grad=False)
    return plain


def size(tensor: Tensor) -> int:
    """How many numbers a parameter stands for; packed weights hold two in a byte."""
    state = getattr(tensor, "quant_state", None)
    return tensor.numel() if state is None else int(torch.Size(state.shape).numel())
