"""The training engine: one for every method that needs gradients, knowing neither method nor task."""

from pegbox.training._clock import clock
from pegbox.training._history import History
from pegbox.training._peaks import earlier_peak
from pegbox.training._precision import resolve_precision
from pegbox.training._replay import Replay, Replayable, replayed_indices
from pegbox.training._settings import Settings
from pegbox.training._told import hush, is_progress, resume_hint, resumed_by
from pegbox.training._trackers import trackers
from pegbox.training._train import check_no_unfinished, recover, tell, train
from pegbox.training._trainable import WEIGHTS, Trainable

__all__ = [
    "WEIGHTS",
    "History",
    "Replay",
    "Replayable",
    "Settings",
    "Trainable",
    "check_no_unfinished",
    "clock",
    "earlier_peak",
    "hush",
    "is_progress",
    "recover",
    "replayed_indices",
    "resolve_precision",
    "resume_hint",
    "resumed_by",
    "tell",
    "trackers",
    "train",
]
