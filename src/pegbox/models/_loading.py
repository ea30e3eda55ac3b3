from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from pegbox.errors import CapabilityError, InputError, PegboxError, UsageError, nearest
from pegbox.models._base import Base
from pegbox.models._decoder import check_plain_logits, decoder_start
from pegbox.models._encoder import own_length, own_pooling
from pegbox.models._find import find_version, nearest_folder, weight_files
from pegbox.models._fingerprint import fingerprint
from pegbox.models._quantised import Quantise, check_quantise, make_trainable, quantised_loading
from pegbox.models._quiet import quietly
from pegbox.tasks import Kind

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
UNBOUNDED = 1_000_000
UNKNOWN_CONTEXT = 512
MODEL_NAMES = "a folder with config.json, a hub id that can be reached, or etude"
REACHABLE = "check the name and the connection (HF_HUB_OFFLINE, HF_TOKEN for gated models)"
VOCABULARY_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "merges.txt")


def load(
    name: str | Path,
    *,
    dtype: Dtype = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_length: int | None = None,
    quantise: Quantise | None = None,
) -> Base:
    """Load a pretrained model with its tokenizer.

    Args:
        name: Hub id, folder, or an embedded model (``etude``, ``etude-masked``).
        dtype: ``auto`` is float32 on a CPU and bfloat16 on a GPU that has it.
        device: ``auto`` takes a GPU where there is one.
        revision: Branch, tag or commit of a hub model.
        trust_remote_code: Whether code that comes with a hub model may run.
        max_length: Upper limit on the context in tokens.
        quantise: ``nf4`` keeps the linear layers below the output layer in 4 bits; needs the extra ``qlora``.

    Raises:
        InputError: When there is no such model, or its files are damaged or not safetensors.
        CapabilityError: For an architecture that is not supported.
        UsageError: For an unknown dtype or device, or a context without room.
    """
    place = _device(device)
    wanted = number_format(dtype, place)
    if max_length is not None and max_length < 1:
        raise UsageError(
            "the context must hold at least one token", where=f"max_length {max_length}", expected="1 or more"
        )
    check_quantise(quantise, str(name))
    where = find_version(name, revision)
    with quietly():
        config = _config(where, revision, trust_remote_code)
        kind = _kind(config, where)
        commit = _commit(where, revision)
        pooling = own_pooling(where, commit) if kind == "encoder" else "mean"
        own = own_length(where, commit) if kind == "encoder" else None
        words = _tokenizer(where, revision, trust_remote_code)
        packed = place if quantise else None
        model = _weights(where, kind, config, wanted, revision, trust_remote_code, packed)
    _check_vocabulary(model, words, where)
    decoder_start(model)
    check_plain_logits(model, where)
    return Base(
        name=str(name),
        kind=kind,
        model=model.to(place).eval().requires_grad_(False),
        tokenizer=words,
        fingerprint=fingerprint(model, weight_files(where, commit) if quantise else ()),
        context=_context(model, words, own, max_length),
        revision=commit,
        pooling=pooling,
        quantise=quantise,
    )


