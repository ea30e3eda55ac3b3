import pytest

from pegbox.cli._options import names, parse_size, parse_time, words
from pegbox.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8_000_000_000),
        ("512MiB", 512 * 2**20),
        ("1.5 gib", 3 * 2**29),
        ("900kb", 900_000),
        (" 1TB ", 10**12),
        ("64B", 64),
        ("2TiB", 2**41),
    ],
)
def test_a_size_is_a_number_with_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["8", "GB", "8G", "8 gigabytes", "-1GB", "0GB", "8IB", "", "1,5GB", "0.1B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=rf"'{text}' is no size \(--memory") as error:
        parse_size(text)
    assert "8GB or 512MiB" in error.value.fix
    assert "KiB" in error.value.expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("20m", 1200),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1.5H", 5400),
        ("1d 2h", 93600),
        ("0.5s", 0.5),
    ],
)
def test_a_time_is_numbers_with_their_units(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["20", "m", "20min", "-5m", "0s", "", "1h1h", "5s1m", "1:30", "20m later"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=rf"'{text}' is no time \(--budget") as error:
        parse_time(text, "--budget")
    assert "20m" in error.value.fix


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, ()),
        ("a, b,", ("a", "b")),
        ("a,\nb", ("a", "b")),
        ("my  text, b", ("my  text", "b")),
        ('"a, b",\n\t"c, d"', ("a, b", "c, d")),
        ('"a, b", c', ("a, b", "c")),
        ('"a,b', ('"a', "b")),
        ('a "b" c,d', ('a "b" c', "d")),
    ],
)
def test_names_are_divided_at_commas_outside_of_quotes(value: str | None, found: tuple[str, ...]) -> None:
    assert names(value) == found


def test_label_words_are_divided_alike() -> None:
    assert words('"yes=very, good",no=bad') == {"yes": "very, good", "no": "bad"}
    with pytest.raises(UsageError, match="is no label word"):
        words("yes")
