"""The training engine: one for every method that needs gradients, knowing neither method nor task."""

from pegbox.training._history import History
from pegbox.training._settings import Settings
from pegbox.training._train import tell, train
from pegbox.training._trainable import Trainable

__all__ = ["History", "Settings", "Trainable", "tell", "train"]
