import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeVar

from pegbox.data._conversation_columns import ConversationColumns
from pegbox.data._conversations import Conversations, conversations
from pegbox.data._doctor import TokenLengths, _exact, _leaks, _Row
from pegbox.data._findings import Finding, Findings, by_severity, percentiles
from pegbox.data._preference_columns import PreferenceColumns
from pegbox.data._shape_doctor import _bad
from pegbox.data._table import Table, counted
from pegbox.data._text import normalised, text_key, words_only

_Columns = TypeVar("_Columns", ConversationColumns, PreferenceColumns)
DEVIATIONS, FACTOR, FEWEST = 3.5, 4, 20
LONG_ECHO = 20
_SORRY = r"(?:(?:i'm|i am)(?: \w+)? sorry|sorry|i apologi[sz]e|my apologies|unfortunately)"
_UNABLE = r"(?:'m|am) (?:unable|not (?:able|allowed|going|programmed|comfortable))"
_CANNOT = rf"(?:can(?:'t|not| not)|won't|will not|{_UNABLE})"
_DO = (
    "(?:assist|help|provide|fulfil|comply|engage|create|generate|write|answer|discuss|support|offer|give|advise"
    "|do that)"
)
# Looked for in the first 200 characters of an answer; all but the second only where it begins.
REFUSALS = (
    rf"^{_SORRY}[,.!]? (?:but )?(?:i ?{_CANNOT}|as an ai)\b",
    r"\b(?:as|am|'m) an? (?:ai|artificial intelligence|(?:large )?language model|chatbot)\b",
    rf"^i ?{_CANNOT} (?:to )?{_DO}",
)
_REFUSAL = re.compile("|".join(REFUSALS))
_MARKS = re.compile(
    r"<\|\w+\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|#+ ?eos_token ?#+|</s>\s*$|<eos>\s*$"
)


@dataclass(frozen=True)
class _Turn:
    """A row as the doctor sees it: ``prompt`` is without the system's message; plain texts have none."""

    number: int
    system: str
    prompt: str
    user: str
    answer: str
    turns: int


def check_conversations(
    table: Table,
    columns: ConversationColumns,
    *,
    others: Mapping[str, Table] | None = None,
    token_lengths: TokenLengths | None = None,
) -> Findings:
    """Examine prompts with answers: bad rows, refusals, lengths, echoes, duplicates, leakage.

    Args and returns as for :func:`pegbox.data.check`, without classes. Prompts and answers are measured each
    for themselves. An outlier is a length in characters whose logarithm is more than 3.5 robust standard
    deviations (1.4826 times the median absolute deviation) from the median (Iglewicz and Hoaglin 1993), and
    which is at least 4 times longer or shorter than the median; it takes 20 rows to tell. A refusal is an
    answer that begins with one of a few usual phrases ("I'm sorry, but I can't", "I cannot assist") or says
    "As an AI language model" or the like in its first 200 characters: other wordings are not found.
    """
    found = conversations(table, columns, on_bad="drop")
    parts = {
        name: conversations(other, _fitted(columns, other), on_bad="drop")
        for name, other in (others or {}).items()
    }
    rows = _turns(found)
    noticed = [
        *_bad(found.dropped),
        *_repeated(rows),
        *_marks(found),
        *([] if found.plain else [*_different(rows), *_refusals(rows), *_echoes(rows), *_mixture(rows)]),
        *_outliers(rows),
        *_shared(rows, {name: _turns(part) for name, part in parts.items()}, found.plain),
        *(Finding("reading", "info", line) for line in found.remarks),
    ]
    return Findings(
        source=table.source,
        rows=len(table),
        columns=columns.note,
        classes={},
        lengths=_lengths(rows, token_lengths),
        findings=by_severity(noticed),
        splits={name: len(part) for name, part in parts.items()},
    )


def _fitted(columns: _Columns, table: Table) -> _Columns:
    """The columns for another split, which may lack the system's messages."""
    kept = {part: name for part, name in columns.columns.items() if part != "system" or name in table.columns}
    return replace(columns, columns=kept)


def _turns(rows: Conversations) -> list[_Turn]:
    made = []
    for number, messages, prompt in zip(rows.numbers, rows.messages, rows.prompts(), strict=True):
        spoken = [message for message in prompt if message.role != "system"]
        made.append(
            _Turn(
                number,
                "".join(message.content for message in prompt if message.role == "system"),
                "\n".join(message.content for message in spoken),
                spoken[-1].content if spoken else "",
                messages[-1].content,
                sum(message.role == "assistant" for message in messages),
            )
        )
    return made


