"""Which metrics suit a data set of generated text."""

from collections.abc import Mapping, Sequence
from statistics import median

from pegbox.evaluation._nlg._sql_text import is_query
from pegbox.evaluation._records import SqlTable

_SHORT = 4


def which_metrics(
    references: Sequence[Sequence[str]],
    *,
    records: Sequence[Mapping[str, str] | None] | None = None,
    tables: Sequence[SqlTable | None] | None = None,
) -> tuple[str, ...]:
    """Metrics that suit these references, by the first rule that holds.

    1. Most first references are SQL queries (SELECT ..., WITH ... AS): exact_match and sql_match, and where
       most rows have a table sql_execution.
    2. Most rows have a record: bleu, nist, meteor, rouge_l and cider, those of the E2E challenge (Dusek,
       Novikova and Rieser 2020), and slot_error_rate.
    3. The median of the first references has at most four words: exact_match.
    4. Else exact_match, rouge_l and bleu.

    Args:
        references: Right answers of each row.
        records: What `parse_record` makes of each row's prompt, None where it is no record.
        tables: Table of each row, None where it is not known.
    """
    first = [own[0] for own in references if own]
    if _most([is_query(text) for text in first]):
        known = _most([table is not None for table in tables or ()])
        return ("exact_match", "sql_match", *(("sql_execution",) if known else ()))
    if _most([record is not None for record in records or ()]):
        return ("bleu", "nist", "meteor", "rouge_l", "cider", "slot_error_rate")
    if first and median(len(text.split()) for text in first) <= _SHORT:
        return ("exact_match",)
    return ("exact_match", "rouge_l", "bleu")


def _most(found: Sequence[bool]) -> bool:
    return 2 * sum(found) > len(found)
