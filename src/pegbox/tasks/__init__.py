"""Tasks: rows to prompts and gold answers."""

from pegbox.tasks._classify import Classify, Demonstration, align_words
from pegbox.tasks._demonstrations import demonstration, most_similar, random_per_class
from pegbox.tasks._prompt import Encoded, Kind, Prompt, TooLong, prepare
from pegbox.tasks._template import Template

__all__ = [
    "Classify",
    "Demonstration",
    "Encoded",
    "Kind",
    "Prompt",
    "Template",
    "TooLong",
    "align_words",
    "demonstration",
    "most_similar",
    "prepare",
    "random_per_class",
]