def tokenizer(name: str | Path, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load only the tokenizer of a model, to count tokens without its weights."""
    where = find_version(name, revision)
    with quietly():
        return _tokenizer(where, revision, trust=False)


def _config(where: str, revision: str | None, trust: bool) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=trust)
    except Exception as error:  # a damaged config.json fails in as many ways as there are families
        local = Path(where).is_dir()
        raise InputError(
            f"{'config.json cannot be used' if local else 'the model cannot be loaded'}: {_reason(error)}",
            where=where,
            expected="the config.json that came with the model" if local else MODEL_NAMES,
            fix="copy the model again" if local else nearest_folder(where) or REACHABLE,
        ) from None


def _commit(where: str, revision: str | None) -> str | None:
    """The commit of a hub model, from where its configuration lies in the hub's cache."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    if Path(where).is_dir():
        return None
    return extract_commit_hash(cached_file(where, "config.json", revision=revision), None)


def _kind(config: PretrainedConfig, where: str) -> Kind:
    named = config.architectures
    architecture = str(named[0]) if isinstance(named, list | tuple) and named else ""
    if config.is_encoder_decoder and _writes(architecture):
        return "encoder-decoder"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")) and "WithLMHead" not in architecture:
        return "causal"
    if architecture.endswith(("ForMaskedLM", "ForPreTraining")):
        return "masked"
    plain = architecture.endswith("Model") and not config.is_encoder_decoder
    if plain and getattr(config, "hidden_size", None):
        return "encoder"
    raise CapabilityError(
        f"cannot tell what kind of model '{architecture or config.model_type}' is",
        where=where,
        expected="an architecture ...ForCausalLM, ...LMHeadModel, ...ForMaskedLM, "
        "...ForConditionalGeneration or ...Model in config.json",
        fix="start from the pretrained language model rather than from one with a task head",
    )


def _writes(architecture: str) -> bool:
    """Whether an architecture with an encoder has a decoder too; BART's own folders name it ``BartModel``."""
    return architecture.endswith(("ForConditionalGeneration", "Model")) and "Encoder" not in architecture


def _weights(
    where: str,
    kind: Kind,
    config: PretrainedConfig,
    dtype: torch.dtype,
    revision: str | None,
    trust: bool,
    packed: torch.device | None = None,
) -> nn.Module:
    """The model, in 4 bits on the device ``packed`` where one is given."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    auto: Any = {
        "causal": AutoModelForCausalLM,
        "masked": AutoModelForMaskedLM,
        "encoder": AutoModel,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }[kind]
    how = {}
    if packed is not None:
        with torch.device("meta"):
            skeleton = auto.from_config(config, trust_remote_code=trust)
        how = quantised_loading(skeleton, dtype, packed, where)
    try:
        model, info = auto.from_pretrained(
            where,
            config=config,
            dtype=dtype,
            revision=revision,
            trust_remote_code=trust,
            use_safetensors=True,
            output_loading_info=True,
            # Reported below with their names, which the library's own error leaves to its log.
            ignore_mismatched_sizes=True,
            **how,
        )
    except Exception as error:  # damaged shards and odd configurations fail in many ways
        raise InputError(
            f"the weights cannot be loaded: {_reason(error)}",
            where=where,
            expected="whole safetensors files that fit config.json",
            fix="copy or download the model again",
        ) from None
    _check_complete(model, info, where)
    if how:
        make_trainable(model)
    return model


def _check_complete(model: nn.Module, info: dict[str, Any], where: str) -> None:
    """Raise InputError when a tensor would be random."""
    wrong = sorted(
        f"{name} is {tuple(was)}, not {tuple(want)}" for name, was, want in info["mismatched_keys"]
    )
    if wrong:
        raise InputError(
            f"{len(wrong)} tensors do not have the shape that config.json asks for",
            where=f"{where}: {'; '.join(wrong[:3])}",
            expected="weights that fit config.json",
            fix="copy config.json and the weights of one model",
        )
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key and "position_ids" not in key)
    if missing:
        raise InputError(
            f"{len(missing)} tensors are missing from the weights and would be random",
            where=f"{where}: {', '.join(missing[:3])}",
            expected=f"all tensors of {type(model).__name__}",
            fix="copy the whole model, or correct 'architectures' in config.json",
        )


def _tokenizer(where: str, revision: str | None, trust: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    folder = Path(where)
    if folder.is_dir() and not any(list(folder.glob(pattern)) for pattern in VOCABULARY_FILES):
        raise InputError(
            "there is no tokenizer in this folder",
            where=where,
            expected="tokenizer.json beside the model",
            fix="save the tokenizer into the model's folder",
        )
    try:
        return AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=trust)
    except Exception as error:  # tokenizer files of many formats fail in many ways
        raise InputError(
            f"the tokenizer cannot be loaded: {_reason(error)}",
            where=where,
            expected="a whole tokenizer.json beside the model" if folder.is_dir() else MODEL_NAMES,
            fix="save the tokenizer into the model's folder again"
            if folder.is_dir()
            else nearest_folder(where) or REACHABLE,
        ) from None


def _check_vocabulary(model: Any, words: PreTrainedTokenizerBase, where: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if words.vocab_size > rows:
        raise InputError(
            f"the tokenizer knows {words.vocab_size} tokens and the model {rows}",
            where=where,
            expected="the model's own tokenizer",
            fix="save the tokenizer that belongs to the model into its folder",
        )


def _context(model: Any, words: PreTrainedTokenizerBase, own: int | None, wished: int | None) -> int:
    limits = [getattr(model.config, "max_position_embeddings", None), own, wished]
    if words.model_max_length < UNBOUNDED:
        limits.append(words.model_max_length)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - reserved)
    known = [limit for limit in limits if limit and limit > 0]
    return min(known) if known else UNKNOWN_CONTEXT


def _device(name: str) -> torch.device:
    if name == "auto":
        return _own_card() if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"the device cannot be used: {_reason(error)}",
            where=f"device '{name}'",
            expected="auto, cpu, cuda, cuda:N or mps",
            fix="use --device auto",
        ) from None
    return device


def _own_card() -> torch.device:
    """The GPU; of several processes on a machine (torchrun), each has the card of its place among them."""
    place = int(os.environ.get("LOCAL_RANK", "0"))
    cards = torch.cuda.device_count()
    return torch.device("cuda", place % cards) if place and cards > 1 else torch.device("cuda")


def number_format(name: Dtype, device: torch.device) -> torch.dtype:
    """What a name of a number format means on a device."""
    if name == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if bf16 else torch.float32
    valid = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in valid:
        raise UsageError(
            "unknown number format",
            where=f"dtype '{name}'",
            expected=f"auto, {', '.join(valid)}",
            fix=nearest(name, valid) or "use --dtype auto",
        )
    return valid[name]


def _reason(error: BaseException) -> str:
    """What an error of another library says, in one line."""
    if isinstance(error, PegboxError):
        return error.what
    if isinstance(error, KeyError):
        return f"the key {error} is missing"
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    # A headline that ends in a colon says nothing without the line below it.
    count = 2 if (lines and lines[0].endswith(":")) or "alidation error" in str(error)[:40] else 1
    return " ".join(lines[:count]).removesuffix(".") or type(error).__name__
