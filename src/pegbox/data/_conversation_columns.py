from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pegbox.data._cells import answers, style_of, texts_or_messages, texty
from pegbox.data._columns import require_columns
from pegbox.data._table import Table
from pegbox.data._user_template import UserTemplate
from pegbox.errors import InputError, UsageError, nearest

Format = Literal["instruction", "prompt", "messages", "sharegpt", "input", "text"]
FORMATS: tuple[Format, ...] = get_args(Format)
LOOKS: dict[str, str] = {
    "instruction": "instruction (and input) with output or response",
    "prompt": "prompt with completion or response",
    "messages": 'messages, lists of {"role": ..., "content": ...}',
    "sharegpt": 'conversations, lists of {"from": ..., "value": ...}',
    "input": "pairs such as input and target, question and answer, message and reply, document and summary",
    "text": "text alone",
}
ANSWER_NAMES = (
    "output", "outputs", "target", "targets", "reference", "references", "response", "completion", "answer",
    "answers", "sql", "summary", "highlights", "human_reference", "ref", "translation",
)  # fmt: skip
MANY_NAMES = ("outputs", "targets", "references", "answers", "texts")
_PAIRS = {
    "input": ("target", "targets", "reference", "references", "output", "outputs"),
    "source": ("target", "targets", "reference", "references"),
    "question": ("answer", "answers", "sql", "query", "response"),
    "message": ("reply", "response", "answer"),
    "query": ("sql", "answer", "response"),
    "text": ("summary",),
    "document": ("summary",),
    "article": ("summary", "highlights"),
    "dialogue": ("summary",),
    "record": ("text", "texts"),
    "meaning_representation": ("human_reference",),
    "mr": ("ref",),
}
_CHATS = ("messages", "conversations", "conversation", "chat")
_SYSTEMS = ("system", "system_prompt")


@dataclass(frozen=True)
class ConversationColumns:
    """Which columns mean what.

    Args:
        format: How the rows are written: ``instruction``, ``prompt``, ``messages``, ``sharegpt``, ``input``
            or ``text``.
        columns: Part to column name: ``instruction``, ``input``, ``prompt``, ``messages``, ``conversations``,
            ``text``, ``system``; further columns of an input are ``input2``, ``input3``, ...; the answer is
            ``output`` in every format that has a column of its own for it.
        template: How the user's message is made of the columns of the input; ``None`` for their own texts.
        note: The line to print.
    """

    format: Format
    columns: dict[str, str]
    template: str | None = None
    note: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that the prompt is made of, in order."""
        return tuple(name for part, name in self.columns.items() if part not in ("output", "system"))


@dataclass(frozen=True)
class _Given:
    """What was asked for; ``forced`` when the format was, so that contents need not speak for it."""

    table: Table
    texts: tuple[str, ...]
    label: str | None
    need_answers: bool
    forced: bool = False

    def column(
        self, names: Sequence[str], fits: Callable[[Sequence[object]], bool], taken: Collection[str] = ()
    ) -> str | None:
        """The first column with one of these names, whatever their case, whose cells fit; not the label's."""
        free = [name for name in reversed(self.table.names) if name not in taken and name != self.label]
        known = {name.lower(): name for name in free}
        found = [known[name] for name in names if name in known]
        return next((name for name in found if fits(self.table.columns[name])), None)

    def with_output(self, parts: dict[str, str], names: Sequence[str]) -> dict[str, str] | None:
        """The parts with the column of answers; ``None`` when there must be one and is not."""
        output = self.label or self.column(names, answers, parts.values())
        if output is None:
            return None if self.need_answers else parts
        return {**parts, "output": output}

    def with_system(
        self, parts: dict[str, str] | None, names: Sequence[str] = _SYSTEMS
    ) -> dict[str, str] | None:
        """The parts with the column of system messages where there is one."""
        system = self.column(names, texty)
        return {**parts, "system": system} if parts and system else parts


