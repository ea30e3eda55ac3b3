"""Pegbox: tune a pretrained language model with the smallest turn that does the job, and prove it."""

from typing import TYPE_CHECKING

from pegbox import _peft_hook
from pegbox._lazy import lazy
from pegbox._version import __version__

if TYPE_CHECKING:
    from pegbox.evaluation import Scores
    from pegbox.methods import (
        IA3,
        Bottleneck,
        ClosedForm,
        FewShot,
        LoRA,
        Prefix,
        PTuning,
        SoftPrompt,
        ZeroInitAttention,
        ZeroShot,
    )
    from pegbox.models import Base, FeatureCache, load
    from pegbox.tasks import Classify
    from pegbox.tuning import Training, Tuned, fit

__all__ = [
    "IA3",
    "Base",
    "Bottleneck",
    "Classify",
    "ClosedForm",
    "FeatureCache",
    "FewShot",
    "LoRA",
    "PTuning",
    "Prefix",
    "Scores",
    "SoftPrompt",
    "Training",
    "Tuned",
    "ZeroInitAttention",
    "ZeroShot",
    "__version__",
    "fit",
    "load",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Base": "pegbox.models",
        "Bottleneck": "pegbox.methods",
        "Classify": "pegbox.tasks",
        "ClosedForm": "pegbox.methods",
        "FeatureCache": "pegbox.models",
        "FewShot": "pegbox.methods",
        "IA3": "pegbox.methods",
        "LoRA": "pegbox.methods",
        "Prefix": "pegbox.methods",
        "PTuning": "pegbox.methods",
        "Scores": "pegbox.evaluation",
        "Training": "pegbox.tuning",
        "SoftPrompt": "pegbox.methods",
        "Tuned": "pegbox.tuning",
        "ZeroInitAttention": "pegbox.methods",
        "ZeroShot": "pegbox.methods",
        "fit": "pegbox.tuning",
        "load": "pegbox.models",
    },
    ("data", "errors", "evaluation", "methods", "models", "reports", "tasks", "training", "tuning"),
)

_peft_hook.install()
