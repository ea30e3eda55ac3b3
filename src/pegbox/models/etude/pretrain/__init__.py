"""Pretraining of etude: ``python -m pegbox.models.etude.pretrain --kind causal --out DIR``."""

from pegbox.models.etude.pretrain._corpus import Corpus
from pegbox.models.etude.pretrain._loop import Plan, pretrain
from pegbox.models.etude.pretrain._models import KINDS, build_model
from pegbox.models.etude.pretrain._score import Measured, measure
from pegbox.models.etude.pretrain._tokenizer import build_tokenizer

__all__ = [
    "KINDS",
    "Corpus",
    "Measured",
    "Plan",
    "build_model",
    "build_tokenizer",
    "measure",
    "pretrain",
]
