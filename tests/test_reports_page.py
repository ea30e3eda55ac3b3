import csv
import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparison_toy import LADDER, comparison_of, curve_of, with_forgetting
from page_toy import Page
from pegbox.comparison import ChangedRow, Comparison, Skipped, WrongRow
from pegbox.errors import UsageError
from pegbox.evaluation import Estimate, only_also, score_also
from pegbox.reports import write_report
from pegbox.reports._page._view import view
from pegbox.reports._page._write import SECTIONS, page

FEW = LADDER[2:6]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    curve = curve_of()
    advice = curve.advice(Estimate(0.02, 0.01, 0.03), "lora")
    return with_forgetting(comparison_of(FEW, seeds=(0, 1), curve=curve, advice=advice))


@pytest.fixture(scope="module")
def folder(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    assert write_report(comparison, place) == place / "report.html"
    return place


@pytest.fixture(scope="module")
def read(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


def shown(comparison: Comparison) -> Page:
    return Page(page(comparison, view(comparison)))


def test_what_is_written(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.json", "ladder.md", "pictures", "report.html", "rungs.csv",
    ]  # fmt: skip
    names = ["learning-curve", "pareto", *(f"reliability-{made.name}" for made in FEW)]
    wanted = sorted(f"{name}.{suffix}" for name in names for suffix in ("png", "svg"))
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == wanted
    assert (folder / "pictures" / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_comparison_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = Comparison.from_json(json.loads((folder / "comparison.json").read_text("utf-8")))
    write_report(again, tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


def test_pictures_of_an_earlier_comparison_go(tmp_path: Path) -> None:
    for ladder in (FEW[:2], FEW[1:3]):
        write_report(comparison_of(ladder, seeds=(0,)), tmp_path)
    names = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert names == {"pareto", "reliability-closed-form", "reliability-lora"}
    with pytest.raises(UsageError, match="where a file is"):
        write_report(comparison_of(FEW[:1], seeds=(0,)), tmp_path / "rungs.csv")


def test_the_page_has_its_parts_in_order(comparison: Comparison, read: Page) -> None:
    sections = [element.attributes["id"] for element in read.all("section")]
    assert sections == list(SECTIONS)
    links = [element.attributes["href"] for element in read.all("a")]
    assert links == ["#ladder", *(f"#{key}" for key in SECTIONS)]
    header = read.all("header")[0].text
    for sentence in comparison.verdict:
        assert sentence in header
    assert comparison.rule in read.by_id("ladder").text
    assert comparison.skipped[0].reason in read.by_id("ladder").text
    assert comparison.curve is not None
    assert comparison.advice in read.by_id("curve").text
    assert "lora brings +2.0" in comparison.advice
    assert read.all("code")[0].text == comparison.command
    for line in comparison.findings:
        assert line in read.by_id("data").text
    for name, version in comparison.versions.items():
        assert f"{name}\n{version}" in read.by_id("repeat").text.replace("\n\n", "\n")


def test_it_asks_nothing_of_anyone(read: Page) -> None:
    policy = next(part for part in read.all("meta") if "http-equiv" in part.attributes)
    assert policy.attributes["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert not any(read.all(tag) for tag in ("script", "link", "img", "iframe", "object", "base", "form"))
    ids = {element.attributes["id"] for element in read.elements if "id" in element.attributes}
    for element in read.elements:
        assert not [name for name in element.attributes if name.startswith("on") or name == "src"]
        for name in ("href", "aria-labelledby"):
            for target in element.attributes.get(name, "").split():
                assert target.removeprefix("#") in ids, target
        for target in re.findall(r"url\(([^)]*)\)", " ".join(element.attributes.values())):
            assert target.startswith("#"), target
            assert target[1:] in ids, target
    assert not re.search(r"https?:|//|@import|@font-face", read.source)


def test_ids_are_unique_and_headings_in_order(read: Page) -> None:
    ids = [element.attributes["id"] for element in read.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    levels = [int(element.tag[1]) for element in read.elements if re.fullmatch("h[1-6]", element.tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_it_can_be_read_by_ear(read: Page) -> None:
    assert read.all("html")[0].attributes["lang"] == "en"
    first = next(element for element in read.elements if element.path[-1:] == ("body",))
    assert first.attributes == {"class": "skip", "href": "#ladder"}
    tables = read.all("table")
    assert len(read.all("caption")) == len(tables) > 8
    assert all(part.attributes.get("scope") in ("col", "row") for part in read.all("th"))
    regions = [part for part in read.elements if part.attributes.get("role") == "region"]
    assert all(part.attributes["tabindex"] == "0" for part in regions)
    assert all("aria-label" in part.attributes or "aria-labelledby" in part.attributes for part in regions)
    pictures = [part for part in read.all("svg") if part.attributes.get("role") == "img"]
    assert len(pictures) == 2 + len(FEW)
    for picture in pictures:
        title, words = (read.by_id(name) for name in picture.attributes["aria-labelledby"].split())
        assert (title.tag, words.tag) == ("title", "desc")
        assert title.text
        assert re.search(r"\d\.\d\d", words.text), words.text


def numbers_of(value: Any) -> set[str]:
    """Every number of a comparison as a page may write it, without its sign."""
    if isinstance(value, dict):
        return set().union(*map(numbers_of, value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*map(numbers_of, value)) if value else set()
    if isinstance(value, int | float):
        return {f"{abs(value):.3f}", f"{abs(value):.2f}", f"{abs(value):,}"}
    return set()


def test_every_number_of_the_tables_is_one_of_the_comparison(comparison: Comparison, read: Page) -> None:
    known = numbers_of(comparison.to_json())
    cells = [part for part in read.all("td") if "table" in part.path]
    found = {number for cell in cells for number in re.findall(r"\d\.\d{3}\b", cell.text)}
    assert len(found) > 100
    assert found <= known
    ladder = read.by_id("ladder").text
    for rung in comparison.rungs:
        for name in ("accuracy", "macro_f1", "nll", "ece"):
            estimate = rung.metrics[name]
            ends = f"[{estimate.low:.3f},\N{NO-BREAK SPACE}{estimate.high:.3f}]"
            assert f"{estimate.value:.3f}{ends}" in ladder
        if rung.difference:
            assert f"{rung.difference.difference.value:+.3f}" in ladder
        assert f"{rung.cost.parameters:,}" in ladder


def test_rows_are_shown_with_their_numbers(comparison: Comparison, read: Page) -> None:
    flips, errors = read.by_id("flips").text, read.by_id("errors").text
    for title in ("Mended: 1 row", "Broken: 2 rows"):
        assert title in flips
    for row in comparison.changed:
        assert row.texts[0] in flips
    for wrong in comparison.errors:
        assert wrong.texts[0] in errors
        assert f"{wrong.probability:.3f}" in errors
    heads = [part.text for part in read.all("th") if part.attributes["scope"] == "row"]
    assert {"7", "9", "12"} <= set(heads)


def test_forgetting_shows_that_a_frozen_base_is_frozen(comparison: Comparison, read: Page) -> None:
    text = read.by_id("forgetting").text
    found = comparison.rung("lora").typical.forgetting
    assert found is not None
    assert f"{found.change.value:+.3f}" in text
    assert "exactly 0" in text
    assert "questions.csv" in text
    assert "Forgetting was not measured" in shown(comparison_of(FEW[:2], seeds=(0,))).by_id("forgetting").text


NASTY = (
    '<script>alert(1)</script>"><img src=x onerror=alert(2)> & سلام 🙂 \x00\ud800 {{ 7 * 7 }} ' + "w" * 400
)


def test_no_text_of_a_user_is_read_as_code() -> None:
    ladder = [replace(FEW[1], name=NASTY[:60]), *FEW[2:3]]
    found = comparison_of(ladder, labels=(NASTY, "b"), seeds=(0,), text=NASTY)
    named = replace(found.skipped[0], name=NASTY, reason=NASTY)
    cell = replace(found.rungs[0].cells[0], notes=(NASTY,))
    rung = replace(found.rungs[0], cells=(cell,), summary=NASTY, options={NASTY: NASTY})
    found = replace(
        found,
        rungs=(rung, *found.rungs[1:]),
        data=replace(found.data, source=NASTY, test_source=NASTY),
        base=replace(found.base, name=NASTY),
        skipped=(named,),
        verdict=(NASTY, NASTY),
        rule=NASTY,
        findings=(NASTY,),
        configuration={NASTY: {"a": NASTY, "b": [NASTY]}},
        command=NASTY,
        versions={"pegbox": NASTY},
        machine=NASTY,
        date=NASTY,
        changed_from=NASTY,
    )
    read = shown(found)
    assert not read.all("script")
    assert not read.all("img")
    assert "{{ 7 * 7 }}" in read.source
    assert read.source.encode("utf-8").count(b"\x00") == 0
    assert "سلام 🙂 \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}" in read.by_id("flips").text
    assert read.source.count("&lt;script&gt;") > 20
    paragraphs = [part for part in read.all("p") if part.attributes.get("dir") == "auto"]
    assert len(paragraphs) == sum(1 for part in paragraphs if "w" * 200 in part.text) > 0


def test_each_note_is_shown_once_with_all_that_told_it() -> None:
    found = comparison_of(FEW[1:3], seeds=(0, 1))
    solved, trained = found.rungs
    one = tuple(replace(cell, notes=("template derived",)) for cell in solved.cells)
    two = tuple(
        replace(cell, notes=("template derived", f"note {cell.seed}", "10 rows")) for cell in trained.cells
    )
    rungs = (replace(solved, cells=one), replace(trained, cells=two))
    assert view(replace(found, rungs=rungs)).notes == (
        ("closed-form; lora, seed 0; lora, seed 1", ("template derived",)),
        ("lora, seed 0", ("note 0",)),
        ("lora, seed 0; lora, seed 1", ("10 rows",)),
        ("lora, seed 1", ("note 1",)),
    )


def test_seeds_are_those_that_something_was_fitted_under(comparison: Comparison, read: Page) -> None:
    assert dict(view(comparison).facts)["Seeds"] == "0, 1"
    assert "All fits and answers" in dict(view(comparison).facts)
    assert "mean of 2 seeds: lora, full; fitted once" in read.by_id("ladder").text
    once = comparison_of(FEW[:2], seeds=(0, 1))
    told = "0; each rung was fitted once, since nothing in it is drawn at random"
    assert dict(view(once).facts)["Seeds"] == told
    assert "mean of" not in shown(once).by_id("ladder").text


def test_where_nothing_was_turned_other_tasks_say_so() -> None:
    found = comparison_of(FEW[:2], seeds=(0,))
    answers = np.array([[0.9, 0.1], [0.2, 0.8]])
    also = only_also([score_also("other.csv", answers, answers, [0, 1])], "bits per byte")
    rungs = [replace(rung, cells=(replace(rung.cells[0], forgetting=also),)) for rung in found.rungs]
    text = shown(replace(found, rungs=tuple(rungs))).by_id("forgetting").text
    assert text.count("exactly 0") == 2
    assert "nothing was turned" in text
    assert "1.000]" in text  # accuracies keep their intervals
    assert "+0.000" not in text


def test_a_rungs_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    names = ("../../../evil", "a/b", "A B", "🙂")
    made = [replace(FEW[0], name=name, strength=place) for place, name in enumerate(names)]
    write_report(comparison_of(made, seeds=(0,)), tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    stems = sorted({path.stem for path in (tmp_path / "here" / "pictures").iterdir()})
    assert stems == ["pareto", "reliability-a-b", "reliability-a-b-2", "reliability-evil", "reliability-rung"]


def test_long_texts_and_many_rows_are_shown_on_demand() -> None:
    found = comparison_of(FEW[:2], seeds=(0,))
    long = "word " * 300
    changed = [ChangedRow(n, (long, "second text"), "negative", "positive", "negative") for n in range(250)]
    wrong = [WrongRow(n, (f"text {n}",), "positive", "negative", 0.9, 0.1) for n in range(9)]
    read = shown(replace(found, changed=tuple(changed), errors=tuple(wrong)))
    flips = read.by_id("flips").text
    assert "Mended: 250 rows" in flips
    assert "192 more rows" in flips
    assert "50 more rows are in comparison.json" in flips
    assert "the whole text, 1,500 characters" in flips
    assert flips.count("second text") == 200
    assert "1 more row" in read.by_id("errors").text


def test_without_flips_errors_curve_and_findings_it_says_so() -> None:
    found = comparison_of(FEW[:2], seeds=(0,), changed=(), errors=(), findings=(), skipped=(), command="")
    read = shown(found)
    assert "answers every test row as zero-shot does" in read.by_id("flips").text
    assert "has every test row right" in read.by_id("errors").text
    assert "No learning curve was measured" in read.by_id("curve").text
    assert "No findings" in read.by_id("data").text
    assert "Each seed" not in read.by_id("ladder").text
    assert "Not climbed" not in read.by_id("ladder").text
    assert not read.all("pre")
    alone = shown(replace(found, changed_from=None))
    assert "no rung that" in alone.by_id("flips").text


def test_tags_have_types_and_no_calibration() -> None:
    read = shown(comparison_of(FEW[1:3], kind="tag", labels=("LOC", "ORG"), seeds=(0, 1)))
    assert "no probabilities" in read.by_id("calibration").text
    labels = read.by_id("labels").text
    for word in ("type", "entities", "LOC", "ORG"):
        assert word in labels
    assert "probability" not in read.by_id("errors").text
    heads = [part.text for part in read.all("th") if "thead" in part.path]
    assert heads[:6] == ["rung", "F1", "over the best cheaper rung", "p", "worth its cost", "precision"]
    assert len([part for part in read.all("svg") if part.attributes.get("role") == "img"]) == 1


def test_seventy_seven_labels() -> None:
    labels = [f"intent {place}" for place in range(77)]
    read = shown(comparison_of(FEW[1:3], labels=labels, rows=231, seeds=(0,)))
    assert "The 12 of 77 labels with the least F1" in read.by_id("labels").text
    assert re.search(r"the 20 most frequent of \d+ pairs", read.by_id("labels").text)
    heads = [part.text for part in read.all("th") if part.attributes["scope"] == "row"]
    assert set(labels) <= set(heads)


@pytest.mark.slow
def test_forty_rungs() -> None:
    made = [replace(FEW[0], name=f"rung-{n}", strength=n / 20, seconds=1.2**n) for n in range(40)]
    found = comparison_of(made, rows=60, seeds=(0,))
    read = shown(found)
    heads = [part.text for part in read.all("th") if part.attributes["scope"] == "row"]
    assert sum(head.startswith("rung-17") for head in heads) == 2
    assert "Drawn are 9 of 40 rungs" in read.by_id("calibration").text
    assert len([part for part in read.all("svg") if part.attributes.get("role") == "img"]) == 10
    words = read.by_id("pareto-words").text
    assert all(f"rung-{n} " in words for n in range(40))


@pytest.mark.parametrize("metric", ["nll", "macro_f1"])
def test_another_metric_can_decide(metric: str) -> None:
    found = comparison_of(FEW[:2], seeds=(0,), metric=metric)
    read = shown(found)
    head = [part.text for part in read.all("th") if "thead" in part.path][1]
    assert head == {"nll": "NLLless is better", "macro_f1": "macro-F1"}[metric]
    assert ("accuracy" in read.by_id("ladder").text) is True


def test_the_table_of_rungs_holds_every_cell(comparison: Comparison, folder: Path) -> None:
    lines = list(csv.DictReader(io.StringIO((folder / "rungs.csv").read_text("utf-8"))))
    cells = [cell for rung in comparison.rungs for cell in rung.cells]
    assert [(line["rung"], int(line["seed"])) for line in lines] == [(cell.rung, cell.seed) for cell in cells]
    for line, cell in zip(lines, cells, strict=True):
        for name, estimate in cell.scores.metrics.items():
            assert float(line[name]) == estimate.value
            assert float(line[f"{name}_low"]) == estimate.low
        assert float(line["seconds"]) == cell.cost.seconds
        assert int(line["peak_memory"]) == cell.cost.peak_memory
        assert int(line["mended"]) == cell.scores.flips.wrong_to_right.count  # type: ignore[union-attr]
        found = cell.forgetting
        assert line["text_change"] == (str(found.change.value) if found else "")
        assert line["questions.csv after"] == (str(found.also[0].after.value) if found else "")
    assert [line["recommended"] for line in lines] == [
        str(int(cell.rung == comparison.recommended)) for cell in cells
    ]


def test_the_ladder_as_markdown(comparison: Comparison, folder: Path) -> None:
    parts = (folder / "ladder.md").read_text("utf-8").split("\n\n")
    assert tuple(parts[:2]) == comparison.verdict
    lines = parts[2].splitlines()
    assert len(lines) == 2 + len(comparison.rungs)
    assert len({line.count("|") for line in lines}) == 1
    lora = next(line for line in lines if line.startswith("| **lora** |"))
    assert str(comparison.rung("lora").metrics["accuracy"]) in lora
    assert parts[3] == "Not climbed: qlora (needs bitsandbytes)."


def test_bars_in_names_do_not_break_the_markdown(tmp_path: Path) -> None:
    found = comparison_of([replace(FEW[0], name="a | b")], seeds=(0,), skipped=(Skipped("c", "no"),))
    write_report(found, tmp_path)
    line = (tmp_path / "ladder.md").read_text("utf-8").split("\n\n")[2].splitlines()[2]
    assert line.startswith("| **a \\| b** |")


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    whole = colour.lstrip("#")
    whole = "".join(2 * digit for digit in whole) if len(whole) == 3 else whole
    parts = [int(whole[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def mixed(colour: str, share: float, ground: str) -> str:
    pairs = [(int(colour[n : n + 2], 16), int(ground[n : n + 2], 16)) for n in (1, 3, 5)]
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


def test_every_colour_can_be_told_from_its_ground(read: Page) -> None:
    style = read.all("style")[0].text
    blocks = [
        dict(re.findall(r"--(\w+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    light, dark = blocks[0], blocks[0] | blocks[1]
    paper = blocks[0] | blocks[2]
    assert light["paper"] != dark["paper"]
    assert paper["paper"] == "#fff"
    for colours in (light, dark, paper):
        for ground in (colours["paper"], colours["wash"]):
            for name in ("ink", "soft", "accent"):
                assert contrast(colours[name], ground) >= 4.5, (name, ground)
        # Lines of a picture need 3:1 (WCAG 2.2, 1.4.11).
        assert contrast(colours["grey"], colours["paper"]) >= 3
    for colours in (light, dark):
        fullest = mixed(colours["accent"], 0.3, colours["paper"])
        assert contrast(colours["ink"], fullest) >= 4.5


def test_pictures_take_their_colours_from_the_page(read: Page) -> None:
    drawings = [part for part in read.elements if "svg" in part.path]
    styles = " ".join(part.attributes.get("style", "") for part in drawings)
    assert len(re.findall(r"var\(--ink\)", styles)) > 50
    assert set(re.findall(r"#[0-9a-fA-F]{3,8}\b", styles)) == set()
    assert not [part for part in drawings if part.tag in ("style", "metadata")]
