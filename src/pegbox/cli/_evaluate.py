from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._options import (
    check_least,
    check_share,
    check_writable,
    emit_result,
    feature_cache,
    names,
    say,
)
from pegbox.cli._predict import decoded
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.evaluation import Forgetting, RiskCoverage
    from pegbox.tasks import Task
    from pegbox.tuning import GeneralText, OtherTask, Tuned

PICTURES = (".png", ".svg")
OFF = "off"


def evaluate(
    tuned: Path,
    data: str,
    *,
    text: str | None = None,
    label: str | None = None,
    model: str | None = None,
    format: Literal["text", "json"] = "text",
    out: Path | None = None,
    reliability: Path | None = None,
    forgetting: str | None = None,
    also: str | None = None,
    abstain_above: float | None = None,
    on_bad_rows: Literal["error", "drop", "repair"] = "error",
    too_long: Literal["shorten", "drop", "error"] = "shorten",
    decoding: dict[str, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    device: str = "auto",
    no_cache: bool = False,
) -> None:
    """Score a tuned model on labelled rows: metrics with intervals, calibration, flips against the base.

    Args:
        tuned: Folder that pegbox fit wrote.
        data: csv, tsv, json, jsonl, parquet or CoNLL file, or hub id, with labelled rows.
        text: Column that stands for the task's text column, or two with a comma, in the task's order.
        label: Column that stands for the task's label column.
        model: Where the base lies now, when its name no longer leads there.
        format: Print text or JSON.
        out: Write the JSON form to this file too.
        reliability: Write a reliability diagram to this .png or .svg file.
        forgetting: Measure bits per byte of general text before and after too: a .txt, .csv or .jsonl file, a
            folder of .txt files, auto for what etude was pretrained on, or off.
        also: Other labelled files, with commas between them, that base and tuned model are asked too.
        abstain_above: Tell too how many answers are wrong when rows are left out whose answer has a
            probability below 1 less this, and at other shares of rows answered.
        on_bad_rows: What to do with rows without text or label; repair makes stray I- tags B-.
        too_long: What to do with texts that do not fit into the context; drop leaves rows out, which a model
            that writes answers or gives rewards can do.
        decoding: How answers are written, in place of what the model was tuned with; for example
            --decoding.max_tokens 64.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of these resamples.
        device: auto, cpu, cuda or mps.
        no_cache: Neither read nor write the feature cache.
    """
    from pegbox.models import quiet_libraries
    from pegbox.reports import reliability_diagram
    from pegbox.tuning import Tuned

    check_least(resamples, 1, "--resamples")
    check_least(seed, 0, "--seed")
    check_picture(reliability)
    check_share(abstain_above, "--abstain-above")
    check_writable(out, "--out")
    check_writable(reliability, "--reliability")
    quiet_libraries()
    loaded = Tuned.load(
        tuned, model=model, device=device, too_long=too_long, cache=feature_cache(not no_cache), say=say
    )
    loaded = decoded(loaded, decoding)
    _check_too_long(loaded.prompt.task, too_long)
    _check_sure(loaded.prompt.task, reliability, abstain_above)
    elsewhere = _elsewhere(loaded, forgetting, names(also))
    rows = loaded.read(data, texts=names(text), label=label, on_bad=on_bad_rows)
    scores = loaded.evaluate(rows, resamples=resamples, seed=seed)
    selective = None if abstain_above is None else _selective(loaded, rows, resamples, seed)
    broken = None
    if any(elsewhere):
        broken = loaded.forgetting(*elsewhere, resamples=resamples, seed=seed)
    found = scores.to_json() | ({} if broken is None else {"forgetting": broken.to_json()})
    if selective is not None:
        found["risk_coverage"] = selective.to_json()

    def show() -> None:
        _print(scores, f"{tuned} on {data}", broken)
        if selective is not None and abstain_above is not None:
            print(selective_lines(selective, abstain_above))

    emit_result(found, format, out, show)
    if reliability:
        reliability_diagram(scores, reliability, title=str(tuned))


def _print(scores: Any, title: str, broken: "Forgetting | None") -> None:
    from rich.console import Console

    from pegbox.reports import forgetting_panel, scores_panel

    Console().print(scores_panel(scores, title=title))
    if broken is not None:
        Console().print(forgetting_panel(broken))


def _elsewhere(
    tuned: "Tuned", source: str | None, also: Sequence[str]
) -> "tuple[GeneralText | None, list[OtherTask]]":
    """What to tell by what tuning broke, read before anything is scored."""
    from pegbox.tuning import OtherTask, general_text

    text = None
    if source not in (None, OFF):
        text = general_text(source, base=tuned.base, task=tuned.prompt.task, say=say)
    return text, [OtherTask.of(file) for file in also]


def check_picture(path: Path | None, name: str = "--reliability") -> None:
    """Raise UsageError for a picture of a kind that is not drawn."""
    if path is not None and path.suffix.lower() not in PICTURES:
        raise UsageError(
            f"cannot draw a '{path.suffix}' file",
            where=f"{name} {path}",
            expected=" or ".join(PICTURES),
            fix=f"write {name} {path.with_suffix('.png')}" if path.name else "name a file",
        )


def _check_too_long(task: "Task", too_long: str) -> None:
    from pegbox.tasks import Generate, Prefer

    if too_long == "drop" and not isinstance(task, Generate | Prefer):
        raise UsageError(
            "rows of this task are not left out for their length",
            where="--too-long drop",
            expected="shorten or error",
            fix="leave --too-long out",
        )


def _check_sure(task: "Task", reliability: Path | None, abstain_above: float | None) -> None:
    """Refuse what needs one probability per row of tasks that have none."""
    from pegbox.tasks import Generate, Tag

    if not isinstance(task, Tag | Generate):
        return
    what, why = ("tags have", "entities are") if isinstance(task, Tag) else ("free text has", "an answer is")
    told = {
        "--reliability": (reliability, f"{what} no reliability diagram: {why} right or wrong as a whole"),
        "--abstain-above": (abstain_above, f"{what} no one probability per row to abstain by"),
    }
    for name, (value, what) in told.items():
        if value is not None:
            raise UsageError(
                what,
                where=f"{name} {value}",
                expected="a model that classifies or chooses",
                fix=f"leave {name} out",
            )


def _selective(tuned: "Tuned", rows: Any, resamples: int, seed: int) -> "RiskCoverage":
    """How many answers are wrong when the least sure are left out."""
    import numpy as np

    from pegbox.evaluation import risk_coverage, uncertainties

    task: Any = tuned.prompt.task
    probabilities = tuned.probabilities(rows)
    right = probabilities.argmax(1) == np.array(task.gold(rows))
    return risk_coverage(uncertainties(probabilities)["confidence"], right, resamples=resamples, seed=seed)


def selective_lines(found: "RiskCoverage", threshold: float) -> str:
    """The table of shares, and what comes of the threshold that was asked for."""
    own = found.at(threshold)
    asked = (
        f"answering only what is at least {1 - threshold:g} sure: {own.answered:,} of {found.rows:,} rows, "
        f"{own.wrong:,} wrong"
    )
    return f"{found}\n{asked}" + (f" (risk {own.risk})" if own.answered else "")
