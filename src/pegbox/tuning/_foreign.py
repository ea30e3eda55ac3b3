from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pegbox.errors import CapabilityError, InputError
from pegbox.methods import Method, build, check_adapter, load_adapter
from pegbox.models import Base, FeatureCache, pinned
from pegbox.models import load as load_base
from pegbox.tasks import Classify, TooLong
from pegbox.training import tell
from pegbox.tuning._foreign_head import adapter_folder, own_form
from pegbox.tuning._once import Once
from pegbox.tuning._readout import as_read, read_by
from pegbox.tuning._tuned import Cost, Tuned


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
        _check_head(found, check_adapter(place), folder)
        prompt = found.prepare(task.with_rows(None))
        for note in prompt.notes:
            say(note)
        module = load_adapter(found, len(task.labels), place)
    parameters = sum(value.numel() for name, value in module.named_parameters() if _tuned(name))
    return Tuned(
        base=found,
        prompt=prompt,
        method=_method(config),
        module=module,
        posterior=None,
        details={"made_by": "an adapter from elsewhere"},
        cost=Cost(0.0, parameters, 0),
        cache=cache,
        too_long=too_long,
        say=Once.of(say),
    )


def _tuned(name: str) -> bool:
    return "lora_" in name or "modules_to_save" in name


def _check_head(base: Base, config: dict[str, Any], folder: Path) -> None:
    if base.kind == "encoder" and "score" not in (config.get("modules_to_save") or ()):
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


def _method(config: dict[str, Any]) -> Method:
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
        },
    )
