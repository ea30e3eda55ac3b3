from pathlib import Path
from typing import Any, Literal

from pegbox.cli._options import check_least, check_writable, emit_result, feature_cache, names, say


def calibrate(
    tuned: Path,
    data: str,
    test: str,
    *,
    valid: str | None = None,
    ood: str | None = None,
    ways: str = "map,temperature,exact",
    members: int = 3,
    passes: int = 20,
    training: dict[str, Any] | None = None,
    text: str | None = None,
    label: str | None = None,
    model: str | None = None,
    format: Literal["text", "json"] = "text",
    out: Path | None = None,
    diagram: Path | None = None,
    on_bad_rows: Literal["error", "drop"] = "error",
    too_long: Literal["shorten", "error"] = "shorten",
    resamples: int = 1000,
    seed: int = 0,
    device: str = "auto",
    no_cache: bool = False,
) -> None:
    """Compare ways of being as sure as one is right: temperature, dropout, ensemble, Laplace posteriors.

    Args:
        tuned: Folder that pegbox fit wrote.
        data: The labelled rows that it was tuned on; those among them that it was not tuned on are the
            held-out rows that temperature and precision are chosen on.
        test: Labelled rows to score on, which choose nothing.
        valid: File of held-out rows, where those of data shall not be taken.
        ood: Rows from elsewhere that the model should be unsure of, with or without labels, read by the same
            text columns.
        ways: Among map (as it was tuned), temperature, dropout, ensemble, exact, kron, ekfac and diag.
        members: Models of the ensemble, this one among them.
        passes: Passes with dropout.
        training: How the ensemble's further members are trained; for example --training.epochs 3. Without it
            by the default settings, however the model itself was trained.
        text: Column that stands for the task's text column, or two with a comma, in the task's order.
        label: Column that stands for the task's label column.
        model: Where the base lies now, when its name no longer leads there.
        format: Print text or JSON.
        out: Write the JSON form to this file too.
        diagram: Draw the risk-coverage curves of all ways into this .png or .svg file.
        on_bad_rows: What to do with rows that cannot be used.
        too_long: What to do with texts that do not fit into the context.
        resamples: Bootstrap resamples of the intervals.
        seed: Of resamples, dropout and the ensemble.
        device: auto, cpu, cuda or mps.
        no_cache: Neither read nor write the feature cache.
    """
    from rich.console import Console

    from pegbox.cli._evaluate import check_picture
    from pegbox.models import quiet_libraries
    from pegbox.reports import calibrated_table
    from pegbox.tuning import Training, Tuned, check_answers, check_ways
    from pegbox.tuning import calibrate as compare

    check_ways(names(ways), members, passes)
    how = Training.of(training) if training else None
    check_least(resamples, 1, "--resamples")
    check_least(seed, 0, "--seed")
    check_picture(diagram, "--diagram")
    check_writable(out, "--out")
    check_writable(diagram, "--diagram")
    quiet_libraries()
    loaded = Tuned.load(
        tuned, model=model, device=device, too_long=too_long, cache=feature_cache(not no_cache), say=say
    )
    check_answers(loaded.prompt.task)
    columns: dict[str, Any] = {"texts": names(text), "label": label, "on_bad": on_bad_rows}
    found = compare(
        loaded,
        loaded.read(data, **columns),
        loaded.read(test, **columns),
        valid=None if valid is None else loaded.read(valid, **columns),
        ood=None if ood is None else loaded.read(ood, texts=names(text), labelled=False, on_bad=on_bad_rows),
        ways=names(ways),
        members=members,
        passes=passes,
        training=how,
        resamples=resamples,
        seed=seed,
    )
    title = f"{tuned} on {test}"
    emit_result(found.to_json(), format, out, lambda: Console().print(calibrated_table(found, title=title)))
    if diagram:
        from pegbox.reports import risk_coverage_diagram

        risk_coverage_diagram({way.name: way.curve for way in found.ways}, diagram, str(tuned))