def _repeated(rows: Sequence[_Turn]) -> Iterator[Finding]:
    same: dict[str, list[int]] = {}
    for row in rows:
        same.setdefault(text_key((row.system, row.prompt, row.answer)), []).append(row.number)
    found = [numbers for numbers in same.values() if len(numbers) > 1]
    if found:
        extra = sum(len(numbers) - 1 for numbers in found)
        what = "prompt and answer" if any(row.prompt for row in rows) else "the text"
        message = f"{counted(extra, 'row')} repeat{'s' if extra == 1 else ''} {what} of another row exactly"
        yield _grouped("exact-duplicates", f"{message}: keep one of each", found)


def _different(rows: Sequence[_Turn]) -> Iterator[Finding]:
    same: dict[str, dict[int, str]] = {}
    for row in rows:
        same.setdefault(text_key((row.system, row.prompt)), {})[row.number] = normalised(row.answer)
    found = [list(answers) for answers in same.values() if len(set(answers.values())) > 1]
    if found:
        message = f"{counted(len(found), 'prompt')} with different answers in different rows"
        fix = "mend the wrong ones, or put several right ones into one row as a list"
        yield _grouped("different-answers", f"{message}: {fix}", found)


def _grouped(kind: str, message: str, found: Sequence[Sequence[int]]) -> Finding:
    numbers = tuple(sorted(number for group in found for number in group))
    return Finding(kind, "warning", message, numbers, tuple({"rows": list(group)} for group in found))


def _refusals(rows: Sequence[_Turn]) -> Iterator[Finding]:
    found = {row.number: row.answer for row in rows if is_refusal(row.answer)}
    if found:
        share = f"{len(found) / len(rows):.1%}"
        shown = " ".join(next(iter(found.values())).split())[:60]
        what = "refuses or speaks" if len(found) == 1 else "refuse or speak"
        message = f"{counted(len(found), 'answer')} ({share}) {what} of being an AI, such as {shown!r}"
        fix = "leave them out, unless the model shall say so"
        yield Finding("refusals", "warning", f"{message}: {fix}", tuple(found))


def is_refusal(answer: str) -> bool:
    """Whether an answer begins like a refusal, by the patterns of ``REFUSALS``."""
    return _REFUSAL.search(normalised(answer.replace("’", "'"))[:200]) is not None


def _echoes(rows: Sequence[_Turn]) -> Iterator[Finding]:
    """Find answers that are the user's message again, or begin with all of a longer one."""
    same, begin = [], []
    for row in rows:
        user, answer = words_only(row.user), words_only(row.answer)
        if user == answer:
            same.append(row.number)
        elif len(user) >= LONG_ECHO and answer.startswith(user):
            begin.append(row.number)
    if same:
        message = f"{counted(len(same), 'answer')} merely repeat{'s' if len(same) == 1 else ''} the prompt"
        yield Finding("echoes", "warning", f"{message}: write an answer, or leave them out", tuple(same))
    if begin:
        message = (
            f"{counted(len(begin), 'answer')} begin{'s' if len(begin) == 1 else ''} with the whole prompt"
        )
        fix = "leave the prompt out of the answer, unless the model shall repeat it"
        yield Finding("prompt-in-answer", "warning", f"{message}: {fix}", tuple(begin))


def _marks(rows: Conversations) -> Iterator[Finding]:
    yield from _marked(rows.numbers, [[m.content for m in messages] for messages in rows.messages])


