"""Rows held out for evaluation, and the folders of runs, for users of the library."""

from dataclasses import replace
from pathlib import Path

import pytest

from pegbox.errors import InputError, UsageError
from pegbox.tasks import Classify
from pegbox.tuning import check_run_folder, clear_run_folder, hold_out, labelled_rows, seed_folder
from pegbox.tuning._claim import KEY, claimed
from pegbox.tuning._run_folder import no_trace_of_wrong_use
from training_toy import quiet
from tuning_toy import rows_of, task_of


def rows_file(path: Path, rows: int = 40, labels: tuple[str, str] = ("good", "bad")) -> Path:
    lines = [f"The tea number {index} was hot,{labels[index % 2]}" for index in range(rows)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def test_the_parts_are_disjoint_and_told(tmp_path: Path) -> None:
    task = Classify.from_file(rows_file(tmp_path / "d.csv"))
    lines: list[str] = []
    rest, held = hold_out(task, 0.25, seed=3, say=lines.append)
    assert lines == ["10 of 40 rows held out for evaluation (seed 3)"]
    assert isinstance(rest, Classify)
    assert rest.rows is not None
    assert sorted((*rest.rows.numbers, *held.numbers)) == list(range(1, 41))
    assert held.labels is not None
    assert sorted(held.labels) == ["bad"] * 5 + ["good"] * 5, "by class"
    assert hold_out(task, 0.25, seed=3, say=quiet)[1].numbers == held.numbers
    assert hold_out(task, 0.25, seed=4, say=quiet)[1].numbers != held.numbers


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(UsageError, match=f"no share \\(share {share}\\)"):
        hold_out(task_of().with_rows(rows_of(20)), share)


def test_a_task_without_rows() -> None:
    with pytest.raises(UsageError, match="no rows to hold out"):
        hold_out(task_of().with_rows(None))


def test_further_rows_are_read_by_the_columns_of_the_task(tmp_path: Path) -> None:
    task = Classify.from_file(rows_file(tmp_path / "d.csv"))
    found = labelled_rows(task, rows_file(tmp_path / "e.csv", 6), say=quiet)
    assert found.labels == ("good", "bad") * 3
    with pytest.raises(InputError, match="poor"):
        labelled_rows(task, rows_file(tmp_path / "f.csv", 6, labels=("good", "poor")), say=quiet)


def begun(folder: Path) -> Path:
    """A folder as a fit leaves it that was killed before its first checkpoint."""
    (folder / "checkpoint-4").mkdir(parents=True)
    (folder / KEY).write_text("{}")
    return folder


def test_runs_of_one_seed_and_of_several_are_told_apart(tmp_path: Path) -> None:
    one, several = begun(tmp_path / "one"), tmp_path / "several"
    begun(seed_folder(several, 2))
    begun(seed_folder(several, 10))
    check_run_folder(tmp_path / "none")
    check_run_folder(tmp_path / "none", several=True)
    for resume in (True, False):
        with pytest.raises(UsageError, match=r"run of a fit of one seed .*\n.*\n.*without --seeds"):
            check_run_folder(one, several=True, resume=resume)
        with pytest.raises(UsageError, match=r"run of a fit of several seeds .*\n.*\n.*with its --seeds"):
            check_run_folder(several, resume=resume)
    check_run_folder(one, resume=True)
    check_run_folder(several, several=True, resume=True)
    with pytest.raises(UsageError, match=r"unfinished run over several seeds \(seed-2, seed-10\)"):
        check_run_folder(several, several=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="taken by something else"):
        check_run_folder(tmp_path / "mine", several=True, resume=True)


def test_clearing_takes_only_what_fits_made(tmp_path: Path) -> None:
    one, several = begun(tmp_path / "one"), tmp_path / "several"
    for seed in (0, 1):
        begun(seed_folder(several, seed))
    (several / "seed-1" / "notes.txt").write_text("mine")
    (several / "seed-7").mkdir()
    (several / "seed-7" / "notes.txt").write_text("mine")
    clear_run_folder(one)
    clear_run_folder(several)
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(map(str, left)) == ["several/seed-1/notes.txt", "several/seed-7/notes.txt"]
    assert not one.exists()


def test_wrong_use_found_in_the_first_seed_leaves_no_folder(tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        with no_trace_of_wrong_use(folder), claimed(seed_folder(folder, 0), {"seed": "0"}, resume=False):
            raise UsageError("the settings differ")

    (tmp_path / "mine").mkdir()
    for name in ("run", "mine"):
        with pytest.raises(UsageError, match="settings differ"):
            refuse(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "what was there before stays"


def test_a_class_with_one_row_is_told_of_the_test_file() -> None:
    rows = rows_of(20)
    rare = replace(rows, labels=("rare", *rows.labels[1:]))  # type: ignore[index]
    task = Classify(labels=("rare", *dict.fromkeys(rows.labels or ()))).with_rows(rare)
    with pytest.raises(InputError, match="too few for 2 parts") as error:
        hold_out(task, say=quiet)
    assert "or give rows to evaluate on (--test FILE)" in str(error.value)
    assert "fewer parts" not in str(error.value)
