import json
import zlib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

VOLATILE = frozenset(
    (
        *("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_commit_hash"),
        "quantization_config",
    )
)
CHUNK = 1 << 22


def fingerprint(model: nn.Module, files: Sequence[Path] = ()) -> str:
    """Tell base models apart: hash of the configuration and of a checksum of every tensor.

    Where the files came from does not count: a copy of a hub repository is the same base as the repository.

    Values are rounded to bfloat16 first, so that one checkpoint has one fingerprint whether it is loaded in
    float32 or bfloat16. Every value counts: a base that differs in a few rows only, such as one with merged
    label rows, must not be taken for the original. Configuration values that are the family's defaults are
    left out, so that a library that gains an option keeps the fingerprint.

    A base in 4 bits is another one than the same in more, and has the fingerprint of what was packed: how a
    number that lies between two codes is packed differs between a CPU and a GPU.

    Args:
        model: The model.
        files: Of a model in 4 bits, the safetensors files that it was packed from.
    """
    digest = sha256(json.dumps(_settings(model.config), sort_keys=True, default=str).encode())
    if files:
        return _of_files(digest, files)
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point() or tensor.dtype == torch.uint8:  # packed 4-bit weights
            digest.update(f"{name} {tuple(tensor.shape)} {_checksum(tensor)}\n".encode())
    return digest.hexdigest()[:32]


def _of_files(digest: Any, files: Sequence[Path]) -> str:
    from safetensors import safe_open

    digest.update(b"4 bits\n")
    for path in files:
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() or tensor.dtype == torch.uint8:
                    digest.update(f"{name} {tuple(tensor.shape)} {_checksum(tensor)}\n".encode())
    found: str = digest.hexdigest()[:32]
    return found


def _settings(config: Any) -> dict[str, Any]:
    """Configuration without what depends on how and where it was loaded, and without defaults."""
    try:
        default = type(config)().to_dict()
    except Exception:  # some families cannot be made without arguments
        default = {}
    whole = config.to_dict()
    kept = {key: value for key, value in whole.items() if key not in default or value != default[key]}
    return _stable({**kept, "model_type": whole.get("model_type")})


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _stable(item) for key, item in value.items() if key not in VOLATILE}
    return [_stable(item) for item in value] if isinstance(value, list | tuple) else value


def _checksum(tensor: Tensor) -> int:
    checksum = 0
    for part in tensor.detach().reshape(-1).split(CHUNK):
        part = part.to("cpu")
        bits = part if part.dtype == torch.uint8 else part.to(torch.bfloat16).contiguous().view(torch.int16)
        checksum = zlib.crc32(memoryview(bits.numpy()), checksum)
    return checksum
