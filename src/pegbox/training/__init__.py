"""The training engine: one for every method that needs gradients, knowing neither method nor task."""

from typing import TYPE_CHECKING

from pegbox._lazy import lazy
from pegbox.training._clock import clock
from pegbox.training._history import History
from pegbox.training._peaks import earlier_peak
from pegbox.training._precision import resolve_precision
from pegbox.training._replay import Replay, Replayable, replayed_indices
from pegbox.training._settings import Settings
from pegbox.training._told import hush, interruption, is_progress, resume_hint, resumed_by
from pegbox.training._trackers import trackers
from pegbox.training._train import check_no_unfinished, recover, tell, train
from pegbox.training._trainable import WEIGHTS, Trainable

if TYPE_CHECKING:
    from pegbox.training._attention import quick_attention
    from pegbox.training._batches import Buckets, descending
    from pegbox.training._checkpoints import Checkpoints, check_same
    from pegbox.training._moments import flat_moments, load_moments
    from pegbox.training._optimizer import adamw
    from pegbox.training._run import gradient_checkpointing

__all__ = [
    "WEIGHTS",
    "Buckets",
    "Checkpoints",
    "History",
    "Replay",
    "Replayable",
    "Settings",
    "Trainable",
    "adamw",
    "check_no_unfinished",
    "check_same",
    "clock",
    "descending",
    "earlier_peak",
    "flat_moments",
    "gradient_checkpointing",
    "hush",
    "interruption",
    "is_progress",
    "load_moments",
    "quick_attention",
    "recover",
    "replayed_indices",
    "resolve_precision",
    "resume_hint",
    "resumed_by",
    "tell",
    "trackers",
    "train",
]

# The command line reads this room before it knows whether there is any work: what needs torch waits.
__getattr__, _ = lazy(
    __name__,
    {
        "Buckets": "pegbox.training._batches",
        "Checkpoints": "pegbox.training._checkpoints",
        "adamw": "pegbox.training._optimizer",
        "check_same": "pegbox.training._checkpoints",
        "descending": "pegbox.training._batches",
        "flat_moments": "pegbox.training._moments",
        "gradient_checkpointing": "pegbox.training._run",
        "load_moments": "pegbox.training._moments",
        "quick_attention": "pegbox.training._attention",
    },
)
