"""Plain texts as a model that continues them learns them: window by window."""

from __future__ import annotations

from pegbox.data import Conversations
from pegbox.errors import CapabilityError
from pegbox.tasks._chat import Piece
from pegbox.tasks._chat_tokens import ChatTokens
from pegbox.tasks._prompt import TooLong
from pegbox.tasks._spoken import Spoken, too_long_error
from pegbox.tasks._tokens import edges


def text_windows(tokens: ChatTokens, rows: Conversations, context: int, too_long: TooLong) -> Spoken:
    """Plain texts with their ends, in windows as long as the context."""
    if tokens.kind != "causal":
        raise CapabilityError(
            f"plain texts are continued, and a {tokens.kind} model continues none",
            where=rows.source,
            expected="a causal model",
            fix="give prompts with answers, or use a causal model such as etude",
        )
    end = tokens.tokenizer.eos_token_id is not None
    pieces = [[Piece(messages[-1].content, own=False, said=True, end=end)] for messages in rows.messages]
    found = tokens.code(pieces, edged=False)[0]
    start = [*edges(tokens.tokenizer)[0], *(tokens.soft.leading if tokens.soft is not None else ())]
    room = context - len(start)
    long = [number for number, ids in zip(rows.numbers, found, strict=True) if len(ids) > room]
    if long and too_long == "error":
        raise too_long_error(rows, long, context, too_long)
    ids, said, owners = [], [], []
    for index, own in enumerate(found):
        if len(own) > room and too_long == "drop":
            continue
        for at in range(0, len(own), room):
            window = own[at : at + room]
            # Nothing stands before the first token of a sequence without a start of its own.
            first = [bool(start)] if window else []
            ids.append((*start, *window))
            said.append((*[False] * len(start), *first, *[True] * (len(window) - 1)))
            owners.append(index)
    told = {"left_out" if too_long == "drop" else "divided": tuple(long)}
    return Spoken(tuple(ids), tuple(said), None, tuple(owners), rows.numbers, source=rows.source, **told)
