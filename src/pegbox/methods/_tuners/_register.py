from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig, PeftType
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method


@dataclass
class AdapterConfig(PeftConfig):
    """What PEFT's injection reads from every configuration.

    Args:
        target_modules: Exact names of the modules that carry the adapter.
        exclude_modules: Names of modules that do not.
        target_parameters: Unused; PEFT looks for it.
        modules_to_save: Modules that are trained and saved whole beside the adapter.
    """

    target_modules: list[str] | str | None = field(default=None)
    exclude_modules: list[str] | str | None = field(default=None)
    target_parameters: list[str] | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)


def peft_type(name: str) -> PeftType:
    """Return the member of PEFT's enumeration with this name, added where it lacks one.

    PEFT registers methods publicly but by a closed enumeration; this is the only place that opens it.

    Args:
        name: In capitals.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member: Any = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    enumeration: Any = PeftType
    member._sort_order_ = len(enumeration._member_names_)
    enumeration._member_names_.append(name)
    enumeration._member_map_[name] = member
    enumeration._value2member_map_[name] = member
    type.__setattr__(PeftType, name, member)
    return member


def register_adapter(name: str, config: type[PeftConfig], model: type[BaseTuner]) -> None:
    """Make an adapter kind known to PEFT, once.

    Args:
        name: In lower case; the ``peft_type`` in a saved configuration is the same in capitals.
        config: Its configuration.
        model: Its tuner; ``model.prefix`` begins the names of its parameters and must be unique.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if peft_type(name.upper()) not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=name, config_cls=config, model_cls=model, prefix=model.prefix)
