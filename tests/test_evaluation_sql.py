"""Queries compared as text and by their results; what a hostile query can do: nothing."""

import json
from pathlib import Path

import pytest

from pegbox.errors import InputError
from pegbox.evaluation import SqlTable, score_texts

WIKISQL = Path(__file__).parents[2] / "shared" / "data" / "wikisql" / "test.jsonl"
TABLE = SqlTable(
    "data",
    ("site", "week", "crowd size"),
    (("TV3", 1, "12,000"), ("TV4", 16, "9"), ("TV4", 16, "9"), ("TV5", None, None)),
)
GOLD = "SELECT site FROM data WHERE week = '16' AND crowd = '9'"


def match(query: str, gold: str = GOLD) -> float:
    return score_texts([query], [[gold]], metrics=["sql_match"]).metrics["sql_match"].value


@pytest.mark.parametrize(
    "query",
    [
        "select SITE from data where week='16' and CROWD = '9' ;",
        "SELECT site\n FROM data  WHERE crowd = '9' AND week = '16'",
        'SELECT site FROM data WHERE week = "16" AND crowd == "9"',
        "SELECT `site` FROM [data] WHERE \"week\" = '16' AND crowd = '9'",
    ],
)
def test_the_way_of_writing_makes_no_difference(query: str) -> None:
    assert match(query) == 1.0


@pytest.mark.parametrize(
    "query",
    [
        "SELECT site FROM data WHERE week = '16' OR crowd = '9'",
        "SELECT site FROM data WHERE week = '16'",
        "SELECT crowd FROM data WHERE week = '16' AND crowd = '9'",
        "SELECT site FROM data WHERE week = '9' AND crowd = '16'",
        "SELECT site FROM data WHERE week = '16' AND crowd = '9' LIMIT 1",
        "",
        "'",
    ],
)
def test_another_query_is_wrong(query: str) -> None:
    assert match(query) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            "SELECT a FROM t WHERE b BETWEEN 1 AND 2 AND c = 3",
            "SELECT a FROM t WHERE c = 3 AND b BETWEEN 1 AND 2",
            1,
        ),
        ("SELECT a FROM t WHERE b BETWEEN 1 AND 2", "SELECT a FROM t WHERE b BETWEEN 2 AND 1", 0),
        (
            "SELECT a FROM t WHERE (b = 1 OR c = 2) AND d = 3",
            "SELECT a FROM t WHERE d = 3 AND (b = 1 OR c = 2)",
            1,
        ),
        (
            "SELECT a FROM t WHERE b = 1 AND c = 2 OR d = 3",
            "SELECT a FROM t WHERE c = 2 AND b = 1 OR d = 3",
            1,
        ),
        (
            "SELECT a FROM t WHERE b = 1 AND c = 2 OR d = 3",
            "SELECT a FROM t WHERE b = 1 AND d = 3 OR c = 2",
            0,
        ),
        (
            "SELECT a FROM t WHERE c = 2 AND b = 1 ORDER BY a",
            "SELECT a FROM t WHERE b = 1 AND c = 2 ORDER BY a",
            1,
        ),
        ("SELECT a FROM t WHERE b <> 'It''s'", 'SELECT a FROM t WHERE b != "It\'s"', 1),
        ("SELECT a FROM t WHERE b = 'X'", "SELECT a FROM t WHERE b = 'x'", 0),
    ],
)
def test_only_what_and_joins_may_change_places(one: str, other: str, same: float) -> None:
    assert match(one, other) == match(other, one) == same


def run(query: str, gold: str = "SELECT site FROM data", table: SqlTable = TABLE) -> float:
    scores = score_texts([query], [[gold]], metrics=["sql_execution"], tables=[table])
    return scores.metrics["sql_execution"].value


@pytest.mark.parametrize(
    ("query", "gold", "right"),
    [
        ("SELECT site FROM data ORDER BY site DESC", "SELECT site FROM data", 1),
        ("SELECT DISTINCT site FROM data", "SELECT site FROM data", 0),
        ("SELECT COUNT(*) FROM data WHERE week > 3", "SELECT 2", 1),
        # A column of numbers compares '16' as a number.
        ("SELECT site FROM data WHERE week > '3'", "SELECT site FROM data WHERE week = 16", 1),
        ('SELECT MAX("crowd size") FROM data;', "SELECT '9'", 1),
        ("SELECT nothing FROM data", "SELECT site FROM data", 0),
        ("Sorry, I cannot.", "SELECT site FROM data", 0),
        # A text without a query is no result, and so not the same as an empty one.
        ("", "SELECT site FROM data WHERE week = 99", 0),
        ("-- nothing", "SELECT site FROM data WHERE week = 99", 0),
    ],
)
def test_results_are_compared_as_multisets(query: str, gold: str, right: float) -> None:
    assert run(query, gold) == right


