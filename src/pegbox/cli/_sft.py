import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pegbox.cli._options import feature_cache, first, names, say, tell_all
from pegbox.cli._output import Output
from pegbox.cli._tuning import apart, checked_seeds, needed_bits, replay_of, training_for, tune_and_save

if TYPE_CHECKING:
    from pegbox.data import Rows
    from pegbox.models import Base
    from pegbox.tasks import Generate
    from pegbox.tuning import GeneralText, Tuned


# Rows that the example is looked for in, as the first may be left out; characters of a part that are shown.
_TRIED, _SHOWN = 16, 1200


def sft(
    data: str,
    *,
    out: Path,
    model: str = "etude",
    method: str = "lora",
    options: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    rows_format: Literal["auto", "instruction", "prompt", "messages", "sharegpt", "input", "text"] = "auto",
    text: str | None = None,
    label: str | None = None,
    template: str | None = None,
    system: str | None = None,
    chat: Literal["auto", "model", "plain", "none"] = "auto",
    among: str | None = None,
    decoding: dict[str, Any] | None = None,
    replay: str | None = None,
    replay_ratio: float | None = None,
    forgetting: str | None = None,
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
    """Tune a model to write answers: instructions, conversations, data-to-text, SQL, plain text.

    Args:
        data: csv, tsv, json, jsonl or parquet file, or hub id, with prompts and answers.
        out: Folder for the tuned model.
        model: Hub id, folder, or etude.
        method: One of the names that pegbox methods lists.
        options: Options of the method, for example --options.rank 4; pegbox methods METHOD lists them.
        training: How gradient methods train, for example --training.epochs 3.
        rows_format: How the rows are written: instruction (instruction, input, output), prompt (prompt,
            completion), messages (role, content), sharegpt (from, value), input (input, target), text; auto
            tells by the columns.
        text: Columns that the prompt is made of, with commas between them; guessed when not given.
        label: Column of answers; guessed when not given.
        template: How the user's message is made of the columns, such as 'Question: {question}\\nSQL:'.
        system: A system message before rows that have none.
        chat: How messages become one text: by the model's own chat template (model), by a plain one (plain),
            or prompt and answer as they stand (none); auto takes the model's own where it has one.
        among: The only answers there are, with commas between them: the most probable one is given.
        decoding: How answers are decoded, for example --decoding.max_tokens 64 --decoding.beams 4. Names and
            defaults: max_tokens (128, its end among them), beams (1), length_penalty (1.0, with beams),
            sample (false), temperature (1.0), top_p (1.0) and top_k (0 for all, these three with sample),
            repetition_penalty (1.0), seed (0).
        replay: General text that is replayed, so that the model keeps what it could say: a .txt, .csv or
            .jsonl file, a folder of .txt files, or auto for what etude was pretrained on.
        replay_ratio: Share of it among all sequences; 0.1 when not given.
        forgetting: Measure bits per byte of general text before and after: a .txt, .csv or .jsonl file, a
            folder of .txt files, or auto for what etude was pretrained on.
        valid: File for early stopping; else a share of the training rows.
        test: File to evaluate on; else a share of the rows is held out.
        holdout: Share of the rows held out for evaluation when there is no test file; 0 for none.
        split: Split of a hub data set.
        on_bad_rows: What to do with rows that cannot be used.
        too_long: What to do with rows longer than the context: cut the question, never the answer (shorten),
            leave the row out (drop), or refuse (error).
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
    from pegbox.tasks import Decoding, Generate
    from pegbox.tuning import general_text, labelled_rows

    several = checked_seeds(seed, seeds, holdout, test)
    built = build(method, options)
    settings = training_for(built, training, seed)
    kept = replay_of(replay, replay_ratio)
    way = Decoding.of(decoding)
    place = Output.free(out, built, overwrite=overwrite, resume=resume, several=several is not None)
    quiet_libraries()
    asked = Generate.from_file(
        data, format=None if rows_format == "auto" else rows_format, texts=names(text), label=label,
        split=split, on_bad=on_bad_rows, template=_unescaped(template), system=system, chat=chat,
        among=names(among), decoding=way,
    )  # fmt: skip
    tell_all(asked.notes)
    asked, held = apart(asked, test, holdout, seed, on_bad_rows, several)  # type: ignore[assignment]
    base = load(
        model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code,
        max_length=max_length, quantise=quantise or needed_bits(built, model),
    )  # fmt: skip
    text_elsewhere = None
    if forgetting is not None:
        text_elsewhere = general_text(forgetting, base=base, task=asked, say=say)
    if first():
        _show_example(base, asked, too_long)
    _check_held(base, asked, held, too_long)
    tuned = tune_and_save(
        place, base, asked, built, held, seed=seed, several=several, title=f"{built.name} on {model}",
        valid=labelled_rows(asked, valid, on_bad=on_bad_rows, say=say) if valid else None,
        training=settings, replay=kept, resume=resume, too_long=too_long, cache=feature_cache(use=False),
    )  # fmt: skip
    if tuned is not None and text_elsewhere is not None:
        _print_forgetting(tuned, text_elsewhere)


def _print_forgetting(tuned: "Tuned", text: "GeneralText") -> None:
    from rich.console import Console

    from pegbox.reports import forgetting_panel

    Console().print(forgetting_panel(tuned.forgetting(text)))


def _unescaped(template: str | None) -> str | None:
    """A shell hands a line break over as two characters."""
    return None if template is None else template.replace("\\n", "\n")


def _check_held(base: "Base", task: "Generate", held: "Rows | None", too_long: Any) -> None:
    """Rows that cannot be read are found before training, not after it."""
    from pegbox.data import Conversations
    from pegbox.tasks import GeneratePrompt

    prompt = base.prepare(task.with_rows(None))
    if isinstance(held, Conversations) and isinstance(prompt, GeneratePrompt):
        prompt.speak(held, too_long=too_long)


def _show_example(base: "Base", task: "Generate", too_long: Any) -> None:
    """Print the first row as the model reads it: what it is trained to say, and the rest dimmed."""
    from rich.console import Console
    from rich.text import Text

    from pegbox.tasks import GeneratePrompt

    rows, prompt = task.rows, base.prepare(task.with_rows(None))
    assert rows is not None
    assert isinstance(prompt, GeneratePrompt)
    first = rows.select(range(min(_TRIED, len(rows))))
    spoken = prompt.speak(first, too_long=too_long)
    console = Console(stderr=True, highlight=False)
    seen = console.is_terminal and not console.no_color
    parts = prompt.example(spoken)
    told = "the rest is dimmed" if seen else "it stands between [[ and ]]"
    number = first.numbers[spoken.rows[0]]
    say(f"row {number} as the model reads it; what it learns to say is the answer, {told}:")
    shown = Text()
    for part, said in parts:
        if len(part) > _SHOWN:
            half = _SHOWN // 2
            part = f"{part[:half]} ... {len(part) - _SHOWN:,} characters ... {part[-half:]}"
        if seen:
            shown.append(part, style="" if said else "dim")
        else:
            shown.append(f"[[{part}]]" if said else part)
    console.print(shown, soft_wrap=True)
    sys.stderr.flush()
