import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pegbox.data._cells import style_of, texts_or_messages, texty
from pegbox.data._columns import require_columns
from pegbox.data._table import Table
from pegbox.data._user_template import json_list
from pegbox.errors import InputError, UsageError, nearest

PreferenceFormat = Literal["prompt", "messages", "dialogue", "text"]
Dialogue = Literal["none", "human-assistant"]
PREFERENCE_LOOKS: dict[str, str] = {
    "prompt": "prompt, chosen and rejected as texts (the prompt perhaps a list of messages)",
    "messages": "chosen and rejected as lists of messages, whole conversations or what follows the prompt",
    "dialogue": "chosen and rejected as dialogues of 'Human: ...' and 'Assistant: ...' that begin alike",
    "text": "chosen and rejected as texts that begin alike",
}
PROMPT_NAMES = ("prompt", "question", "instruction", "query", "input", "conversations", "conversation")
RANKED = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("preferred", "dispreferred"),
    ("better", "worse"),
)
UNRANKED = (
    ("first", "second"),
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("response_1", "response_2"),
    ("answer_1", "answer_2"),
    ("response_0", "response_1"),
)
_SYSTEMS = ("system", "system_prompt")
HUMAN = re.compile(r"\A\s*Human:")
ASSISTANT = re.compile(r"\n\nAssistant:")


@dataclass(frozen=True)
class PreferenceColumns:
    """Which columns mean what.

    Args:
        format: How the rows are written: ``prompt``, ``messages``, ``dialogue`` or ``text``.
        columns: Part to column name: ``chosen``, ``rejected``, and where there is one ``prompt``, ``system``.
        dialogue: ``human-assistant`` to read prompts of ``Human: ...`` and ``Assistant: ...`` as turns;
            ``none`` to read each as one message of the user.
        note: The line to print.
    """

    format: PreferenceFormat
    columns: dict[str, str]
    dialogue: Dialogue = "none"
    note: str = ""


def is_ranked(names: Collection[str]) -> bool:
    """Whether there are a column of chosen and one of rejected answers."""
    return _pair({name.lower(): name for name in names}, RANKED[:2]) is not None


def find_preference_columns(
    table: Table, *, texts: Sequence[str] = (), dialogue: Dialogue = "none", ranked: bool = True
) -> PreferenceColumns:
    """Decide how pairs of answers are written: as given, else guessed from names and contents.

    Args:
        table: The table as read.
        texts: Columns of prompt, better and worse answer, or of the two answers alone.
        dialogue: Whether prompts of ``Human: ...`` and ``Assistant: ...`` are read as turns.
        ranked: Whether it must be known which answer is better; else pairs such as first and second are
            found too.

    Raises:
        InputError: A named column is not there, or none can be found.
        UsageError: For another number of columns, one twice, or another way of reading dialogues.
    """
    texts = (texts,) if isinstance(texts, str) else tuple(texts)
    _check_given(table, texts, dialogue)
    known = {name.lower(): name for name in reversed(table.names)}
    pair = texts[-2:] if texts else _pair(known, RANKED if ranked else (*RANKED, *UNRANKED))
    if pair is None:
        raise InputError(
            "No columns of two answers to a prompt can be found",
            where=table.source,
            expected=f"{'; '.join(PREFERENCE_LOOKS.values())}; the columns are: {', '.join(table.names)}",
            fix="name them with --text prompt,chosen,rejected",
        )
    prompt = texts[0] if len(texts) == 3 else None if texts else _prompt(table, known, pair)
    parts = {} if prompt is None else {"prompt": prompt}
    parts |= {"chosen": pair[0], "rejected": pair[1]}
    format = _format(table, parts, whole=len(texts) != 3)
    if format == "messages" and _whole(table.columns[pair[0]]) and len(texts) != 3:
        parts.pop("prompt", None)
    system = next((known[name] for name in _SYSTEMS if name in known), None)
    if system and not texts and texty(table.columns[system]):
        parts["system"] = system
    return PreferenceColumns(format, parts, dialogue, _note(table, format, parts, guessed=not texts))


def looks_like_dialogues(cells: Sequence[object]) -> bool:
    """Whether most texts are written as ``Human: ...`` and ``Assistant: ...``."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    marked = sum(bool(HUMAN.search(text) and ASSISTANT.search(text)) for text in texts)
    return marked > 0 and 2 * sum(bool(HUMAN.search(text)) for text in texts) > len(texts)


def _check_given(table: Table, texts: tuple[str, ...], dialogue: str) -> None:
    if dialogue not in get_args(Dialogue):
        raise UsageError(
            f"there is no way {dialogue!r} to read dialogues",
            where="--dialogue",
            expected=", ".join(get_args(Dialogue)),
            fix=nearest(dialogue, get_args(Dialogue)) or "leave it out to read each prompt as one message",
        )
    require_columns(table, texts)
    if texts and (len(texts) not in (2, 3) or len(set(texts)) < len(texts)):
        raise UsageError(
            f"columns of preferences cannot be {', '.join(map(repr, texts))}",
            where=table.source,
            expected="different columns: prompt, chosen and rejected, or the last two alone",
            fix="write --text prompt,chosen,rejected",
        )


def _pair(known: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    found = (pair for pair in pairs if all(name in known for name in pair))
    return next(((known[one], known[other]) for one, other in found), None)


def _prompt(table: Table, known: Mapping[str, str], taken: Sequence[str]) -> str | None:
    names = [known[name] for name in PROMPT_NAMES if name in known and known[name] not in taken]
    fits = (name for name in names if texts_or_messages(table.columns[name]) or style_of(table.columns[name]))
    return next(fits, None)


def _format(table: Table, parts: Mapping[str, str], *, whole: bool) -> PreferenceFormat:
    cells = table.columns[parts["chosen"]]
    if style_of(cells) or any(isinstance(cell, list | tuple | Mapping) for cell in cells):
        return "messages"
    if "prompt" in parts:
        return "prompt"
    return "dialogue" if whole and looks_like_dialogues(cells) else "text"


def _whole(cells: Sequence[object]) -> bool:
    """Whether lists of messages are whole conversations, which do not begin with the assistant."""
    listed = (json_list(cell) if isinstance(cell, str) else cell for cell in cells)
    first = (cell[0] for cell in listed if isinstance(cell, list | tuple) and cell)
    roles = [item.get("role", item.get("from")) for item in first if isinstance(item, Mapping)]
    return any(role in ("user", "human", "system") for role in roles)


def _note(table: Table, format: str, parts: Mapping[str, str], *, guessed: bool) -> str:
    shown = ", ".join(f"{part} {name!r}" for part, name in parts.items())
    how = "guessed; override with --text" if guessed else "as given"
    unused = [name for name in table.names if name not in parts.values()]
    left = f"; not used: {', '.join(unused)}" if unused else ""
    return f"preferences, format {format}: {shown} ({how}){left}"
