from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._options import (
    check_free,
    check_least,
    check_writable,
    feature_cache,
    names,
    say,
    tell_all,
    words,
)
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.data import Rows
    from pegbox.tasks import Task

AUTO = "auto"


def fit(
    data: str,
    *,
    out: Path,
    model: str = "etude",
    method: str = "closed-form",
    task: Literal["auto", "classify", "choose", "tag"] = "auto",
    options: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    text: str | None = None,
    label: str | None = None,
    template: str | None = None,
    label_words: str | None = None,
    readout: Literal["words", "head"] = "words",
    demonstrations: dict[str, Any] | None = None,
    valid: str | None = None,
    test: str | None = None,
    holdout: float = 0.2,
    split: str | None = None,
    on_bad_rows: Literal["error", "drop", "repair"] = "error",
    too_long: Literal["shorten", "error"] = "shorten",
    max_length: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    quantise: Literal["nf4"] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    no_cache: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Tune a model on a file of labelled rows, evaluate it and save it.

    Args:
        data: csv, tsv, json, jsonl, parquet file or hub id with the training rows.
        out: Folder for the tuned model.
        model: Hub id, folder, etude or etude-masked.
        method: One of the names that pegbox methods lists.
        task: What is asked of a row: classify (one label), choose (one of its own options) or tag (entities);
            auto tells by the columns.
        options: Options of the method, see pegbox methods; for example --options.rank 4.
        training: How gradient methods train, for example --training.epochs 3.
        text: Text column, or two with a comma for pairs; guessed when not given.
        label: Label column; guessed when not given.
        template: Template such as '{text} It was {answer}.'; derived when not given.
        label_words: Words such as positive=great,negative=terrible, or auto to search them on the training
            rows; derived when not given.
        readout: Answer by label words, or by a linear head on the plain texts.
        demonstrations: Solved rows shown while a gradient method trains; for example
            --demonstrations.per_class 1 --demonstrations.selection similar.
        valid: File for early stopping; else a share of the training rows.
        test: File to evaluate on; else a share of the rows is held out.
        holdout: Share of the rows held out for evaluation when there is no test file; 0 for none.
        split: Split of a hub data set.
        on_bad_rows: What to do with rows without text or label; repair makes stray I- tags B-.
        too_long: What to do with texts that do not fit into the context.
        max_length: Upper limit on the context in tokens.
        dtype: Number format of the base.
        device: auto, cpu, cuda or mps.
        quantise: nf4 keeps the base's linear layers in 4 bits; needs the extra qlora.
        revision: Revision of a hub model.
        trust_remote_code: Let code that comes with a hub model run.
        seed: Seed of everything random.
        no_cache: Neither read nor write the feature cache.
        resume: Continue an interrupted run of the same command.
        overwrite: Replace the output folder.
    """
    from rich.console import Console

    from pegbox.methods import Attached, build
    from pegbox.models import load, quiet_libraries
    from pegbox.reports import scores_panel
    from pegbox.tasks import task_from_file
    from pegbox.training._run import check_finished
    from pegbox.tuning import Demonstrate, Training
    from pegbox.tuning import fit as tune
    from pegbox.tuning._claim import check_own, release
    from pegbox.tuning._readout import read_by

    check_least(seed, 0, "--seed")
    _check_share(holdout)
    check_free(out, overwrite)
    check_writable(out / "README.md", "--out")
    quiet_libraries()
    built, settings = build(method, options), Training.of(training or {})
    shown = Demonstrate.of(demonstrations) if demonstrations is not None else None
    # A solver keeps no checkpoints: what lies there is not its own.
    run = out.parent / f"{out.name}-run" if isinstance(built, Attached) else None
    if run:
        check_own(run)
        if not resume:
            check_finished(run)
    asked = task_from_file(
        data,
        kind=task,
        texts=names(text),
        label=label,
        template=template,
        label_words=None if label_words == AUTO else words(label_words),
        split=split,
        on_bad=on_bad_rows,
    )
    asked = read_by(asked, readout)
    tell_all(asked.notes)
    rows, held = _hold_out(asked, test, holdout, seed, on_bad_rows)
    if built.quantise and not quantise:
        say(f"{built.name}: {model} is loaded in 4 bits ({built.quantise})")
    base = load(
        model,
        dtype=dtype,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        max_length=max_length,
        quantise=quantise or built.quantise,
    )
    tuned = tune(
        base,
        asked,
        built,
        rows=rows,
        valid=_labelled(asked, valid, on_bad_rows) if valid else None,
        training=settings,
        demonstrations=shown,
        label_words="auto" if label_words == AUTO else None,
        folder=run,
        resume=resume,
        seed=seed,
        too_long=too_long,
        cache=feature_cache(not no_cache),
        say=say,
    )
    scores = tuned.evaluate(held) if held is not None else None
    tuned.save(out, scores=scores, overwrite=overwrite)
    if run:
        release(run)
    if scores is not None:
        Console().print(scores_panel(scores, title=f"{built.name} on {model}"))
    say(f"{tuned.cost.parameters:,} tuned parameters in {tuned.cost.seconds:.1f} s, saved in {out}")


def _check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise UsageError(
            "the share to hold out is no share",
            where=f"--holdout {share}",
            expected="0 to below 1",
            fix="write for example --holdout 0.2, or 0 for none",
        )


def _hold_out(
    task: "Task", test: str | None, share: float, seed: int, on_bad: str
) -> tuple["Rows", "Rows | None"]:
    """Rows to tune on, and rows to evaluate on that no choice ever sees."""
    from pegbox.data import split

    rows = task.rows
    assert rows is not None
    if test:
        return rows, _labelled(task, test, on_bad)
    if share == 0:
        return rows, None
    parts = split(rows, fractions={"train": 1 - share, "test": share}, seed=seed)
    count = f"{len(parts['test'])} of {len(rows)} rows"
    say(f"{count} held out for evaluation (seed {seed}; --test FILE overrides)")
    return parts["train"], parts["test"]


def _labelled(task: "Task", source: str, on_bad: str) -> "Rows":
    from pegbox.data import read
    from pegbox.tuning._shapes import shape_of

    rows = shape_of(task).rows(task, read(source), on_bad=on_bad)
    tell_all([f"{source}: {note}" for note in rows.notes()])
    task.gold(rows)  # type: ignore[arg-type]
    return rows
