from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pegbox.errors import InputError
from pegbox.models import Base, check_safetensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence what PEFT says about an adapter with a bias on a tied output layer, and its own deprecations.

    A tied or bias-free output layer matters only to merging, and the closed form is never merged; PEFT takes
    the bias of LoRA-B for a shard of a matrix.
    """
    with warnings.catch_warnings():
        for message in ("tie_word_embeddings", "tied", "lora_bias=True", "invalid shape.*lora_B.bias"):
            warnings.filterwarnings("ignore", message=f"(?s).*{message}.*")
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing.*")
        yield


def wrap(base: Base, module: nn.Module, config: Any) -> nn.Module:
    """Put a PEFT adapter on a module of the base."""
    from peft import get_peft_model

    config.revision = base.revision
    with expected_warnings():
        peft = get_peft_model(module, config)
    # PEFT writes down where the files lie on this machine; the name is what others can load.
    config.base_model_name_or_path = base.name
    return peft


def save_adapter(module: Any, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    with expected_warnings():
        state = get_peft_model_state_dict(module, save_embedding_layers=False)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    config = module.peft_config["default"]
    was, config.inference_mode = config.inference_mode, True
    config.save_pretrained(str(folder))
    config.inference_mode = was


def load_adapter(base: Base, labels: int, folder: Path) -> nn.Module:
    """Put a saved PEFT adapter on the base.

    Raises:
        InputError: When the folder holds no adapter, or one that is damaged, not finite, or made for another model.
    """
    from peft import PeftModel

    check_adapter(folder)
    module = base.module(labels)
    with expected_warnings():
        try:
            peft = PeftModel.from_pretrained(module, str(folder))
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(
                f"the adapter does not fit {base.name}: {str(error).strip().splitlines()[0]}",
                where=str(folder),
                expected="an adapter made for this base",
                fix="name the base it was tuned on with --model",
            ) from None
    return peft.to(base.device).eval()


def check_adapter(folder: Path) -> dict[str, Any]:
    """Return the adapter's configuration after checking that its files are whole and finite.

    Raises:
        InputError: When they are not.
    """
    from safetensors import safe_open

    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError:
        raise InputError(
            "this folder holds no adapter",
            where=str(folder),
            expected=f"{CONFIG} and {WEIGHTS}",
            fix="name the folder that pegbox fit or PEFT wrote",
        ) from None
    except ValueError as error:
        raise InputError(f"{CONFIG} is no JSON: {error}", where=str(path), fix="copy the adapter again") from None
    check_safetensors(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
            if not torch.isfinite(tensors.get_tensor(name)).all():
                raise InputError(
                    "the adapter holds a value that is not a finite number",
                    where=f"{folder / WEIGHTS}: {name}",
                    expected="finite weights",
                    fix="tune again, with a lower learning rate",
                )
    return config
