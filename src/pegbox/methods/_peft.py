from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pegbox.errors import CapabilityError, InputError
from pegbox.models import Base, check_safetensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Ways to begin LoRA that leave the base as it is; others (pissa, olora, loftq, ...) change its weights.
_HARMLESS_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")


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


def with_adapter(base: Base, module: nn.Module, config: Any, *, seed: int = 0) -> nn.Module:
    """Put a PEFT adapter on a module of the base; the global random generators stay as they are.

    Args:
        base: The base.
        module: What :meth:`pegbox.Base.module` made.
        config: A PEFT configuration.
        seed: Seed of the initial values.
    """
    from peft import get_peft_model

    config.revision = base.revision
    places = [base.device] if base.device.type == "cuda" else []
    with expected_warnings(), torch.random.fork_rng(places):
        torch.manual_seed(seed)
        peft = get_peft_model(module, config)
    # PEFT writes down where the files lie on this machine; the name is what others can load.
    config.base_model_name_or_path = base.name
    return peft


def save_adapter(module: Any, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``.

    What only helped to train is folded into what it makes first, in the module too; results stay the same.

    Raises:
        CapabilityError: When the module carries no PEFT adapter.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from safetensors.torch import save_file

    if not hasattr(module, "peft_config"):
        raise CapabilityError(
            f"a {type(module).__name__} without a PEFT adapter cannot be saved",
            expected="a method that attaches a PEFT adapter",
            fix="register the method with peft.utils.register_peft_method and attach it with get_peft_model",
        )
    for part in module.modules():
        if isinstance(part, BaseTunerLayer) and hasattr(part, "fold"):
            part.fold()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in _state(module).items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    config = copy.copy(module.peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(str(folder))


def load_adapter(base: Base, labels: int, folder: Path) -> nn.Module:
    """Put a saved PEFT adapter on the base.

    Its tensors are compared with those that its configuration asks for before any is read in, so that none
    can get lost, and none can overwrite a weight of the base.

    Raises:
        InputError: When the folder holds no adapter, or one that is damaged, not finite, or made for another
            model.
        CapabilityError: For an adapter that would change the base itself, or is of a kind that does not lie
            in its own folder alone.
    """
    from peft import PeftConfig, set_peft_model_state_dict
    from safetensors.torch import load_file

    _check_self_contained(check_adapter(folder), folder)
    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        name, revision = config.base_model_name_or_path, config.revision
        config.base_model_name_or_path = None  # or PEFT warns that the base lies elsewhere than for its maker
        peft: Any = with_adapter(base, base.module(labels), config)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise _misfit(base, folder, str(error).strip().splitlines()[0]) from None
    config.base_model_name_or_path, config.revision = name, revision
    state = _without_copies(load_file(folder / WEIGHTS), peft, folder)
    _check_tensors(base, folder, {n: tuple(t.shape) for n, t in _state(peft).items()}, state)
    with expected_warnings():
        set_peft_model_state_dict(peft, state)
    return peft.requires_grad_(False).to(base.device).eval()


def _without_copies(state: dict[str, Tensor], peft: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The adapter's own tensors: of a layer that embeds or reads tokens PEFT writes down the base's too.

    Raises:
        CapabilityError: When such a copy is not what the base has.
    """
    copies = [name for name in state if ".base_layer." in name]
    own = peft.state_dict() if copies else {}
    copies = [name for name in copies if name in own]
    for name in copies:
        value, copied = own[name].cpu(), state[name]
        if value.shape != copied.shape or not torch.equal(value, copied.to(value.dtype)):
            raise CapabilityError(
                f"the adapter brings a layer of the base that is not as the base has it: {name}",
                where=str(folder / WEIGHTS),
                expected="an adapter that leaves its base as it is",
                fix="name the base it was tuned on, or merge it with the library that made it, and load that",
            )
    return {name: value for name, value in state.items() if name not in copies}


def _check_self_contained(config: dict[str, Any], folder: Path) -> None:
    """Refuse what PEFT would load by changing tensors that the base shares, or by reading other files."""
    from peft import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind, start, bias = config["peft_type"], config.get("init_lora_weights"), config.get("bias") or "none"
    configs: dict[Any, Any] = PEFT_TYPE_TO_CONFIG_MAPPING
    known = configs.get(kind) if isinstance(kind, str) else None
    what, fix = "", "merge it into its base with the library that made it, and load that"
    if known is None:
        what, fix = f"the installed PEFT knows no adapter of the type {kind!r}", "update PEFT"
    elif kind == "XLORA" or issubclass(known, PromptLearningConfig):
        what = f"an adapter of the type {kind} takes tokens or other adapters from elsewhere"
    elif bias != "none":
        what = f"the adapter holds biases of the base itself (bias {bias!r}), which others share"
    elif start not in _HARMLESS_STARTS:
        what = f"the adapter belongs to a base that its own start changed (init_lora_weights {start!r})"
        fix = "save it with path_initial_model_for_weight_conversion, which makes it a plain LoRA"
    if what:
        raise CapabilityError(
            what, where=str(folder / CONFIG), expected="an adapter that leaves its base as it is", fix=fix
        )


def _state(module: Any) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    with expected_warnings():
        return get_peft_model_state_dict(module, save_embedding_layers=False)


def _check_tensors(
    base: Base, folder: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, Tensor]
) -> None:
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [f"{name} has no place" for name in found if name not in wanted]
    faults += [
        f"{name} is {tuple(found[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise _misfit(base, folder / WEIGHTS, faults[0] + more)


def _misfit(base: Base, where: Path, fault: str) -> InputError:
    return InputError(
        f"the adapter does not fit {base.name}: {fault}",
        where=str(where),
        expected="an adapter made for this base, and its own configuration beside it",
        fix="name the base it was tuned on with --model, or copy the whole folder again",
    )


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
        raise InputError(
            f"{CONFIG} is no JSON: {error}", where=str(path), fix="copy the adapter again"
        ) from None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise InputError(
            f"{CONFIG} names no peft_type",
            where=str(path),
            expected="the configuration of a PEFT adapter",
            fix="copy the adapter again",
        )
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
