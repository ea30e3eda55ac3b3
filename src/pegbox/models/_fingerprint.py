import json
from hashlib import sha256
from typing import Any

import torch
from torch import nn

VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_commit_hash")
SAMPLE = 64


def fingerprint(model: nn.Module, revision: str | None = None) -> str:
    """Tell base models apart: hash of the configuration, of a sample of every tensor, and the revision.

    Sampled values are rounded to bfloat16 first, so that one checkpoint has one fingerprint whether it is loaded
    in float32 or bfloat16.
    """
    config: dict[str, Any] = model.config.to_dict()  # type: ignore[union-attr, operator]
    stable = {key: value for key, value in config.items() if key not in VOLATILE}
    digest = sha256(json.dumps(stable, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // SAMPLE)
        sample = flat[::step][:SAMPLE].to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(name.encode() + repr(tuple(tensor.shape)).encode() + sample.numpy().tobytes())
    digest.update((revision or "").encode())
    return digest.hexdigest()[:32]
