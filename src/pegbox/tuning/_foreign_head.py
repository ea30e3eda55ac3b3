"""Adapters from elsewhere that classify by a head: found on the hub, and put into this library's form."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pegbox.errors import CapabilityError, InputError
from pegbox.models import Base
from pegbox.tasks import Classify

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_BEFORE = "base_model.model."
_HEAD = _BEFORE + "score.weight"
_LAYER = re.compile(r"(.+?)\.lora_\w+")


def adapter_folder(name: str | Path) -> Path:
    """A folder as it is, or that of a hub id, of which the two files of an adapter alone are fetched.

    Raises:
        InputError: For a hub id that cannot be fetched.
    """
    place = Path(name).expanduser()
    if place.exists() or not isinstance(name, str) or not _HUB_ID.fullmatch(name):
        return place
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # the hub's client fails in many ways
        raise InputError(
            f"there is no such folder, and it cannot be fetched from the hub: {str(error).splitlines()[0]}",
            where=name,
            expected=f"a folder with {CONFIG} and {WEIGHTS}, or a hub id that can be reached",
            fix="check the name, or download the adapter where the network is and name its folder",
        ) from None


@contextmanager
def own_form(
    folder: Path, config: dict[str, Any], base: Base, task: Classify, say: Callable[[str], None]
) -> Iterator[tuple[Path, Base]]:
    """The folder and base as they are; of a sequence classifier, in the form that this library reads.

    Decoders that Transformers classifies sequences with read the hidden state of the last real token by one
    linear layer ``score`` without bias: a head on the trunk, as this library has it, with other names.

    Args:
        folder: The adapter's folder.
        config: Its configuration.
        base: Its base.
        task: What it answers; its labels in the order of the head's outputs.
        say: Receives lines for the user.

    Raises:
        CapabilityError: For a head of another kind.
    """
    if config.get("task_type") != "SEQ_CLS" or base.kind == "encoder":
        yield folder, base
        return
    from safetensors.torch import load_file, save_file

    state = load_file(folder / WEIGHTS)
    if base.kind != "causal" or _HEAD not in state:
        raise CapabilityError(
            "the adapter's head is not one linear layer on the last token",
            where=str(folder),
            expected="a decoder with the module 'score', as AutoModelForSequenceClassification makes it",
            fix="tune the base with pegbox fit --method lora --readout head",
        )
    if len(state[_HEAD]) != len(task.labels):
        raise InputError(
            f"the adapter's head has {len(state[_HEAD])} outputs, and the task {len(task.labels)} labels",
            where=str(folder),
            expected="as many labels, in the order of the outputs",
            fix="give the task the labels that the adapter was tuned to tell apart",
        )
    say(f"the head's outputs are taken for {', '.join(task.labels)}, in this order")
    trunk: Any = base.model
    renamed = _renamed(config, list(state), trunk.base_model_prefix)
    old, new = f"{_BEFORE}{trunk.base_model_prefix}.", f"{_BEFORE}encoder."
    state = {
        name.replace(old, new, 1) if name.startswith(old) else name: value for name, value in state.items()
    }
    state.setdefault(_BEFORE + "score.bias", torch.zeros(len(state[_HEAD])))
    with tempfile.TemporaryDirectory(prefix="pegbox-adapter-") as place:
        (Path(place) / CONFIG).write_text(json.dumps(renamed), "utf-8")
        save_file(state, Path(place) / WEIGHTS)
        yield Path(place), base.headed("last")


def _renamed(config: dict[str, Any], names: list[str], prefix: str) -> dict[str, Any]:
    """The configuration of the same adapter on a trunk that is called ``encoder``.

    Which layers it has, of which rank and scale, may be told by endings, whole paths and patterns; here each
    layer that has tensors is told by its whole path.

    Args:
        config: The adapter's configuration.
        names: Its tensors.
        prefix: What Transformers calls the trunk.
    """
    from peft.utils.other import get_pattern_key

    found = (_LAYER.match(name.removeprefix(_BEFORE)) for name in names)
    layers = sorted({match[1] for match in found if match})
    own = {layer: re.sub(rf"^{re.escape(prefix)}\.", "encoder.", layer) for layer in layers}
    renamed = {**config, "task_type": None, "exclude_modules": None}
    renamed |= {"layers_to_transform": None, "layers_pattern": None}
    if layers:
        renamed["target_modules"] = list(own.values())
    for kind in ("rank_pattern", "alpha_pattern"):
        patterns: Any = config.get(kind) or {}
        keys = {layer: get_pattern_key(patterns, layer) for layer in layers}
        renamed[kind] = {
            f"^{re.escape(own[layer])}": patterns[key] for layer, key in keys.items() if key in patterns
        }
    # PEFT lists each name that a head has in some model.
    others = [name for name in config.get("modules_to_save") or () if name not in ("score", "classifier")]
    saved = [name.removeprefix(f"{prefix}.") for name in others]
    return {**renamed, "modules_to_save": [*saved, "score"]}
