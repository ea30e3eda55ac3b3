import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pegbox.errors import InputError, nearest

ANSWER = "answer"
MARK = "[P]"
_MARKS = re.compile(r" *\[P\](?: *\[P\])* *")
HELP = "a template is text with slots, such as '{text} It was {answer}.'"

Part = tuple[str, str | None]


@dataclass(frozen=True)
class Template:
    """Text with named slots and exactly one ``{answer}`` slot.

    Each ``[P]`` in it marks a soft token between anchor words, for methods that learn some. The spaces before
    a mark are layout; a space after it belongs to the word that follows.

    Args:
        text: The template, for example ``{text} It was {answer}.``.
        fields: Names of the text columns that slots may name, or ``text``; ``text_a`` and ``text_b`` for two.

    Raises:
        InputError: Without an answer slot or a text slot, with two answer slots, or with an unknown slot.
    """

    text: str
    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        slots = _slots(self._parts)
        answers = slots.count(ANSWER)
        valid = (*aliases(self.fields), ANSWER)
        unknown = next((name for name in slots if name not in valid), None)
        if answers != 1:
            fault = "has no {answer} slot" if answers == 0 else f"has {answers} {{answer}} slots"
            fault += "" if unknown is None else f" and names the unknown slot {{{unknown}}}"
            raise InputError(
                f"the template {fault}",
                where=repr(self.text),
                expected=f"exactly one; {HELP}",
                fix="write {answer} where the label word belongs",
            )
        if unknown is not None:
            raise InputError(
                f"the template names the unknown slot {{{unknown}}}",
                where=repr(self.text),
                expected=f"one of {', '.join('{' + slot + '}' for slot in valid)}",
                fix=nearest(unknown, valid) or "name a text column of the data",
            )
        if slots == [ANSWER]:
            raise InputError(
                "the template holds no text of the row",
                where=repr(self.text),
                expected=HELP,
                fix=f"add {slot_names(self.fields)[0]}",
            )

    @property
    def answer_last(self) -> bool:
        """Whether no text slot follows the answer, as a causal model needs."""
        return _slots(self._parts[self._answer_index + 1 :]) == []

    @property
    def marks(self) -> tuple[int, int]:
        """How many soft tokens are marked before the answer and after it."""
        at = self._answer_index + 1
        before, after = (sum(text.count(MARK) for text, _ in part) for part in self._cut(at))
        return before, after

    def unmarked(self) -> str:
        """The template's text without its marks."""
        return _MARKS.sub(_left, self.text)

    @property
    def goes_on(self) -> bool:
        """Whether anything but spaces follows the answer."""
        return any(literal.strip() or name for literal, name in self._parts[self._answer_index + 1 :])

    def before(self, row: Mapping[str, str]) -> str:
        """Render what stands before the answer, up to the space that belongs to the answer."""
        return _joined(self.pieces_before(row))

    def pieces_before(self, row: Mapping[str, str]) -> list[str]:
        """As :meth:`before`, in pieces: between each two stands one soft token."""
        pieces = self._render(self._cut(self._answer_index + 1)[0], row)
        return [*pieces[:-1], pieces[-1].rstrip(" ")]

    def gap(self) -> str:
        """The space between what stands before and the answer: one space or nothing."""
        return " " if self._parts[self._answer_index][0].endswith(" ") else ""

    def after(self, row: Mapping[str, str]) -> str:
        """Render what stands after the answer."""
        return "".join(self.pieces_after(row))

    def pieces_after(self, row: Mapping[str, str]) -> list[str]:
        """As :meth:`after`, in pieces: between each two stands one soft token."""
        return self._render(self._cut(self._answer_index + 1)[1], row)

    def used(self) -> tuple[str, ...]:
        """Names of the text columns that the template shows."""
        known = aliases(self.fields)
        return tuple(dict.fromkeys(known[name] for name in _slots(self._parts) if name != ANSWER))

    @cached_property
    def _parts(self) -> tuple[Part, ...]:
        try:
            parsed = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise InputError(
                f"the template cannot be read: {error}",
                where=repr(self.text),
                expected=HELP,
                fix="write a literal brace as {{ or }}",
            ) from None
        for _, name, layout, conversion in parsed:
            if layout or conversion:
                raise InputError(
                    f"the slot {{{name}}} asks for a format or conversion",
                    where=repr(self.text),
                    expected=HELP,
                    fix=f"write {{{name}}}, and a literal brace as {{{{ or }}}}",
                )
        return tuple((literal, name) for literal, name, _, _ in parsed)

    @cached_property
    def _answer_index(self) -> int:
        return [name for _, name in self._parts].index(ANSWER)

    def _cut(self, at: int) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        return self._parts[:at], self._parts[at:]

    def _render(self, parts: Sequence[Part], row: Mapping[str, str]) -> list[str]:
        """The text in pieces, cut at the template's own marks: one in a row's text is plain text."""
        known = aliases(self.fields)
        pieces = [""]
        for literal, name in parts:
            first, *rest = literal.split(MARK)
            pieces[-1] += first
            for piece in rest:
                pieces[-1] = pieces[-1].rstrip(" ")
                pieces.append(piece)
            if name is not None and name != ANSWER:
                pieces[-1] += row[known[name]]
        return pieces


def aliases(fields: Sequence[str]) -> dict[str, str]:
    """Slot name to column: each column's own name, and ``text``, or ``text_a`` and ``text_b``.

    A column called ``answer`` has only its short name; a short name that is another column's own
    gets a ``_``.
    """
    known: dict[str, str] = {}
    for short, field in zip(_short(fields), fields, strict=True):
        known[short] = field
    return {**known, **{field: field for field in fields if field != ANSWER}}


def slot_names(fields: Sequence[str]) -> list[str]:
    """One slot per column, with its braces: its own name where a template can say it, else the short name."""
    return [
        f"{{{short if field == ANSWER or set(field) & set('{}!:[]') else field}}}"
        for short, field in zip(_short(fields), fields, strict=True)
    ]


def _short(fields: Sequence[str]) -> list[str]:
    names = ["text"] if len(fields) == 1 else ["text_a", "text_b"]
    for index, field in enumerate(fields):
        while names[index] in fields and names[index] != field:
            names[index] += "_"
    return names


def _joined(pieces: Sequence[str]) -> str:
    """Pieces as one text, without the space that followed a mark at its beginning."""
    text = "".join(pieces)
    return text.lstrip(" ") if len(pieces) > 1 and not pieces[0] else text


def _left(marks: re.Match[str]) -> str:
    """What stays where marks and the spaces around them were."""
    return " " if marks.start() and (marks[0][0] == " " or marks[0][-1] == " ") else ""


def _slots(parts: Sequence[Part]) -> list[str]:
    return [name for _, name in parts if name is not None]