def find_conversation_columns(
    table: Table,
    *,
    format: str | None = None,
    texts: Sequence[str] = (),
    label: str | None = None,
    template: str | None = None,
    need_answers: bool = True,
) -> ConversationColumns:
    """Decide how rows of prompts and answers are written: as given, else guessed from names and contents.

    Args:
        table: The table as read.
        format: One of ``instruction``, ``prompt``, ``messages``, ``sharegpt``, ``input`` and ``text``.
        texts: Columns of the prompt; with ``label`` they are an ``input`` with its target.
        label: Column of answers.
        template: How the user's message is made of columns, such as ``"Question: {question}"``.
        need_answers: Whether there must be answers.

    Raises:
        InputError: A named column is not there, none can be found, or the rows are preferences.
        UsageError: No such format, columns that it does not have, or a template with an answer.
    """
    texts = (texts,) if isinstance(texts, str) else tuple(texts)
    _check_given(table, format, texts, label, template)
    given = _Given(table, texts, label, need_answers, format is not None)
    if template is not None:
        return _templated(given, template)
    found: tuple[str, dict[str, str]] | None
    if format is not None:
        parts = _FINDERS[format](given)
        found = None if parts is None else (format, parts)
    elif texts:
        found = _of_texts(given)
    else:
        if label is None:
            _refuse_preferences(table)
        tried = ((name, find(given)) for name, find in _FINDERS.items())
        found = next(((name, parts) for name, parts in tried if parts), None) or _other_chat(given)
    if found is None:
        raise _none(given, format)
    return _decided(given, format, *found)


def _check_given(
    table: Table, format: str | None, texts: tuple[str, ...], label: str | None, template: str | None
) -> None:
    if format is not None and format not in FORMATS:
        raise UsageError(
            f"there is no format {format!r}", where="--rows-format", expected=", ".join(FORMATS),
            fix=nearest(format, FORMATS) or "leave it out to have it detected",
        )  # fmt: skip
    require_columns(table, [*texts, *([] if label is None else [label])])
    if len(set(texts)) < len(texts) or label in texts:
        raise UsageError(
            f"columns cannot be used twice: {', '.join(map(repr, [*texts, label]))}", where=table.source,
            expected="different columns of the prompt, and another of answers",
            fix="change --text or --label",
        )  # fmt: skip
    if template is not None and format not in (None, "input"):
        raise UsageError(
            f"rows of the format {format!r} have no template", where="--template",
            expected="the format input, whose message the template makes",
            fix="leave --rows-format or it out",
        )  # fmt: skip
    most = {"instruction": 2, "prompt": 1, "messages": 1, "sharegpt": 1, "text": 1}
    if format in most and len(texts) > most[format]:
        raise UsageError(
            f"rows of the format {format!r} have no {len(texts)} text columns",
            where=", ".join(texts), expected=LOOKS[format],
            fix="name fewer with --text, or --rows-format input",
        )  # fmt: skip
    if format in ("messages", "sharegpt", "text") and label is not None:
        raise UsageError(
            f"rows of the format {format!r} have no column of answers", where=f"--label {label}",
            expected=LOOKS[format], fix="leave --label out, or name another --rows-format",
        )  # fmt: skip


def _templated(given: _Given, text: str) -> ConversationColumns:
    template = UserTemplate(text)
    template.check(given.table)
    lost = [name for name in given.texts if name not in template.slots]
    if lost or given.label in template.slots:
        fault = f"does not show the text column {lost[0]!r}" if lost else f"shows the answer, {given.label!r}"
        raise UsageError(
            f"the template {fault}", where=repr(text), expected="a slot for each column of the prompt",
            fix="change the template, --text or --label",
        )  # fmt: skip
    parts = given.with_output(_numbered(template.slots), ANSWER_NAMES)
    if parts is None:
        raise _none(given, None)
    return _decided(given, "input", "input", parts, text)


def _of_texts(given: _Given) -> tuple[str, dict[str, str]] | None:
    """The format of named text columns: a target with them, one of conversations, or texts alone."""
    style = style_of(given.table.columns[given.texts[0]])
    if len(given.texts) == 1 and given.label is None and style is not None:
        return style, given.with_system({_PART[style]: given.texts[0]}) or {}
    parts = given.with_output(_numbered(given.texts), ANSWER_NAMES)
    if parts is None and len(given.texts) == 1:
        return "text", {"text": given.texts[0]}
    return None if parts is None else ("input", parts)


def _instruction(given: _Given) -> dict[str, str] | None:
    instruction = given.texts[0] if given.texts else given.column(("instruction",), texty)
    if instruction is None:
        return None
    parts = {"instruction": instruction}
    second = "".join(given.texts[1:]) if given.texts else given.column(("input", "context"), texty)
    if second:
        parts["input"] = second
    return given.with_system(given.with_output(parts, ("output", "response", "answer", "target")))


