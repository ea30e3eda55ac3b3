from collections.abc import Mapping
from typing import Any

from pegbox.errors import InputError
from pegbox.tasks._choose import Choose
from pegbox.tasks._classify import Classify
from pegbox.tasks._generate import Generate
from pegbox.tasks._prefer import Prefer
from pegbox.tasks._tag import Tag

Task = Classify | Tag | Choose | Generate | Prefer
_KINDS: dict[str, type[Classify] | type[Tag] | type[Choose] | type[Generate] | type[Prefer]] = {
    "classify": Classify,
    "tag": Tag,
    "choose": Choose,
    "generate": Generate,
    "prefer": Prefer,
}


def task_from_json(saved: Mapping[str, Any], where: str = "task.json") -> Task:
    """Read what the ``to_json`` of any task wrote.

    Raises:
        InputError: When the mapping is no task that this version knows.
    """
    name = saved.get("task")
    if name not in _KINDS:
        raise InputError(
            "this is no task that this version can read: "
            + ("it has no 'task'" if name is None else f"it is a {name!r} task"),
            where=where,
            expected=f"one of {', '.join(_KINDS)}",
            fix="save the model again with this version",
        )
    return _KINDS[name].from_json(saved, where=where)
