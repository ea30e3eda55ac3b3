"""Tasks: rows to prompts and gold answers."""

from pegbox.tasks._choose import Choose
from pegbox.tasks._choose_prompt import ChoosePrompt, OptionPairs, OptionRows
from pegbox.tasks._classify import Classify, Demonstration, align_words
from pegbox.tasks._decoding import Decoding
from pegbox.tasks._demonstrations import (
    demonstration,
    most_similar,
    nearest_rows,
    random_draws,
    random_others,
    random_per_class,
    text_keys,
)
from pegbox.tasks._encoded import Encoded
from pegbox.tasks._generate import TABLE, Chat, Generate
from pegbox.tasks._generate_prompt import GeneratePrompt
from pegbox.tasks._guess import TaskKind, guess_task, task_from_file
from pegbox.tasks._prefer import Prefer
from pegbox.tasks._prefer_prompt import AnswerIds, PreferPrompt, no_encoder_decoder
from pegbox.tasks._prepare import prepare
from pegbox.tasks._prompt import Kind, Prompt, TooLong
from pegbox.tasks._soft import Soft
from pegbox.tasks._spoken import Spoken
from pegbox.tasks._tag import Tag
from pegbox.tasks._task import Task, task_from_json
from pegbox.tasks._template import MARK, Template
from pegbox.tasks._tokens import edges
from pegbox.tasks._vocabulary import answer_word, first_words
from pegbox.tasks._windows import TagPrompt, Windows, word_pieces

__all__ = [
    "MARK",
    "TABLE",
    "AnswerIds",
    "Chat",
    "Choose",
    "ChoosePrompt",
    "Classify",
    "Decoding",
    "Demonstration",
    "Encoded",
    "Generate",
    "GeneratePrompt",
    "Kind",
    "OptionPairs",
    "OptionRows",
    "Prefer",
    "PreferPrompt",
    "Prompt",
    "Soft",
    "Spoken",
    "Tag",
    "TagPrompt",
    "Task",
    "TaskKind",
    "Template",
    "TooLong",
    "Windows",
    "align_words",
    "answer_word",
    "demonstration",
    "edges",
    "first_words",
    "guess_task",
    "most_similar",
    "nearest_rows",
    "no_encoder_decoder",
    "prepare",
    "random_draws",
    "random_others",
    "random_per_class",
    "task_from_file",
    "task_from_json",
    "text_keys",
    "word_pieces",
]
