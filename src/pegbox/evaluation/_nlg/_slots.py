from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from pegbox.evaluation._nlg._measure import Measured, MissingError, Texts, ratio
from pegbox.evaluation._nlg._phrases import NO, YES, Span, find, polarity, words

# What more of the references do with a key is no error where a prediction does it.
TOLERANCE = 0.05


class Told(Enum):
    """What a text does with a slot."""

    RIGHT = "right"
    WRONG = "wrong"
    SILENT = "silent"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class _Slots:
    """Values known for each key over all records, as words."""

    known: dict[str, set[tuple[str, ...]]]

    def read(self, record: Mapping[str, str], text: str) -> dict[str, Told]:
        """What a text does with each slot of its record.

        A value that also belongs to another key of the record, or has no letters, cannot be judged.
        """
        own = {key: tuple(words(value)) for key, value in record.items()}
        found = _find_all(own.values(), words(text))
        told = {}
        for key, value in record.items():
            if value.casefold() in YES | NO:
                told[key] = _yes_or_no(key, value, text)
            elif not own[key] or self._shared(own[key], key, record):
                told[key] = Told.UNCLEAR
            elif found[own[key]]:
                told[key] = Told.RIGHT
            else:
                told[key] = self._other(key, record, own, text)
        return told

    def _shared(self, value: tuple[str, ...], key: str, record: Mapping[str, str]) -> bool:
        return any(value in self.known[other] for other in record if other != key)

    def _other(self, key: str, record: Mapping[str, str], own: dict[str, tuple[str, ...]], text: str) -> Told:
        others = [value for value in self.known[key] if not self._shared(value, key, record)]
        found = _find_all([*own.values(), *others], words(text))
        return Told.WRONG if any(found[value] for value in others) else Told.SILENT


def slot_error_rate(texts: Texts) -> Measured:
    """Share of slots that a text leaves out or tells wrongly, of the slots that can be judged, 0 to 1.

    A slot is right where its value stands in the text (see `find` for what is overlooked), wrong where it
    does not and another value known for the key does, and missing where neither does. yes and no are read
    from phrases (see `polarity`). References are taken to be right: where more than `TOLERANCE` of those
    that should tell a key are silent about it, or tell it by another known value, a prediction that does
    so cannot be judged. Neither can contradictory phrases, or a value that another key of the record
    could have. slots_judged is the share of slots that could be.
    Source: Wen et al. 2015, section 5.1; Dusek, Novikova and Rieser 2020, section 6.1.

    Raises:
        MissingError: no records, or no slot that can be judged.
    """
    if texts.records is None or not any(texts.records):
        raise MissingError("no row has a record (pass records=)")
    slots = _Slots(_known(record or {} for record in texts.records))
    errors = _errors(slots, texts.records, texts.references)
    table = np.zeros((len(texts.records), 3))
    counts: Counter[Told] = Counter()
    for row, record in enumerate(texts.records):
        for key, told in slots.read(record or {}, texts.predictions[row]).items():
            judged = told if told is Told.RIGHT or (key, told) in errors else Told.UNCLEAR
            counts[judged] += 1
            table[row] += (judged in (Told.WRONG, Told.SILENT), judged is not Told.UNCLEAR, 1)
    if not table[:, 1].any():
        raise MissingError(f"none of the {int(table[:, 2].sum())} slots can be judged")
    wrong, judged_slots, all_slots = table.T
    measures = {
        "slot_error_rate": ratio(wrong, judged_slots, share=True),
        "slots_judged": ratio(judged_slots, all_slots, share=True),
    }
    return Measured(measures, _named(counts))


def _named(counts: Counter[Told]) -> dict[str, int]:
    return {
        "slots": counts.total(),
        "slots_missing": counts[Told.SILENT],
        "slots_wrong": counts[Told.WRONG],
        "slots_not_judged": counts[Told.UNCLEAR],
    }


def _errors(
    slots: _Slots, records: Sequence[Mapping[str, str] | None], references: Sequence[Sequence[str]]
) -> set[tuple[str, Told]]:
    """What counts as an error: keys with WRONG or SILENT, where references hardly ever do that."""
    seen: Counter[tuple[str, Told]] = Counter()
    for record, row in zip(records, references, strict=True):
        for text in row:
            seen.update(slots.read(record or {}, text).items())
    total: Counter[str] = Counter()
    for (key, told), count in seen.items():
        total[key] += count if told is not Told.UNCLEAR else 0
    pairs = [(key, told) for key in total for told in (Told.WRONG, Told.SILENT) if total[key]]
    return {pair for pair in pairs if seen[pair] <= TOLERANCE * total[pair[0]]}


def _known(records: Iterable[Mapping[str, str]]) -> dict[str, set[tuple[str, ...]]]:
    known: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for record in records:
        for key, value in record.items():
            known[key].add(tuple(words(value)))
    return known


def _find_all(values: Iterable[tuple[str, ...]], text: list[str]) -> dict[tuple[str, ...], list[Span]]:
    """Where each value stands, longest first; what stands inside a longer one is not found."""
    found: dict[tuple[str, ...], list[Span]] = {}
    taken: list[Span] = []
    for value in sorted(set(values), key=lambda value: (-len(value), value)):
        spans = find(value, text)
        found[value] = [
            (start, end) for start, end in spans if not any(a < end and start < b for a, b in taken)
        ]
        taken += found[value]
    return found


def _yes_or_no(key: str, value: str, text: str) -> Told:
    said = polarity(key, text)
    if not said:
        return Told.SILENT
    if len(said) > 1:
        return Told.UNCLEAR
    return Told.RIGHT if said == {"yes" if value.casefold() in YES else "no"} else Told.WRONG
