from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._options import check_least, feature_cache, names, say, tell_all, words
from pegbox.cli._output import Output
from pegbox.cli._seeds import several_seeds
from pegbox.errors import UsageError

if TYPE_CHECKING:
    from pegbox.data import Rows
    from pegbox.methods import Method
    from pegbox.tasks import Task
    from pegbox.tuning import Replay

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
    replay: str | None = None,
    replay_ratio: float | None = None,
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
    seeds: int | str | None = None,
    no_cache: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Tune a model on a file of labelled rows, evaluate it and save it.

    Args:
        data: csv, tsv, json, jsonl, parquet or CoNLL file, or hub id, with the training rows.
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
        replay: General text that a gradient method replays, so that the model keeps what it could say: a
            .txt, .csv or .jsonl file, a folder of .txt files, or auto for what etude was pretrained on.
        replay_ratio: Share of it among all sequences; 0.1 when not given.
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
        seed: Seed of everything random, the rows held out for evaluation among them.
        seeds: Repeat the fit under several seeds, for example 3 (counted from --seed on) or 0,1,2: the same
            held-out rows for all, mean and interval of each metric; the typical one is saved.
        no_cache: Neither read nor write the feature cache.
        resume: Continue an interrupted run of the same command.
        overwrite: Replace the output folder.
    """
    from pegbox.methods import build
    from pegbox.models import load, quiet_libraries
    from pegbox.tasks import task_from_file
    from pegbox.tuning import Demonstrate, Training, fit_seeds, labelled_rows, read_by
    from pegbox.tuning import fit as tune

    several = _checked_seeds(seed, seeds, holdout, test)
    built, settings = build(method, options), Training.of(training or {})
    shown = Demonstrate.of(demonstrations) if demonstrations is not None else None
    kept = _replay(replay, replay_ratio, readout)
    place = Output.free(out, built, overwrite=overwrite, resume=resume, several=several is not None)
    quiet_libraries()
    fixed = None if label_words == AUTO else words(label_words)
    asked = read_by(task_from_file(
        data, kind=task, texts=names(text), label=label, template=template, label_words=fixed,
        split=split, on_bad=on_bad_rows,
    ), readout)  # fmt: skip
    tell_all(asked.notes)
    asked, held = _apart(asked, test, holdout, seed, on_bad_rows, several)
    base = load(
        model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code,
        max_length=max_length, quantise=quantise or _needed_bits(built, model),
    )  # fmt: skip
    how: dict[str, Any] = {
        "valid": labelled_rows(asked, valid, on_bad=on_bad_rows, say=say) if valid else None,
        "training": settings,
        "demonstrations": shown,
        "replay": kept,
        "label_words": "auto" if label_words == AUTO else None,
        "folder": place.run,
        "resume": resume,
        "too_long": too_long,
        "cache": feature_cache(not no_cache),
        "say": say,
    }
    title = f"{built.name} on {model}"
    if several:
        assert held is not None
        place.save_seeds(fit_seeds(base, asked, built, seeds=several, **how), held, title)
    else:
        place.save(tune(base, asked, built, seed=seed, **how), held, title)


def _replay(source: str | None, ratio: float | None, readout: str) -> "Replay | None":
    from pegbox.tuning import Replay

    if source is not None and readout == "head":
        raise UsageError(
            "a head stands in place of the output layer, which general text would be said by",
            where=f"--replay {source} with --readout head",
            expected="--replay with an answer by label words",
            fix="leave --replay or --readout head out",
        )

    if source is None and ratio is not None:
        raise UsageError(
            "there is no text to replay a share of",
            where=f"--replay-ratio {ratio:g}",
            expected="--replay FILE, or --replay auto for etude",
            fix="name the text, or leave --replay-ratio out",
        )
    return None if source is None else Replay(source, Replay.ratio if ratio is None else ratio)


def _checked_seeds(
    seed: int, seeds: int | str | None, share: float, test: str | None
) -> tuple[int, ...] | None:
    """The seeds of ``--seeds``, once all that concerns seeds and the rows held out is checked."""
    check_least(seed, 0, "--seed")
    several = several_seeds(seeds, first=seed)
    if not 0 <= share < 1:
        raise UsageError(
            "the share to hold out is no share",
            where=f"--holdout {share}",
            expected="0 to below 1",
            fix="write for example --holdout 0.2, or 0 for none",
        )
    if several and share == 0 and not test:
        raise UsageError(
            "several seeds are compared on rows that they were not tuned on, and there are none",
            where="--holdout 0 with --seeds",
            expected="--test FILE, or a share above 0",
            fix="leave --holdout out",
        )
    return several


def _needed_bits(method: "Method", model: str) -> Literal["nf4"] | None:
    """In how many bits the method wants its base, told."""
    if method.quantise:
        say(f"{method.name}: {model} is loaded in 4 bits ({method.quantise})")
    return method.quantise


def _apart(
    task: "Task", test: str | None, share: float, seed: int, on_bad: str, several: tuple[int, ...] | None
) -> "tuple[Task, Rows | None]":
    """The task with the rows to tune on, and rows to evaluate on that no choice ever sees."""
    from pegbox.tuning import hold_out, labelled_rows

    if test:
        return task, labelled_rows(task, test, on_bad=on_bad, say=say)
    if share == 0:
        return task, None
    same = ", the same for all seeds" if several else ""
    return hold_out(task, share, seed=seed, say=lambda line: say(f"{line}{same}; --test FILE overrides"))
