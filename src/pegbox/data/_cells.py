from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from pegbox.data._user_template import json_list

_SAMPLE = 1000


def _filled(cells: Sequence[object]) -> list[object]:
    return list(islice((cell for cell in cells if cell is not None and cell != ""), _SAMPLE))


def texty(cells: Sequence[object]) -> bool:
    """Whether most of the filled cells are text; so are those of an empty column."""
    filled = _filled(cells)
    return 2 * sum(isinstance(cell, str) for cell in filled) > len(filled) or not filled


def answers(cells: Sequence[object]) -> bool:
    """Whether most of the filled cells are text or lists; so are those of an empty column."""

    def fits(cell: object) -> bool:
        return isinstance(cell, str | list | tuple)

    filled = _filled(cells)
    return 2 * sum(map(fits, filled)) > len(filled) or not filled


def texts_or_messages(cells: Sequence[object]) -> bool:
    """Whether cells are prompts: texts, or lists of messages with roles."""
    return texty(cells) or style_of(cells) == "messages"


def style_of(cells: Sequence[object]) -> str | None:
    """Whether cells are lists of messages, and by which keys, most of them."""
    seen: Counter[str] = Counter()
    for cell in _filled(cells):
        listed = json_list(cell) if isinstance(cell, str) else cell
        for item in listed if isinstance(listed, list | tuple) else ():
            if isinstance(item, Mapping):
                seen["messages"] += "role" in item or "content" in item
                seen["sharegpt"] += "from" in item or "value" in item
    style, count = seen.most_common(1)[0] if seen else ("", 0)
    return style if count else None
