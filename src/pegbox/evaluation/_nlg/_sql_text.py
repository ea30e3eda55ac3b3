import re

_QUERY = re.compile(r"[\s(]*(select\b|with\s+(recursive\s+)?\w+\s*(\([^)]*\)\s*)?as\s*\()", re.IGNORECASE)


def is_query(text: str) -> bool:
    """Whether a text begins as an SQL query does; a sentence that begins with the word "with" does not."""
    return _QUERY.match(text) is not None
