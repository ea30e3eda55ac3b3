from pathlib import Path
from typing import Any, Literal

from pegbox.cli._options import feature_cache, names, say, tell_all
from pegbox.cli._output import Output
from pegbox.cli._tuning import apart, checked_seeds, needed_bits, training_for, tune_and_save


def reward(
    data: str,
    *,
    out: Path,
    model: str = "etude",
    method: str = "lora",
    options: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    text: str | None = None,
    dialogue: Literal["none", "human-assistant"] = "none",
    system: str | None = None,
    chat: Literal["auto", "model", "plain", "none"] = "auto",
    valid: str | None = None,
    test: str | None = None,
    holdout: float = 0.2,
    split: str | None = None,
    on_bad_rows: Literal["error", "drop"] = "error",
    too_long: Literal["shorten", "drop", "error"] = "shorten",
    max_length: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    quantise: Literal["nf4"] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    seeds: int | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Tune a model to say how good an answer is, from pairs of answers of which one was preferred.

    Args:
        data: csv, tsv, json, jsonl or parquet file, or hub id, with a prompt, a chosen and a rejected
            answer in each row, as texts or lists of messages.
        out: Folder for the tuned model.
        model: Hub id, folder, or etude. A policy can use the reward only if it has the same base.
        method: One of the names that pegbox methods lists; it must train.
        options: Options of the method, for example --options.rank 4; pegbox methods METHOD lists them.
        training: How gradient methods train, for example --training.epochs 3.
        text: Columns of prompt, chosen and rejected answer, with commas between them, or of the last two
            alone where they hold the prompt; guessed when not given.
        dialogue: Read prompts of 'Human: ...' and 'Assistant: ...' as turns (human-assistant), or each as one
            message (none).
        system: A system message before rows that have none.
        chat: How messages become one text, which must be the policy's way: by the model's own chat template
            (model), by a plain one (plain), or prompt and answer as they stand (none); auto takes the model's
            own where it has one, and else plain.
        valid: File for early stopping; else a share of the training rows.
        test: File to evaluate on; else a share of the rows is held out, all pairs of a prompt together.
        holdout: Share of the rows held out for evaluation when there is no test file; 0 for none.
        split: Split of a hub data set.
        on_bad_rows: What to do with rows that cannot be used.
        too_long: What to do with rows longer than the context: cut the prompt at its beginning, never an
            answer, and leave out rows whose answers alone do not fit (shorten); leave the row out (drop); or
            refuse (error).
        max_length: Upper limit on the context in tokens.
        dtype: Number format of the base.
        device: auto, cpu, cuda or mps.
        quantise: nf4 keeps the base's linear layers in 4 bits; needs the extra qlora.
        revision: Revision of a hub model.
        trust_remote_code: Let code that comes with a hub model run.
        seed: Seed of everything random, the rows held out for evaluation among them.
        seeds: Repeat the fit under several seeds, for example 3 or 0,1,2; the typical one is saved.
        resume: Continue an interrupted run of the same command.
        overwrite: Replace the output folder.
    """
    from pegbox.methods import build
    from pegbox.models import load, quiet_libraries
    from pegbox.tasks import Prefer
    from pegbox.tuning import labelled_rows

    several = checked_seeds(seed, seeds, holdout, test)
    built = build(method, options)
    settings = training_for(built, training, seed)
    place = Output.free(out, built, overwrite=overwrite, resume=resume, several=several is not None)
    quiet_libraries()
    asked = Prefer.from_file(
        data, texts=names(text), dialogue=dialogue, split=split, on_bad=on_bad_rows, system=system, chat=chat
    )
    tell_all(asked.notes)
    asked, held = apart(asked, test, holdout, seed, on_bad_rows, several)  # type: ignore[assignment]
    base = load(
        model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code,
        max_length=max_length, quantise=quantise or needed_bits(built, model),
    )  # fmt: skip
    tune_and_save(
        place, base, asked, built, held, seed=seed, several=several,
        title=f"reward by {built.name} on {model}",
        valid=labelled_rows(asked, valid, on_bad=on_bad_rows, say=say) if valid else None,
        training=settings, resume=resume, too_long=too_long, cache=feature_cache(use=False),
    )  # fmt: skip
