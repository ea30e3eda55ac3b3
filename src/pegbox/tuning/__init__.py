"""Tuning: fit a method on rows, and the tuned model that comes out of it."""

from pegbox.tuning._demonstrate import Demonstrate
from pegbox.tuning._fit import Training, fit
from pegbox.tuning._label_words import Candidate, LabelWords, search_label_words
from pegbox.tuning._saving import adapter_bytes
from pegbox.tuning._shapes import Prediction
from pegbox.tuning._tuned import Cost, Tuned, base_alone

__all__ = [
    "Candidate",
    "Cost",
    "Demonstrate",
    "LabelWords",
    "Prediction",
    "Training",
    "Tuned",
    "adapter_bytes",
    "base_alone",
    "fit",
    "search_label_words",
]