def _marked(numbers: Sequence[int], texts: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """Find what chat templates write between messages: in a text it teaches the model to say it.

    Args:
        numbers: Number of each row.
        texts: Its texts.
    """
    found: dict[int, str] = {}
    for number, own in zip(numbers, texts, strict=True):
        for text in own:
            if mark := _MARKS.search(text):
                found.setdefault(number, mark[0].strip())
    if found:
        what = ", ".join(repr(text) for text, _ in Counter(found.values()).most_common(3))
        told = f"{counted(len(found), 'row')} with marks of a chat template in the text ({what})"
        fix = "take them out, the model's own are added"
        yield Finding("template-marks", "warning", f"{told}: {fix}", tuple(found))


def _mixture(rows: Sequence[_Turn]) -> Iterator[Finding]:
    single = sum(row.turns == 1 for row in rows)
    several = tuple(row.number for row in rows if row.turns > 1)
    if single and several:
        most = max(row.turns for row in rows)
        verb = "has" if len(several) == 1 else "have"
        message = f"{counted(len(several), 'row')} {verb} several turns (up to {most}), {single:,} one"
        yield Finding("turns", "info", message, several)


def _outliers(rows: Sequence[_Turn]) -> Iterator[Finding]:
    numbers = [row.number for row in rows]
    yield from _far_lengths("prompt", numbers, [len(row.prompt) for row in rows])
    yield from _far_lengths("answer", numbers, [len(row.answer) for row in rows])


def _far_lengths(what: str, numbers: Sequence[int], lengths: Sequence[int]) -> Iterator[Finding]:
    """Find texts much longer or shorter than the rest, by the rule of :func:`check_conversations`."""
    if len(lengths) < FEWEST or not any(lengths):
        return
    low, middle, high = _bounds(lengths)
    for side, far in (("longer", [n > high for n in lengths]), ("shorter", [n < low for n in lengths])):
        found = tuple(number for number, out in zip(numbers, far, strict=True) if out)
        if found:
            bound = f"over {math.floor(high):,}" if side == "longer" else f"under {math.ceil(low):,}"
            is_or_are = "is" if len(found) == 1 else "are"
            message = f"{counted(len(found), what)} {is_or_are} much {side} than the rest: {bound}"
            message += f" characters, median {middle:,.0f}; look at them"
            yield Finding(f"{side.removesuffix('er')}-{what}s", "info", message, found)


def _bounds(lengths: Sequence[int]) -> tuple[float, float, float]:
    """Lowest usual length, median and highest usual length in characters (see the rule above)."""
    logs = [math.log(max(length, 1)) for length in lengths]
    middle = median(logs)
    deviation = 1.4826 * median(abs(value - middle) for value in logs)
    far = max(DEVIATIONS * deviation, math.log(FACTOR))
    # Rounded, so that exactly 4 times the median is within the bounds.
    return round(math.exp(middle - far), 6), median(lengths), round(math.exp(middle + far), 6)


def _shared(rows: list[_Turn], others: Mapping[str, list[_Turn]], plain: bool) -> Iterator[Finding]:
    """Find equal prompts in two splits and nearly equal ones anywhere, whatever the system's message."""
    from pegbox.data._near import groups, near_pairs

    every = [("", rows), *others.items()]
    exact = _exact(
        [
            _Row(split, row.number, (row.answer if plain else row.prompt,), None)
            for split, part in every
            for row in part
        ]
    )
    what, splits, members = "text" if plain else "prompt", list(others), list(exact.values())
    yield from _leaks([(group, group) for group in members], splits, "exact-leak", f"the same {what}")
    pairs = near_pairs(list(exact))
    here = [[row.number for row in group if not row.split] for group in members]
    inside = groups([(i, j) for i, j in pairs if here[i] and here[j]])
    if inside:
        found = [sorted(number for i in group for number in here[i]) for group in inside]
        yield _grouped("near-duplicates", f"{counted(len(inside), 'group')} of near-duplicate {what}s", found)
    sides = [(members[one], members[two]) for pair in pairs for one, two in (pair, pair[::-1])]
    yield from _leaks(sides, splits, "near-leak", f"nearly the same {what}")


def _lengths(rows: Sequence[_Turn], token_lengths: TokenLengths | None) -> dict[str, dict[str, int]]:
    prompts = ["\n".join(filter(None, (row.system, row.prompt))) for row in rows]
    return _measured({"prompt": prompts, "answer": [row.answer for row in rows]}, token_lengths)


def _measured(
    parts: Mapping[str, list[str]], token_lengths: TokenLengths | None
) -> dict[str, dict[str, int]]:
    """Lengths of texts by what they are; those that are all empty are left out."""
    found = {}
    for what, texts in parts.items():
        if not any(texts):
            continue
        found[f"{what} characters"] = percentiles(list(map(len, texts)))
        found[f"{what} words"] = percentiles([len(text.split()) for text in texts])
        if token_lengths is not None:
            found[f"{what} tokens"] = percentiles(token_lengths(texts))
    return found
