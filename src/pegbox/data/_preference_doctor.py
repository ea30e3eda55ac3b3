from collections.abc import Iterator, Mapping
from itertools import chain

from pegbox.data._conversation_doctor import (
    _far_lengths,
    _fitted,
    _grouped,
    _marked,
    _measured,
    _shared,
    _Turn,
)
from pegbox.data._doctor import TokenLengths
from pegbox.data._findings import Finding, Findings, by_severity
from pegbox.data._preference_columns import PreferenceColumns
from pegbox.data._preferences import Preferences, preferences
from pegbox.data._shape_doctor import _bad
from pegbox.data._table import Table, counted
from pegbox.data._text import normalised, text_key

# From here on the longer answer wins so often that a reward could be mere length.
BIASED = 0.1
LONG_PROMPT = 20


def check_preferences(
    table: Table,
    columns: PreferenceColumns,
    *,
    others: Mapping[str, Table] | None = None,
    token_lengths: TokenLengths | None = None,
) -> Findings:
    """Examine pairs of answers: bad rows, equal answers, conflicts, length bias, outliers, leakage.

    Args and returns as for :func:`pegbox.data.check`, without classes. Lengths are in characters; the share
    of pairs in which the longer answer is chosen leaves pairs of equal lengths out and has a Wilson interval
    (95 %). Outliers as for :func:`pegbox.data.check_conversations`, over all answers.
    """
    found = preferences(table, columns, on_bad="drop")
    parts = {
        name: preferences(other, _fitted(columns, other), on_bad="drop")
        for name, other in (others or {}).items()
    }
    noticed = [
        *_bad(found.dropped),
        *_alike(found),
        *_repeated(found),
        *_reversed(found),
        *_length_bias(found),
        *_repeats_prompt(found),
        *_marked(found.numbers, [_said(found, at) for at in range(len(found))]),
        *_far_lengths("prompt", found.numbers, [len(texts[0]) for texts in found.texts]),
        *_far_lengths(
            "answer", found.numbers * 2, [len(answer) for answer in (*found.chosen, *found.rejected)]
        ),
        *_shared(_turns(found), {name: _turns(part) for name, part in parts.items()}, False),
        *(Finding("reading", "info", line) for line in found.remarks),
    ]
    return Findings(
        source=table.source,
        rows=len(table),
        columns=columns.note,
        classes={},
        lengths=_measured(
            {
                "prompt": [texts[0] for texts in found.texts],
                "chosen": list(found.chosen),
                "rejected": list(found.rejected),
            },
            token_lengths,
        ),
        findings=by_severity(noticed),
        splits={name: len(part) for name, part in parts.items()},
    )


def _turns(rows: Preferences) -> list[_Turn]:
    made = []
    for number, prompt, chosen in zip(rows.numbers, rows.prompts, rows.chosen, strict=True):
        system = "".join(message.content for message in prompt if message.role == "system")
        spoken = [message.content for message in prompt if message.role != "system"]
        made.append(_Turn(number, system, "\n".join(spoken), spoken[-1], chosen, len(spoken) // 2 + 1))
    return made


def _said(rows: Preferences, at: int) -> list[str]:
    return [*(message.content for message in rows.prompts[at]), rows.chosen[at], rows.rejected[at]]


def _alike(rows: Preferences) -> Iterator[Finding]:
    """Find answers that differ in case or spaces only; entirely equal ones are bad rows."""
    pairs = zip(rows.numbers, rows.chosen, rows.rejected, strict=True)
    same = tuple(number for number, one, other in pairs if normalised(one) == normalised(other))
    if same:
        message = f"{counted(len(same), 'pair')} of answers that differ in capitals or spaces only"
        yield Finding("equal-answers", "warning", f"{message}: leave them out", same)


def _keys(rows: Preferences) -> list[tuple[str, str, str]]:
    answers = zip(rows.texts, rows.chosen, rows.rejected, strict=True)
    return [(text_key(texts), normalised(one), normalised(other)) for texts, one, other in answers]


def _repeated(rows: Preferences) -> Iterator[Finding]:
    same: dict[tuple[str, str, str], list[int]] = {}
    for number, key in zip(rows.numbers, _keys(rows), strict=True):
        same.setdefault(key, []).append(number)
    found = [numbers for numbers in same.values() if len(numbers) > 1]
    if found:
        extra = sum(len(numbers) - 1 for numbers in found)
        message = f"{counted(extra, 'row')} repeat{'s' if extra == 1 else ''} prompt and answers of another"
        yield _grouped("exact-duplicates", f"{message} row exactly: keep one of each", found)


def _reversed(rows: Preferences) -> Iterator[Finding]:
    """Find the same two answers to the same prompt, preferred the other way round."""
    same: dict[tuple[str, str, str], dict[bool, list[int]]] = {}
    for number, (prompt, one, other) in zip(rows.numbers, _keys(rows), strict=True):
        first, second = sorted((one, other))
        same.setdefault((prompt, first, second), {}).setdefault(one == first, []).append(number)
    found = [sorted(chain(*sides.values())) for sides in same.values() if len(sides) == 2]
    if found:
        message = f"{counted(len(found), 'pair')} of answers preferred both ways round in different rows"
        yield _grouped("reversed-preferences", f"{message}: decide, or leave them out", found)


def _length_bias(rows: Preferences) -> Iterator[Finding]:
    lengths = [(len(one), len(other)) for one, other in zip(rows.chosen, rows.rejected, strict=True)]
    unequal = [(one, other) for one, other in lengths if one != other]
    if not unequal:
        return
    from scipy.stats import binomtest

    longer = sum(one > other for one, other in unequal)
    share = longer / len(unequal)
    low, high = binomtest(longer, len(unequal)).proportion_ci(method="wilson")
    biased = not low <= 0.5 <= high and abs(share - 0.5) > BIASED
    side, wins = ("longer", share) if share >= 0.5 else ("shorter", 1 - share)
    ends = (low, high) if share >= 0.5 else (1 - high, 1 - low)
    message = (
        f"the {side} answer is chosen in {wins:.1%} of {counted(len(unequal), 'pair')} of different length "
        f"(95 % interval {ends[0]:.1%} to {ends[1]:.1%})"
    )
    if biased:
        message += ": a reward may learn length instead of what is meant"
    yield Finding("length-bias", "warning" if biased else "info", message)


def _repeats_prompt(rows: Preferences) -> Iterator[Finding]:
    """Find pairs whose answers both begin with the whole prompt, as transcripts do."""
    found = []
    for at, (texts, number) in enumerate(zip(rows.texts, rows.numbers, strict=True)):
        prompt = normalised(texts[0])
        answers = (normalised(rows.chosen[at]), normalised(rows.rejected[at]))
        if len(prompt) >= LONG_PROMPT and all(answer.startswith(prompt) for answer in answers):
            found.append(number)
    if found:
        message = f"{counted(len(found), 'pair')} of answers that both begin with the whole prompt"
        fix = "leave the prompt out of the answers, or name the two columns alone with --text"
        yield Finding("prompt-in-answer", "warning", f"{message}: {fix}", tuple(found))
