from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from pegbox.errors import CapabilityError, InputError, UsageError, nearest
from pegbox.models._base import Base
from pegbox.models._encoder import own_length, own_pooling
from pegbox.models._fingerprint import fingerprint
from pegbox.tasks import Kind

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

EMBEDDED = ("etude", "etude-masked")
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
UNBOUNDED = 1_000_000


def load(
    name: str | Path,
    *,
    dtype: Dtype = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_length: int | None = None,
) -> Base:
    """Load a pretrained model with its tokenizer.

    Args:
        name: Hub id, folder, or an embedded model (``etude``, ``etude-masked``).
        dtype: ``auto`` is float32 on a CPU and bfloat16 on a GPU that has it.
        device: ``auto`` takes a GPU where there is one.
        revision: Branch, tag or commit of a hub model.
        trust_remote_code: Whether code that comes with a hub model may run.
        max_length: Upper limit on the context in tokens.

    Raises:
        InputError: When there is no such model, or its files are damaged or not safetensors.
        CapabilityError: For an architecture that is not supported.
        UsageError: For an unknown dtype or device.
    """
    where = find_model(name)
    config = _config(where, revision, trust_remote_code)
    kind = _kind(config, where)
    place = _device(device)
    model = _weights(where, kind, config, _dtype(dtype, place), revision, trust_remote_code)
    tokenizer = _tokenizer(where, revision, trust_remote_code)
    folder = Path(where) if Path(where).is_dir() else None
    commit = getattr(config, "_commit_hash", None)
    return Base(
        name=str(name),
        kind=kind,
        model=model.to(place).eval().requires_grad_(False),
        tokenizer=tokenizer,
        fingerprint=fingerprint(model, commit),
        context=_context(model, tokenizer, own_length(folder) if kind == "encoder" else None, max_length),
        revision=commit,
        pooling=own_pooling(folder),
    )


def find_model(name: str | Path) -> str:
    """A folder or hub id for a name, checked as far as the disk allows."""
    from pegbox.models import etude

    if str(name) in EMBEDDED:
        return str(etude.folder(str(name)))
    path = Path(name).expanduser()
    if path.is_dir():
        _check_folder(path)
        return str(path)
    if path.exists() or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise InputError(
            "no such model folder" if not path.exists() else "a model is a folder, and this is a file",
            where=str(name),
            expected="a folder with config.json and *.safetensors, a hub id, or etude",
            fix=nearest(path.name, siblings) or "check the path",
        )
    hint = nearest(str(name), EMBEDDED)
    if hint and "/" not in str(name):
        raise InputError("no such model", where=str(name), expected="a hub id, folder, or etude", fix=hint)
    return str(name)


def _check_folder(path: Path) -> None:
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise InputError(
            "this folder holds an adapter, not a model",
            where=str(path),
            expected="a model folder with config.json",
            fix="name its base model here, and give the adapter to predict or evaluate",
        )
    if not (path / "config.json").is_file():
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise InputError(
            "this folder is no model",
            where=str(path),
            expected=f"config.json and *.safetensors (found {found})",
            fix="name the folder that save_pretrained wrote, or a hub id",
        )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        pickled = sorted(p.name for p in path.glob("*.bin"))
        raise InputError(
            f"the weights are pickled ({pickled[0]}), which could run code" if pickled else "no weights here",
            where=str(path),
            expected="*.safetensors",
            fix="convert the model with save_pretrained(safe_serialization=True)" if pickled else "",
        )
    for file in weights:
        check_safetensors(file)


def check_safetensors(file: Path) -> None:
    """Raise InputError when a safetensors file is missing, truncated or no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"the file is damaged or truncated: {error}" if file.exists() else "the file is missing",
            where=str(file),
            expected="a whole safetensors file",
            fix="copy or download it again",
        ) from None


def _config(where: str, revision: str | None, trust: bool) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=trust)
    except json.JSONDecodeError as error:
        raise InputError(f"config.json is no JSON: {error}", where=where, fix="copy the model again") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"the model cannot be loaded: {_first_line(error)}",
            where=where,
            expected="a folder with config.json, a hub id that can be reached, or etude",
            fix="check the name and the connection (HF_HUB_OFFLINE, HF_TOKEN for gated models)",
        ) from None


def _kind(config: PretrainedConfig, where: str) -> Kind:
    architecture = (config.architectures or [""])[0]
    if config.is_encoder_decoder:
        raise CapabilityError(
            f"{architecture or config.model_type} is an encoder-decoder model",
            where=where,
            expected="a causal, masked or encoder model",
            fix="choose a decoder-only or encoder-only model",
        )
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    if architecture.endswith(("ForMaskedLM", "ForPreTraining")):
        return "masked"
    if architecture.endswith("Model") and getattr(config, "hidden_size", None):
        return "encoder"
    raise CapabilityError(
        f"cannot tell what kind of model '{architecture or config.model_type}' is",
        where=where,
        expected="an architecture ...ForCausalLM, ...LMHeadModel, ...ForMaskedLM or ...Model",
        fix="start from the pretrained language model rather than from one with a task head",
    )


def _weights(
    where: str, kind: Kind, config: PretrainedConfig, dtype: torch.dtype, revision: str | None, trust: bool
) -> nn.Module:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

    auto: Any = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "encoder": AutoModel}[kind]
    try:
        model, info = auto.from_pretrained(
            where,
            config=config,
            dtype=dtype,
            revision=revision,
            trust_remote_code=trust,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the weights cannot be loaded: {_first_line(error)}",
            where=where,
            expected="whole safetensors files that fit config.json",
            fix="copy or download the model again",
        ) from None
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key and "position_ids" not in key)
    if missing:
        raise InputError(
            f"{len(missing)} tensors are missing from the weights and would be random",
            where=f"{where}: {', '.join(missing[:3])}",
            expected=f"all tensors of {type(model).__name__}",
            fix="copy the whole model, or correct 'architectures' in config.json",
        )
    return model


def tokenizer(name: str | Path, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load only the tokenizer of a model, to count tokens without its weights."""
    return _tokenizer(find_model(name), revision, trust=False)


def _tokenizer(where: str, revision: str | None, trust: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"the tokenizer cannot be loaded: {_first_line(error)}",
            where=where,
            expected="tokenizer.json beside the model",
            fix="save the tokenizer into the model's folder",
        ) from None


def _context(
    model: Any, tokenizer: PreTrainedTokenizerBase, own: int | None, wished: int | None
) -> int:
    limits = [getattr(model.config, "max_position_embeddings", None), own, wished]
    if tokenizer.model_max_length < UNBOUNDED:
        limits.append(tokenizer.model_max_length)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - reserved)
    known = [limit for limit in limits if limit]
    if wished is not None and wished < 1:
        raise UsageError(
            "the context must hold at least one token", where=f"max_length {wished}", expected="1 or more"
        )
    return min(known) if known else 512


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"the device cannot be used: {_first_line(error)}",
            where=f"device '{name}'",
            expected="auto, cpu, cuda, cuda:N or mps",
            fix="use --device auto",
        ) from None
    return device


def _dtype(name: Dtype, device: torch.device) -> torch.dtype:
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


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].removesuffix(".") or type(error).__name__


def quiet_libraries() -> None:
    """Keep other libraries' banners and progress bars off the terminal; their errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
