import dataclasses
import math

import numpy as np
import pytest
from rich.console import Console

from pegbox.evaluation import Estimate, Scores, score
from pegbox.reports import LadderRow, ladder, ladder_markdown, scores_panel
from pegbox.reports._format import (
    duration,
    legible,
    moment,
    operations,
    seconds,
    short_count,
    signed,
    size,
)


def shown(thing: object, width: int) -> list[str]:
    console = Console(width=width, record=True, file=None, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(thing)
    return capture.get().splitlines()


def scored(labels: list[str], rows: int = 60) -> Scores:
    generator = np.random.default_rng(0)
    tables = generator.dirichlet(np.ones(len(labels)), size=(2, rows))
    gold = generator.integers(len(labels), size=rows)
    found = score(
        tables[0],
        gold,
        labels,
        base=tables[1],
        in_training=np.arange(rows) < 20,
        distance=np.linspace(0, 1, rows),
        resamples=50,
    )
    return dataclasses.replace(found, seconds=7.25)


ROWS = [
    LadderRow("zero-shot", Estimate(0.571, 0.543, 0.604)),
    LadderRow.from_scores("lora | rank 8", scored(["a", "b"]), parameters=1_234_567, adapter_bytes=3_456_789),
]


def test_the_ladder_has_one_line_per_method() -> None:
    lines = shown(ladder(ROWS, title="reviews"), 120)
    assert lines[0].strip() == "reviews"
    assert [line for line in lines if line.startswith("zero-shot")] == [
        next(line for line in lines if "0.571 [0.543, 0.604]" in line)
    ]
    tuned = next(line for line in lines if line.startswith("lora | rank 8"))
    scores = scored(["a", "b"])
    assert str(scores.metrics["accuracy"]) in tuned
    assert scores.flips is not None
    flips = f"+{scores.flips.wrong_to_right.count} −{scores.flips.right_to_wrong.count}"
    assert flips in tuned
    assert tuned.split()[-4:] == ["1.23M", "3.3", "MiB", "7.2"]


def test_the_ladder_fits_a_terminal_of_eighty() -> None:
    lines = shown(ladder(ROWS), 80)
    assert max(map(len, lines)) <= 80
    assert next(line for line in lines if line.startswith("method")).rstrip().endswith("seconds")
    assert any("[0.543, 0.604]" in line for line in lines)
    assert not any("…" in line for line in lines)


def test_markdown_says_dash_for_unknown_and_escapes_bars() -> None:
    lines = ladder_markdown(ROWS).splitlines()
    assert lines[1] == "| --- |" + " ---: |" * 8
    assert lines[2] == "| zero-shot | 0.571 [0.543, 0.604] |" + " - |" * 7
    assert lines[3].startswith("| lora \\| rank 8 |")
    assert lines[3].endswith("| 1,234,567 | 3.3 MiB | 7.2 |")
    assert ladder_markdown([]).count("\n") == 2
    assert "nan" not in ladder_markdown([LadderRow("x", Estimate(math.nan, math.nan, math.nan))])


def test_the_panel_shows_every_number_and_label_as_it_is() -> None:
    found = scored(["neg[ative]", "[red]pos[/red]"])
    text = "\n".join(shown(scores_panel(found, title="test [x]"), 120))
    assert "test [x]" in text
    for estimate in found.metrics.values():
        assert str(estimate) in text
    assert "[red]pos[/red]" in text
    assert str(found.per_class["neg[ative]"].recall) in text
    assert found.flips is not None
    line = next(line for line in text.splitlines() if "wrong to right" in line)
    group = found.flips.wrong_to_right
    assert group.inside is not None
    assert group.outside is not None
    assert group.all.distance is not None
    assert line.strip("│ ").split()[-4:] == [
        str(group.count),
        str(group.inside.count),
        str(group.outside.count),
        f"{group.all.distance.mean:.3f}",
    ]


def test_rows_that_did_not_flip_are_counted_even_where_distances_are_unknown() -> None:
    before, after = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]
    found = score(after, [0, 0, 0], ["a", "b"], base=before, resamples=20)
    line = next(line for line in shown(scores_panel(found), 100) if "unchanged" in line)
    assert line.strip("│ ").split() == ["unchanged", "2"]


def test_confusion_is_left_out_above_twelve_labels_and_flips_when_unknown() -> None:
    twelve = "\n".join(shown(scores_panel(scored([f"l{n}" for n in range(12)])), 160))
    thirteen = "\n".join(shown(scores_panel(scored([f"l{n}" for n in range(13)])), 160))
    assert "gold \\ predicted" in twelve
    assert "gold \\ predicted" not in thirteen
    bare = score([[0.9, 0.1], [0.2, 0.8]], [0, 0], ["a", "b"], resamples=20)
    text = "\n".join(shown(scores_panel(bare), 100))
    assert "flips" not in text
    assert "seconds" not in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.044, "0.04"), (7.25, "7.2"), (9.97, "10"), (99.4, "99"), (725, "12:05"), (12_000, "3:20:00")],
)
def test_seconds(number: float, text: str) -> None:
    assert seconds(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.00 s"),
        (0.001, "< 0.01 s"),
        (0.3, "0.30 s"),
        (99.4, "99 s"),
        (725, "12 min 5 s"),
        (12_000, "3 h 20 min"),
    ],
)
def test_durations(number: float, text: str) -> None:
    assert duration(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(3.39e-7, "0.339 µs"), (9.996e-4, "1 ms"), (0.0243, "24.3 ms"), (0.13, "130 ms"), (1.2, "1.2 s")],
)
def test_moments(number: float, text: str) -> None:
    assert moment(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (514, "514"), (999.6, "1 k"), (1.234e6, "1.23 M"), (7.89e12, "7.89 T")]
)
def test_operations(number: float, text: str) -> None:
    assert operations(number) == text


def test_signed_numbers_have_no_negative_zero() -> None:
    assert signed(Estimate(-0.0001, -0.2, 0.0)) == "+0.000 [-0.200, +0.000]"
    assert signed(Estimate(0.1, math.nan, math.nan)) == "+0.100"
    assert signed(Estimate(math.nan, math.nan, math.nan)) == signed(None) == "-"


def test_what_no_page_can_hold_is_marked() -> None:
    mark = "\N{REPLACEMENT CHARACTER}"
    assert legible("a\tb\nc\x00\x7f\x9f\ud800\ufffe é🙂") == f"a\tb\nc{5 * mark} é🙂"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (9_999, "9,999 B"),
        (13_000, "12.7 KiB"),
        (133_000, "130 KiB"),
        (3_456_789, "3.3 MiB"),
        (5 * 1024**3, "5.0 GiB"),
    ],
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (98_304, "98,304"),
        (100_000, "0.10M"),
        (1_234_567, "1.23M"),
        (123_456_789, "123M"),
        (999_600_000, "1.00B"),
    ],
)
def test_short_counts(number: int, text: str) -> None:
    assert short_count(number) == text
