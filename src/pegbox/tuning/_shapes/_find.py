from __future__ import annotations

from pegbox.errors import UsageError
from pegbox.tasks import Choose, Classify, Generate, Prefer, Tag, Task
from pegbox.tuning._shapes._shape import Shape
from pegbox.tuning._shapes.choose import ChooseShape
from pegbox.tuning._shapes.classify import ClassifyShape
from pegbox.tuning._shapes.generate import GenerateShape
from pegbox.tuning._shapes.prefer import PreferShape
from pegbox.tuning._shapes.tag import TagShape

_SHAPES: dict[type, Shape] = {
    Classify: ClassifyShape(),
    Choose: ChooseShape(),
    Tag: TagShape(),
    Generate: GenerateShape(),
    Prefer: PreferShape(),
}


def shape_of(task: Task) -> Shape:
    """The shape of a task.

    Raises:
        UsageError: When it is none that can be tuned.
    """
    if type(task) not in _SHAPES:
        raise UsageError(
            f"a {type(task).__name__} is no task",
            expected=" or ".join(f"pegbox.{kind.__name__}" for kind in _SHAPES),
            fix="make one with from_file",
        )
    return _SHAPES[type(task)]
