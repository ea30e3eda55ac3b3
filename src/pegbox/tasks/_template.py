import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pegbox.errors import InputError, nearest

ANSWER = "answer"
HELP = "a template is text with slots, such as '{text} It was {answer}.'"


@dataclass(frozen=True)
class Template:
    """Text with named slots and exactly one ``{answer}`` slot.

    Args:
        text: The template, for example ``{text} It was {answer}.``.
        fields: Names of the text columns that slots may name.

    Raises:
        InputError: Without an answer slot or a text slot, with two answer slots, or with an unknown slot.
    """

    text: str
    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        slots = [name for _, name in self._parts() if name is not None]
        answers = slots.count(ANSWER)
        if answers != 1:
            fault = "has no {answer} slot" if answers == 0 else f"has {answers} {{answer}} slots"
            raise InputError(
                f"the template {fault}",
                where=repr(self.text),
                expected=f"exactly one; {HELP}",
                fix="write {answer} where the label word belongs",
            )
        for name in slots:
            if name != ANSWER and name not in self._aliases():
                raise InputError(
                    f"the template names the unknown slot {{{name}}}",
                    where=repr(self.text),
                    expected=f"one of {', '.join('{' + slot + '}' for slot in (*self._aliases(), ANSWER))}",
                    fix=nearest(name, (*self._aliases(), ANSWER)) or "name a text column of the data",
                )
        if slots == [ANSWER]:
            raise InputError(
                "the template holds no text of the row",
                where=repr(self.text),
                expected=HELP,
                fix=f"add {{{self.fields[0]}}}",
            )

    @property
    def answer_last(self) -> bool:
        """Whether no text slot follows the answer, as a causal model needs."""
        return self._slots(self._parts()[self._answer_index() + 1 :]) == []

    def before(self, row: Mapping[str, str]) -> str:
        """Render what stands before the answer, up to the space that belongs to the answer."""
        return self._render(self._parts()[: self._answer_index() + 1], row).rstrip(" ")

    def gap(self) -> str:
        """The space between what stands before and the answer: one space or nothing."""
        literal = self._parts()[self._answer_index()][0]
        return " " if literal.endswith(" ") else ""

    def after(self, row: Mapping[str, str]) -> str:
        """Render what stands after the answer."""
        return self._render(self._parts()[self._answer_index() + 1 :], row)

    def used(self) -> tuple[str, ...]:
        """Names of the text columns that the template shows."""
        aliases = self._aliases()
        return tuple(dict.fromkeys(aliases[name] for name in self._slots(self._parts()) if name != ANSWER))

    def _parts(self) -> list[tuple[str, str | None]]:
        try:
            parsed = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise InputError(
                f"the template cannot be read: {error}",
                where=repr(self.text),
                expected=HELP,
                fix="write a literal brace as {{ or }}",
            ) from None
        return [(literal, name) for literal, name, _, _ in parsed]

    def _answer_index(self) -> int:
        return [name for _, name in self._parts()].index(ANSWER)

    def _aliases(self) -> dict[str, str]:
        aliases = {name: name for name in self.fields}
        short: Sequence[str] = ("text",) if len(self.fields) == 1 else ("text_a", "text_b")
        return {**dict(zip(short, self.fields, strict=False)), **aliases}

    @staticmethod
    def _slots(parts: Sequence[tuple[str, str | None]]) -> list[str]:
        return [name for _, name in parts if name is not None]

    def _render(self, parts: Sequence[tuple[str, str | None]], row: Mapping[str, str]) -> str:
        aliases = self._aliases()
        pieces: list[str] = []
        for literal, name in parts:
            pieces.append(literal)
            if name is not None and name != ANSWER:
                pieces.append(row[aliases[name]])
        return "".join(pieces)
