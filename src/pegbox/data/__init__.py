"""Files and hub data sets to rows: reading, guessing columns, the data doctor, seeded splits."""

from pegbox.data._columns import Columns, find_columns
from pegbox.data._doctor import check
from pegbox.data._examples import Dropped, Examples, examples, from_texts
from pegbox.data._findings import Finding, Findings
from pegbox.data._read import read
from pegbox.data._rows import Rows
from pegbox.data._split import split, take
from pegbox.data._table import Table
from pegbox.data._text import text_key

__all__ = [
    "Columns",
    "Dropped",
    "Examples",
    "Finding",
    "Findings",
    "Rows",
    "Table",
    "check",
    "examples",
    "find_columns",
    "from_texts",
    "read",
    "split",
    "take",
    "text_key",
]