def _prompt(given: _Given) -> dict[str, str] | None:
    prompt = given.texts[0] if given.texts else given.column(("prompt",), texts_or_messages)
    if prompt is None:
        return None
    return given.with_system(given.with_output({"prompt": prompt}, ("completion", "response")))


def _chat(style: str) -> Callable[[_Given], dict[str, str] | None]:
    def find(given: _Given) -> dict[str, str] | None:
        if given.label is not None:
            return None

        def fits(cells: Sequence[object]) -> bool:
            return given.forced or style_of(cells) == style

        names = [_PART[style], *_CHATS]
        name = given.texts[0] if given.texts else given.column(names, fits)
        return None if name is None else given.with_system({_PART[style]: name})

    return find


def _input(given: _Given) -> dict[str, str] | None:
    if given.texts:
        return given.with_output(_numbered(given.texts), ANSWER_NAMES)
    for name, outputs in _PAIRS.items():
        column = given.column((name,), texty)
        parts = None if column is None else given.with_output({"input": column}, outputs)
        # A text alone is no prompt but a text.
        if parts and (name != "text" or "output" in parts):
            # Not "system", which in data-to-text and translation names the system that wrote the target.
            return given.with_system(parts, ("system_prompt",))
    return None


def _text(given: _Given) -> dict[str, str] | None:
    if given.label is not None:
        return None
    names = given.table.names
    only = names[0] if len(names) == 1 and texty(given.table.columns[names[0]]) else None
    name = given.texts[0] if given.texts else given.column(("text",), texty) or only
    return None if name is None else {"text": name}


def _other_chat(given: _Given) -> tuple[str, dict[str, str]] | None:
    """A column of conversations under another name."""
    if given.label is not None:
        return None
    styles = ((name, style_of(cells)) for name, cells in given.table.columns.items())
    found = ((style, given.with_system({_PART[style]: name})) for name, style in styles if style)
    return next(((style, parts) for style, parts in found if parts), None)


_PART = {"messages": "messages", "sharegpt": "conversations"}
_FINDERS: dict[str, Callable[[_Given], dict[str, str] | None]] = {
    "messages": _chat("messages"),
    "sharegpt": _chat("sharegpt"),
    "instruction": _instruction,
    "prompt": _prompt,
    "input": _input,
    "text": _text,
}


def _numbered(names: Sequence[str]) -> dict[str, str]:
    return {f"input{place}" if place > 1 else "input": name for place, name in enumerate(names, 1)}


def _refuse_preferences(table: Table) -> None:
    if {"chosen", "rejected"} <= {name.lower() for name in table.names}:
        raise InputError(
            "these rows are preferences: chosen and rejected are two answers to a prompt, not a right one",
            where=table.source,
            expected=f"one of: {'; '.join(LOOKS.values())}",
            fix="preferences are for a reward model (pegbox reward) or DPO; to imitate the chosen answers "
            "alone, name the columns, such as --text prompt --label chosen",
        )  # fmt: skip


def _none(given: _Given, format: str | None) -> InputError:
    answers = " and an answer" if given.need_answers else ""
    known = f"columns as the format {format} has them" if format else f"columns of prompts{answers}"
    looks = LOOKS[format] if format else "; ".join(LOOKS.values())
    return InputError(
        f"No {known} can be found",
        where=given.table.source,
        expected=f"{looks}; the columns are: {', '.join(given.table.names)}",
        fix="name the columns of the prompt with --text"
        + (" and that of the answers with --label" if given.need_answers else ""),
    )


def _decided(
    given: _Given, format: str | None, found: str, parts: dict[str, str], template: str | None = None
) -> ConversationColumns:
    guesses = [] if format or given.texts else ["--rows-format"]
    guesses += [] if given.texts or template else ["--text"]
    guesses += ["--label"] if "output" in parts and given.label is None else []
    shown = ", ".join(f"{part} {name!r}" for part, name in parts.items())
    shown += ", the message by the template" if template else ""
    how = f"guessed; override with {', '.join(guesses)}" if guesses else "as given"
    unused = [name for name in given.table.names if name not in parts.values()]
    left = f"; not used: {', '.join(unused)}" if unused else ""
    kind: Format = next(name for name in FORMATS if name == found)
    return ConversationColumns(kind, parts, template, f"format {found}: {shown} ({how}){left}")