ENDLESS = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) "


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE data",
        "DELETE FROM data",
        "INSERT INTO data VALUES ('x', 1, 'y')",
        "UPDATE data SET site = 'x'",
        "ATTACH DATABASE '{path}' AS other",
        "VACUUM INTO '{path}'",
        "SELECT site FROM data; DROP TABLE data",
        "CREATE TABLE other (a)",
        "PRAGMA writable_schema = 1",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('x')",
        "SELECT zeroblob(1000000000)",
        "BEGIN",
        ENDLESS + "SELECT COUNT(*) FROM t",
        ENDLESS + "SELECT x FROM t",
        "WITH RECURSIVE t(x) AS (SELECT 'ab' UNION ALL SELECT x || x FROM t) SELECT COUNT(*) FROM t",
        "SELECT COUNT(*) FROM " + ", ".join(f"data AS d{number}" for number in range(20)),
        "SELECT " + "(" * 5000,
        "SELECT '\0'",
        "SELECT '\ud800'",
        "SELECT CAST(x'ff' AS TEXT)",
    ],
)
def test_a_hostile_query_is_wrong_and_does_no_harm(query: str, tmp_path: Path) -> None:
    path = tmp_path / "harm.db"
    queries = [query.replace("{path}", str(path)), "SELECT COUNT(*) FROM data"]
    gold = [["SELECT site FROM data"], ["SELECT 4"]]
    scores = score_texts(queries, gold, metrics=["sql_execution"], tables=[TABLE, TABLE])
    # Wrong, and the next query of the same table finds it as it was.
    assert scores.metrics["sql_execution"].value == 0.5
    assert not path.exists()


def test_what_explains_the_number_is_counted() -> None:
    gold = [
        "SELECT site FROM data",
        "SELECT site FROM nowhere",
        "SELECT site FROM data WHERE week = 99",
        "SELECT 1",
    ]
    scores = score_texts(
        gold, [[text] for text in gold], metrics=["sql_execution"], tables=[TABLE, TABLE, TABLE, None]
    )
    # The second fails with its own reference; the fourth has no table and is left out.
    assert scores.metrics["sql_execution"].value == pytest.approx(2 / 3)
    assert scores.counts == {"sql_without_table": 1, "sql_reference_fails": 1, "sql_reference_empty": 1}
    none = score_texts(gold, [[text] for text in gold], metrics=["sql_execution"])
    assert none.missing == {"sql_execution": "no row has a table (pass tables=)"}


def test_any_reference_may_be_met() -> None:
    gold = [["SELECT 1", "SELECT site FROM data"]]
    scores = score_texts(
        ["SELECT site FROM data"], gold, tables=[TABLE], metrics=["sql_match", "sql_execution"]
    )
    assert [estimate.value for estimate in scores.metrics.values()] == [1.0, 1.0]


def test_a_table_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="each name once"):
        SqlTable("data", ("a", "A"))
    with pytest.raises(InputError, match="1 cells for 2 columns"):
        SqlTable("data", ("a", "b"), (("x",),))
    with pytest.raises(InputError, match="of type list"):
        SqlTable("data", ("a",), (([],),))  # type: ignore[arg-type]
    assert run("SELECT site FROM data", table=SqlTable("data", ("site",))) == 1.0


@pytest.mark.skipif(not WIKISQL.is_file(), reason="the development data is not beside the repository")
def test_gold_queries_of_wikisql_match_themselves_however_they_are_written() -> None:
    queries = [json.loads(line)["sql"] for line in WIKISQL.read_text("utf-8").splitlines()]
    spaced = [query.replace("SELECT", "select ").replace(" AND ", "  and ") + ";" for query in queries]
    scores = score_texts(spaced, [[query] for query in queries], metrics=["sql_match", "exact_match"])
    assert scores.metrics["sql_match"].value == 1.0
    assert scores.metrics["exact_match"].value == 0.0
