from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pegbox.errors import CapabilityError, InputError, PegboxError
from pegbox.methods import Method, build, check_adapter, load_adapter
from pegbox.models import Base, FeatureCache, pinned
from pegbox.models import load as load_base
from pegbox.tasks import Classify, TooLong
from pegbox.training import tell
from pegbox.tuning._foreign_head import WEIGHTS, adapter_folder, own_form
from pegbox.tuning._once import Once
from pegbox.tuning._readout import as_read, read_by
from pegbox.tuning._tuned import Cost, Tuned

_PECULIAR = (
    "use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "exclude_modules", "trainable_token_indices"
)  # fmt: skip


def adopt(
    folder: str | Path,
    *,
    task: Classify,
    base: str | Path | Base | None = None,
    cache: FeatureCache | None = None,
    too_long: TooLong = "shorten",
    say: Callable[[str], None] = tell,
    **options: Any,
) -> Tuned:
    """Take an adapter that was made elsewhere; see :meth:`Tuned.from_adapter`."""
    folder = adapter_folder(folder)
    config = check_adapter(folder)
    if config["peft_type"] != "LORA":
        raise CapabilityError(
            f"the adapter is of the type {config['peft_type']}",
            where=str(folder),
            expected="a LORA adapter",
            fix="merge it into its base with the library that made it, and load that",
        )
    found = base if isinstance(base, Base) else _base(base, config, folder, options)
    if config.get("task_type") == "SEQ_CLS":
        task = read_by(task, "head")  # type: ignore[assignment]
    with own_form(folder, config, found, task, say) as (place, whole):
        found = as_read(whole, task)
        _check_head(found, place, folder)
        prompt = found.prepare(task.with_rows(None))
        for note in prompt.notes:
            say(note)
        try:
            module = load_adapter(found, len(task.labels), place)
        except PegboxError as error:
            error.where = error.where.replace(str(place), str(folder))
            raise
    parameters = sum(value.numel() for name, value in module.named_parameters() if _tuned(name))
    return Tuned(
        base=found,
        prompt=prompt,
        method=_method(config, found),
        module=module,
        posterior=None,
        details={"made_by": "an adapter from elsewhere", "of_its_own": _of_its_own(config, found)},
        cost=Cost(0.0, parameters, 0),
        cache=cache,
        too_long=too_long,
        say=Once.of(say),
    )


def _tuned(name: str) -> bool:
    return "lora_" in name or "modules_to_save" in name


def _check_head(base: Base, place: Path, folder: Path) -> None:
    """PEFT lists modules that a head may be called; whether one was saved its tensors tell."""
    from safetensors import safe_open

    if base.kind != "encoder":
        return
    with safe_open(place / WEIGHTS, "pt") as tensors:
        saved = any("score" in name.split(".") for name in tensors.keys())  # noqa: SIM118 - no mapping
    if not saved:
        raise CapabilityError(
            "the adapter brings no head, and an encoder has none of its own",
            where=str(folder),
            expected="an adapter that saved the module 'score' of pegbox.models.PooledClassifier",
            fix="tune the encoder with closed-form or lora",
        )


def _base(name: str | Path | None, config: dict[str, Any], folder: Path, options: dict[str, Any]) -> Base:
    if name is None:
        name = config.get("base_model_name_or_path")
        if name and "revision" not in options:
            options["revision"] = pinned(name, config.get("revision"))
    if not name:
        raise InputError(
            "the adapter does not name its base",
            where=str(folder),
            expected="a hub id, folder or base",
            fix="pass base=",
        )
    return load_base(name, **options)


def _layers(config: dict[str, Any], base: Base) -> int | None:
    """How many layers from the top have an adapter; none for all, and for any others."""
    chosen = config.get("layers_to_transform")
    chosen = [chosen] if isinstance(chosen, int) else chosen
    model: Any = base.model
    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    if not chosen or sorted(chosen) != list(range(count - len(chosen), count)):
        return None
    return len(chosen)


def _of_its_own(config: dict[str, Any], base: Base) -> list[str]:
    """What the adapter has and no method here makes again, by PEFT's names."""
    from peft.utils.constants import DUMMY_TARGET_MODULES

    found = [name for name in _PECULIAR if config.get(name)]
    targets = config.get("target_modules")
    if isinstance(targets, str) and targets != DUMMY_TARGET_MODULES:
        found.append("target_modules by a pattern")
    if config.get("layers_to_transform") not in (None, []) and _layers(config, base) is None:
        found.append("layers_to_transform")
    others = set(config.get("modules_to_save") or ()) - {"score", "classifier"}
    return [*found, "modules_to_save"] if others else found


def _method(config: dict[str, Any], base: Base) -> Method:
    from peft.utils.constants import DUMMY_TARGET_MODULES

    targets = config.get("target_modules") or ()
    if targets == DUMMY_TARGET_MODULES:
        return build("head")
    listed = targets if isinstance(targets, str) else ",".join(sorted(targets))
    return build(
        "lora",
        {
            "rank": config["r"],
            "alpha": config["lora_alpha"],
            "dropout": config.get("lora_dropout", 0.0),
            "targets": listed or "all-linear",
            "rank_stabilised": bool(config.get("use_rslora", False)),
            "layers": _layers(config, base),
        },
    )
