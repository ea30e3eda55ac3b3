from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pegbox.cli._options import check_least, check_writable, emit, feature_cache, names, say
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.tuning import GeneralText, OtherTask, Tuned

PICTURES = (".png", ".svg")


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
    on_bad_rows: Literal["error", "drop", "repair"] = "error",
    too_long: Literal["shorten", "error"] = "shorten",
    resamples: int = 1000,
    seed: int = 0,
    device: str = "auto",
    no_cache: bool = False,
) -> None:
    """Score a tuned model on labelled rows: metrics with intervals, calibration, flips against the base.

    Args:
        tuned: Folder that pegbox fit wrote.
        data: csv, tsv, json, jsonl, parquet file or hub id with labelled rows.
        text: Column that stands for the task's text column, or two with a comma, in the task's order.
        label: Column that stands for the task's label column.
        model: Where the base lies now, when its name no longer leads there.
        format: Print text or JSON.
        out: Write the JSON form to this file too.
        reliability: Write a reliability diagram to this .png or .svg file.
        forgetting: Measure bits per byte of general text before and after too: a .txt, .csv or .jsonl file, a
            folder of .txt files, or auto for what etude was pretrained on.
        also: Other labelled files, with commas between them, that base and tuned model are asked too.
        on_bad_rows: What to do with rows without text or label; repair makes stray I- tags B-.
        too_long: What to do with texts that do not fit into the context.
        resamples: Bootstrap resamples of the intervals.
        seed: Their seed.
        device: auto, cpu, cuda or mps.
        no_cache: Neither read nor write the feature cache.
    """
    import json

    from rich.console import Console

    from pegbox._atomic import write_text
    from pegbox.models import quiet_libraries
    from pegbox.reports import forgetting_panel, reliability_diagram, scores_panel
    from pegbox.tasks import Tag
    from pegbox.tuning import Tuned

    check_least(resamples, 1, "--resamples")
    check_least(seed, 0, "--seed")
    _check_picture(reliability)
    check_writable(out, "--out")
    check_writable(reliability, "--reliability")
    quiet_libraries()
    loaded = Tuned.load(
        tuned, model=model, device=device, too_long=too_long, cache=feature_cache(not no_cache), say=say
    )
    if reliability and isinstance(loaded.prompt.task, Tag):
        raise UsageError(
            "tags have no reliability diagram: entities are right or wrong as a whole",
            where=f"--reliability {reliability}",
            expected="a model that classifies or chooses",
            fix="leave --reliability out",
        )
    elsewhere = _elsewhere(loaded, forgetting, names(also))
    scores = loaded.evaluate(
        data, texts=names(text), label=label, resamples=resamples, seed=seed, on_bad=on_bad_rows
    )
    broken = None
    if any(elsewhere):
        broken = loaded.forgetting(*elsewhere, resamples=resamples, seed=seed)
    found = scores.to_json() | ({} if broken is None else {"forgetting": broken.to_json()})
    content = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    if format == "json":
        emit(content + "\n")
    else:
        Console().print(scores_panel(scores, title=f"{tuned} on {data}"))
        if broken is not None:
            Console().print(forgetting_panel(broken))
    if out:
        write_text(out, content + "\n")
    if reliability:
        reliability_diagram(scores, reliability, title=str(tuned))


def _elsewhere(
    tuned: "Tuned", source: str | None, also: Sequence[str]
) -> "tuple[GeneralText | None, list[OtherTask]]":
    """What to tell by what tuning broke, read before anything is scored."""
    from pegbox.tuning import OtherTask, general_text

    text = None
    if source is not None:
        text = general_text(source, base=tuned.base, task=tuned.prompt.task, say=say)
    return text, [OtherTask.of(file) for file in also]


def _check_picture(path: Path | None) -> None:
    if path is not None and path.suffix.lower() not in PICTURES:
        raise UsageError(
            f"cannot draw a '{path.suffix}' file",
            where=f"--reliability {path}",
            expected=" or ".join(PICTURES),
            fix=f"write --reliability {path.with_suffix('.png')}" if path.name else "name a file",
        )
