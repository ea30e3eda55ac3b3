"""Tasks: rows to prompts and gold answers."""

from pegbox.tasks._classify import Classify, Demonstration, align_words
from pegbox.tasks._demonstrations import (
    demonstration,
    most_similar,
    nearest_rows,
    random_per_class,
    text_keys,
)
from pegbox.tasks._encoded import Encoded
from pegbox.tasks._prepare import prepare
from pegbox.tasks._prompt import Kind, Prompt, TooLong
from pegbox.tasks._soft import Soft
from pegbox.tasks._template import MARK, Template

__all__ = [
    "MARK",
    "Classify",
    "Demonstration",
    "Encoded",
    "Kind",
    "Prompt",
    "Soft",
    "Template",
    "TooLong",
    "align_words",
    "demonstration",
    "most_similar",
    "nearest_rows",
    "prepare",
    "random_per_class",
    "text_keys",
]
