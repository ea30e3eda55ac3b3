from pegbox.evaluation._nlg._measure import Measured, MissingError, Texts, mean
from pegbox.evaluation._nlg._sql_text import is_query, normalise


def sql_match(texts: Texts) -> Measured:
    """Share of queries that equal one of their references once both are normalised (see `normalise`).

    The "logical form" accuracy of Zhong, Xiong and Socher 2017, section 4.2, for queries as text.

    Raises:
        MissingError: no reference is a query.
    """
    refuse_prose(texts)
    pairs = zip(texts.predictions, texts.references, strict=True)
    return Measured(
        {"sql_match": mean([normalise(own) in {normalise(ref) for ref in row} for own, row in pairs])}
    )


def refuse_prose(texts: Texts) -> None:
    """Check that there is something to compare queries with.

    Raises:
        MissingError: no reference is a query.
    """
    if not any(is_query(reference) for row in texts.references for reference in row):
        raise MissingError("no reference is an SQL query")
