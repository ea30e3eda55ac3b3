import re

_QUERY = re.compile(r"[\s(]*(select\b|with\s+(recursive\s+)?\w+\s*(\([^)]*\)\s*)?as\s*\()", re.IGNORECASE)
_TOKEN = re.compile(
    r"""'(?:[^']|'')*'        # a text
      | "(?:[^"]|"")*"        # a name, and a text where a value is expected
      | `[^`]*` | \[[^\]]*\]  # names
      | [\w.]+
      | <> | != | <= | >= | == | \|\|
      | \S""",
    re.VERBOSE,
)
_SAME = {"<>": "!=", "==": "="}
_BEFORE_VALUE = {"=", "!=", "<", ">", "<=", ">=", "like", "between", "in"}
_AFTER_WHERE = {"group", "order", "having", "limit", "union", "intersect", "except"}


def is_query(text: str) -> bool:
    """Whether a text begins as an SQL query does; a sentence that begins with the word "with" does not."""
    return _QUERY.match(text) is not None


def normalise(query: str) -> tuple[str, ...]:
    """Tokens of a query, equal for two queries that differ only in how they are written.

    Keywords and names are lower case; texts in quotes keep theirs. Spaces, the kind of quotes, a closing
    semicolon, ``<>`` for ``!=``, ``==`` for ``=`` and the order of the conditions that AND joins in the
    outer WHERE make no difference. Anything else does, also where the result is sure to be the same.
    """
    tokens: list[str] = []
    for part in _TOKEN.findall(query):
        tokens.append(_token(part, tokens[-1] if tokens else ""))
    while tokens and tokens[-1] == ";":
        tokens.pop()
    return tuple(_sorted_where(tokens))


def _token(part: str, before: str) -> str:
    inner = part[1:-1]
    if len(part) > 1 and part[0] == "'":
        return "'" + inner.replace("''", "'")
    if len(part) > 1 and part[0] == '"' and before in _BEFORE_VALUE:
        return "'" + inner.replace('""', '"')
    if len(part) > 1 and part[0] in '"`[':
        return inner.lower()
    return _SAME.get(part, part.lower())


def _sorted_where(tokens: list[str]) -> list[str]:
    outer = _outer(tokens)
    start = next((place + 1 for place in outer if tokens[place] == "where"), None)
    if start is None:
        return tokens
    end = next((place for place in outer if place >= start and tokens[place] in _AFTER_WHERE), len(tokens))
    options = _split(tokens[start:end], "or")
    conditions = [sorted(_split(option, "and")) for option in options]
    joined = _join([_join(option, "and") for option in conditions], "or")
    return tokens[:start] + joined + tokens[end:]


def _outer(tokens: list[str]) -> list[int]:
    """Places outside all parentheses."""
    depth, places = 0, []
    for place, token in enumerate(tokens):
        depth += (token == "(") - (token == ")")
        if depth == 0 and token != ")":
            places.append(place)
    return places


def _split(tokens: list[str], word: str) -> list[list[str]]:
    """Parts between the outer occurrences of a word; the AND of BETWEEN parts nothing."""
    parts: list[list[str]] = [[]]
    outer = set(_outer(tokens))
    for place, token in enumerate(tokens):
        own = parts[-1]
        if place in outer and token == word and not _between_is_open(own):
            parts.append([])
        else:
            own.append(token)
    return parts


def _between_is_open(tokens: list[str]) -> bool:
    outer = [tokens[place] for place in _outer(tokens)]
    return outer.count("between") > outer.count("and")


def _join(parts: list[list[str]], word: str) -> list[str]:
    joined = list(parts[0])
    for part in parts[1:]:
        joined += [word, *part]
    return joined
