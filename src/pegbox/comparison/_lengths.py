"""How long rows are under a prompt."""

from __future__ import annotations

from typing import Any

from pegbox.data import Questions, Rows
from pegbox.models import Base
from pegbox.tasks import ChoosePrompt, TagPrompt, TooLong


def row_lengths(base: Base, prompt: Any, rows: Rows, *, too_long: TooLong = "shorten") -> list[int]:
    """Tokens of each row under a prompt, in the order of the rows.

    Of multiple choice it is each question with each of its options, of tagging each window of a sentence, so
    that there may be more lengths than rows.

    Args:
        base: The base.
        prompt: The task made ready for it, as :meth:`pegbox.Base.prepare` returns it.
        rows: The rows.
        too_long: What to do with texts that do not fit.
    """
    if isinstance(prompt, TagPrompt):
        return list(prompt.windows(rows, too_long=too_long).encoded.lengths)  # type: ignore[arg-type]
    if isinstance(prompt, ChoosePrompt) and isinstance(rows, Questions):
        return _with_options(base, prompt, rows, too_long)
    encoded = prompt.encode(rows, too_long=too_long)
    return [length + len(encoded.prefix) for length in encoded.lengths]


def _with_options(base: Base, prompt: ChoosePrompt, rows: Questions, too_long: TooLong) -> list[int]:
    if base.kind == "encoder":
        return list(prompt.encode_pairs(rows, too_long=too_long).encoded.lengths)
    found = prompt.encode_options(rows, too_long=too_long)
    return [
        length + len(found.prompts.prefix) + len(option)
        for length, options in zip(found.prompts.lengths, found.options, strict=True)
        for option in options
    ]
