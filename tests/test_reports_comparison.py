import re
from dataclasses import replace

import pytest
from rich.console import Console

from comparison_toy import LADDER, comparison_of
from pegbox.comparison import Comparison, Rung
from pegbox.evaluation import Estimate
from pegbox.reports import comparison_table, rung_line
from pegbox.reports._page._files import ladder_markdown
from pegbox.reports._page._view import view
from pegbox.reports._words import P_DECIDES, fits

COMPARISON = comparison_of()


def shown(thing: object, width: int = 80) -> list[str]:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(thing)
    return capture.get().splitlines()


def gap_and_p(rung: Rung) -> str:
    assert rung.difference is not None
    gap, p = rung.difference.difference, rung.difference.p
    p_value = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{gap.value:+.3f}, {p_value} [{gap.low:+.3f}, {gap.high:+.3f}]"


def test_a_line_per_rung_with_the_objects_numbers() -> None:
    lines = shown(comparison_table(COMPARISON), 140)
    assert lines[0].strip() == "160 test rows, 95 % intervals"
    for rung in COMPARISON.rungs:
        line = next(line for line in lines if line.startswith(rung.name))
        assert str(rung.metrics["accuracy"]) in line
        assert f"{rung.metrics['nll'].value:.3f}" in line
        assert f"{rung.metrics['ece'].value:.3f}" in line
        assert (gap_and_p(rung) if rung.difference else " - ") in line
    assert "1.23M" in next(line for line in lines if line.startswith("full"))
    assert next(line for line in lines if line.startswith("lora")).startswith("lora* ")
    marked = "* recommended: the cheapest rung that no costlier one beats and no cheaper one equals"
    assert lines[lines.index(marked) + 1] == "seconds: of the fit and 1,000 answers"
    assert " ".join(lines[lines.index(marked) + 2 : -1]) == (
        "mean of 3 seeds: lora, full; fitted once, nothing being random: majority, bag-of-words, zero-shot, "
        "closed-form"
    )
    assert lines[-1] == "not climbed: qlora (needs bitsandbytes)"


def test_what_was_fitted_once_is_no_mean_of_seeds() -> None:
    once = comparison_of(LADDER[:3], seeds=(0, 1))
    assert fits(once) == "each rung was fitted once, since nothing in it is drawn at random"
    assert fits(comparison_of(LADDER[:5], seeds=(0,))) == ""
    assert fits(comparison_of(LADDER[4:], seeds=(0, 1))) == "mean of 2 seeds"
    assert "mean of" not in " ".join(shown(comparison_table(once)))


def with_difference(low: float, p: float) -> Comparison:
    """A comparison whose last difference is 0.1 with that lower end and that p-value."""
    found = comparison_of(LADDER[:2])
    last = found.rungs[-1]
    assert last.difference is not None
    gap = replace(last.difference, difference=Estimate(0.1, low, 0.2), p=p)
    return replace(found, rungs=(found.rungs[0], replace(last, difference=gap)))


@pytest.mark.parametrize(
    ("low", "p", "odd"), [(0.02, 0.06, True), (0.02, 0.04, False), (-0.02, 0.06, False), (-0.02, 0.04, False)]
)
def test_an_interval_that_p_disagrees_with_is_explained(low: float, p: float, odd: bool) -> None:
    found = with_difference(low, p)
    told = " ".join(" ".join(shown(comparison_table(found))).split())
    assert (P_DECIDES in told) == odd
    assert ("p decides" in ladder_markdown(found)) == odd
    assert ("p decides" in view(found).remark) == odd


def test_where_less_is_better_the_table_says_so() -> None:
    assert "Brier: less is better" in shown(comparison_table(comparison_of(LADDER[:3], metric="brier")))
    assert "less is better" not in " ".join(shown(comparison_table(COMPARISON)))


def test_seconds_are_those_of_the_fit_and_a_thousand_answers() -> None:
    lines = shown(comparison_table(comparison_of([replace(LADDER[0], seconds=2.0, answers=40.0)])))
    assert next(line for line in lines if line.startswith("majority")).split()[-1] == "42"


def test_it_fits_eighty_columns_with_the_longest_names() -> None:
    ladder = [*LADDER[:4], replace(LADDER[4], name="zero-init-attention", seconds=12_000), LADDER[5]]
    lines = shown(comparison_table(comparison_of(ladder)))
    assert max(map(len, lines)) <= 80
    line = next(line for line in lines if line.startswith("zero-init-attention"))
    assert re.search(r" \d:\d\d:\d\d$", line.rstrip())
    assert not any("…" in line for line in lines)
    # The interval of the difference stands below it.
    assert re.search(r"\[[+-]\d\.\d{3}, [+-]\d\.\d{3}\] *$", lines[lines.index(line) + 1])


def test_longer_names_are_broken_and_whole() -> None:
    lines = shown(comparison_table(comparison_of([replace(LADDER[0], name="abcdefgh" * 5)])))
    assert max(map(len, lines)) <= 80
    assert [line[:20].strip() for line in lines[4:7]] == ["abcdefghabcdefghabcd", "efghabcdefghabcdefgh", "*"]


def test_tags_show_precision_and_recall_beside_f1() -> None:
    found = comparison_of(LADDER[3:5], kind="tag", labels=("LOC", "PER"), seeds=(0,))
    lines = shown(comparison_table(found), 140)
    assert lines[0].strip() == "160 test sentences, 95 % intervals"
    head = " ".join("".join(lines[1:4]).split())
    for name in ("F1", "prec.", "recall", "params", "seconds"):
        assert name in head
    line = next(line for line in lines if line.startswith("lora"))
    assert f"{found.rung('lora').metrics['recall'].value:.3f}" in line


def test_names_and_reasons_are_no_markup() -> None:
    strange = replace(COMPARISON, skipped=(replace(COMPARISON.skipped[0], reason="[red]no[/red] way"),))
    assert "not climbed: qlora ([red]no[/red] way)" in shown(comparison_table(strange))


def test_the_line_of_a_rung_that_arrives() -> None:
    rung = COMPARISON.rung("lora")
    assert rung.difference is not None
    gap = rung.difference.difference
    p = "p < 0.001" if rung.difference.p < 0.001 else f"p = {rung.difference.p:.3f}"
    assert rung_line(rung) == (
        f"lora: accuracy {rung.metrics['accuracy']} over 3 seeds, "
        f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] against {rung.against} ({p}), "
        f"32,768 parameters, {rung.cost.seconds:.0f} s to fit"
    )


@pytest.mark.parametrize(("metric", "name"), [(None, "accuracy"), ("nll", "NLL")])
def test_the_first_rung_has_no_difference(metric: str | None, name: str) -> None:
    rung = COMPARISON.rungs[0]
    value = rung.metrics[metric or "accuracy"]
    assert rung_line(rung, metric) == f"majority: {name} {value}, 0 parameters, 0.01 s to fit"
