"""Pegbox: tune a pretrained language model with the smallest turn that does the job, and prove it."""

from typing import TYPE_CHECKING

from pegbox import _peft_hook
from pegbox._lazy import lazy
from pegbox._version import __version__

if TYPE_CHECKING:
    from pegbox.comparison import Advice, Comparison, advise, compare
    from pegbox.evaluation import Scores
    from pegbox.methods import (
        IA3,
        Bottleneck,
        ClosedForm,
        FewShot,
        Full,
        Head,
        LoRA,
        Prefix,
        PTuning,
        QLoRA,
        SoftPrompt,
        ZeroInitAttention,
        ZeroShot,
    )
    from pegbox.models import Base, FeatureCache, load
    from pegbox.tasks import Choose, Classify, Decoding, Generate, Prefer, Tag
    from pegbox.tuning import (
        Demonstrate,
        Replay,
        Seeds,
        Training,
        Tuned,
        fit,
        fit_seeds,
        search_label_words,
    )

__all__ = [
    "IA3",
    "Advice",
    "Base",
    "Bottleneck",
    "Choose",
    "Classify",
    "ClosedForm",
    "Comparison",
    "Decoding",
    "Demonstrate",
    "FeatureCache",
    "FewShot",
    "Full",
    "Generate",
    "Head",
    "LoRA",
    "PTuning",
    "Prefer",
    "Prefix",
    "QLoRA",
    "Replay",
    "Scores",
    "Seeds",
    "SoftPrompt",
    "Tag",
    "Training",
    "Tuned",
    "ZeroInitAttention",
    "ZeroShot",
    "__version__",
    "advise",
    "compare",
    "fit",
    "fit_seeds",
    "load",
    "search_label_words",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Base": "pegbox.models",
        "Bottleneck": "pegbox.methods",
        "Choose": "pegbox.tasks",
        "Decoding": "pegbox.tasks",
        "Generate": "pegbox.tasks",
        "Classify": "pegbox.tasks",
        "ClosedForm": "pegbox.methods",
        "Advice": "pegbox.comparison",
        "Comparison": "pegbox.comparison",
        "Demonstrate": "pegbox.tuning",
        "FeatureCache": "pegbox.models",
        "FewShot": "pegbox.methods",
        "IA3": "pegbox.methods",
        "LoRA": "pegbox.methods",
        "QLoRA": "pegbox.methods",
        "Head": "pegbox.methods",
        "Full": "pegbox.methods",
        "Prefer": "pegbox.tasks",
        "Prefix": "pegbox.methods",
        "PTuning": "pegbox.methods",
        "Scores": "pegbox.evaluation",
        "Replay": "pegbox.tuning",
        "Seeds": "pegbox.tuning",
        "Tag": "pegbox.tasks",
        "Training": "pegbox.tuning",
        "SoftPrompt": "pegbox.methods",
        "Tuned": "pegbox.tuning",
        "ZeroInitAttention": "pegbox.methods",
        "ZeroShot": "pegbox.methods",
        "advise": "pegbox.comparison",
        "compare": "pegbox.comparison",
        "fit": "pegbox.tuning",
        "fit_seeds": "pegbox.tuning",
        "load": "pegbox.models",
        "search_label_words": "pegbox.tuning",
    },
    (
        "comparison",
        "data",
        "errors",
        "evaluation",
        "methods",
        "models",
        "reports",
        "rlhf",
        "tasks",
        "training",
        "tuning",
    ),
)

_peft_hook.install()
