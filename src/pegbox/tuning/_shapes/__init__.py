"""One module per kind of task: all that fit and Tuned do differently for it."""

from pegbox.tuning._shapes._find import shape_of
from pegbox.tuning._shapes._predictions import Prediction
from pegbox.tuning._shapes._shape import Shape, Work
from pegbox.tuning._shapes.choose import Choice, option_names
from pegbox.tuning._shapes.generate import Written
from pegbox.tuning._shapes.prefer import (
    Preferred,
    Rewarded,
    reward_scale,
    reward_scores,
    scaled_on_training_rows,
    with_reward_scale,
)
from pegbox.tuning._shapes.tag import Entity, Tagged

__all__ = [
    "Choice",
    "Entity",
    "Prediction",
    "Preferred",
    "Rewarded",
    "Shape",
    "Tagged",
    "Work",
    "Written",
    "option_names",
    "reward_scale",
    "reward_scores",
    "scaled_on_training_rows",
    "shape_of",
    "with_reward_scale",
]
