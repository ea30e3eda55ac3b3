"""One module per kind of task: all that fit and Tuned do differently for it."""

from pegbox.tuning._shapes._find import shape_of
from pegbox.tuning._shapes._predictions import Prediction
from pegbox.tuning._shapes._shape import Shape, Work

__all__ = ["Prediction", "Shape", "Work", "shape_of"]
