from pathlib import Path
from typing import Any, Literal

from pegbox.cli._options import feature_cache, say
from pegbox.cli._output import Output
from pegbox.cli._tuning import (
    apart,
    checked_seeds,
    needed_bits,
    replay_of,
    task_of,
    training_for,
    tune_and_save,
)

AUTO = "auto"


def fit(
    data: str,
    *,
    out: Path,
    model: str = "etude",
    method: str = "closed-form",
    task: Literal["auto", "classify", "choose", "tag", "generate", "prefer"] = "auto",
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
        method: One of the names that pegbox methods lists; choices and entities need one that trains, such as
            lora.
        task: What is asked of a row: classify (one label), choose (one of its own options), tag (entities),
            generate (a text, see pegbox sft) or prefer (a reward, see pegbox reward); auto tells by the
            columns.
        options: Options of the method, for example --options.rank 4; pegbox methods METHOD lists them.
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
    from pegbox.tuning import Demonstrate, labelled_rows

    several = checked_seeds(seed, seeds, holdout, test)
    built = build(method, options)
    settings = training_for(built, training, seed)
    shown = Demonstrate.of(demonstrations) if demonstrations is not None else None
    kept = replay_of(replay, replay_ratio, readout)
    place = Output.free(out, built, overwrite=overwrite, resume=resume, several=several is not None)
    quiet_libraries()
    asked = task_of(
        data, task, text=text, label=label, template=template,
        label_words=None if label_words == AUTO else label_words,
        readout=readout, split=split, on_bad=on_bad_rows,
    )  # fmt: skip
    asked, held = apart(asked, test, holdout, seed, on_bad_rows, several)
    base = load(
        model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code,
        max_length=max_length, quantise=quantise or needed_bits(built, model),
    )  # fmt: skip
    tune_and_save(
        place, base, asked, built, held, seed=seed, several=several, title=f"{built.name} on {model}",
        valid=labelled_rows(asked, valid, on_bad=on_bad_rows, say=say) if valid else None,
        training=settings, demonstrations=shown, replay=kept,
        label_words="auto" if label_words == AUTO else None, resume=resume, too_long=too_long,
        cache=feature_cache(not no_cache),
    )  # fmt: skip
